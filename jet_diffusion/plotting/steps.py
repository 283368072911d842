"""Draw the noising and the denoising of jets as strips, all on one fixed logarithmic colour scale.

What is no hit yet is drawn faintly below the smallest hit, so that noise and half-made jets can be seen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.plotting.training import plot_strip


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
