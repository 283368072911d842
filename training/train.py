"""Train a diffusion model of jet images: `accelerate launch training/train.py --config configs/tiny.yaml`.

The same command goes on where it stopped. One process or many, one CPU or many GPUs: the loop is the same.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from tqdm import tqdm

from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.errors import UserError, run_command
from jet_diffusion.hub import load_folder, load_pipeline
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.pipelines.spike_and_slab import SpikeAndSlabDenoiser
from jet_diffusion.runs import RunFolder
from jet_diffusion.training.build import TrainedModule, build_pipeline, fit_marginal, settings_as_dict
from jet_diffusion.training.checkpoints import TrainingState, load_checkpoint, save_checkpoint
from jet_diffusion.training.loop import TrainingLoop
from jet_diffusion.training.monitor import Monitor, describe
from jet_diffusion.training.processes import check_same_folder, explain_lost_processes
from jet_diffusion.training.runtime import keep_freed_memory, make_accelerator
from jet_diffusion.training.settings import (
    NOTEBOOK_NETWORKS,
    TrainSettings,
    changed_settings,
    check_settings,
    parse_settings,
)
from jet_diffusion.training.warm_start import start_from

BETAS, NOTEBOOK_BETAS = (0.9, 0.99), (0.9, 0.999)
"""AdamW's averages of gradients and of their squares."""


def main(argv: list[str] | None = None) -> None:
    """Train as the command line says."""
    train(parse_settings(argv))


def train(settings: TrainSettings) -> RunFolder:
    """Begin or continue a run, up to its last step.

    Raises:
        UserError: If the settings contradict each other, the run's, or the processes that take part.
        FileNotFoundError: If the dataset or the weights to start from do not exist.
        ConnectionError: If the processes do not meet, or lose each other.
    """
    run = RunFolder(settings.run_dir)
    accelerator = make_accelerator(settings, run)
    check_settings(settings, accelerator.num_processes)
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    arithmetic = "float32" if accelerator.mixed_precision == "no" else accelerator.mixed_precision
    accelerator.print(f"{accelerator.num_processes} process(es) take part, on {accelerator.device} in {arithmetic}")
    jets = JetDataset.load(settings.data, f"train[:{settings.max_jets}]" if settings.max_jets else "train")
    validation = JetDataset.load(settings.data, "validation")
    if settings.dry_run:
        pipeline = build_pipeline(settings, jets, train_first_stage=False)
        accelerator.print(describe(settings, accelerator, jets, pipeline))
        return run
    pipeline = begin_or_resume(settings, accelerator, run, jets)
    state = make_state(settings, pipeline)
    if run.checkpoint_steps():
        load_checkpoint(run.checkpoint("last"), state)
        accelerator.print(f"going on from step {state.step} of {settings.max_steps}")
    if accelerator.is_main_process:
        run.forget_after(state.step)
        run.add_session(
            step=state.step,
            processes=accelerator.num_processes,
            device=str(accelerator.device),
            precision=accelerator.mixed_precision,
        )
    accelerator.wait_for_everyone()
    with explain_lost_processes(accelerator, run):
        run_steps(settings, accelerator, run, pipeline, state, jets, validation)
    accelerator.end_training()
    return run


def begin_or_resume(
    settings: TrainSettings, accelerator: Accelerator, run: RunFolder, jets: JetDataset
) -> JetImagePipeline:
    """The run's initial pipeline, made by the main process if there is none yet and read by all.

    Raises:
        UserError: If the run was begun with other settings or other jets, or the processes see different folders.
    """
    failure: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            if run.begun:
                check_same_run(settings, run, jets)
                run.update_config(settings_as_dict(settings))
            else:
                pipeline = build_pipeline(settings, jets, progress=True)
                if settings.init_from:
                    start_from(pipeline, load_pipeline(settings.init_from, checkpoint="last"))
                pipeline.save_pretrained(run.initial)
                if (marginal := fit_marginal(settings, jets, pipeline)) is not None:
                    marginal.save_pretrained(run.marginal)
                np.save(run.training_jets, np.sort(jets.content_hash))
                dataset = {
                    "path": settings.data,
                    "on_hub": not Path(settings.data).is_dir(),
                    "fingerprint": jets.fingerprint,
                    "jets": len(jets),
                }
                run.begin(settings_as_dict(settings), {**dataset, "simulated": jets.simulated})
        except Exception as error:
            failure = [error]
    # Every process must learn of it, or the others would wait for ever.
    broadcast_object_list(failure)
    if failure[0] is not None:
        raise failure[0]
    check_same_folder(accelerator, run)
    return load_folder(run.initial)


def check_same_run(settings: TrainSettings, run: RunFolder, jets: JetDataset) -> None:
    """Refuse to continue a run with options or jets that would make it another run.

    Raises:
        UserError: Naming what differs.
    """
    if changed := changed_settings(run.read_config(), settings):
        raise UserError(
            f"{run.path} was begun with other settings ({', '.join(changed)}); give the same, or another --run_dir"
        )
    fingerprint = run.read_record()["dataset"]["fingerprint"]
    if fingerprint != jets.fingerprint:
        raise UserError(f"{run.path} was begun on jets {fingerprint}, {settings.data} holds {jets.fingerprint}")


def make_state(settings: TrainSettings, pipeline: JetImagePipeline) -> TrainingState:
    """Model, optimiser, learning-rate schedule and averaged weights at step 0."""
    model = TrainedModule(pipeline)
    if settings.unet.gradient_checkpointing:
        model.unet.enable_gradient_checkpointing()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings.learning_rate,
        betas=NOTEBOOK_BETAS if settings.unet.network in NOTEBOOK_NETWORKS else BETAS,
        weight_decay=0.0,
        fused=True,
    )
    lr_scheduler = get_scheduler(
        settings.optimizer.lr_schedule,
        optimizer,
        num_warmup_steps=settings.warmup_steps,
        num_training_steps=settings.max_steps,
    )
    averaged = EMAModel(list(model.parameters()), decay=settings.ema_decay, foreach=True)
    return TrainingState(model, optimizer, lr_scheduler, averaged)


def run_steps(
    settings: TrainSettings,
    accelerator: Accelerator,
    run: RunFolder,
    pipeline: JetImagePipeline,
    state: TrainingState,
    jets: JetDataset,
    validation: JetDataset,
) -> None:
    """Take all steps; between them log, validate, write checkpoints and draw pictures."""
    marginal = SpikeAndSlabDenoiser.from_pretrained(run.marginal) if run.marginal.is_dir() else None
    loop = TrainingLoop(settings, accelerator, pipeline, state, jets, marginal)
    monitor = Monitor(settings, accelerator, run, pipeline, state, validation, loop.loss_of, len(jets))
    progress = tqdm(total=settings.max_steps, initial=state.step, unit="step", disable=not accelerator.is_main_process)
    while state.step < settings.max_steps:
        loop.step()
        progress.update()
        if state.step % settings.log_every == 0 or state.step == settings.max_steps:
            monitor.log(loop.take_sums(), loop.clock, progress)
        save = state.step % settings.checkpoint_every == 0 or state.step == settings.max_steps
        monitor.validate(due=save)
        if save:
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                save_checkpoint(run, state, settings.keep_checkpoints)
            accelerator.wait_for_everyone()
        monitor.sample()
    progress.close()
    monitor.finish(loop.clock)


if __name__ == "__main__":
    run_command("train", main, sys.argv[1:])
