"""Schedulers that jets are sampled with, and whether one suits a denoiser.

This file is self-contained so that it can travel to the Hub.
"""

from __future__ import annotations

import inspect
import itertools
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    ModelMixin,
    SchedulerMixin,
    UniPCMultistepScheduler,
)

SCHEDULERS: dict[str, tuple[type[SchedulerMixin], dict[str, Any]]] = {
    "ddpm": (DDPMScheduler, {"variance_type": "fixed_small", "clip_sample": False}),
    "ddpm-large": (DDPMScheduler, {"variance_type": "fixed_large", "clip_sample": False}),
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "dpm++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "final_sigmas_type": "zero"}),
    "sde-dpm++": (
        DPMSolverMultistepScheduler,
        {"algorithm_type": "sde-dpmsolver++", "final_sigmas_type": "zero"},
    ),
    "unipc": (UniPCMultistepScheduler, {"final_sigmas_type": "zero"}),
    "euler": (EulerDiscreteScheduler, {}),
}
"""Schedulers that are tested with the pipeline: name -> (class, settings beside the training schedule's)."""


def make_scheduler(name: str, config: Any) -> SchedulerMixin:
    """A scheduler of the table with the noise schedule of `config`.

    Raises:
        ValueError: If the name is not in the table.
    """
    if name not in SCHEDULERS:
        raise ValueError(f"unknown scheduler {name!r}; there are {', '.join(SCHEDULERS)}")
    scheduler_class, settings = SCHEDULERS[name]
    return scheduler_class.from_config(config, **settings)


def check_scheduler(scheduler: SchedulerMixin, denoiser: ModelMixin) -> None:
    """Refuse a scheduler whose alphas are not the training ones, that does not take x_0, or that clips it.

    Raises:
        ValueError: Saying what is wrong, and which scheduler would do.
    """
    name, trained = type(scheduler).__name__, denoiser.alphas_cumprod.cpu()
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if alphas is None:
        raise ValueError(f"{name} has no alphas_cumprod; use one of {', '.join(SCHEDULERS)}")
    alphas = alphas.cpu()
    # Solvers put 2^-24 for an alpha_bar of zero, so that its logarithm exists.
    if alphas.shape != trained.shape or not torch.allclose(alphas, trained, rtol=1e-4, atol=1e-7):
        raise ValueError(
            f"{name} has {len(alphas)} timesteps and alpha_bar {alphas[-1]:.3g} at the last, the model was trained "
            f"with {len(trained)} and {trained[-1]:.3g}; make it by from_config(pipeline.scheduler.config), and "
            f"if that is what you did, this class ignores part of the configuration: use one of "
            f"{', '.join(SCHEDULERS)}"
        )
    if scheduler.config.prediction_type != "sample":
        raise ValueError(
            f"{name} expects a {scheduler.config.prediction_type} prediction, but the denoiser gives x_0: make it by "
            f'{name}.from_config(pipeline.scheduler.config), or set prediction_type="sample", whatever the UNet '
            "itself predicts"
        )
    own = inspect.signature(type(scheduler)).parameters  # its configuration keeps those of what it was made from
    for field in ("clip_sample", "thresholding"):
        if field in own and scheduler.config.get(field):
            raise ValueError(
                f"{name} has {field}=True, which cuts x_0 to a range that is not the jets': make it by "
                f"{name}.from_config(pipeline.scheduler.config), or set {field}=False"
            )


def check_timesteps(timesteps: list[int] | None, denoiser: ModelMixin) -> None:
    """Refuse timesteps that do not fall, or that were not trained.

    Raises:
        ValueError: Saying what was given.
    """
    if timesteps is None:
        return
    last = len(denoiser.alphas_cumprod) - 1
    falling = all(later < earlier for earlier, later in itertools.pairwise(timesteps))
    if not timesteps or not falling or timesteps[0] > last or timesteps[-1] < 0:
        raise ValueError(f"timesteps must fall from at most {last} to at least 0, got {timesteps!r:.100}")


def set_timesteps(
    scheduler: SchedulerMixin,
    denoiser: ModelMixin,
    steps: int,
    timesteps: list[int] | None,
    *,
    power: float,
    highest: int | None,
    device: torch.device,
) -> None:
    """Choose the timesteps that a scheduler steps through.

    Args:
        scheduler: Some choose their own and take only their number.
        denoiser: Knows the training timesteps.
        steps: How many.
        timesteps: These, or by default so many that fall as (1 - i / steps)^power.
        power: 1 leaves them to the scheduler.
        highest: Start from this one and leave out those above.
        device: Where they are needed.

    Raises:
        ValueError: If timesteps are given to a scheduler that chooses its own.
    """
    accepts = "timesteps" in inspect.signature(scheduler.set_timesteps).parameters
    if timesteps is not None and not accepts:
        raise ValueError(f"{type(scheduler).__name__} takes no timesteps; give num_inference_steps")
    if accepts and timesteps is None and power != 1:
        timesteps = denoiser.power_timesteps(steps, power)
    if accepts and timesteps is None and highest is not None:
        scheduler.set_timesteps(steps)
        timesteps = sorted({int(timestep) for timestep in scheduler.timesteps}, reverse=True)
    if not accepts or timesteps is None:
        scheduler.set_timesteps(steps, device=device)
        return
    if highest is not None:
        timesteps = [highest, *(t for t in timesteps if t < highest)]
    scheduler.set_timesteps(timesteps=timesteps, device=device)
