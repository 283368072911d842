"""Fit a model's moment guidance to training jets.

Jets are sampled for the conditions and ring sums of training jets, and each strength is raised by what its moment
lacks, round by round, in one process or several.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.errors import UserError
from jet_diffusion.pipelines.denoiser import DenoiserOutput
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.pipelines.moment_guidance import MOMENTS, shape_moments
from jet_diffusion.sampling.batches import Conditions, sample_batches
from jet_diffusion.sampling.sample import set_sampler

RATIOS = (1.0, 20.0)
"""sigma/alpha between which jets are guided."""

VARIANCE_JETS = 4096
"""Training jets, at most, that the variances of moments are taken from."""

DAMPING = 0.5
"""Share of what a moment lacks, 1 at most, by which its strength is raised: moments help one another."""


@dataclass(frozen=True)
class Round:
    """What one round found.

    Attributes:
        strengths: By moment, with which its jets were sampled.
        sizes: By moment, mean size generated over that of the training jets.
        errors: Of the sizes.
    """

    strengths: dict[str, float]
    sizes: dict[str, float]
    errors: dict[str, float]


def fit_moment_guidance(
    pipeline: JetImagePipeline,
    jets: JetDataset,
    *,
    rounds: int,
    num_jets: int,
    batch_size: int | None = None,
    seed: int = 0,
    accelerator: Accelerator | None = None,
) -> tuple[dict[str, Any], list[Round]]:
    """Fit the strengths with which moments are as large in generated jets as in training jets.

    Guidance of strength s makes the variance v of a normally distributed moment, in parts of the real one,
    v / (1 - s v). So what a strength lacks is 1 / v - 1, v being the squared ratio of mean sizes, which
    rare large ones disturb less than they do mean squares.

    Args:
        pipeline: The model, left with the guidance found.
        jets: Training jets.
        rounds: Of sampling; the first is without guidance.
        num_jets: Jets of each round, for the class, pT, mass and ring sums of training jets, others each round.
        batch_size: Jets a process denoises at once; by default as suits the device.
        seed: Draws the training jets and the noise.
        accelerator: Of this process.

    Returns:
        The guidance, as `JetImagePipeline` takes it, with the strengths after the last round; what each round found.

    Raises:
        UserError: If the model is unconditional, knows no hits and energies or draws x_0, or a number is too small.
    """
    accelerator = accelerator or Accelerator()
    if pipeline.conditioner is None:
        raise UserError("the model is unconditional: its jets cannot be compared with training jets of the same pT")
    if rounds < 1 or not 2 <= num_jets <= len(jets):
        raise UserError(f"one round or more, of 2 to {len(jets)} jets, is needed; got {rounds} of {num_jets}")
    if batch_size is not None and batch_size < 1:
        raise UserError(f"batch_size must be positive, got {batch_size}")
    strengths = np.zeros(len(MOMENTS))
    set_sampler(pipeline, moment_guidance=_guidance(strengths, np.ones(len(MOMENTS))))  # refuses what cannot be guided
    pipeline.to(accelerator.device)
    variances = _variances(pipeline, jets, seed)
    guidance, found = _guidance(strengths, variances), []
    for number in range(rounds):
        pipeline.register_to_config(moment_guidance=guidance)
        rows = np.random.default_rng([seed, number]).permutation(len(jets))[:num_jets]
        real, made = _sizes(pipeline, jets, rows, seed + number, batch_size, accelerator)
        ratio = made.mean(0) / real.mean(0)
        error = ratio * np.hypot(*(sizes.std(0, ddof=1) / sizes.mean(0) for sizes in (real, made))) / np.sqrt(num_jets)
        found.append(Round(*(_by_moment(values) for values in (strengths, ratio, error))))
        strengths = strengths + DAMPING * np.clip(1 / ratio**2 - 1, -1, 1)
        guidance = _guidance(strengths, variances)
    pipeline.register_to_config(moment_guidance=guidance)
    return guidance, found


def as_table(found: list[Round]) -> str:
    """Strengths and ratios of mean sizes, a line a moment and a column a round."""
    lines = [f"{'strength, size':<20}" + "".join(f"{f'round {number}':>24}" for number in range(1, len(found) + 1))]
    for name in MOMENTS:
        cells = (f"{each.strengths[name]:.3f}, {each.sizes[name]:.3f} ± {each.errors[name]:.3f}" for each in found)
        lines.append(f"{name:<20}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join(lines)


def moments_of(pipeline: JetImagePipeline, energies: torch.Tensor) -> torch.Tensor:
    """(N, 8, 2) shape moments, in radians, of jets of energies (N, 3, 125, 125) in GeV/100."""
    representation, denoiser = pipeline.representation, pipeline.denoiser
    x = representation.encode(energies.to(pipeline.unet.device))
    hit = x > representation.hit_threshold(x.device).view(-1, 1, 1)
    certain = DenoiserOutput(x, x, logit=torch.where(hit, torch.inf, -torch.inf), value=x)
    hits, gev = denoiser.hits_and_energies(certain)
    return shape_moments(hits, gev, representation.positions().to(x), denoiser.rings.group)


def _sizes(
    pipeline: JetImagePipeline,
    jets: JetDataset,
    rows: np.ndarray,
    seed: int,
    batch_size: int | None,
    accelerator: Accelerator,
) -> tuple[np.ndarray, np.ndarray]:
    """(n, 8) sizes of the moments of training jets, and of jets generated for their conditions and ring sums."""
    real: list[Any] = []
    made: list[Any] = []
    knows_rings = bool(pipeline.conditioner.num_ring_sums)

    def ring_sums(indices: np.ndarray) -> torch.Tensor | None:
        energies = torch.from_numpy(jets.energies(rows[indices]))
        return pipeline.representation.ring_sums(energies) if knows_rings else None

    conditions = Conditions(jets.labels[rows], jets.pt[rows], jets.m0[rows])
    for batch in sample_batches(
        pipeline,
        len(rows),
        conditions,
        ring_sums=ring_sums,
        seed=seed,
        batch_size=batch_size,
        accelerator=accelerator,
        progress=True,
    ):
        energies = torch.from_numpy(jets.energies(rows[len(made) : len(made) + len(batch)]))
        real.extend(moments_of(pipeline, energies).norm(dim=2).tolist())
        made.extend(moments_of(pipeline, batch.energies).norm(dim=2).tolist())
    return np.array(real), np.array(made)


def _variances(pipeline: JetImagePipeline, jets: JetDataset, seed: int) -> np.ndarray:
    """(8,) mean square of each component of the moments of training jets."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(jets))[:VARIANCE_JETS])
    batches = (jets.energies(rows[start : start + 64]) for start in range(0, len(rows), 64))
    squares = torch.cat([moments_of(pipeline, torch.from_numpy(batch)).square().mean(2) for batch in batches])
    return squares.double().mean(0).cpu().numpy()


def _by_moment(values: np.ndarray) -> dict[str, float]:
    return {name: round(float(value), 5) for name, value in zip(MOMENTS, values, strict=True)}


def _guidance(strengths: np.ndarray, variances: np.ndarray) -> dict[str, Any]:
    return {"strengths": _by_moment(strengths), "variances": _by_moment(variances), "ratios": list(RATIOS)}
