"""Checkpoints that a kill cannot spoil, and from which a run goes on exactly.

Tensors are safetensors, the rest is JSON: nothing is pickled. A checkpoint is written under a temporary name and
renamed when it is durable; its state.json holds a digest of each file, checked before anything is loaded.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import nn

from jet_diffusion.errors import UserError
from jet_diffusion.hub import require_finite, trained_tensors
from jet_diffusion.io import sync
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.runs import STATE, RunFolder, file_digest, read_state

WEIGHTS, AVERAGED, OPTIMIZER = (
    "weights.safetensors",
    "averaged.safetensors",
    "optimizer.safetensors",
)


@dataclass
class TrainingState:
    """All that changes while training; step and seed alone fix data order, noise and timesteps.

    Attributes:
        model: The module whose parameters are trained.
        optimizer: Its optimiser.
        lr_scheduler: Steps once an optimiser step.
        averaged: Exponential moving average of the model's parameters.
        step: Optimiser steps done.
        validation_loss: Latest validation loss, None before the first.
        training_loss: Latest logged training loss.
        epoch: Passes over the training jets done.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    lr_scheduler: torch.optim.lr_scheduler.LambdaLR
    averaged: EMAModel
    step: int = 0
    validation_loss: float | None = None
    training_loss: float | None = None
    epoch: float = 0.0

    def names(self) -> list[str]:
        """Names of the parameters, in order."""
        return [name for name, _ in self.model.named_parameters()]

    def checkpoint_bytes(self) -> int:
        """Size of a checkpoint: weights, averaged weights and AdamW's two moments."""
        return 4 * sum(tensor.nbytes for tensor in trained_tensors(self.model).values())

    def require_finite(self) -> None:
        """Refuse weights that are not finite, before they are written.

        Raises:
            UserError: Naming the tensors.
        """
        averaged = dict(zip(self.names(), self.averaged.shadow_params, strict=True))
        require_finite(trained_tensors(self.model), f"the weights after step {self.step}")
        require_finite(averaged, f"the averaged weights after step {self.step}")


def save_checkpoint(run: RunFolder, state: TrainingState, keep: int) -> Path:
    """Write the checkpoint of the current step, then remove those no longer kept.

    Raises:
        UserError: If weights are not finite; nothing is written or removed.
        OSError: If the disk is full; what was half written is removed.
    """
    state.require_finite()
    final = run.checkpoints / f"step-{state.step:08d}"
    temporary = run.checkpoints / f".tmp-{final.name}"
    try:
        temporary.mkdir(exist_ok=True)
        _write_files(temporary, state)
        if not final.exists():
            os.replace(temporary, final)
            sync(run.checkpoints)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    run.prune(keep)
    return final


def _write_files(folder: Path, state: TrainingState) -> None:
    """The files of a checkpoint, made durable."""
    names, optimizer = state.names(), state.optimizer.state_dict()
    averaged = state.averaged.state_dict()
    weights = {name: tensor.detach() for name, tensor in trained_tensors(state.model).items()}
    tensors = {
        WEIGHTS: weights,
        # Statistics of normalisations are running averages already.
        AVERAGED: {**weights, **dict(zip(names, averaged.pop("shadow_params"), strict=True))},
        OPTIMIZER: {
            f"{index}.{key}": value for index, slot in optimizer["state"].items() for key, value in slot.items()
        },
    }
    for file, values in tensors.items():
        save_file({name: value.cpu().contiguous() for name, value in values.items()}, folder / file)
        sync(folder / file)
    facts = {
        "step": state.step,
        "epoch": state.epoch,
        "training_loss": state.training_loss,
        "validation_loss": state.validation_loss,
        "averaged": averaged,
        "optimizer_groups": optimizer["param_groups"],
        "lr_scheduler": {key: value for key, value in state.lr_scheduler.state_dict().items() if key != "lr_lambdas"},
        "sha256": {file: file_digest(folder / file) for file in tensors},
    }
    (folder / STATE).write_text(json.dumps(facts, indent=2) + "\n")
    sync(folder / STATE)
    sync(folder)


def load_checkpoint(folder: Path, state: TrainingState) -> None:
    """Put model, averages, optimiser and schedule back as they were.

    Raises:
        UserError: If a file is not what was written, or weights are not finite.
    """
    facts = read_state(folder)
    weights, averaged, optimizer = (load_file(folder / file) for file in (WEIGHTS, AVERAGED, OPTIMIZER))
    require_finite(weights, f"the weights of {folder}")
    require_finite(averaged, f"the averaged weights of {folder}")
    load_tensors(trained_tensors(state.model), weights)
    slots: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in optimizer.items():
        index, key = name.split(".", 1)
        slots.setdefault(int(index), {})[key] = value
    state.optimizer.load_state_dict({"state": slots, "param_groups": facts["optimizer_groups"]})
    shadow = [torch.empty_like(parameter).copy_(averaged[name]) for name, parameter in state.model.named_parameters()]
    device = next(state.model.parameters()).device
    state.averaged.load_state_dict({**facts["averaged"], "shadow_params": shadow})
    state.averaged.to(device)
    state.lr_scheduler.load_state_dict(
        {**facts["lr_scheduler"], "lr_lambdas": state.lr_scheduler.state_dict()["lr_lambdas"]}
    )
    state.step, state.validation_loss = facts["step"], facts["validation_loss"]


def load_tensors(tensors: dict[str, torch.Tensor], weights: dict[str, torch.Tensor]) -> None:
    """Copy weights into the tensors of the same names.

    Raises:
        UserError: If names or shapes differ.
    """
    different = sorted(
        name
        for name in tensors.keys() | weights.keys()
        if name not in tensors or name not in weights or tensors[name].shape != weights[name].shape
    )
    if different:
        raise UserError(
            f"the weights are of another model: {len(different)} tensors differ in name or shape, first {different[0]}"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(weights[name])


CHOSEN = ("gap", "ring_edges", "noise_schedule", "inputs", "crystal_channels", "prediction")
"""Settings of representation and denoiser that are chosen, not fitted to the jets."""


def start_from(pipeline: JetImagePipeline, trained: JetImagePipeline) -> None:
    """Load the trained weights, with the representation and the denoiser that were fitted for them.

    Raises:
        UserError: If the pipelines differ in a component, a chosen setting, or the name or shape of a weight.
    """
    for name in ("representation", "denoiser"):
        parts = getattr(pipeline, name), getattr(trained, name)
        new, old = (json.dumps({k: part.config.get(k) for k in CHOSEN}, sort_keys=True) for part in parts)
        if type(parts[0]) is not type(parts[1]) or new != old:
            raise UserError(f"the weights to start from were trained with another {name}: {old}, not {new}")
    for part in [part for part in ("unet", "denoiser", "conditioner") if getattr(pipeline, part) is not None]:
        load_tensors(trained_tensors(getattr(pipeline, part)), trained_tensors(getattr(trained, part)))
    if pipeline.conditioner is not None:
        fitted = {name: value for name, value in trained.conditioner.config.items() if name.startswith("log_")}
        pipeline.conditioner.register_to_config(**fitted)
    fitted_parts = ("representation", "denoiser", "first_stage")
    pipeline.register_modules(**{name: getattr(trained, name) for name in fitted_parts})
