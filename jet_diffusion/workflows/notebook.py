"""The pictures and scores of the original notebooks, as `jet-diffusion notebook-artefacts` makes them.

training_history.png               loss an epoch, beside the losses the notebook printed
diffusion_results_comparison.png   original and generated jets side by side, as the model sees them
forward_strip.png                  one jet noised in closed form (re-noising what is noisy already adds up otherwise)
sampling_strip.png                 one jet made from noise, ten states
reconstruction.png                 jets noised to the last timestep and denoised, beside the originals
combined_view.png                  the three standardised channels summed, originals above generated jets
results.json                       SSIM, MSE, PSNR and generation time of the comparison, with their controls

The run's samples/ holds its pictures every few epochs. SSIM, MSE and PSNR between a jet and an unrelated generated one
say little: the blank image beside them shows how little.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.errors import UserError
from jet_diffusion.hub import load_pipeline
from jet_diffusion.io import write_text_atomically
from jet_diffusion.metrics.pairs import structural_similarity
from jet_diffusion.observables.hits import Array
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.plotting.jets import plot_side_by_side, save_figure
from jet_diffusion.plotting.steps import plot_denoising, plot_forward
from jet_diffusion.runs import RunFolder
from jet_diffusion.sampling.batches import sample_jets

PRINTED_LOSSES: dict[str, dict[str, tuple[float, ...]]] = {
    "deepfalcon_cnn": {
        "train": (1.0035, 0.9961, 0.9905, 0.9738, 0.9339),
        "validation": (0.9990, 0.9961, 0.9777, 0.9564, 0.9076),
    },
    "deepfalcon_unet": {"train": (0.8095,), "validation": ()},
}
"""What the notebooks' own runs printed, an epoch each; of the second its first step alone."""

STANDARDISED_ON = 500
COMBINED_RANGE = (-0.5, 2.0)
STRIP_COLUMNS = 10


def epoch_losses(run: RunFolder) -> dict[str, list[float]]:
    """Training and validation loss of each epoch, an epoch being what lies between two validations."""
    validation = run.read_metrics("validation")
    ends = [line["step"] for line in validation]
    lines = run.read_metrics("train")
    parts = zip([0, *ends[:-1]], ends, strict=True)
    train = [[line["loss"] for line in lines if begin < line["step"] <= end] for begin, end in parts]
    return {
        "train": [float(np.mean(losses)) if losses else float("nan") for losses in train],
        "validation": [line["loss"] for line in validation],
    }


def plot_history(losses: dict[str, list[float]], printed: dict[str, tuple[float, ...]]) -> Figure:
    """Both losses an epoch, solid, and the notebook's, dotted."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for kind, colour in (("train", "#e69f00"), ("validation", "#0072b2")):
        axes.plot(range(1, len(losses[kind]) + 1), losses[kind], "o-", color=colour, label=f"{kind}, this run")
        if printed.get(kind):
            label = f"{kind}, as the notebook printed"
            axes.plot(range(1, len(printed[kind]) + 1), printed[kind], "x:", color=colour, label=label)
    axes.set(xlabel="epoch", ylabel="error of the predicted noise")
    axes.grid(True, alpha=0.3)
    axes.legend()
    return figure


def sample_states(pipeline: JetImagePipeline, count: int, seed: int) -> tuple[torch.Tensor, Array, float]:
    """Sample jets as the notebooks do: at all timesteps and without clipping.

    Returns:
        x (n, C, H, W), their energies (n, 3, 125, 125), and the seconds it took.
    """
    last: dict[str, torch.Tensor] = {}

    def keep(_: Any, step: int, timestep: int, tensors: dict[str, Any]) -> dict[str, Any]:
        last["x"] = tensors["x"]
        return {}

    made = sample_jets(pipeline, count, seed=seed, batch_size=count, clip_sample=False, callback_on_step_end=keep)
    return last["x"], made.energies.numpy(), made.seconds


def unpaired_scores(original: torch.Tensor, other: torch.Tensor, limits: tuple[float, float]) -> dict[str, float]:
    """SSIM, MSE and PSNR between image i of one set and image i of another, in model space.

    Args:
        original, other: x (n, C, H, W).
        limits: The range of x, whose width is the peak of the PSNR.
    """
    low, high = limits
    first, second = (x.double().numpy() - low for x in (original, other))
    mse = float(((first - second) ** 2).mean())
    psnr = 10 * np.log10((high - low) ** 2 / mse) if mse else float("inf")
    return {"ssim": float(structural_similarity(first, second).mean()), "mse": mse, "psnr": float(psnr)}


def notebook_scores(pipeline: JetImagePipeline, real: torch.Tensor, made: torch.Tensor) -> dict[str, dict[str, float]]:
    """The unpaired scores of generated jets, of other real ones and of blank and mean images.

    Args:
        pipeline: Gives the representation.
        real: Energies (2 n, 3, 125, 125): the originals and as many others.
        made: x (n, C, H, W) of generated jets.
    """
    representation = pipeline.representation
    x, others = representation.encode(real).split(len(made))
    low, high = (float(limit[0]) for limit in representation.limits())
    candidates = {
        "generated": made,
        "independent real jets": others,
        "blank image": torch.full_like(x, low),
        "mean image": others.mean(0, keepdim=True).expand_as(x),
    }
    return {name: unpaired_scores(x, candidate, (low, high)) for name, candidate in candidates.items()}


def reduced(pipeline: JetImagePipeline, energies: torch.Tensor) -> Array:
    """Real jets (n, 3, 125, 125) as the model's representation leaves them."""
    return np.asarray(pipeline.representation.decode(pipeline.representation.encode(energies)).numpy())


def plot_combined(original: Array, generated: Array, reference: Array) -> Figure:
    """Originals above generated jets, each the sum of its three standardised channels.

    Args:
        original, generated: (n, 3, 125, 125) in GeV/100.
        reference: (m, 3, 125, 125) jets whose mean and spread standardise each channel.
    """
    mean, std = (getattr(reference, name)((0, 2, 3), keepdims=True, dtype=np.float64) for name in ("mean", "std"))
    figure = Figure(figsize=(2.6 * len(original) + 0.8, 5.6), layout="constrained")
    axes = figure.subplots(2, len(original), squeeze=False)
    for row, (name, jets) in enumerate({"original": original, "generated": generated}.items()):
        for axis, image in zip(axes[row], ((jets - mean) / std).sum(1), strict=True):
            shown = axis.imshow(image, cmap="viridis", vmin=COMBINED_RANGE[0], vmax=COMBINED_RANGE[1], origin="lower")
            axis.set(xticks=[], yticks=[])
        axes[row, 0].set_ylabel(name)
    figure.colorbar(shown, ax=axes, shrink=0.7, label="sum of the standardised channels")
    return figure


def make_artefacts(run: RunFolder, out: Path, jets: JetDataset, count: int, seed: int) -> dict[str, Any]:
    """Write every artefact; returns what results.json holds.

    Raises:
        FileNotFoundError: If the run has no checkpoint.
        UserError: If there are fewer than twice `count` jets.
    """
    if not 1 <= count <= len(jets) // 2:
        raise UserError(f"--num-jets must lie in 1 to {len(jets) // 2}, half the split's jets, got {count}")
    pipeline = load_pipeline(run.path)
    pipeline.set_progress_bar_config(disable=True)
    network = run.read_config()["unet"].get("network", "unet2d")
    losses, steps = epoch_losses(run), pipeline.config.default_steps
    real = torch.from_numpy(jets.energies(np.arange(2 * count)))
    x, generated, seconds = sample_states(pipeline, count, seed)
    scores = notebook_scores(pipeline, real, x)
    original = reduced(pipeline, real[:count])
    last = len(pipeline.denoiser.alphas_cumprod) - 1
    denoised, _ = pipeline.reconstruct(real[:count], last, generator=torch.Generator().manual_seed(seed))
    encode = pipeline.representation.encode
    paired = unpaired_scores(encode(real[:count]), encode(denoised), _range(pipeline))
    note = f"SSIM {paired['ssim']:.3f}, MSE {paired['mse']:.4g}, PSNR {paired['psnr']:.1f} dB"
    reference = reduced(pipeline, torch.from_numpy(jets.energies(np.arange(min(STANDARDISED_ON, len(jets))))))
    figures = {
        "training_history": plot_history(losses, PRINTED_LOSSES.get(network, {})),
        "diffusion_results_comparison": plot_side_by_side(
            original, generated, names=("Original", "Generated"), note=jets.simulated
        ),
        "forward_strip": plot_forward(pipeline, real[0], STRIP_COLUMNS + 1, seed),
        "sampling_strip": plot_denoising(pipeline, STRIP_COLUMNS, steps, seed)[0],
        "reconstruction": plot_side_by_side(original, denoised.numpy(), names=("Original", "Denoised"), note=note),
        "combined_view": plot_combined(original, generated, reference),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        save_figure(figure, out / f"{name}.png")
    results = {
        "jets": count,
        "generation_seconds": seconds,
        "scores": scores,
        "reconstruction": paired,
        "losses": losses,
        "printed_losses": PRINTED_LOSSES.get(network),
    }
    write_text_atomically(out / "results.json", json.dumps(results, indent=2) + "\n")
    return results


def _range(pipeline: JetImagePipeline) -> tuple[float, float]:
    low, high = pipeline.representation.limits()
    return float(low[0]), float(high[0])


def describe(results: dict[str, Any]) -> str:
    """The summary that the command prints."""
    lines = [f"{'':<24}{'SSIM':>9}{'MSE':>12}{'PSNR [dB]':>11}"]
    for name, row in results["scores"].items():
        lines.append(f"{name:<24}{row['ssim']:>9.4f}{row['mse']:>12.3g}{row['psnr']:>11.2f}")
    lines.append(f"generation took {results['generation_seconds']:.2f} s for {results['jets']} jets")
    return "\n".join(lines) + "\n"
