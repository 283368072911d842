"""Draw the noising and the denoising of jets as strips: `jet-diffusion plot-steps MODEL --out FOLDER`.

All strips share one fixed logarithmic colour scale. What is no hit yet is drawn faintly below the smallest hit, so
that noise and half-made jets can be seen.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from jet_diffusion.data.bundled import sample_path
from jet_diffusion.data.hdf5 import QuarkGluonFile
from jet_diffusion.hub import load_pipeline
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.pipelines.schedulers import SCHEDULERS
from jet_diffusion.plotting.jets import save_figure
from jet_diffusion.plotting.training import plot_strip
from jet_diffusion.sampling.sample import set_sampler


def plot_forward(pipeline: JetImagePipeline, energies: torch.Tensor, columns: int, seed: int) -> Figure:
    """One jet noised in closed form, x_t = alpha x_0 + sigma eps with the same eps throughout.

    Args:
        pipeline: Gives representation and noise schedule.
        energies: (3, 125, 125) in GeV/100.
        columns: Noise levels, evenly spread in t, the clean jet first.
        seed: Of eps.
    """
    x_0 = pipeline.representation.encode(energies[None])
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(seed))
    last = len(pipeline.denoiser.alphas_cumprod) - 1
    timesteps = torch.linspace(0, last, columns - 1).round().long()
    alpha, sigma = pipeline.denoiser.noise_level(timesteps)
    states = torch.cat([x_0, alpha * x_0 + sigma * noise])
    titles = [
        "jet",
        *(
            f"t = {t}\n$\\sigma/\\alpha$ = {r:.2g}"
            for t, r in zip(timesteps.tolist(), (sigma / alpha).flatten().tolist(), strict=True)
        ),
    ]
    return plot_strip(pipeline.representation.render(states).numpy(), titles, "Noising (closed form)")


def plot_denoising(pipeline: JetImagePipeline, columns: int, steps: int, seed: int) -> tuple[Figure, Figure]:
    """One jet made from noise: the states x_t the solver went through, and the estimates of x_0 beside them."""
    states: list[tuple[int, torch.Tensor, torch.Tensor]] = []

    def keep(pipe: JetImagePipeline, _: int, timestep: int, tensors: dict[str, Any]) -> dict[str, Any]:
        # Schedulers in sigma's own scaling (Euler) hold x_t / alpha; drawn is x_t.
        x_t = pipe.scheduler.scale_model_input(tensors["x"], timestep)
        states.append((int(timestep), x_t[:1].cpu().clone(), tensors["x0"][:1].cpu().clone()))
        return {}

    generator = torch.Generator().manual_seed(seed)
    pipeline(1, num_inference_steps=steps, generator=generator, callback_on_step_end=keep)
    chosen = np.unique(np.linspace(0, len(states) - 1, columns).round().astype(int))
    titles = [f"after t = {states[i][0]}" for i in chosen]
    render = pipeline.representation.render
    made, estimated = (render(torch.cat([states[i][place] for i in chosen])).numpy() for place in (1, 2))
    name = type(pipeline.scheduler).__name__
    return (
        plot_strip(made, titles, f"Denoising: the state after each step ({name}, {steps} steps)"),
        plot_strip(estimated, titles, f"Denoising: the estimate of the jet at each step ({name}, {steps} steps)"),
    )


def main(argv: list[str] | None = None) -> None:
    """Draw as the command line says and print where the pictures are."""
    arguments = _parser().parse_args(argv)
    pipeline = load_pipeline(arguments.model, checkpoint=arguments.checkpoint)
    pipeline.set_progress_bar_config(disable=True)
    set_sampler(pipeline, arguments.scheduler, arguments.steps)
    steps = pipeline.config.default_steps
    if arguments.columns < 2 or steps < 1:
        raise ValueError(f"--columns must be at least 2 and --steps 1, got {arguments.columns} and {steps}")
    with QuarkGluonFile(arguments.data or sample_path()) as file:
        if not 0 <= arguments.jet < file.num_jets:
            raise ValueError(f"--jet must be 0 to {file.num_jets - 1}, got {arguments.jet}")
        energies = torch.from_numpy(file.energies(arguments.jet, arguments.jet + 1)[0])
    arguments.out.mkdir(parents=True, exist_ok=True)
    states, estimates = plot_denoising(pipeline, arguments.columns, steps, arguments.seed)
    figures = {
        "noising": plot_forward(pipeline, energies, arguments.columns, arguments.seed),
        "denoising": states,
        "estimates": estimates,
    }
    for name, figure in figures.items():
        save_figure(figure, arguments.out / f"{name}.png")
        sys.stdout.write(f"{arguments.out / name}.png\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jet-diffusion plot-steps", description=__doc__)
    parser.add_argument("model", help="a training run, a pipeline folder, or user/name on the Hub")
    parser.add_argument("--out", type=Path, default=Path("steps"), help="folder for the pictures (default steps)")
    parser.add_argument("--data", type=Path, help="HDF5 file with the jet to noise (default: the bundled sample)")
    parser.add_argument("--jet", type=int, default=0, help="its number in the file")
    parser.add_argument("--columns", type=int, default=10, help="pictures in a strip (default 10)")
    parser.add_argument("--steps", type=int, help="solver steps (default: the model's own number)")
    parser.add_argument("--scheduler", choices=list(SCHEDULERS), help="default: the model's own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", default="last", help="of a run: last, best or a step (default last)")
    return parser
