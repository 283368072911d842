"""Pure states as the real images that diffusers' interfaces carry, and the noise that mixes them.

A state of n qubits is psi, complex64 of shape (B, 2^n) and unit norm. The same state as an image is x, float32 of
shape (B, 2, H, W) with H W = d = 2^n: x = (Re psi, Im psi) sqrt(d), so that a random state has entries of order one,
as ordinary diffusion has. The rows' index is made of the first qubits, the columns' of the rest.
"""

from __future__ import annotations

import torch

UNRAVELLINGS = ("haar_mix", "classical")
"""Ways of noising that the denoisers can undo."""


def to_states(x: torch.Tensor) -> torch.Tensor:
    """Images (B, 2, H, W) of any norm as unit states (B, H W)."""
    real, imaginary = unit_norm(x).flatten(2).unbind(1)
    return torch.complex(real, imaginary) / real.shape[1] ** 0.5


def to_images(psi: torch.Tensor) -> torch.Tensor:
    """States (B, 2^n) as images (B, 2, H, W), square or, for odd n, twice as wide as high."""
    dimension = psi.shape[1]
    height = 2 ** ((dimension.bit_length() - 1) // 2)
    parts = torch.stack([psi.real, psi.imag], 1) * dimension**0.5
    return parts.unflatten(2, (height, dimension // height))


def unit_norm(x: torch.Tensor) -> torch.Tensor:
    """Images scaled to the norm of a state, sqrt(d).

    Raises:
        ValueError: If an image is blank: no amplitudes, no state.
    """
    norm = x.flatten(1).norm(dim=1)
    if not (norm > 0).all():
        raise ValueError(f"{int((~(norm > 0)).sum())} of {len(x)} images are blank or not finite: they are no states")
    return x * (x[0, 0].numel() ** 0.5 / norm).view(-1, 1, 1, 1)


def haar_states(noise: torch.Tensor) -> torch.Tensor:
    """Unit Gaussian noise (B, 2, H, W) as Haar-random states: the direction of a complex Gaussian vector is uniform."""
    return unit_norm(noise)


def mix(
    x_0: torch.Tensor, noise: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor, unravelling: str
) -> torch.Tensor:
    """Noised states at signal alpha and noise sigma, each (B, 1, 1, 1).

    `haar_mix`: N[alpha psi_0 + sigma phi] with phi Haar-random; averaged over phi it is the global depolarising channel
    alpha^2 rho + sigma^2 I/d, to O(1/d), because |alpha psi_0 + sigma phi| is 1 only on average.
    `classical`: Gaussian noise on the real amplitudes, as on any image; it becomes a state when it is encoded, which
    `unit_norm` does at the network's door.

    Args:
        x_0: (B, 2, H, W) clean states.
        noise: (B, 2, H, W) unit Gaussian.
        alpha, sigma: Square roots of alpha-bar and of 1 - alpha-bar.
        unravelling: A name of `UNRAVELLINGS`.
    """
    if unravelling == "haar_mix":
        return unit_norm(alpha * x_0 + sigma * haar_states(noise))
    return alpha * x_0 + sigma * real_noise(noise)


def real_noise(noise: torch.Tensor) -> torch.Tensor:
    """Keep the real part of the noise, so that imaginary amplitudes get none."""
    return torch.stack([noise[:, 0], torch.zeros_like(noise[:, 1])], 1)


def fidelity(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """|<first|second>|^2 of images (B, 2, H, W) of any norm: (B,)."""
    one, two = to_states(first), to_states(second)
    return (one.conj() * two).sum(1).abs().square()
