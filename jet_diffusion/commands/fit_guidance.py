"""Fit a model's moment guidance to training jets: `jet-diffusion fit-guidance MODEL DATA --out FILE`.

Jets are sampled for the conditions and ring sums of training jets, and each strength is raised by what its moment
lacks, round by round. `jet-diffusion publish --moment-guidance FILE` then makes it the model's own. Runs in several
processes (`accelerate launch -m jet_diffusion fit-guidance ...`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm import tqdm

from jet_diffusion.commands.generate import generation_attrs
from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.hub import load_pipeline
from jet_diffusion.io import write_text_atomically
from jet_diffusion.pipelines.denoiser import DenoiserOutput
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.pipelines.moment_guidance import MOMENTS, shape_moments
from jet_diffusion.pipelines.schedulers import SCHEDULERS
from jet_diffusion.precision import PRECISIONS, make_accelerator
from jet_diffusion.sampling.sample import conditions_of, set_sampler
from jet_diffusion.training.runtime import check_processes

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
    batch_size: int = 64,
    seed: int = 0,
    accelerator: Accelerator | None = None,
) -> tuple[dict[str, Any], list[Round]]:
    """Fit the strengths with which moments are as large in generated jets as in training jets.

    Guidance of strength s makes the variance v of a normally distributed moment, in parts of the real one,
    v / (1 - s v). So what a strength lacks is 1 / v - 1, v being the squared ratio of mean sizes, which rare large
    ones disturb less than they do mean squares.

    Args:
        pipeline: The model, left with the guidance found.
        jets: Training jets.
        rounds: Of sampling; the first is without guidance.
        num_jets: Jets of each round, for the class, pT, mass and ring sums of training jets, others each round.
        batch_size: Jets a process denoises at once.
        seed: Draws the training jets and the noise.
        accelerator: Of this process.

    Returns:
        The guidance, as `JetImagePipeline` takes it, with the strengths after the last round; what each round found.

    Raises:
        ValueError: If the model is unconditional, knows no hits and energies, or a number is too small.
    """
    accelerator = accelerator or Accelerator()
    if pipeline.conditioner is None:
        raise ValueError("the model is unconditional: its jets cannot be compared with training jets of the same pT")
    if rounds < 1 or not 2 <= num_jets <= len(jets):
        raise ValueError(f"one round or more, of 2 to {len(jets)} jets, is needed; got {rounds} of {num_jets}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be positive, got {batch_size}")
    strengths = np.zeros(len(MOMENTS))
    set_sampler(pipeline, moment_guidance=_guidance(strengths, np.ones(len(MOMENTS))))  # refuses what cannot be guided
    pipeline.to(accelerator.device)
    pipeline.set_progress_bar_config(disable=True)
    progress = tqdm(total=rounds * num_jets, unit="jet", disable=not accelerator.is_main_process)
    variances = _variances(pipeline, jets, seed)
    guidance, found = _guidance(strengths, variances), []
    for number in range(rounds):
        pipeline.register_to_config(moment_guidance=guidance)
        rows = np.random.default_rng([seed, number]).permutation(len(jets))[:num_jets]
        real, made = _sizes(pipeline, jets, rows, seed + number, batch_size, accelerator, progress)
        ratio = made.mean(0) / real.mean(0)
        error = ratio * np.hypot(*(sizes.std(0, ddof=1) / sizes.mean(0) for sizes in (real, made))) / np.sqrt(num_jets)
        found.append(Round(*(_by_moment(values) for values in (strengths, ratio, error))))
        strengths = strengths + DAMPING * np.clip(1 / ratio**2 - 1, -1, 1)
        guidance = _guidance(strengths, variances)
    progress.close()
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
    batch_size: int,
    accelerator: Accelerator,
    progress: tqdm[Any],
) -> tuple[np.ndarray, np.ndarray]:
    """(n, 8) sizes of the moments of training jets, and of jets generated for their conditions and ring sums."""
    pairs: list[Any] = []
    for first in range(accelerator.process_index * batch_size, len(rows), accelerator.num_processes * batch_size):
        part = rows[first : first + batch_size]
        energies = torch.from_numpy(jets.energies(part))
        with accelerator.autocast():
            made = pipeline(
                **conditions_of(pipeline, jets, part),
                ring_sums=pipeline.representation.ring_sums(energies) if pipeline.conditioner.num_ring_sums else None,
                generator=torch.Generator().manual_seed(seed),
                first_jet=first,
                batch_size=batch_size,
                output_type="pt",
            ).images.permute(0, 3, 1, 2)
        sizes = [moments_of(pipeline, each).norm(dim=2) for each in (energies, made)]
        pairs.extend(torch.stack(sizes, 1).tolist())
        begun = first - accelerator.process_index * batch_size
        progress.update(min(accelerator.num_processes * batch_size, len(rows) - begun))
    real, made = np.array(gather_object(pairs)).transpose(1, 0, 2)
    return real, made


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


def main(argv: list[str] | None = None) -> None:
    """Fit as the command line says."""
    arguments = _parser().parse_args(argv)
    if not arguments.out.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {arguments.out.parent}")
    pipeline = load_pipeline(arguments.model, checkpoint=arguments.checkpoint)
    set_sampler(pipeline, arguments.scheduler, arguments.steps, arguments.step_power)
    jets = JetDataset.load(arguments.data, "train")
    accelerator = make_accelerator(arguments.precision)
    check_processes(accelerator.num_processes, None, os.environ)
    guidance, found = fit_moment_guidance(
        pipeline,
        jets,
        rounds=arguments.rounds,
        num_jets=arguments.num_jets,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
        accelerator=accelerator,
    )
    if accelerator.is_main_process:
        written = {
            **generation_attrs(pipeline, arguments.seed, pipeline.config.default_steps, arguments.batch_size),
            "mixed_precision": accelerator.mixed_precision,
            "moment_guidance": guidance,
            "rounds": [asdict(each) for each in found],
            "jets_each_round": arguments.num_jets,
            "training_jets": jets.fingerprint,
        }
        write_text_atomically(arguments.out, json.dumps(written, indent=2) + "\n")
        sys.stdout.write(f"{as_table(found)}\nwritten to {arguments.out}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jet-diffusion fit-guidance", description=__doc__)
    parser.add_argument("model", help="a training run, a pipeline folder, or user/name on the Hub")
    parser.add_argument("data", help="converted dataset, whose training split is taken")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--rounds", type=int, default=4, help="rounds of sampling (default 4)")
    parser.add_argument("--num-jets", type=int, default=1000, help="jets of each round (default 1000)")
    parser.add_argument("--batch-size", type=int, default=64, help="jets a process denoises at once (default 64)")
    parser.add_argument("--scheduler", choices=list(SCHEDULERS), help="fit for this solver, not the model's own")
    parser.add_argument("--steps", type=int, help="and so many steps")
    parser.add_argument("--step-power", type=float, help="and this value of sampling.step_power")
    parser.add_argument("--precision", choices=PRECISIONS, default="no", help="of the networks (default no: float32)")
    parser.add_argument("--checkpoint", default="last", help="of a run: last, best or a step (default last)")
    parser.add_argument("--seed", type=int, default=0)
    return parser
