"""What comes out of the pipeline: jets as arrays or pictures, with what they were asked to be.

This file is self-contained so that it can travel to the Hub.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image

OUTPUT_TYPES = ("np", "pt", "pil")
GEV_PER_UNIT = 100.0
PIL_RANGE_GEV = (1e-2, 1e2)


@dataclass
class JetImagePipelineOutput(BaseOutput):
    """Generated jets.

    Attributes:
        images: Energies (N, 125, 125, 3) in GeV/100 (tracks, ECAL, HCAL) as numpy or torch, or N PIL pictures.
        labels: (N,) int64 numpy, 0 gluon, 1 quark.
        pt, m0: (N,) float32 numpy, GeV, the conditions the jets were made for.
        clipped_fraction: Share of the values of predicted x_0 that were clipped to the fitted range.
    """

    images: Any
    labels: np.ndarray
    pt: np.ndarray
    m0: np.ndarray
    clipped_fraction: float


def to_host(energies: torch.Tensor, columns: Sequence[torch.Tensor]) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Jets and what is known of them on the CPU, in one transfer.

    Args:
        energies: (N, 3, H, W).
        columns: Some (N,), whose numbers float32 holds.

    Returns:
        Images (N, H, W, 3), and the columns in float32.
    """
    images = energies.permute(0, 2, 3, 1)
    sent = torch.cat([images.flatten(), *(column.to(images.dtype) for column in columns)]).cpu()
    pixels, *rest = sent.split([images.numel(), *(len(images) for _ in columns)])
    return pixels.view(images.shape), tuple(rest)


def as_images(images: torch.Tensor, output_type: str) -> Any:
    """Images (N, H, W, 3) on the CPU as one of OUTPUT_TYPES: a tensor, an array, or N pictures on a log scale."""
    if output_type == "pt":
        return images
    if output_type == "np":
        return images.numpy()
    low, high = np.log10(PIL_RANGE_GEV)
    gev = np.log10(np.maximum(images.numpy() * GEV_PER_UNIT, 10**low))
    pixels = np.clip((gev - low) / (high - low), 0, 1)
    return [Image.fromarray((255 * jet).round().astype(np.uint8)) for jet in pixels]


def scale_to_sums(energies: torch.Tensor, ring_sums: torch.Tensor) -> torch.Tensor:
    """Energies (N, 3, H, W), each channel scaled to the energy of its rings; as they are without rings (N, 0)."""
    if not ring_sums.shape[1]:
        return energies
    sums = energies.sum((2, 3))
    wanted = ring_sums.chunk(2, 1)[1].unflatten(1, (3, -1)).sum(2)
    scale = torch.where(sums > 0, wanted.to(sums) / GEV_PER_UNIT / sums, 1.0)
    return energies * scale[:, :, None, None]
