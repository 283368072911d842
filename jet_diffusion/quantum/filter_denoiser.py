"""Model A: a filter made of one ancilla qubit, rotated by commuting gates and post-selected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import ConfigMixin, DDPMScheduler, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn

from .simulator import cz_ring, run_circuit, walsh_functions
from .states import to_images, to_states

LOG_SNR_RANGE = (-8.0, 6.0)
"""Log of alpha-bar / (1 - alpha-bar) over which the angles change; outside they stay."""

CLASS_ORDER = 2
"""Largest sets of qubits whose angles depend on the class."""

FIT_LEVELS = 64


@dataclass
class QuantumFilterOutput(BaseOutput):
    """What the filter gives.

    Attributes:
        sample: (B, 2, H, W) the predicted clean state, real and not negative.
        success_probability: (B,) that the ancilla is found in |0>.
    """

    sample: torch.Tensor
    success_probability: torch.Tensor


class QuantumFilterDenoiser(ModelMixin, ConfigMixin):
    r"""Predicts psi_0 by one measurement of an ancilla.

    The ancilla starts in |0> and is turned by exp(-i c_S Z_S Y) for each set S of at most `order` qubits, which all
    commute and add up to an angle for each basis state x, a Walsh series of it:

        theta_t(x) = sum_S c_S(t) chi_S(x),   chi_S(x) = prod_{q in S} (1 - 2 x_q),

    |x>|0> -> |x> (cos theta |0> + sin theta |1>). Found in |0>, the state is cos(theta_t) psi / norm. The prediction is
    the root of its Born probabilities, since jets have no phases. c_S(t) is a Chebyshev series in the clipped log-SNR;
    sets of up to two qubits also have an angle for the class. The circuit is what a classical gain per cell would be:
    its worth is that it is a quantum circuit whose every gate is trained, not that it is anything more.

    Args:
        num_qubits: n; states have 2^n amplitudes.
        noise_schedule: Configuration of the training DDPMScheduler (betas, T).
        order: Largest sets S.
        terms: Chebyshev terms of each angle.
        layers: Entangling layers of ry, rz and a ring of controlled-Z before the filter, near the identity.
    """

    @register_to_config
    def __init__(
        self, num_qubits: int, noise_schedule: dict[str, Any], order: int = 3, terms: int = 6, layers: int = 0
    ) -> None:
        super().__init__()
        walsh, subsets = walsh_functions(num_qubits, order)
        self.num_class_subsets = sum(len(subset) <= CLASS_ORDER for subset in subsets)
        self.coefficients = nn.Parameter(torch.zeros(len(subsets), terms))
        self.class_coefficients = nn.Parameter(torch.zeros(self.num_class_subsets))
        self.angles = nn.Parameter(0.01 * torch.randn(layers, num_qubits, 2)) if layers else None
        self.register_buffer("walsh", walsh, persistent=False)
        self.register_buffer("sign", cz_ring(num_qubits), persistent=False)
        chebyshev = chebyshev_in_log_snr(DDPMScheduler(**noise_schedule).alphas_cumprod, terms)
        self.register_buffer("chebyshev", chebyshev, persistent=False)

    def initialise(self, probabilities: torch.Tensor) -> None:
        """Set the angles to what training jets' mean images say: arccos of the Wiener filter's gains.

        With the mean image m(x) = E p(x) and noise of (1 - abar) / d a cell, the best linear estimate multiplies cell
        x by sqrt(abar) m / (abar m + (1 - abar) / d), here over the largest gain, for success. Fitted by least squares.

        Args:
            probabilities: (2, 2^n) mean images of gluon and quark jets, in the order of the qubits.
        """
        nodes = chebyshev_nodes(FIT_LEVELS).to(probabilities)
        basis = chebyshev_terms(nodes, self.config.terms)  # (levels, terms)
        alpha_bar = torch.sigmoid(log_snr_of(nodes))
        overall, *by_class = (wiener_angles(image, alpha_bar) for image in (probabilities.mean(0), *probabilities))
        series = overall @ self.walsh.T.to(overall) / overall.shape[1]  # Walsh functions are orthogonal
        half_difference = (by_class[1] - by_class[0]).mean(0) / 2
        classes = half_difference @ self.walsh.T.to(overall) / overall.shape[1]
        with torch.no_grad():
            self.coefficients.copy_(torch.linalg.lstsq(basis, series).solution.T)
            self.class_coefficients.copy_(classes[: self.num_class_subsets])

    def ancilla_angles(self, timesteps: torch.Tensor, class_sign: torch.Tensor | None = None) -> torch.Tensor:
        """(B, S) angles c_S of the gates at timesteps (B,), for classes of sign (B, 1)."""
        angles = self.chebyshev[timesteps] @ self.coefficients.T
        if class_sign is not None:
            offset = class_sign.to(angles) * self.class_coefficients
            angles = angles + nn.functional.pad(offset, (0, angles.shape[1] - offset.shape[1]))
        return angles

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> QuantumFilterOutput | tuple[torch.Tensor]:
        """The predicted clean state.

        Args:
            sample: (B, 2, H, W) noisy states.
            timestep: (B,) training timesteps, whole.
            class_labels: (B, 1) +1 quark, -1 gluon, 0 unknown; None for unknown.
            return_dict: Return a `QuantumFilterOutput`; otherwise a tuple.
        """
        psi = to_states(sample)
        if self.angles is not None:
            psi = run_circuit(psi, self.angles, self.sign)
        theta = self.ancilla_angles(timestep, class_labels) @ self.walsh
        amplitudes = torch.cos(theta).abs() * psi.abs()
        success = amplitudes.square().sum(1)
        found = amplitudes / success.sqrt()[:, None].clamp(min=1e-12)
        image = to_images(torch.complex(found, torch.zeros_like(found))).reshape(sample.shape)
        return QuantumFilterOutput(image, success) if return_dict else (image,)


def chebyshev_in_log_snr(alphas_cumprod: torch.Tensor, terms: int) -> torch.Tensor:
    """(T, terms) Chebyshev polynomials in the clipped log-SNR of each training timestep."""
    log_snr = torch.logit(alphas_cumprod.double(), eps=1e-9).clamp(*LOG_SNR_RANGE)
    low, high = LOG_SNR_RANGE
    return chebyshev_terms(2 * (log_snr - low) / (high - low) - 1, terms).float()


def chebyshev_terms(nodes: torch.Tensor, terms: int) -> torch.Tensor:
    """(N, terms) T_0 to T_{terms-1} at nodes in [-1, 1]."""
    return torch.cos(torch.arange(terms, device=nodes.device) * torch.arccos(nodes)[:, None])


def chebyshev_nodes(count: int) -> torch.Tensor:
    """(count,) points at which a least-squares fit of Chebyshev polynomials is near minimax."""
    return torch.cos(torch.pi * (torch.arange(count, dtype=torch.float64) + 0.5) / count)


def log_snr_of(nodes: torch.Tensor) -> torch.Tensor:
    """The log-SNR at points in [-1, 1]."""
    low, high = LOG_SNR_RANGE
    return low + (nodes + 1) / 2 * (high - low)


def wiener_angles(image: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """(levels, 2^n) angles whose cosines are the Wiener gains of a mean image (2^n,), the largest gain 1."""
    noise = (1 - alpha_bar)[:, None] / len(image)
    gain = image / (alpha_bar[:, None] * image + noise)
    return torch.arccos(gain / gain.amax(1, keepdim=True))
