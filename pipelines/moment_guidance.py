"""Moment guidance: sampling is guided so that the shapes of jets vary as much as those of real jets.

This file is self-contained so that it can travel to the Hub.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

MAPS = ("tracks", "ecal", "hcal", "energy")
MOMENTS = tuple(f"{moment}_{name}" for moment in ("centroid", "elongation") for name in MAPS)
"""Of the hits of each channel and of all energy: names of the rows of moments, in order."""


def shape_moments(hits: torch.Tensor, energies: torch.Tensor, positions: torch.Tensor, group: Any) -> torch.Tensor:
    """Moments of a jet's shape: where its centroid lies about the axis, and how elongated it is.

    With a_i the share that pixel i has of a channel's hits, or of all energy, and (r_i, phi_i) its polar
    coordinates about the axis: centroid sum_i a_i r_i (cos phi_i, sin phi_i) and elongation sum_i a_i r_i (cos 2 phi_i,
    sin 2 phi_i).

    Args:
        hits: (N, C, H, W) hits, or probabilities of them.
        energies: (N, C, H, W) energy of each pixel in GeV.
        positions: (2, C, H, W) eta and phi of each pixel from the axis, in radians.
        group: (C,) calorimeter channel of each channel of x.

    Returns:
        (N, 8, 2) the moments of MOMENTS, in radians; zero where there are no hits.
    """
    eta, phi = positions
    distance = torch.hypot(eta, phi).clamp(min=1e-9)
    long = (eta.square() - phi.square()) / distance, 2 * eta * phi / distance
    weights = torch.stack([torch.ones_like(eta), eta, phi, *long])  # (5, C, H, W)
    with torch.autocast(hits.device.type, enabled=False):
        of_hits = torch.einsum("nchw,fchw->ncf", hits, weights)
        of_energies = torch.einsum("nchw,fchw->nf", energies, weights)[:, None]
    of_hits = of_hits.new_zeros(len(hits), 3, 5).index_add(1, torch.as_tensor(group, device=hits.device), of_hits)
    sums = torch.cat([of_hits, of_energies], 1)  # (N, 4, 5)
    means = sums[:, :, 1:] / sums[:, :, :1].clamp(min=1e-6)
    return torch.cat([means[:, :, :2], means[:, :, 2:]], 1)


class MomentGuidance:
    """Denoises towards the density p exp(sum_k strength_k |m_k|^2 / (2 variance_k)) in place of a network's p.

    A network that has seen few jets underestimates the correlations of pixels, and the moments m_k (`shape_moments`) of
    its jets are too small. Of all densities with given mean squares of the moments, the tilted one has the smallest
    relative entropy to p (E. T. Jaynes, Phys. Rev. 106 (1957) 620). By Tweedie's formula the tilt adds
    sigma^2 / alpha times the gradient in x_t of log E[exp(...) | x_t] to the mean of x_0. The expectation is taken at
    the moments of the expected jet, as in guidance by a likelihood (Chung et al., arXiv:2209.14687), so that strengths
    are fitted by what they do to jets (`jet-diffusion fit-guidance`).

    Args:
        positions: (2, C, H, W) of `shape_moments`.
        strengths: Of each of MOMENTS; 0 leaves it to the network.
        variances: Mean square of each moment over training jets, in radians^2, half of |m|^2.
        ratios: Lowest and highest sigma/alpha at which to guide; below it pixels have decided, above it none can.

    Raises:
        ValueError: If strengths and variances are not of all moments, or not numbers that make sense.
    """

    def __init__(
        self,
        positions: torch.Tensor,
        *,
        strengths: Mapping[str, float],
        variances: Mapping[str, float],
        ratios: tuple[float, float],
    ) -> None:
        for name, values in (("strengths", strengths), ("variances", variances)):
            if set(values) != set(MOMENTS):
                raise ValueError(f"{name} of moment guidance must be of {', '.join(MOMENTS)}, got {', '.join(values)}")
            if not all(math.isfinite(value) for value in values.values()):
                raise ValueError(f"{name} of moment guidance must be finite, got {dict(values)}")
        if not all(variance > 0 for variance in variances.values()):
            raise ValueError(f"variances of moment guidance must be positive, got {dict(variances)}")
        if len(ratios) != 2 or not 0 <= ratios[0] < ratios[1]:
            raise ValueError(f"ratios of moment guidance must be two that rise from 0 or more, got {tuple(ratios)}")
        weights = [strengths[name] / variances[name] for name in MOMENTS]
        self.ratios, self.acts = ratios, any(weights)
        with torch.inference_mode(mode=False):  # or no gradient could go through them
            self.positions = positions.to(torch.float32, copy=True)
            self.weights = torch.tensor(weights, dtype=torch.float32, device=positions.device)

    def acts_at(self, alpha: float, sigma: float) -> bool:
        """Whether jets are guided at a noise level."""
        low, high = self.ratios
        return self.acts and low * alpha < sigma < high * alpha

    def __call__(
        self,
        denoiser: Any,
        unet: Any,
        x_t: torch.Tensor,
        timesteps: torch.Tensor,
        *inputs: torch.Tensor | None,
    ) -> tuple[Any, torch.Tensor]:
        """The denoiser's output, and (N, C, H, W) what guidance adds to its x_0.

        Args:
            denoiser: A spike and slab that knows the energies of hits.
            unet, x_t, timesteps, inputs: Of its call.
        """
        alpha, sigma = denoiser.noise_level(timesteps)
        with torch.inference_mode(mode=False), torch.enable_grad():
            known = [None if value is None else value.clone() for value in inputs]
            x = x_t.clone().requires_grad_()
            output = denoiser(unet, x, timesteps.clone(), *known)
            hits, energies = denoiser.hits_and_energies(output)
            moments = shape_moments(hits, energies, self.positions, denoiser.rings.group)
            exponent = (self.weights * moments.square().sum(2)).sum() / 2
            (gradient,) = torch.autograd.grad(exponent, x)
        return output, sigma.square() / alpha * gradient
