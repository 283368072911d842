"""Lossy representations that shrink the image by interpolation and scale it linearly: those of the baselines.

Bilinear interpolation without smoothing reads two crystals around the centre of each cell along each side: most hits
fall between. What is left is put on [0, 1] or [-1, 1], zeros at the lower end with the smallest hits right above.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config

from .representation import SIDE, Representation  # noqa: TID251 - on the Hub the two are one file

MAX_RANGES = 2000
"""Ranges of training images that `ImageRangeGrid` keeps."""


class ResizedGrid(Representation):
    """Base class: to a coarser grid by bilinear interpolation, and back by repeating each cell's value."""

    lossless = False
    conserves_energy = False
    needs_hcal_towers = False
    zeros_stand_apart = False

    @property
    def channel_group(self) -> tuple[int, ...]:
        """Tracks, ECAL, HCAL."""
        return 0, 1, 2

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, side, side)."""
        return 3, self.config.side, self.config.side

    def shrink(self, energies: torch.Tensor) -> torch.Tensor:
        """Energies (N, 3, 125, 125) read at the centres of the cells: (N, 3, side, side), GeV/100."""
        size = (self.config.side, self.config.side)
        return F.interpolate(energies.to(torch.float32), size=size, mode="bilinear", align_corners=False)

    @staticmethod
    def enlarge(cells: torch.Tensor) -> torch.Tensor:
        """Each cell's value (N, 3, side, side) for all its crystals; values below zero are no energy."""
        positive = torch.where(cells <= 0, 0, cells)  # a NaN stays visible
        return F.interpolate(positive, size=(SIDE, SIDE), mode="nearest")


class ChannelMaxGrid(ResizedGrid):
    """Shrunk, each channel divided by its largest value among the training jets: x in [0, 1].

    Args:
        side: Cells along each side.
        channel_max: Largest cell of each channel in the training jets, GeV/100.
    """

    @register_to_config
    def __init__(self, side: int = 32, channel_max: tuple[float, ...] = (1.0, 1.0, 1.0)) -> None:
        pass

    @classmethod
    def fit(cls, batches: Iterable[torch.Tensor], **settings: Any) -> ChannelMaxGrid:
        """Find the largest cells.

        Args:
            batches: Tensors of energies (n, 3, 125, 125).
            settings: `side`.

        Raises:
            ValueError: If a channel holds no energy at all.
        """
        blank = cls(**settings)
        largest = torch.stack([blank.shrink(energies).amax((0, 2, 3)) for energies in batches]).amax(0)
        if not (largest > 0).all():
            raise ValueError(f"a channel of tracks, ecal, hcal is blank in the jets to fit on: {largest.tolist()}")
        return cls(**settings, channel_max=tuple(largest.tolist()))

    def limits(self, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
        """0 and 1 for every channel."""
        return torch.zeros(3, device=device), torch.ones(3, device=device)

    def _encode(self, energies: torch.Tensor) -> torch.Tensor:
        return self.shrink(energies) / self._largest(energies)

    def _decode(self, x: torch.Tensor, generators: list[torch.Generator] | None) -> torch.Tensor:
        return self.enlarge(x * self._largest(x))

    def _largest(self, like: torch.Tensor) -> torch.Tensor:
        return torch.tensor(self.config.channel_max, dtype=torch.float32, device=like.device).view(3, 1, 1)


class ImageRangeGrid(ResizedGrid):
    """Shrunk, each image of three channels scaled from its own smallest and largest value to [-1, 1].

    Encoding drops how energetic the jet is, so decoding gives every jet the range of a training jet drawn at random.

    Args:
        side: Cells along each side.
        ranges: Smallest and largest cell of training images, GeV/100.
    """

    @register_to_config
    def __init__(self, side: int = 64, ranges: tuple[tuple[float, float], ...] = ((0.0, 1.0),)) -> None:
        pass

    @classmethod
    def fit(cls, batches: Iterable[torch.Tensor], **settings: Any) -> ImageRangeGrid:
        """Collect the ranges of the first training images.

        Args:
            batches: Tensors of energies (n, 3, 125, 125).
            settings: `side`.

        Raises:
            ValueError: If all images are blank.
        """
        blank = cls(**settings)
        ranges = torch.cat([torch.stack(blank.range_of(blank.shrink(energies)), 1) for energies in batches])
        ranges = ranges[ranges[:, 1] > ranges[:, 0]][:MAX_RANGES]
        if not len(ranges):
            raise ValueError("every image of the jets to fit on is blank")
        return cls(**settings, ranges=tuple((low, high) for low, high in ranges.tolist()))

    def limits(self, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
        """-1 and 1 for every channel."""
        return -torch.ones(3, device=device), torch.ones(3, device=device)

    @staticmethod
    def range_of(cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Smallest and largest value of each image (N, 3, side, side), each (N,)."""
        return cells.amin((1, 2, 3)), cells.amax((1, 2, 3))

    def _encode(self, energies: torch.Tensor) -> torch.Tensor:
        cells = self.shrink(energies)
        low, high = (limit.view(-1, 1, 1, 1) for limit in self.range_of(cells))
        # A blank image has no range; it stays at the lower end.
        return 2 * (cells - low) / torch.where(high > low, high - low, 1) - 1

    def _decode(self, x: torch.Tensor, generators: list[torch.Generator] | None) -> torch.Tensor:
        rows = self._draw_rows(len(x), generators)
        low, high = torch.tensor(self.config.ranges, dtype=torch.float32)[rows].to(x.device).T.view(2, -1, 1, 1, 1)
        return self.enlarge(low + (x + 1) / 2 * (high - low))

    def _draw_rows(self, count: int, generators: list[torch.Generator] | None) -> torch.Tensor:
        """One of the ranges for each jet; the same ones every time where no generators are given."""
        number = len(self.config.ranges)
        if generators is None:
            return torch.randint(number, (count,), generator=torch.Generator().manual_seed(0))
        return torch.stack([torch.randint(number, (), generator=g, device=g.device).cpu() for g in generators])


RESIZED_REPRESENTATIONS = {"ChannelMaxGrid": ChannelMaxGrid, "ImageRangeGrid": ImageRangeGrid}
"""The representations of this file by name."""
