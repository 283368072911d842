"""Noise real jets, denoise them, and draw HCAL for given tracks and ECAL: what `jet-diffusion reconstruct` does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from jet_diffusion.arguments import command_line
from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.data.leakage import find_training_hashes, refuse_training_jets
from jet_diffusion.data.load import load_jets
from jet_diffusion.errors import UserError
from jet_diffusion.evaluation.curves import imputation_chart, reconstruction_chart
from jet_diffusion.evaluation.result import describe
from jet_diffusion.evaluation.write import PICTURES, save_drawing
from jet_diffusion.hub import load_pipeline
from jet_diffusion.metrics.pairs import PAIR_SCORES
from jet_diffusion.observables.hits import Array
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.plotting.jets import plot_side_by_side
from jet_diffusion.report.model import Report, refuse_existing
from jet_diffusion.report.render import write_texts
from jet_diffusion.runs import versions
from jet_diffusion.sampling.impute import impute_hcal
from jet_diffusion.sampling.sample import set_sampler

if TYPE_CHECKING:
    from jet_diffusion.commands.reconstruct import Options

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


def reconstruct(options: Options) -> Report:
    """Reconstruct and impute as the command line says, and write the report.

    Raises:
        UserError: for bad input, or training jets among the real ones.
        FileNotFoundError: for what is not there.
        FileExistsError: if the output folder holds a report already.
    """
    out: Path = options.out
    refuse_existing(out, overwrite=options.overwrite)
    pipeline = load_pipeline(options.model, checkpoint=options.checkpoint)
    set_sampler(pipeline, steps=options.steps)
    steps = pipeline.config.default_steps
    last = len(pipeline.denoiser.alphas_cumprod) - 1
    if not all(0 <= timestep <= last for timestep in options.timesteps):
        raise UserError(f"--timesteps must be 0 to {last}, got {options.timesteps}")
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    pipeline.set_progress_bar_config(disable=True)
    jets = load_jets(options.real, options.num_jets, np.random.default_rng(options.seed), split=options.split)
    leak = refuse_training_jets(jets, find_training_hashes(options.model), options.allow_training_jets)
    report = Report(_heading(options, jets, steps))
    report.notices += [
        text for text in (leak, jets.simulated and f"the real jets are simulated: {jets.simulated}") if text
    ]
    (out / PICTURES).mkdir(parents=True, exist_ok=True)
    rows = report.tables["reconstruction"] = []
    for timestep in tqdm(options.timesteps, desc="reconstructing", unit="timestep"):
        candidates = reconstruct_at(pipeline, jets, timestep, steps=steps, seed=options.seed)
        rows += [{"timestep": timestep, **row} for row in score_rows(jets.energies(), candidates)]
        _draw_pairs(report, out, jets, candidates, timestep)
    save_drawing(reconstruction_chart(rows), out, "curves")
    report.pictures.insert(0, _picture("curves", "Scores over the noise; bars are standard errors (wide)", "Curves"))
    if options.draws:
        imputed = impute_hcal(pipeline, jets, options.draws, steps=steps, seed=options.seed)
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


def _heading(options: Options, jets: JetSample, steps: int) -> dict[str, Any]:
    return {
        "title": f"Reconstruction by {Path(options.model).name}",
        "command": command_line("reconstruct", options),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": options.seed,
        "steps": steps,
        "real": describe(jets),
        "versions": versions(),
    }
