"""The cost of reading states on hardware, how well models denoise, and how they sample from other starts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from jet_diffusion.observables.hits import Array
from jet_diffusion.quantum.report.judging import judge
from jet_diffusion.quantum.states import fidelity, to_states

TIMESTEPS = (100, 300, 500, 700, 900)
"""Of a thousand, where held-out denoising is measured."""

SHOTS = (1_000, 10_000, 100_000)


@torch.no_grad()
def denoising(
    pipeline: Any, energies: torch.Tensor, labels: torch.Tensor, seed: int, network: bool = True
) -> dict[str, float]:
    """Mean fidelity of the predicted with the clean state at `TIMESTEPS`: "F100" to "F900".

    Args:
        pipeline: Of a model.
        energies: (N, 3, 125, 125) held-out jets.
        labels: (N,) their classes.
        seed: Of the noise.
        network: False takes the roots of the noisy state's own probabilities, what is known without any model.
    """
    x_0 = pipeline.representation.encode(energies)
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(seed))
    embedding = pipeline.conditioner(labels, None, None)
    found = {}
    for step in TIMESTEPS:
        timesteps = torch.full((len(x_0),), step)
        x_t = pipeline.denoiser.add_noise(x_0, noise, timesteps)
        if network:
            predicted = pipeline.denoiser(pipeline.unet, x_t, timesteps, embedding).x0
        else:
            magnitude = x_t.norm(dim=1, keepdim=True)
            predicted = torch.cat([magnitude, torch.zeros_like(magnitude)], 1)
        found[f"F{step}"] = fidelity(predicted, x_0).mean().item()
    return found


@torch.no_grad()
def readout_costs(pipeline: Any, energies: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
    """How often the filter's ancilla is found in |0>, and how well a state is known after so many shots.

    Args:
        pipeline: Of a trained filter.
        energies: (N, 3, 125, 125) held-out jets.
        labels: (N,) their classes.

    Returns:
        `success`: timestep -> mean probability; `shots`: number -> mean fidelity of the roots of measured frequencies
        with the true jets' states.
    """
    x_0 = pipeline.representation.encode(energies)
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
    sign = pipeline.conditioner(labels, None, None)
    success = {}
    for step in (0, *TIMESTEPS, 999):
        timesteps = torch.full((len(x_0),), step)
        x_t = pipeline.denoiser.add_noise(x_0, noise, timesteps)
        success[str(step)] = pipeline.unet(x_t, timesteps, sign).success_probability.mean().item()
    probabilities = to_states(x_0).abs().square().double().numpy()
    probabilities /= probabilities.sum(1, keepdims=True)
    rng = np.random.default_rng(0)
    shots = {}
    for number in SHOTS:
        counts = rng.multinomial(number, probabilities)
        shots[str(number)] = float((np.sqrt(counts / number * probabilities).sum(1) ** 2).mean())
    return {"success": success, "shots": shots}


def starts(pipelines: dict[str, Any], real: Array, features: dict[str, Array], jets: int) -> list[dict[str, Any]]:
    """Results of jets whose sampling starts from other states than in training.

    Args:
        pipelines: Name -> model; their schedulers are put back afterwards.
        real: (N, g, g) test jets.
        features: Of these.
        jets: Number to generate.
    """
    rows = []
    for name, pipeline in pipelines.items():
        trained = pipeline.scheduler
        for start in ("haar", "mixed", "state"):
            pipeline.scheduler = type(trained).from_config(trained.config, start=start)
            chosen = torch.ones(pipeline.representation.shape) if start == "state" else None
            output = pipeline(
                jets, generator=torch.Generator().manual_seed(0), batch_size=250, output_type="pt", state=chosen
            )
            cells = pipeline.to_cells(output.images).sum(1).numpy()
            rows.append({"model": name, "start": start, "figures": judge(real, cells, features)})
        pipeline.scheduler = trained
    return rows
