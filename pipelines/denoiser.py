"""Denoisers: from the noisy jet x_t and a UNet's output to the estimate of the clean jet x_0.

The forward process is the usual variance-preserving one, x_t = alpha x_0 + sigma eps with alpha^2 = alpha_bar_t.
A denoiser owns the noise schedule it was trained with and is used by the trainer and the pipeline alike, so that
what the UNet's output means is written down once. Whatever it means, the scheduler is always given x_0
(`prediction_type="sample"`). This file is self-contained so that it can travel to the Hub.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from diffusers import ConfigMixin, DDPMScheduler, ModelMixin
from diffusers.configuration_utils import register_to_config

Network = Callable[..., Any]
"""A UNet2DModel, bare or wrapped for several processes: (inputs, timesteps, class_labels=...) -> .sample"""


@dataclass
class DenoiserOutput:
    """What one call of a denoiser gives.

    Attributes:
        x0: (N, C, H, W) estimate of the clean jet in model space.
        prediction: What the training loss compares with `Denoiser.target`.
        marginal: (N, C, H, W) what x0 would be from each pixel alone, where the denoiser knows it.
        logit, value: (N, C, H, W) log-odds of a hit and its value if it is one, where the denoiser has them.
    """

    x0: torch.Tensor
    prediction: torch.Tensor
    marginal: torch.Tensor | None = None
    logit: torch.Tensor | None = None
    value: torch.Tensor | None = None


class ExactBuffers:
    """A model's floating buffers stay in float32, whatever precision its weights are loaded in or cast to.

    They hold what was fitted to training jets: rounded, it would be of other jets.
    """

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        exact = {name: tensor for name, tensor in self.named_buffers() if tensor.is_floating_point()}  # type: ignore[attr-defined]
        super()._apply(fn, recurse)  # type: ignore[misc]
        for name, tensor in exact.items():
            module, _, own_name = name.rpartition(".")
            buffers = self.get_submodule(module)._buffers  # type: ignore[attr-defined]
            buffers[own_name] = tensor.to(buffers[own_name].device)
        return self

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load as diffusers does, in float32 first."""
        names = [name for name in ("dtype", "torch_dtype") if isinstance(kwargs.get(name), torch.dtype)]
        dtypes = [kwargs.pop(name) for name in names]
        model = super().from_pretrained(*args, **kwargs)  # type: ignore[misc]
        return model.to(dtypes[0]) if dtypes and dtypes[0] != torch.float32 else model


class Denoiser(ExactBuffers, ModelMixin, ConfigMixin):
    """Base class: the noise schedule, and what the trainer and the pipeline ask of a denoiser.

    Attributes:
        alphas_cumprod: (T,) float32 alpha_bar of the training timesteps.
    """

    alphas_cumprod: torch.Tensor

    def set_noise_schedule(self, noise_schedule: dict[str, Any]) -> None:
        """Keep alpha_bar for every training timestep of a DDPMScheduler of this configuration."""
        self.register_buffer("alphas_cumprod", DDPMScheduler(**noise_schedule).alphas_cumprod.to(torch.float32))

    @property
    def dtype(self) -> torch.dtype:
        """Denoisers compute in float32, whatever the UNet's precision."""
        return torch.float32

    @cached_property
    def alphas_on_host(self) -> torch.Tensor:
        """(T,) `alphas_cumprod` on the CPU, copied there once: each copy waits for the device."""
        return self.alphas_cumprod.cpu()

    def noise_level(self, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Alpha and sigma, each (N, 1, 1, 1), at timesteps (N,); between two the logarithm of sigma/alpha is linear."""
        on_device = timesteps.device == self.alphas_cumprod.device
        alphas_cumprod = self.alphas_cumprod if on_device else self.alphas_on_host
        if timesteps.is_floating_point():
            log_ratio = torch.log(1 / alphas_cumprod - 1) / 2
            low = timesteps.floor().long().clamp(0, len(alphas_cumprod) - 1)
            high = (low + 1).clamp(max=len(alphas_cumprod) - 1)
            between = log_ratio[low].lerp(log_ratio[high], (timesteps - low).to(log_ratio.dtype))
            alpha_bar = torch.where(timesteps == low, alphas_cumprod[low], torch.sigmoid(-2 * between))
        else:
            alpha_bar = alphas_cumprod[timesteps]
        alpha_bar = alpha_bar.view(-1, 1, 1, 1)
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def add_noise(self, x_0: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The forward process, x_t = alpha x_0 + sigma eps in closed form, at timesteps (N,)."""
        alpha, sigma = self.noise_level(timesteps)
        return alpha * x_0 + sigma * noise

    def power_timesteps(self, steps: int, power: float) -> list[int]:
        """Descending timesteps that fall from the last as (1 - i / steps)^power: above 1, closer at low noise.

        Evenly spread where there are too many for that.
        """
        last = len(self.alphas_cumprod) - 1
        falling = last * (1 - torch.arange(steps) / steps) ** power
        timesteps: list[int] = falling.round().long().unique().flip(0).tolist()
        return timesteps if len(timesteps) == steps else torch.linspace(last, 0, steps).round().long().tolist()

    def unet_channels(self) -> tuple[int, int]:
        """Input and output channels the UNet must have."""
        raise NotImplementedError

    def forward(
        self,
        unet: Network,
        x_t: torch.Tensor,
        timesteps: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        ring_sums: torch.Tensor | None = None,
    ) -> DenoiserOutput:
        """Estimate x_0.

        Args:
            unet: The network, called once; its dtype decides the precision of that call alone.
            x_t: (N, C, H, W) float32, scaled as the forward process above.
            timesteps: (N,) training timesteps, whole or fractional.
            class_labels: (N, E) embedding of the conditions, or None.
            ring_sums: (N, 2 rings) hit counts of the jet's rings (`Representation.rings`), then their energies in GeV;
                NaN where not known.
        """
        raise NotImplementedError

    def guided(self, output: DenoiserOutput, unconditional: DenoiserOutput, scale: float) -> DenoiserOutput:
        """Classifier-free guidance (arXiv:2207.12598): x_0 moved away from the unconditional one."""
        return replace(output, x0=unconditional.x0 + scale * (output.x0 - unconditional.x0))

    def target(self, x_0: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """What `DenoiserOutput.prediction` should be for this jet and noise."""
        raise NotImplementedError

    def loss_weight(self, timesteps: torch.Tensor) -> torch.Tensor:
        """(N, 1, 1, 1) weight of the squared error at each timestep."""
        raise NotImplementedError


def call_unet(
    unet: Network, inputs: torch.Tensor, timesteps: torch.Tensor, class_labels: torch.Tensor | None
) -> torch.Tensor:
    """Run the network in its own precision (outside autocast) and return float32."""
    dtype = getattr(unet, "dtype", torch.float32)
    labels = None if class_labels is None else class_labels.to(dtype)
    return unet(inputs.to(dtype), timesteps, class_labels=labels).sample.to(torch.float32)


class PlainDenoiser(Denoiser):
    """The ordinary diffusion model: the UNet sees x_t alone and predicts epsilon, x_0 or v.

    Args:
        channels: Channels of x.
        noise_schedule: Configuration of the training DDPMScheduler (betas, T).
        prediction: "epsilon", "sample" or "v_prediction" (Salimans and Ho, arXiv:2202.00512).
    """

    @register_to_config
    def __init__(
        self,
        channels: int,
        noise_schedule: dict[str, Any],
        prediction: str = "v_prediction",
    ) -> None:
        super().__init__()
        if prediction not in ("epsilon", "sample", "v_prediction"):
            raise ValueError(f"prediction must be epsilon, sample or v_prediction, got {prediction!r}")
        self.set_noise_schedule(noise_schedule)
        if prediction == "epsilon" and self.alphas_cumprod[-1] == 0:
            raise ValueError("epsilon says nothing of x_0 at zero terminal SNR; predict sample or v_prediction")

    def unet_channels(self) -> tuple[int, int]:
        """As many as x has, both ways."""
        return self.config.channels, self.config.channels

    def forward(
        self,
        unet: Network,
        x_t: torch.Tensor,
        timesteps: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        ring_sums: torch.Tensor | None = None,
    ) -> DenoiserOutput:
        """The UNet's prediction, and the x_0 it stands for."""
        prediction = call_unet(unet, x_t, timesteps, class_labels)
        alpha, sigma = self.noise_level(timesteps)
        if self.config.prediction == "epsilon":
            return DenoiserOutput((x_t - sigma * prediction) / alpha, prediction)
        if self.config.prediction == "v_prediction":
            return DenoiserOutput(alpha * x_t - sigma * prediction, prediction)
        return DenoiserOutput(prediction, prediction)

    def target(self, x_0: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Noise, jet, or velocity alpha eps - sigma x_0."""
        if self.config.prediction == "epsilon":
            return noise
        if self.config.prediction == "sample":
            return x_0
        alpha, sigma = self.noise_level(timesteps)
        return alpha * noise - sigma * x_0

    def loss_weight(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Every timestep alike."""
        return torch.ones_like(self.noise_level(timesteps)[0])
