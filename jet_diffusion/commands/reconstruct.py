"""Noise real jets and denoise them again, and draw the HCAL that belongs to given tracks and ECAL.

`jet-diffusion reconstruct MODEL REAL --out FOLDER` scores each denoised jet against the very jet it was made from, as
a curve over the noise, beside the noisy input, a blank image and the best denoiser that looks at one pixel alone.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.data.leakage import find_training_hashes, refuse_training_jets
from jet_diffusion.data.load import load_jets
from jet_diffusion.evaluation.curves import imputation_chart, reconstruction_chart
from jet_diffusion.evaluation.result import describe
from jet_diffusion.evaluation.write import PICTURES, save_drawing
from jet_diffusion.hub import load_pipeline
from jet_diffusion.metrics.pairs import PAIR_SCORES
from jet_diffusion.observables.hits import Array
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.plotting.jets import plot_side_by_side
from jet_diffusion.report.model import Report, refuse_existing
from jet_diffusion.report.render import one_line, write_texts
from jet_diffusion.runs import versions
from jet_diffusion.sampling.impute import impute_hcal
from jet_diffusion.sampling.sample import set_sampler

TIMESTEPS = (100, 250, 400, 550, 700, 850)
EMD_JETS = 8
JETS_SHOWN = 6
DENOISED, NOISY, PIXEL_BAYES, BLANK = "denoised", "noisy input", "pixel by pixel", "blank"
Row = dict[str, Any]


def reconstruct_at(
    pipeline: JetImagePipeline, jets: JetSample, timestep: int, *, steps: int, seed: int
) -> dict[str, Array]:
    """Candidates for the reconstruction of jets that were noised to one timestep.

    Args:
        pipeline: the model.
        jets: real jets.
        timestep: training timestep t*.
        steps: solver steps of a whole schedule; those above t* are skipped.
        seed: of the noise.

    Returns:
        Name -> energies (N, 3, 125, 125). "pixel by pixel" is there if the denoiser knows the pixels' marginal.
    """
    energies = torch.from_numpy(jets.energies())
    conditions: dict[str, Any] = {}
    if pipeline.conditioner is not None:
        conditions = {name: torch.as_tensor(getattr(jets, name)) for name in ("labels", "pt", "m0")}
    clean, noisy = pipeline.reconstruct(
        energies,
        timestep,
        **conditions,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(seed),
    )
    found = {DENOISED: clean.numpy(), NOISY: noisy.numpy()}
    if hasattr(pipeline.denoiser, "marginal"):
        found[PIXEL_BAYES] = _pixel_by_pixel(pipeline, energies, timestep, seed)
    return {**found, BLANK: np.zeros_like(found[NOISY])}


@torch.no_grad()
def _pixel_by_pixel(pipeline: JetImagePipeline, energies: torch.Tensor, timestep: int, seed: int) -> Array:
    """Bayes' rule on each pixel's own noisy value: no context, no network."""
    x_0 = pipeline.representation.encode(energies.to(pipeline.device))
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(seed)).to(x_0)
    timesteps = torch.full((len(x_0),), timestep, device=x_0.device)
    alpha, sigma = pipeline.denoiser.noise_level(timesteps)
    estimate = pipeline.denoiser.marginal(alpha * x_0 + sigma * noise, timesteps)
    return np.asarray(pipeline.representation.decode(estimate).cpu().numpy())


def score_rows(originals: Array, candidates: dict[str, Array], emd_jets: int = EMD_JETS) -> Iterator[Row]:
    """Mean score and standard error of each candidate.

    Args:
        originals: (N, 3, 125, 125).
        candidates: name -> as many images.
        emd_jets: the energy mover's distance is taken of so many jets only; it costs a tenth of a second each.
    """
    for candidate, images in candidates.items():
        for name, (_, unit, score) in PAIR_SCORES.items():
            number = min(emd_jets, len(originals)) if name == "emd" else len(originals)
            values = score(originals[:number], images[:number])
            yield {
                "candidate": candidate,
                "score": name,
                "unit": unit,
                "mean": float(values.mean()),
                "error": float(values.std(ddof=1) / np.sqrt(number)) if number > 1 else None,
                "jets": number,
            }


def reconstruct(arguments: argparse.Namespace) -> Report:
    """Reconstruct and impute as the command line says, and write the report.

    Raises:
        ValueError: for bad input, or training jets among the real ones.
        FileNotFoundError: for what is not there.
        FileExistsError: if the output folder holds a report already.
    """
    out: Path = arguments.out
    refuse_existing(out, overwrite=arguments.overwrite)
    pipeline = load_pipeline(arguments.model, checkpoint=arguments.checkpoint)
    set_sampler(pipeline, steps=arguments.steps)
    steps = pipeline.config.default_steps
    last = len(pipeline.denoiser.alphas_cumprod) - 1
    if not all(0 <= timestep <= last for timestep in arguments.timesteps):
        raise ValueError(f"timesteps must be 0 to {last}, got {arguments.timesteps}")
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    pipeline.set_progress_bar_config(disable=True)
    jets = load_jets(arguments.real, arguments.num_jets, np.random.default_rng(arguments.seed), split=arguments.split)
    leak = refuse_training_jets(jets, find_training_hashes(arguments.model), arguments.allow_training_jets)
    report = Report(_heading(arguments, jets, steps))
    report.notices += [
        text for text in (leak, jets.simulated and f"the real jets are simulated: {jets.simulated}") if text
    ]
    (out / PICTURES).mkdir(parents=True, exist_ok=True)
    rows = report.tables["reconstruction"] = []
    for timestep in tqdm(arguments.timesteps, desc="reconstructing", unit="timestep"):
        candidates = reconstruct_at(pipeline, jets, timestep, steps=steps, seed=arguments.seed)
        rows += [{"timestep": timestep, **row} for row in score_rows(jets.energies(), candidates)]
        _draw_pairs(report, out, jets, candidates, timestep)
    save_drawing(reconstruction_chart(rows), out, "curves")
    report.pictures.insert(0, _picture("curves", "Scores over the noise; bars are standard errors (wide)", "Curves"))
    if arguments.draws:
        imputed = impute_hcal(pipeline, jets, arguments.draws, steps=steps, seed=arguments.seed)
        report.tables["imputation"] = imputed.rows()
        save_drawing(imputation_chart(imputed.truth, imputed.draws), out, "imputation")
        caption = "HCAL energy drawn for given tracks and ECAL: median and 68 % interval against the truth"
        report.pictures.append(_picture("imputation", caption, "HCAL from tracks and ECAL"))
    write_texts(report, out)
    return report


def _draw_pairs(report: Report, out: Path, jets: JetSample, candidates: dict[str, Array], timestep: int) -> None:
    shown = slice(0, JETS_SHOWN)
    for candidate in (NOISY, DENOISED):
        name = f"{candidate.split()[0]}_{timestep:03d}"
        titles = ("Original", f"{candidate.capitalize()} (t* = {timestep})")
        images = candidates[candidate][shown]
        try:
            drawing = plot_side_by_side(jets.energies(shown), images, jets.labels[shown], titles, note=jets.simulated)
        except ValueError as error:
            report.omit(f"picture {name}", error)
            continue
        save_drawing(drawing, out, name)
        report.pictures.append(_picture(name, f"{titles[1]} beside the original (wide)", f"t* = {timestep}"))


def _picture(name: str, caption: str, section: str) -> dict[str, str]:
    return {"file": f"{PICTURES}/{name}", "caption": caption, "section": section}


def _heading(arguments: argparse.Namespace, jets: JetSample, steps: int) -> dict[str, Any]:
    return {
        "title": f"Reconstruction by {Path(arguments.model).name}",
        "command": shlex.join(["jet-diffusion", "reconstruct", *arguments.argv]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": arguments.seed,
        "steps": steps,
        "real": describe(jets),
        "versions": versions(),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Reconstruct as the command line says and say where the report is."""
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(argv)
    arguments.argv = argv
    report = reconstruct(arguments)
    for notice in report.notices:
        sys.stdout.write(f"! {one_line(notice)}\n")
    sys.stdout.write(f"report: {(arguments.out / 'report.html').absolute()}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jet-diffusion reconstruct", description=__doc__)
    parser.add_argument("model", help="a training run, a pipeline folder, or user/name on the Hub")
    parser.add_argument("real", help="HDF5 file of real jets, or a converted dataset (folder or Hub name)")
    parser.add_argument("--out", type=Path, default=Path("reconstruction"), help="folder of the report")
    parser.add_argument("--overwrite", action="store_true", help="replace a report that is there")
    parser.add_argument("--split", default="test", help="split of a dataset (default test)")
    parser.add_argument("--num-jets", type=int, default=64, help="jets to reconstruct (default 64)")
    parser.add_argument("--timesteps", type=int, nargs="+", default=list(TIMESTEPS), help="training timesteps t*")
    parser.add_argument("--steps", type=int, help="solver steps of a whole schedule (default: the model's own)")
    parser.add_argument("--draws", type=int, default=0, help="draws of the HCAL a jet; 0 for none (default 0)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", default="last", help="of a run: last, best or a step (default last)")
    parser.add_argument("--allow-training-jets", action="store_true", help="go on even with jets trained on")
    return parser
