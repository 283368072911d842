"""StateDenoiser: what a network's output means when the noisy jet is a quantum state."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.configuration_utils import register_to_config

from jet_diffusion.pipelines.denoiser import Denoiser, DenoiserOutput, call_unet

from .states import UNRAVELLINGS, mix, unit_norm


class StateDenoiser(Denoiser):
    """The network sees the noisy state and predicts the clean one.

    Args:
        noise_schedule: Configuration of the training DDPMScheduler (betas, T).
        unravelling: haar_mix or classical, see `states.mix`.
    """

    @register_to_config
    def __init__(self, noise_schedule: dict[str, Any], unravelling: str = "haar_mix") -> None:
        super().__init__()
        if unravelling not in UNRAVELLINGS:
            raise ValueError(f"unravelling must be one of {UNRAVELLINGS}, got {unravelling!r}")
        self.set_noise_schedule(noise_schedule)

    def unet_channels(self) -> tuple[int, int]:
        """Real and imaginary amplitudes, both ways."""
        return 2, 2

    def add_noise(self, x_0: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Noised states by the scheduler's forward process."""
        return mix(x_0, noise, *self.noise_level(timesteps), self.config.unravelling)

    def forward(
        self,
        unet: Any,
        x_t: torch.Tensor,
        timesteps: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        ring_sums: torch.Tensor | None = None,
    ) -> DenoiserOutput:
        """The network's state for the noisy one, which is encoded (unit norm) first."""
        x_0 = unit_norm(call_unet(unet, unit_norm(x_t), timesteps, class_labels))
        return DenoiserOutput(x_0, x_0)

    def target(self, x_0: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The clean state."""
        return x_0

    def loss_weight(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Every timestep alike."""
        return torch.ones_like(self.noise_level(timesteps)[0])
