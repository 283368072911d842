"""Model B: a small UNet whose coarsest features pass through a parameterised quantum circuit, or what replaces it."""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import Timesteps
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import nn

from .simulator import cz_ring, run_circuit
from .states import unit_norm

BOTTLENECKS = ("pqc", "pqc_frozen", "conv", "none")
TIME_FEATURES = 16


class HybridUNet2DModel(ModelMixin, ConfigMixin):
    """A small UNet: an encoder that halves twice, a bottleneck, a decoder. Its output is positive, of unit norm.

    At 16x16 the coarsest features, 16 channels of 4x4, are 256 numbers: scaled to unit norm, the amplitudes of 8
    qubits. `pqc` runs them through layers of ry and rz on each qubit and a ring of controlled-Z, and reads the roots of
    the probabilities, which do not see the last layer's rz; `pqc_frozen` does the same with random angles that are
    never trained; `conv` is a convolution channel by channel, of about as many parameters; `none` is nothing at all.
    These are each other's controls.

    Args:
        sample_size: Rows and columns of a state's image.
        width: Channels.
        bottleneck: A name of `BOTTLENECKS`.
        layers: Layers of the circuit.
        skip: Add the encoder's features to the decoder's. With it the bottleneck may carry nothing.
        class_dim: Numbers of the class embedding; 0 for an unconditional model.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 16,
        width: int = 16,
        bottleneck: str = "pqc",
        layers: int = 8,
        skip: bool = False,
        class_dim: int = 1,
    ) -> None:
        super().__init__()
        features = width * (sample_size // 4) ** 2
        if bottleneck not in BOTTLENECKS:
            raise ValueError(f"bottleneck must be one of {BOTTLENECKS}, got {bottleneck!r}")
        if sample_size % 4 or features & (features - 1):
            raise ValueError(f"{width} channels of {sample_size}x{sample_size} halved twice are no whole qubits")
        qubits = features.bit_length() - 1
        self.time = Timesteps(TIME_FEATURES, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.embed = nn.Sequential(nn.Linear(TIME_FEATURES, 2 * width), nn.SiLU(), nn.Linear(2 * width, 2 * width))
        self.embed_class = nn.Linear(class_dim, 2 * width, bias=False) if class_dim else None
        self.conv_in = nn.Conv2d(4, width, 3, padding=1)
        self.down = nn.ModuleList([nn.Conv2d(width, width, 3, stride=2, padding=1) for _ in range(2)])
        self.after = nn.Conv2d(width, width, 3, padding=1)
        self.up = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1) for _ in range(2)])
        self.conv_out = nn.Conv2d(width, 1, 3, padding=1)
        self.position = nn.Parameter(torch.zeros(sample_size, sample_size))
        if bottleneck == "conv":
            self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        elif bottleneck == "pqc":
            self.angles = nn.Parameter(circuit_angles(layers, qubits))
        elif bottleneck == "pqc_frozen":
            self.register_buffer("angles", circuit_angles(layers, qubits))
        self.register_buffer("sign", cz_ring(qubits), persistent=False)
        self.register_buffer("coordinates", distance_maps(sample_size), persistent=False)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DOutput | tuple[torch.Tensor]:
        """The predicted clean state (B, 2, H, W), real and positive.

        Args:
            sample: (B, 2, H, W) noisy states.
            timestep: (B,) training timesteps.
            class_labels: (B, class_dim), or None.
            return_dict: Return a `UNet2DOutput`; otherwise a tuple.
        """
        early, late = self._embedding(timestep, class_labels, sample).unflatten(1, (2, -1)).unbind(1)
        maps = self.coordinates.expand(len(sample), -1, -1, -1)
        fine = nn.functional.silu(self.conv_in(torch.cat([sample, maps], 1)) + early[..., None, None])
        middle = nn.functional.silu(self.down[0](fine))
        coarse = self.bottleneck(nn.functional.silu(self.down[1](middle)))
        hidden = nn.functional.silu(self.after(coarse) + late[..., None, None])
        for conv, encoded in zip(self.up, (middle, fine), strict=True):
            hidden = nn.functional.silu(conv(nn.functional.interpolate(hidden, scale_factor=2.0)))
            hidden = hidden + encoded if self.config.skip else hidden
        positive = nn.functional.softplus(self.conv_out(hidden) + self.position)
        image = unit_norm(torch.cat([positive, torch.zeros_like(positive)], 1))
        return UNet2DOutput(sample=image) if return_dict else (image,)

    def bottleneck(self, features: torch.Tensor) -> torch.Tensor:
        """The coarsest features (B, C, h, w) after the circuit, or what stands in its place."""
        kind = self.config.bottleneck
        if kind == "none":
            return features
        if kind == "conv":
            return self.depthwise(features)
        flat = features.flatten(1)
        norm = flat.norm(dim=1, keepdim=True).clamp(min=1e-6)
        psi = torch.complex(flat / norm, torch.zeros_like(flat))
        read = run_circuit(psi, self.angles, self.sign).abs()
        return (read * norm).reshape(features.shape)

    def _embedding(
        self, timestep: torch.Tensor, class_labels: torch.Tensor | None, sample: torch.Tensor
    ) -> torch.Tensor:
        embedding = self.embed(self.time(timestep.expand(len(sample))).to(sample.dtype))
        if self.embed_class is not None and class_labels is not None:
            embedding = embedding + self.embed_class(class_labels.to(sample.dtype))
        return embedding


class AmplitudeCNN(ModelMixin, ConfigMixin):
    """The classical control of model A: two convolutions, as many parameters as the filter has angles.

    Args:
        sample_size: Rows and columns of a state's image.
        width: Channels.
        num_train_timesteps: T, to scale the timestep that enters as a map.
    """

    @register_to_config
    def __init__(self, sample_size: int = 16, width: int = 9, num_train_timesteps: int = 1000) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(5, width, 3, padding=1)
        self.mix = nn.Conv2d(width, width, 1)
        self.conv_out = nn.Conv2d(width, 1, 3, padding=1)
        self.register_buffer("coordinates", distance_maps(sample_size).norm(dim=0, keepdim=True), persistent=False)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DOutput | tuple[torch.Tensor]:
        """The predicted clean state (B, 2, H, W); arguments as `HybridUNet2DModel`."""
        shape = (len(sample), 1, *sample.shape[2:])
        time = 2 * timestep.to(sample).expand(len(sample)) / self.config.num_train_timesteps - 1
        sign = torch.zeros_like(time) if class_labels is None else class_labels[:, 0].to(sample)
        maps = [values.view(-1, 1, 1, 1).expand(shape) for values in (time, sign)]
        inputs = torch.cat([sample, self.coordinates.expand(shape), *maps], 1)
        hidden = nn.functional.silu(self.conv_in(inputs))
        hidden = nn.functional.silu(self.mix(hidden))
        positive = nn.functional.softplus(self.conv_out(hidden))
        image = unit_norm(torch.cat([positive, torch.zeros_like(positive)], 1))
        return UNet2DOutput(sample=image) if return_dict else (image,)


def circuit_angles(layers: int, qubits: int) -> torch.Tensor:
    """(layers, qubits, 2) random angles, anywhere on the circle."""
    return 2 * torch.pi * torch.rand(layers, qubits, 2)


def distance_maps(side: int) -> torch.Tensor:
    """(2, side, side) distance of each row and column from the centre, 0 to 1."""
    distance = ((torch.arange(side) - (side - 1) / 2) / (side / 2)).abs()
    return torch.stack([distance[:, None].expand(side, side), distance[None, :].expand(side, side)])
