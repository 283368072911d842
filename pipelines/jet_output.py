"""What goes into the pipeline and comes out of it: a generator for each jet; jets as arrays or pictures.

This file is self-contained so that it can travel to the Hub.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image

OUTPUT_TYPES = ("np", "pt", "pil")
GEV_PER_UNIT = 100.0
PIL_RANGE_GEV = (1e-2, 1e2)


def jet_generators(seed: int, first: int, count: int) -> list[torch.Generator]:
    """One CPU generator a jet, keyed by (seed, index): a jet is the same in whatever batch it is made."""
    keys = (
        hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=8).digest() for index in range(first, first + count)
    )
    return [torch.Generator().manual_seed(int.from_bytes(key, "little") >> 1) for key in keys]


def generators_of(
    generator: torch.Generator | list[torch.Generator] | None, first: int, count: int
) -> list[torch.Generator]:
    """The generators given for the jets, or those of a seed that is drawn from the one given, else at random.

    Raises:
        ValueError: If generators are given for another number of jets.
    """
    if isinstance(generator, list):
        if len(generator) != count:
            raise ValueError(f"{len(generator)} generators were given for {count} jets")
        return generator
    device = "cpu" if generator is None else generator.device
    seed = int(torch.randint(2**62, (), generator=generator, device=device))
    return jet_generators(seed, first, count)


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


def as_images(energies: torch.Tensor, output_type: str) -> Any:
    """Energies (N, 3, H, W) as one of OUTPUT_TYPES: an array (N, H, W, 3), or N pictures on a log scale."""
    images = energies.permute(0, 2, 3, 1).contiguous()
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
