"""The baselines of two notebooks: two small networks, and representations that shrink the image.

The networks are unconditional and called as a UNet2DModel is. The representations shrink by bilinear interpolation and
scale linearly. Interpolation without smoothing reads two crystals around the centre of each cell along each side: most
hits fall between. What is left is put on [0, 1] or [-1, 1], zeros at the lower end with the smallest hits right above.
This file needs `representation.py` and `random_numbers.py` beside it; to the Hub they travel as one file.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import Timesteps
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import nn

from .random_numbers import RandomNumbers  # noqa: TID251 - on the Hub they are one file
from .representation import SIDE, Representation  # noqa: TID251


class BaselineNetwork(ModelMixin, ConfigMixin):
    """Base class: the calling convention and the refusal of conditions.

    The last layer is called `conv_out`, as UNet2DModel's is.
    """

    conv_out: nn.Conv2d

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DOutput | tuple[torch.Tensor]:
        """The network's output for noisy jets.

        Args:
            sample: (N, C, H, W); both sides halve as often as the network does.
            timestep: (N,) training timesteps.
            class_labels: None; these networks are unconditional.
            return_dict: Return a `UNet2DOutput`; otherwise a tuple.

        Raises:
            ValueError: If conditions are given.
        """
        if class_labels is not None:
            raise ValueError(f"{type(self).__name__} is unconditional; it takes no class_labels")
        output = self.predict(sample, timestep)
        return UNet2DOutput(sample=output) if return_dict else (output,)

    def predict(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) output."""
        raise NotImplementedError


class DeepFalconCNN(BaselineNetwork):
    """Encoder and decoder of one halving without skip connections; the timestep enters once, in the middle.

    27,139 parameters with the default widths.

    Args:
        in_channels, out_channels: Channels of x.
        block_out_channels: Channels before and after the halving.
        num_train_timesteps: T; the network sees t / T.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        block_out_channels: tuple[int, int] = (16, 32),
        num_train_timesteps: int = 50,
    ) -> None:
        super().__init__()
        if len(block_out_channels) != 2:
            raise ValueError(f"block_out_channels must be two widths, got {tuple(block_out_channels)}")
        narrow, wide = block_out_channels
        self.time_embedding = nn.Sequential(nn.Linear(1, narrow), nn.ReLU(), nn.Linear(narrow, wide))
        self.encoder = nn.Sequential(
            nn.Conv2d(in_channels, narrow, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(narrow, wide, 4, stride=2, padding=1),
            nn.ReLU(),
        )
        self.middle = nn.Conv2d(wide, wide, 3, padding=1)
        self.decoder = nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1), nn.ReLU())
        self.conv_out = nn.Conv2d(narrow, out_channels, 3, padding=1)

    def predict(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) output."""
        share = timestep.to(sample.dtype)[:, None] / self.config.num_train_timesteps
        middle = self.middle(self.encoder(sample)) + self.time_embedding(share)[..., None, None]
        return self.conv_out(self.decoder(middle))


class Stage(nn.Module):
    """Two convolutions with batch normalisation, the timestep added in between, then a change of resolution.

    Args:
        in_channels, out_channels: Channels before and after.
        time_channels: Width of the timestep's embedding.
        resample: Halves or doubles the sides, `out_channels` to `out_channels`.
    """

    def __init__(self, in_channels: int, out_channels: int, time_channels: int, resample: nn.Module) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(time_channels, out_channels), nn.ReLU())
        self.first, self.second = (
            nn.Sequential(nn.Conv2d(channels, out_channels, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(out_channels))
            for channels in (in_channels, out_channels)
        )
        self.resample = resample

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """(N, out_channels, H / 2 or 2 H, ...)."""
        return self.resample(self.second(self.first(x) + self.time(embedding)[..., None, None]))


class DeepFalconUNet(BaselineNetwork):
    """A U-Net that joins each halved map to the decoder at its own resolution; batch normalisation throughout.

    62,438,883 parameters with the default widths.

    Args:
        in_channels, out_channels: Channels of x.
        block_out_channels: Channels of each level; every level but the first halves the sides.
        time_channels: Width of the sinusoidal embedding of the timestep.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        block_out_channels: tuple[int, ...] = (64, 128, 256, 512, 1024),
        time_channels: int = 32,
    ) -> None:
        super().__init__()
        widths = list(block_out_channels)
        self.time_embedding = nn.Sequential(
            Timesteps(time_channels, flip_sin_to_cos=False, downscale_freq_shift=1),
            nn.Linear(time_channels, time_channels),
            nn.ReLU(),
        )
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            Stage(narrow, wide, time_channels, nn.Conv2d(wide, wide, 4, stride=2, padding=1))
            for narrow, wide in pairwise(widths)
        )
        self.up = nn.ModuleList(
            Stage(2 * wide, narrow, time_channels, nn.ConvTranspose2d(narrow, narrow, 4, stride=2, padding=1))
            for wide, narrow in pairwise(widths[::-1])
        )
        self.conv_out = nn.Conv2d(widths[0], out_channels, 1)

    def predict(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) output."""
        embedding = self.time_embedding(timestep)
        x, halved = self.conv_in(sample), []
        for stage in self.down:
            x = stage(x, embedding)
            halved.append(x)
        for stage in self.up:
            x = stage(torch.cat([x, halved.pop()], 1), embedding)
        return self.conv_out(x)


BASELINES = {"deepfalcon_cnn": DeepFalconCNN, "deepfalcon_unet": DeepFalconUNet}
"""Baseline networks by the name a configuration gives them."""


class ResizedGrid(Representation):
    """Base class: to a coarser grid by bilinear interpolation, and back by repeating each cell's value."""

    lossless = False
    conserves_energy = False
    needs_hcal_towers = False
    has_zero_gap = False

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

    def limits(self, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
        """0 and 1 for every channel."""
        return torch.zeros(3, device=device), torch.ones(3, device=device)

    def _encode(self, energies: torch.Tensor) -> torch.Tensor:
        return self.shrink(energies) / self._largest(energies)

    def _decode(self, x: torch.Tensor, random: RandomNumbers | None) -> torch.Tensor:
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

    def _decode(self, x: torch.Tensor, random: RandomNumbers | None) -> torch.Tensor:
        rows = self._draw_rows(x, random)
        ranges = torch.tensor(self.config.ranges, dtype=torch.float32).to(x.device)
        low, high = ranges[rows].T.view(2, -1, 1, 1, 1)
        return self.enlarge(low + (x + 1) / 2 * (high - low))

    def _draw_rows(self, x: torch.Tensor, random: RandomNumbers | None) -> torch.Tensor:
        """One of the ranges for each jet; the same ones every time where no random numbers are given."""
        random = random or RandomNumbers.of_seed(0, 0, len(x), x.device)
        return (random.uniform("decode", 1)[:, 0] * len(self.config.ranges)).long()


RESIZED_REPRESENTATIONS = {"ChannelMaxGrid": ChannelMaxGrid, "ImageRangeGrid": ImageRangeGrid}
"""The representations of this file by name."""
