"""Training batches: which jets, with which noise, at which timesteps, as a function of seed and step alone.

The loader reads the hits of a batch and nothing else; encoding and random numbers are the device's. Everything random
is keyed by (seed, step, slot in the global batch), so that a run resumed anywhere goes on bit for bit, and one process
or several see the same jets with the same noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, get_worker_info

from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.data.encoding import StoredHits
from jet_diffusion.data.files.streamed import LANES
from jet_diffusion.errors import UserError
from jet_diffusion.pipelines.denoiser import Denoiser
from jet_diffusion.pipelines.random_numbers import RandomNumbers
from jet_diffusion.pipelines.representation import Hits, Representation
from jet_diffusion.signals import end_helpers_at_exit, ignore_signals

TIMESTEP_POWER = 1.35
"""A spike and slab is trained at timesteps u^TIMESTEP_POWER of the way to T, u uniform: more often at low noise."""

VALIDATION_STEP = -1
"""The step that the noise of validation is keyed by."""


class Positions(NamedTuple):
    """The jets of one micro-batch.

    Attributes:
        step: Of training, from 0; VALIDATION_STEP in validation.
        slots: (N,) places in the global batch.
        rows: (N,) rows of the jets in the dataset.
    """

    step: int
    slots: NDArray[np.int64]
    rows: NDArray[np.int64]

    def part(self, chosen: slice) -> Positions:
        """Some of them."""
        return Positions(self.step, self.slots[chosen], self.rows[chosen])


class GlobalBatches:
    """Which jets are in the micro-batches of one process.

    The jets of all steps are one sequence: a seeded permutation of the split for each epoch, one after another.

    A streamed split is permuted by shards and within each. The slots of the global batch are divided into LANES, each
    of which goes through its own part of the shards: a batch mixes several shards, and a process reads those of its
    slots alone.

    Args:
        num_jets: Jets in the split.
        batch_size: Jets in the global batch.
        seed: Keys the permutations.
        process, processes: Which process of how many this is.
        accumulation: Micro-batches a process's share is split into.
        shards: Jets in each shard of a streamed split.
    """

    def __init__(
        self,
        num_jets: int,
        batch_size: int,
        seed: int,
        *,
        process: int = 0,
        processes: int = 1,
        accumulation: int = 1,
        shards: Sequence[int] = (),
    ) -> None:
        self.num_jets, self.batch_size, self.seed, self.accumulation = num_jets, batch_size, seed, accumulation
        self.micro_batch = batch_size // (processes * accumulation)
        self.first_slot = process * self.micro_batch * accumulation
        self.shards = shards
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def positions(self, step: int, micro: int = 0) -> Positions:
        """The jets of one micro-batch of this process."""
        slots = self.first_slot + micro * self.micro_batch + np.arange(self.micro_batch)
        epochs, places = np.divmod(step * self.batch_size + slots, self.num_jets)
        rows = np.empty_like(slots)
        for epoch in np.unique(epochs):
            rows[epochs == epoch] = self._permutation(int(epoch))[places[epochs == epoch]]
        return Positions(step, slots, rows)

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        if epoch != self._epoch:
            random = np.random.default_rng([self.seed, epoch])
            order = self._by_lanes(epoch, random) if self.shards else random.permutation(self.num_jets)
            self._epoch, self._order = epoch, order
        return self._order

    def _by_lanes(self, epoch: int, random: np.random.Generator) -> NDArray[np.int64]:
        starts = np.cumsum([0, *self.shards])
        shards = random.permutation(len(self.shards))
        rows = np.concatenate([starts[shard] + random.permutation(self.shards[shard]) for shard in shards])
        slots = (epoch * self.num_jets + np.arange(self.num_jets)) % self.batch_size
        lanes = (slots * LANES // self.batch_size).astype(np.uint8)
        order = np.empty_like(rows)
        order[np.argsort(lanes, kind="stable")] = rows
        return order


class SparseBatch(NamedTuple):
    """The hits and conditions of N jets in one tensor, some 3 kB a jet: one copy brings them to a device.

    Attributes:
        step: Of training.
        num_jets, num_crystals, num_towers: Jets, hits among crystals, hits among towers.
        numbers: int32, or the bits of float32: for each jet slot, label, pT and mass (GeV), number of crystals and of
            towers; places and energies (GeV/100) of the crystals, jet after jet; those of the towers.
    """

    step: int
    num_jets: int
    num_crystals: int
    num_towers: int
    numbers: torch.Tensor

    @classmethod
    def pack(cls, positions: Positions, jets: JetDataset) -> SparseBatch:
        """Read the jets of these positions."""
        hits: StoredHits = jets.hits(positions.rows)
        conditions = [column[positions.rows] for column in (jets.labels, jets.pt, jets.m0)]
        columns: list[NDArray[Any]] = [positions.slots, *conditions]
        columns += [hits.counts, hits.tower_counts, hits.place, hits.energy, hits.tower, hits.tower_energy]
        bits = [column.view(np.int32) if column.dtype == np.float32 else column.astype(np.int32) for column in columns]
        sizes = len(positions.rows), len(hits.place), len(hits.tower)
        return cls(positions.step, *sizes, torch.from_numpy(np.concatenate(bits)))

    def to(self, device: torch.device) -> SparseBatch:
        """The batch on another device; from pinned memory, nothing waits for the copy."""
        return self._replace(numbers=self.numbers.to(device, non_blocking=True))

    def slots_and_conditions(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """(N,) slots (int64), labels (int64), pT and mass (float32, GeV)."""
        slots, labels, pt, m0 = self.numbers[: 4 * self.num_jets].view(4, -1)
        return slots.long(), labels.long(), pt.view(torch.float32), m0.view(torch.float32)

    def hits(self) -> Hits:
        """The jets as lists of hits."""
        jets, crystals, towers = self.num_jets, self.num_crystals, self.num_towers
        sizes = [4 * jets, jets, jets, crystals, crystals, towers, towers]
        _, counts, tower_counts, place, energy, tower, tower_energy = self.numbers.split(sizes)
        jet = torch.arange(jets, device=self.numbers.device)
        return Hits(
            jets,
            jet.repeat_interleave(counts, output_size=crystals),
            place.long(),
            energy.view(torch.float32),
            jet.repeat_interleave(tower_counts, output_size=towers),
            tower.long(),
            tower_energy.view(torch.float32),
        )


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


class Noiser:
    """Encodes the jets of sparse batches and noises them, on a device, which nothing waits for.

    Args:
        representation: Encodes hits.
        denoiser: Knows the noise schedule.
        device: Where.
        batch_size: Jets in the global batch, for timesteps spread evenly over it.
        seed: Keys noise and timesteps.
        min_ratio: Smallest sigma/alpha trained on.
        timestep_power: Timesteps are u^timestep_power of the way to the last for u uniform.
        condition_drop: Probability of hiding the conditions.
        with_ring_sums: Work out the jets' ring sums.

    Raises:
        UserError: If `min_ratio` leaves no timestep.
    """

    def __init__(
        self,
        representation: Representation,
        denoiser: Denoiser,
        device: torch.device,
        *,
        batch_size: int,
        seed: int,
        min_ratio: float = 0.0,
        timestep_power: float = 1.0,
        condition_drop: float = 0.0,
        with_ring_sums: bool = False,
    ) -> None:
        self.representation, self.device, self.batch_size, self.seed = representation, device, batch_size, seed
        self.condition_drop, self.timestep_power = condition_drop, timestep_power
        self.with_ring_sums = with_ring_sums
        alphas_cumprod = denoiser.alphas_cumprod.cpu()
        self.num_timesteps = len(alphas_cumprod)
        self.first_timestep = int(((1 / alphas_cumprod.clamp(min=1e-12) - 1).sqrt() < min_ratio).sum())
        if self.first_timestep >= self.num_timesteps:
            raise UserError(f"noise.min_ratio {min_ratio} leaves no timestep to train on")

    def __call__(self, batch: SparseBatch) -> NoisyBatch:
        """The batch, encoded, with noise, timesteps and hidden conditions."""
        batch = batch.to(self.device)
        hits, (slots, labels, pt, m0) = batch.hits(), batch.slots_and_conditions()
        x_0 = self.representation.encode_hits(hits)
        ring_sums = self.representation.ring_sums_of_hits(hits) if self.with_ring_sums else x_0.new_zeros(len(x_0), 0)
        numbers = RandomNumbers(torch.full_like(slots, self.seed), slots)
        noise = numbers.normal("tr noise", x_0.shape[1:], batch.step)
        dropped = torch.zeros_like(slots, dtype=torch.bool)
        if self.condition_drop:
            dropped = numbers.uniform("tr drop", 1, batch.step)[:, 0] < self.condition_drop
        return NoisyBatch(x_0, noise, self._timesteps(slots, batch.step), labels, pt, m0, ring_sums, dropped)

    def _timesteps(self, slots: torch.Tensor, step: int) -> torch.Tensor:
        """Evenly spread over the global batch with one random offset a step, then the power: of little variance."""
        shift = RandomNumbers.of_seed(self.seed, 0, 1).uniform("tr time", 1, step).item()  # on the host
        spread = ((slots.to(torch.float32) / self.batch_size + shift) % 1) ** self.timestep_power
        return self.first_timestep + (spread * (self.num_timesteps - self.first_timestep)).long()


class SparseBatches(Dataset[SparseBatch | Exception]):
    """The micro-batches of a process, numbered over all steps.

    What a loader process cannot read it hands on as an error to be raised: torch would wrap it in a page of text.

    Args:
        jets: The split.
        batches: Which of its jets are in which batch.
    """

    def __init__(self, jets: JetDataset, batches: GlobalBatches) -> None:
        self.jets, self.batches = jets, batches

    def __getitem__(self, number: int) -> SparseBatch | Exception:
        """Micro-batch `number`, which is step * accumulation + micro."""
        try:
            return SparseBatch.pack(self.batches.positions(*divmod(number, self.batches.accumulation)), self.jets)
        except (UserError, OSError) as error:
            if get_worker_info() is None:
                raise
            return error


def batch_loader(jets: JetDataset, batches: GlobalBatches, steps: range, num_workers: int, pin: bool) -> DataLoader:
    """A DataLoader over the micro-batches of some steps; its generator keeps it off the global random state."""
    end_helpers_at_exit()
    return DataLoader(
        SparseBatches(jets, batches),
        batch_size=None,
        sampler=range(steps.start * batches.accumulation, steps.stop * batches.accumulation),
        num_workers=num_workers,
        prefetch_factor=4 if num_workers else None,
        pin_memory=pin,
        generator=torch.Generator().manual_seed(0),
        worker_init_fn=ignore_signals,
    )


def validation_positions(num_jets: int, count: int) -> Positions:
    """The fixed jets of validation, in the order that their noise and timesteps are keyed by."""
    rows = np.arange(min(count, num_jets))
    return Positions(VALIDATION_STEP, rows, rows)
