"""Schedulers that jets are sampled with, and whether one suits a denoiser.

This file needs `random_numbers.py` beside it; to the Hub they travel as one file.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable
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

from .random_numbers import RandomNumbers  # noqa: TID251

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

NUMBERS_AT_ONCE = 2**27
"""Normal numbers that a device other than the CPU makes in one go, those of several steps where batches are small."""


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
    name, trained = type(scheduler).__name__, denoiser.alphas_on_host
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
) -> None:
    """Choose the timesteps that a scheduler steps through; they stay on the CPU, which reads them at each step.

    Args:
        scheduler: Some choose their own and take only their number.
        denoiser: Knows the training timesteps.
        steps: How many.
        timesteps: These, or by default so many that fall as (1 - i / steps)^power.
        power: 1 leaves them to the scheduler.
        highest: Start from this one and leave out those above.

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
        scheduler.set_timesteps(steps)
        return
    if highest is not None:
        timesteps = [highest, *(t for t in timesteps if t < highest)]
    scheduler.set_timesteps(timesteps=timesteps)


def noise_of_steps(
    scheduler: SchedulerMixin, random: RandomNumbers, shape: tuple[int, ...]
) -> Callable[[int], dict[str, Any]]:
    """What to give to each of a scheduler's steps, by its number, so that it draws each jet's own noise.

    A scheduler that takes noise is given it, where it adds any. The others (DDPM) draw it on the CPU, with a generator
    for each jet.

    Args:
        scheduler: One that `set_timesteps` was called of.
        random: Random numbers of the jets.
        shape: Of one jet in model space.
    """
    takes = inspect.signature(scheduler.step).parameters
    if "variance_noise" not in takes:
        generators = {"generator": random.generators("step")} if "generator" in takes else {}
        return lambda _: generators
    if not str(scheduler.config.get("algorithm_type", "")).startswith("sde"):
        return lambda _: {}
    count = len(random)
    at_once = 1 if random.seeds.device.type == "cpu" else max(1, NUMBERS_AT_ONCE // (count * math.prod(shape)))
    rows = torch.arange(count, device=random.seeds.device).repeat(at_once)
    later = torch.arange(at_once, device=rows.device).repeat_interleave(count, output_size=len(rows))
    drawn: list[torch.Tensor] = []

    def noise(step: int) -> dict[str, Any]:
        if step % at_once == 0:
            drawn[:] = random[rows].normal("step", shape, step + later).split(count)
        return {"variance_noise": drawn[step % at_once]}

    return noise
