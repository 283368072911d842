"""Channel imputation: draw the HCAL that belongs to given tracks and ECAL, by replacement while denoising."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.errors import UserError
from jet_diffusion.metrics.pairs import crps, interval_coverage
from jet_diffusion.observables.hits import Array
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.sampling.batches import sample_jets
from jet_diffusion.schema import GEV_PER_UNIT, HCAL

LEVELS = (0.68, 0.9)


@dataclass(frozen=True)
class ImputedEnergy:
    """HCAL energies drawn for jets whose tracks and ECAL were given.

    Attributes:
        truth: (N,) GeV.
        draws: (D, N) GeV.
    """

    truth: Array
    draws: Array

    def rows(self) -> list[dict[str, Any]]:
        """Score and coverage of the draws, and of the HCAL energies of other jets for comparison."""
        order = np.arange(len(self.truth))
        ignorant = np.stack([self.truth[np.roll(order, 1 + shift)] for shift in range(len(self.truth) - 1)])
        return [self._row("given tracks and ECAL", self.draws), self._row("other jets' HCAL", ignorant)]

    def _row(self, name: str, draws: Array) -> dict[str, Any]:
        scores = crps(draws, self.truth)
        row: dict[str, Any] = {
            "draws_from": name,
            "crps": float(scores.mean()),
            "crps_error": float(scores.std(ddof=1) / np.sqrt(len(scores))),
            "draws": len(draws),
            "jets": len(scores),
        }
        for level in LEVELS:
            found, nominal = interval_coverage(draws, self.truth, level)
            row[f"coverage_{100 * level:.0f}"] = found
            row[f"nominal_{100 * level:.0f}"] = nominal
        return row


def impute_hcal(pipeline: JetImagePipeline, jets: JetSample, draws: int, *, steps: int, seed: int) -> ImputedEnergy:
    """Draw HCAL energies of jets, given their tracks, ECAL and conditions.

    After each solver step the known channels are set to the true jet, noised to the step's level (Song et al.,
    arXiv:2011.13456, appendix I.2): approximate, since the unknown channels are never conditioned exactly.

    Args:
        pipeline: the model.
        jets: real jets, three at least.
        draws: draws a jet, two at least.
        steps: solver steps.
        seed: of all noise.

    Raises:
        UserError: for too few jets or draws.
    """
    if draws < 2 or len(jets) < 3:
        raise UserError(f"imputation needs 2 draws and 3 jets at least, got {draws} and {len(jets)}")
    energies = jets.energies()
    found = [
        _draw(pipeline, jets, energies, steps, seed + number)
        for number in tqdm(range(draws), desc="drawing HCAL", unit="draw")
    ]
    truth = energies[:, HCAL].sum(axis=(1, 2), dtype=np.float64) * GEV_PER_UNIT
    return ImputedEnergy(truth, np.stack(found))


def _known_ring_sums(pipeline: JetImagePipeline, energies: Array) -> torch.Tensor | None:
    """Ring sums of tracks and ECAL, with HCAL's unknown, for a model conditioned on them."""
    if pipeline.conditioner is None or not pipeline.conditioner.num_ring_sums:
        return None
    ring_sums = pipeline.representation.ring_sums(torch.from_numpy(energies))
    ring_sums.unflatten(1, (2, 3, -1))[:, :, HCAL] = torch.nan
    return ring_sums


def _draw(pipeline: JetImagePipeline, jets: JetSample, energies: Array, steps: int, seed: int) -> Array:
    """(N,) HCAL energy of one draw, GeV."""
    known = torch.tensor([group != HCAL for group in pipeline.representation.channel_group]).view(-1, 1, 1)
    x_0 = pipeline.representation.encode(torch.from_numpy(energies).to(pipeline.device))
    known = known.to(x_0.device)
    noise = torch.Generator().manual_seed(seed)

    def replace_known(pipe: JetImagePipeline, step: int, timestep: int, state: dict[str, Any]) -> dict[str, Any]:
        later = pipe.scheduler.timesteps[step + 1 :]
        if len(later) == 0:
            return {"x": torch.where(known, x_0, state["x"])}
        alpha, sigma = pipe.denoiser.noise_level(later[:1].expand(len(x_0)).to(x_0.device))
        noised = alpha * x_0 + sigma * torch.randn(x_0.shape, generator=noise).to(x_0)
        # Schedulers in sigma's own scaling hold x_t / alpha.
        noised = noised / alpha if float(pipe.scheduler.init_noise_sigma) > 1.5 else noised
        return {"x": torch.where(known, noised, state["x"])}

    made = sample_jets(
        pipeline,
        len(jets),
        jets,
        ring_sums=lambda _: _known_ring_sums(pipeline, energies),
        seed=seed,
        steps=steps,
        batch_size=len(jets),
        callback_on_step_end=replace_known,
    )
    return np.asarray(made.energies[:, HCAL].numpy().sum(axis=(1, 2), dtype=np.float64) * GEV_PER_UNIT)
