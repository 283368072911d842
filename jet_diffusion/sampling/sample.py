"""Sample a pipeline for evaluation: jets for the conditions of given real jets, timed."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from diffusers import SchedulerMixin

from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.errors import UserError, checking
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline, batch_size_on
from jet_diffusion.pipelines.schedulers import make_scheduler
from jet_diffusion.sampling.batches import JetBatch, sample_batches


@dataclass(frozen=True)
class SampledJets:
    """Generated jets and what they cost.

    Attributes:
        jets: the jets, labelled by what they were asked for; an unconditional model's labels are -1.
        seconds: wall time of sampling, all jets together.
        evaluations: network evaluations a jet.
        settings: what `describe_sampler` says, batch size, seed, device.
    """

    jets: JetSample
    seconds: float
    evaluations: int
    settings: dict[str, Any]

    @property
    def ms_per_jet(self) -> float:
        """Milliseconds a jet."""
        return 1000 * self.seconds / len(self.jets)


def set_sampler(
    pipeline: JetImagePipeline,
    scheduler: str | None = None,
    steps: int | None = None,
    step_power: float | None = None,
    moment_guidance: dict[str, Any] | None = None,
) -> None:
    """Change a pipeline's solver, number of steps, their spacing and moment guidance; None keeps what it has.

    Raises:
        UserError: If the model cannot be sampled with this solver or in so many steps, or cannot be guided like that.
    """
    if scheduler is not None:
        with checking():
            pipeline.scheduler = make_scheduler(scheduler, pipeline.scheduler.config)
            pipeline.check_scheduler()
    if steps is not None:
        training_steps = len(pipeline.denoiser.alphas_cumprod)
        if not 1 <= steps <= training_steps:
            raise UserError(f"--steps must be 1 to {training_steps}, the model's training timesteps, got {steps}")
        pipeline.register_to_config(default_steps=steps)
    if step_power is not None:
        if not 0 < step_power < math.inf:
            raise UserError(f"--step-power must be positive and finite, got {step_power}")
        pipeline.register_to_config(step_power=step_power)
    if moment_guidance is not None:
        pipeline.register_to_config(moment_guidance=moment_guidance)
        with checking():
            pipeline.check_moment_guidance()


def describe_sampler(pipeline: JetImagePipeline, steps: int | None = None) -> dict[str, Any]:
    """Describe a model's weights and sampler, so that files, reports and fits of another one are recognised.

    Args:
        pipeline: The model.
        steps: Of the solver; by default the model's own number.
    """
    weights = hashlib.sha256()
    for _, tensor in sorted(pipeline.unet.state_dict().items()):
        weights.update(tensor.float().cpu().numpy().tobytes())
    return {
        "weights": weights.hexdigest()[:16],
        "scheduler": type(pipeline.scheduler).__name__,
        "scheduler_config": json.dumps(_own_settings(pipeline.scheduler), default=str, sort_keys=True),
        "num_inference_steps": pipeline.config.default_steps if steps is None else steps,
        "step_power": pipeline.config.step_power,
        "moment_guidance": json.dumps(pipeline.config.moment_guidance, sort_keys=True),
    }


def solver_name(scheduler: SchedulerMixin) -> str:
    """A scheduler's class, and its variant where it has one."""
    variant = _own_settings(scheduler).get("algorithm_type")
    return type(scheduler).__name__ + (f" ({variant})" if variant else "")


def sample_like(
    pipeline: JetImagePipeline,
    conditions: JetSample,
    *,
    steps: int,
    seed: int = 0,
    batch_size: int | None = None,
    source: str = "",
    progress: bool = False,
) -> SampledJets:
    """Generate one jet for the class, pT and mass of each given jet.

    Args:
        pipeline: the model, on the device it shall run on.
        conditions: jets whose conditions are asked for.
        steps: solver steps.
        seed: jet i of a seed is always the same.
        batch_size: jets denoised at once; by default as suits the device.
        source: name of the model for reports.
        progress: whether to show a bar.

    Raises:
        ValueError: from the pipeline, for bad arguments.
    """
    made: list[JetBatch] = []
    batch_size = batch_size_on(pipeline.device, batch_size)

    def energies() -> Iterator[np.ndarray]:
        for batch in sample_batches(
            pipeline, len(conditions), conditions, steps=steps, seed=seed, batch_size=batch_size, progress=progress
        ):
            made.append(replace(batch, energies=batch.energies[:0]))
            yield batch.energies.numpy()

    sampled = JetSample.from_batches(
        energies(), conditions.labels, conditions.pt, conditions.m0, source=source, simulated=f"generated by {source}"
    )
    # What the pipeline says it was asked for; an unconditional one says nothing.
    columns: dict[str, Any] = {
        name: torch.cat([getattr(batch, name) for batch in made]).numpy() for name in ("labels", "pt", "m0")
    }
    settings = {
        **describe_sampler(pipeline, steps),
        "batch_size": batch_size,
        "seed": seed,
        "device": _device_name(pipeline),
    }
    seconds = sum(batch.seconds for batch in made)
    return SampledJets(replace(sampled, **columns), seconds, len(pipeline.scheduler.timesteps), settings)


def _own_settings(scheduler: SchedulerMixin) -> dict[str, Any]:
    """A scheduler's configuration without what it keeps of others' for `from_config`."""
    own = inspect.signature(type(scheduler)).parameters
    return {name: value for name, value in scheduler.config.items() if name in own}


def _device_name(pipeline: JetImagePipeline) -> str:
    device = pipeline.device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"
