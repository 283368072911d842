"""The crystal refiner: small convolutions at the image's own resolution, after a UNet that works on towers.

This file is self-contained so that it can travel to the Hub.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from diffusers.models.embeddings import Timesteps
from torch import nn


def crystal_sides(channel_group: Sequence[int]) -> list[int]:
    """Crystals along the side of each group's towers: a group's channels are the crystals of one, row by row.

    Args:
        channel_group: Group of each channel of x.

    Raises:
        ValueError: If a group's channels are not together, or are no square.
    """
    sizes = torch.bincount(torch.tensor(channel_group)).tolist()
    sides = [math.isqrt(size) for size in sizes]
    if list(channel_group) != sorted(channel_group) or [side**2 for side in sides] != sizes:
        raise ValueError(f"each group's channels must be together and a square number of crystals, got {sizes}")
    return sides


class CrystalNetwork(nn.Module):
    """Small convolutions at the image's own resolution, after a UNet that works on towers.

    A UNet over towers has fewer features at a tower than x has channels there, and what neighbouring crystals say of
    one another (clusters, tracks that lie on them) does not fit through it. Here the channels of a tower are laid
    out as the crystals they are, across towers, those of fewer crystals (HCAL) repeated.

    Args:
        channel_group: Group of each channel of x; a group's channels are the crystals of a square, row by row.
        blocks: How many times as many channels as x go in, and come out.
        widths: Hidden channels of each layer.
        window: First and last + 1 row, first and last + 1 column of x that hold the image.
    """

    def __init__(
        self,
        channel_group: tuple[int, ...],
        blocks: tuple[int, int],
        widths: tuple[int, ...],
        window: tuple[int, int, int, int],
    ) -> None:
        super().__init__()
        self.sides = crystal_sides(channel_group)
        self.sizes = [side**2 for side in self.sides]
        self.blocks, self.window, self.side = blocks, window, max(self.sides)
        self.timestep = nn.Sequential(Timesteps(32, True, 0), nn.Linear(32, 2 * widths[0]))
        groups = len(self.sizes)
        channels = (blocks[0] * groups, *widths, blocks[1] * groups)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(channels))
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, inputs: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """(N, blocks[1] * C, H, W) float32 of inputs (N, blocks[0] * C, H, W) and timesteps (N,)."""
        device, own = inputs.device.type, next(self.parameters()).dtype
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else own
        # At this resolution convolutions of few channels are nearly twice as fast with the channels last, and products
        # four times if both factors have them last.
        last = torch.channels_last
        embedding = self.timestep[1](self.timestep[0](timesteps).to(own)).to(dtype)[:, :, None, None]
        scale, shift = (half.contiguous(memory_format=last) for half in embedding.chunk(2, 1))
        hidden = self.to_crystals(inputs.to(dtype)).contiguous(memory_format=last)
        hidden = self.layers[0](hidden) * (1 + scale) + shift
        for layer in self.layers[1:]:
            hidden = layer(nn.functional.silu(hidden))
        top, bottom, left, right = self.window
        height, width = inputs.shape[2:]
        padding = (left, width - right, top, height - bottom)
        return nn.functional.pad(self.to_towers(hidden).to(torch.float32), padding)

    def to_crystals(self, inputs: torch.Tensor) -> torch.Tensor:
        """(N, groups * blocks[0], h, w) planes of crystals of inputs (N, blocks[0] * C, H, W), inside the window."""
        top, bottom, left, right = self.window
        blocks = inputs[:, :, top:bottom, left:right].unflatten(1, (self.blocks[0], -1)).split(self.sizes, 2)
        planes = []
        for channels, side in zip(blocks, self.sides, strict=True):
            plane = nn.functional.pixel_shuffle(channels.flatten(1, 2), side)
            repeat = self.side // side
            planes.append(plane.repeat_interleave(repeat, 2).repeat_interleave(repeat, 3) if repeat > 1 else plane)
        return torch.cat(planes, 1)

    def to_towers(self, planes: torch.Tensor) -> torch.Tensor:
        """The reverse for (N, groups * blocks[1], h, w): averages where crystals were repeated."""
        channels = []
        for plane, side in zip(planes.chunk(len(self.sides), 1), self.sides, strict=True):
            pooled = nn.functional.avg_pool2d(plane, self.side // side) if side < self.side else plane
            channels.append(nn.functional.pixel_unshuffle(pooled, side).unflatten(1, (self.blocks[1], -1)))
        return torch.cat(channels, 2).flatten(1, 2)
