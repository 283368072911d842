"""The training loss, and its ratio to the loss of the marginal (one-pixel) denoiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.errors import UserError
from jet_diffusion.pipelines.denoiser import Denoiser, DenoiserOutput
from jet_diffusion.pipelines.representation import Representation
from jet_diffusion.pipelines.spike_and_slab import SpikeAndSlabDenoiser
from jet_diffusion.quantum.states import fidelity
from jet_diffusion.training.batches import NoisyBatch
from jet_diffusion.training.settings import OptimizerSettings

SHARE_LIMIT = 30.0
"""A hit's energy, in units of the mean hit's, that weighs no more if it is exceeded."""

SHOWN_ROWS = 5
"""Jets that a message names."""


@dataclass
class LossTerms:
    """The loss of one batch.

    Attributes:
        loss: Scalar to minimise.
        per_jet: (N,) each jet's loss, whose mean it is.
        sums: (3,) the loss; and, where the denoiser knows a marginal estimate (else zero), the weighted squared error
            of x_0 and the marginal's on the same noise, whose ratio is 1 when no context has been learnt.
    """

    loss: torch.Tensor
    per_jet: torch.Tensor
    sums: torch.Tensor


class DenoisingLoss:
    """Weighted error of the denoiser's prediction over the pixels inside the image.

    Args:
        denoiser: Gives target and weight of each timestep.
        representation: Gives the mask and the channel groups.
        settings: Which error, and how pixels are balanced.
        marginal: The one-pixel denoiser to compare with, for denoisers that have none of their own.
        device: Where the loss is computed.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        representation: Representation,
        settings: OptimizerSettings,
        device: torch.device,
        marginal: SpikeAndSlabDenoiser | None = None,
    ) -> None:
        self.denoiser, self.settings = denoiser, settings
        self.marginal = marginal if marginal is None else marginal.to(device)
        if settings.loss == "likelihood":
            if not isinstance(denoiser, SpikeAndSlabDenoiser):
                raise UserError("optimizer.loss likelihood needs denoiser.kind spike_and_slab, which knows of hits")
            self.hit_threshold = representation.hit_threshold(device).view(-1, 1, 1)
        mask = representation.mask().float()
        group = torch.tensor(representation.channel_group)
        size = torch.bincount(group).float()
        share = torch.tensor(settings.group_weights) if settings.group_weights else torch.ones_like(size)
        share = share / (share * size).sum()
        self.pixel_weight = (share[group].view(-1, 1, 1) * mask / mask.sum()).to(device)

    def noisy(self, batch: NoisyBatch) -> torch.Tensor:
        """x_t by the denoiser's forward process, in closed form."""
        return self.denoiser.add_noise(batch.x_0, batch.noise, batch.timesteps)

    def __call__(self, output: DenoiserOutput, batch: NoisyBatch) -> LossTerms:
        """The loss of the denoiser's output for the batch."""
        target = self.denoiser.target(batch.x_0, batch.noise, batch.timesteps)
        weight = self.denoiser.loss_weight(batch.timesteps)
        if self.settings.loss == "infidelity":
            per_jet = weight.flatten() * (1 - fidelity(output.prediction, target))
        elif self.settings.loss == "likelihood":
            hit = batch.x_0 > self.hit_threshold
            weights = self._value_weight(output)
            nats = self.denoiser.negative_log_likelihood(output, batch.x_0, hit, batch.timesteps, weights)
            per_jet = self._per_jet(nats, torch.ones_like(weight))
        else:
            difference = output.prediction - target
            error = difference.abs() if self.settings.loss == "l1" else difference.square()
            per_jet = self._per_jet(error, weight)
        loss = per_jet.mean()
        with torch.no_grad():
            own = marginal = torch.zeros_like(loss)
            estimate = output.marginal
            if estimate is None and self.marginal is not None:
                estimate = self.marginal.marginal(self.noisy(batch), batch.timesteps)
                weight = self.marginal.loss_weight(batch.timesteps)
            if estimate is not None:
                marginal = self._mean((estimate - batch.x_0).square(), weight)
                own = self._mean((output.x0 - batch.x_0).square(), weight)
        return LossTerms(loss, per_jet.detach(), torch.stack([loss.detach(), own, marginal]))

    def _value_weight(self, output: DenoiserOutput) -> torch.Tensor | float:
        """One, and more for hits that by the estimate carry much of the energy, which observables depend on."""
        if not self.settings.energy_weight:
            return 1.0
        with torch.no_grad():
            share = self.denoiser.energy_share(output)
            return 1 + self.settings.energy_weight * share.clamp(max=SHARE_LIMIT)

    def _mean(self, error: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return self._per_jet(error, weight).mean()

    def _per_jet(self, error: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return weight.flatten() * torch.einsum("nchw,chw->n", error, self.pixel_weight)


def describe_jets(jets: JetDataset, rows: Sequence[int]) -> str:
    """The rows of jets and their content hashes, for a message; the first of many."""
    named = ", ".join(f"row {row} (content hash {int(jets.content_hash[row]):016x})" for row in rows[:SHOWN_ROWS])
    return f"{named} and {len(rows) - SHOWN_ROWS} more" if len(rows) > SHOWN_ROWS else named
