"""What the quantum models are compared with: jets made without any model, and the best linear filters."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import DDPMScheduler
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import nn

from jet_diffusion.observables.hits import Array
from jet_diffusion.quantum.states import to_images, to_states


def mean_image(cells: Array, count: int, rng: np.random.Generator) -> Array:
    """The mean of the jets' shares of energy (N, g, g), `count` times: no variety."""
    shares = cells / cells.sum((1, 2), keepdims=True)
    return np.repeat(shares.mean(0)[None], count, axis=0)


def pixel_shuffle(cells: Array, count: int, rng: np.random.Generator) -> Array:
    """Take every cell of a jet from another jet: each cell has the right distribution, but no correlations."""
    shares = (cells / cells.sum((1, 2), keepdims=True)).reshape(len(cells), -1)
    drawn = rng.integers(len(cells), size=(count, shares.shape[1]))
    mixed = shares[drawn, np.arange(shares.shape[1])].reshape(count, *cells.shape[1:])
    return mixed[mixed.sum((1, 2)) > 0]


def haar_jets(cells: Array, count: int, rng: np.random.Generator) -> Array:
    """Born probabilities of Haar-random states: what sampling starts from."""
    return rng.exponential(size=(count, *cells.shape[1:]))


MADE_WITHOUT_MODEL = {"noise": haar_jets, "mean": mean_image, "shuffle": pixel_shuffle}
"""Name in the report -> (training cells, number, rng) -> jets (number, g, g)."""


class WienerFilter(nn.Module):
    r"""The best linear estimate of psi_0, a bound on every post-selected unitary on one copy, in mean squared error.

    K_t = sqrt(abar) C (abar C + (1 - abar) I/d)^-1 with C = E psi_0 psi_0^T of training jets, or its diagonal alone.

    Args:
        states: (N, d) real amplitudes of training jets.
        noise_schedule: Configuration of the training DDPMScheduler.
        diagonal: Neglect the correlations between cells.
    """

    gain: torch.Tensor
    vectors: torch.Tensor

    def __init__(self, states: torch.Tensor, noise_schedule: dict[str, object], diagonal: bool) -> None:
        super().__init__()
        second = states.double().T @ states.double() / len(states)
        if diagonal:
            second = second.diagonal().diag()
        values, vectors = torch.linalg.eigh(second)
        alpha_bar = DDPMScheduler(**noise_schedule).alphas_cumprod.double()[:, None]
        gain = alpha_bar.sqrt() * values / (alpha_bar * values + (1 - alpha_bar) / len(values))
        self.register_buffer("gain", gain.float())
        self.register_buffer("vectors", vectors.float())
        self.dtype, self.device = torch.float32, torch.device("cpu")

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor, class_labels: torch.Tensor | None = None
    ) -> UNet2DOutput:
        """K_t psi, as `QuantumFilterDenoiser.forward`."""
        psi = to_states(sample)
        vectors = self.vectors.to(psi)
        filtered = (psi @ vectors * self.gain[timestep]) @ vectors.T
        return UNet2DOutput(sample=to_images(filtered).reshape(sample.shape))
