"""Training batches: which jets, with which noise, at which timesteps, as a function of seed and step alone.

Everything random is keyed by (seed, step, position in the global batch), so that a run resumed anywhere goes on bit
for bit, and one process or several see the same jets with the same noise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.errors import UserError
from jet_diffusion.pipelines.denoiser import Denoiser
from jet_diffusion.pipelines.representation import Representation
from jet_diffusion.signals import end_helpers_at_exit, ignore_signals

MEMORY_BYTES = 2**26
"""Splits whose encoded jets take no more than this are kept."""

TIMESTEP_POWER = 1.35
"""A spike and slab is trained at timesteps u^TIMESTEP_POWER of the way to T, u uniform: more often at low noise."""


class Position(NamedTuple):
    """One jet of one step: the step, the slot in the global batch, and the jet's row in the dataset."""

    step: int
    slot: int
    jet: int


class NoisyBatch(NamedTuple):
    """Jets with the noise they are trained on; every tensor has the batch first.

    Attributes:
        x_0, noise: (N, C, H, W) clean jets in model space and unit Gaussian noise.
        timesteps: (N,) int64.
        labels, pt, m0: (N,) conditions, GeV.
        ring_sums: (N, 2 rings) hit counts and energies (GeV) of rings, or (N, 0).
        dropped: (N,) bool, whose conditions are hidden.
    """

    x_0: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    labels: torch.Tensor
    pt: torch.Tensor
    m0: torch.Tensor
    ring_sums: torch.Tensor
    dropped: torch.Tensor

    def to(self, device: torch.device) -> NoisyBatch:
        """The batch on another device."""
        return NoisyBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


class EncodedJets:
    """Encodes jets of a split, each once where all fit into memory.

    Args:
        jets: The split.
        representation: Encodes energies.
    """

    def __init__(self, jets: JetDataset, representation: Representation) -> None:
        self.jets, self.representation = jets, representation
        self.fits = 4 * int(np.prod(representation.shape)) * len(jets) <= MEMORY_BYTES
        self._kept: dict[int, torch.Tensor] = {}

    def __call__(self, rows: np.ndarray) -> torch.Tensor:
        """(N, C, H, W) the jets of these rows in model space."""
        if not self.fits:
            return self._encode(rows)
        new = np.array([row for row in dict.fromkeys(rows.tolist()) if row not in self._kept], dtype=np.int64)
        if len(new):
            self._kept.update(zip(new.tolist(), self._encode(new).unbind(0), strict=True))
        return torch.stack([self._kept[row] for row in rows.tolist()])

    def _encode(self, rows: np.ndarray) -> torch.Tensor:
        return self.representation.encode(torch.from_numpy(self.jets.energies(rows)))


class NoisyJets(Dataset[NoisyBatch]):
    """Decodes, encodes and noises the jets of a list of positions.

    Args:
        jets: The split to draw from.
        representation: Encodes energies.
        denoiser: Knows the noise schedule.
        batch_size: Jets in the global batch, for timesteps spread evenly over it.
        seed: Keys noise and timesteps.
        min_ratio: Smallest sigma/alpha trained on.
        timestep_power: Timesteps are u^timestep_power of the way to the last for u uniform.
        condition_drop: Probability of hiding the conditions.
        with_ring_sums: Work out the jets' ring sums.
    """

    def __init__(
        self,
        jets: JetDataset,
        representation: Representation,
        denoiser: Denoiser,
        *,
        batch_size: int,
        seed: int,
        min_ratio: float = 0.0,
        timestep_power: float = 1.0,
        condition_drop: float = 0.0,
        with_ring_sums: bool = False,
    ) -> None:
        self.with_ring_sums = with_ring_sums
        self.encoded = EncodedJets(jets, representation)
        self.jets, self.representation, self.batch_size, self.seed = jets, representation, batch_size, seed
        self.condition_drop, self.timestep_power = condition_drop, timestep_power
        alphas_cumprod = denoiser.alphas_cumprod.cpu()
        self.num_timesteps = len(alphas_cumprod)
        self.first_timestep = int(((1 / alphas_cumprod.clamp(min=1e-12) - 1).sqrt() < min_ratio).sum())
        if self.first_timestep >= self.num_timesteps:
            raise UserError(f"noise.min_ratio {min_ratio} leaves no timestep to train on")

    def __getitems__(self, positions: Sequence[Position]) -> NoisyBatch:
        """The batch of these positions, all of one step."""
        rows = np.array([position.jet for position in positions])
        if self.with_ring_sums:
            energies = torch.from_numpy(self.jets.energies(rows))
            x_0, ring_sums = self.representation.encode(energies), self.representation.ring_sums(energies)
        else:
            x_0, ring_sums = self.encoded(rows), torch.zeros(len(rows), 0)
        noise = torch.empty_like(x_0)
        dropped = torch.zeros(len(rows), dtype=torch.bool)
        for i, position in enumerate(positions):
            generator = keyed_generator(self.seed, "noise", position.step, position.slot)
            noise[i].normal_(generator=generator)
            dropped[i] = torch.rand((), generator=generator) < self.condition_drop
        labels, pt, m0 = (torch.from_numpy(column[rows]) for column in (self.jets.labels, self.jets.pt, self.jets.m0))
        return NoisyBatch(x_0, noise, self._timesteps(positions), labels, pt, m0, ring_sums, dropped)

    def _timesteps(self, positions: Sequence[Position]) -> torch.Tensor:
        """Evenly spread over the global batch with one random offset a step, then the power: of little variance."""
        shift = torch.rand(
            (), dtype=torch.float64, generator=keyed_generator(self.seed, "timesteps", positions[0].step, 0)
        ).item()
        slots = torch.tensor([position.slot for position in positions], dtype=torch.float64)
        spread = ((slots / self.batch_size + shift) % 1) ** self.timestep_power
        return self.first_timestep + (spread * (self.num_timesteps - self.first_timestep)).long()


class GlobalBatches(Sampler[list[Position]]):
    """Micro-batches of one process, from a given step on.

    The jets of all steps are one sequence: a seeded permutation of the split for each epoch, one after another.

    Args:
        num_jets: Jets in the split.
        batch_size: Jets in the global batch.
        seed: Keys the permutations.
        steps: Range of steps to go through.
        process, processes: Which process of how many this is.
        accumulation: Micro-batches a process's share is split into.
    """

    def __init__(
        self,
        num_jets: int,
        batch_size: int,
        seed: int,
        steps: range,
        *,
        process: int = 0,
        processes: int = 1,
        accumulation: int = 1,
    ) -> None:
        self.num_jets, self.batch_size, self.seed, self.steps = num_jets, batch_size, seed, steps
        self.micro_batch = batch_size // (processes * accumulation)
        self.first_slot, self.accumulation = process * self.micro_batch * accumulation, accumulation
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.steps) * self.accumulation

    def __iter__(self) -> Iterator[list[Position]]:
        for step in self.steps:
            for micro in range(self.accumulation):
                yield self.positions(step, micro)

    def positions(self, step: int, micro: int) -> list[Position]:
        """The jets of one micro-batch of this process."""
        begin = self.first_slot + micro * self.micro_batch
        return [self.position(step, slot) for slot in range(begin, begin + self.micro_batch)]

    def position(self, step: int, slot: int) -> Position:
        """The jet in one slot of one step's global batch."""
        epoch, index = divmod(step * self.batch_size + slot, self.num_jets)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.num_jets)
        return Position(step, slot, int(self._order[index]))


def batch_loader(jets: NoisyJets, batches: Sampler[list[Position]], num_workers: int, pin: bool) -> DataLoader:
    """A DataLoader over the batches; its generator keeps it off the global random state."""
    end_helpers_at_exit()
    return DataLoader(
        jets,
        batch_sampler=batches,
        collate_fn=_already_a_batch,
        num_workers=num_workers,
        prefetch_factor=4 if num_workers else None,
        pin_memory=pin,
        generator=torch.Generator().manual_seed(0),
        worker_init_fn=ignore_signals,
    )


def validation_positions(num_jets: int, count: int) -> list[Position]:
    """The fixed jets, in the order their noise and timesteps are keyed by (step -1)."""
    return [Position(-1, slot, slot) for slot in range(min(count, num_jets))]


def keyed_generator(seed: int, purpose: str, step: int, slot: int) -> torch.Generator:
    """A generator that depends on its key alone."""
    key = hashlib.blake2b(f"{seed}/{purpose}/{step}/{slot}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(key, "little") >> 1)


def _already_a_batch(batch: Any) -> Any:
    """`NoisyJets.__getitems__` collates itself."""
    return batch
