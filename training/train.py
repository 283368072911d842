"""Train a diffusion model of jet images: `accelerate launch training/train.py --config configs/tiny.yaml`.

The same command goes on where it stopped. One process or many, one CPU or many GPUs: the loop is the same.
"""

from __future__ import annotations

import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from tqdm.auto import tqdm

from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.data.files.streamed import open_split
from jet_diffusion.errors import UserError, run_command
from jet_diffusion.hub import load_folder, load_pipeline
from jet_diffusion.io import explaining_full_disk, megabytes
from jet_diffusion.locks import hold
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.pipelines.spike_and_slab import SpikeAndSlabDenoiser
from jet_diffusion.runs import RunFolder
from jet_diffusion.signals import Interrupted
from jet_diffusion.training.build import TrainedModule, build_pipeline, check_towers, fit_marginal, settings_as_dict
from jet_diffusion.training.checkpoints import TrainingState, load_checkpoint, save_checkpoint, start_from
from jet_diffusion.training.loop import TrainingLoop
from jet_diffusion.training.monitor import Monitor, describe
from jet_diffusion.training.processes import check_same_folder, explain_lost_processes
from jet_diffusion.training.runtime import (
    check_disk,
    in_main_process,
    keep_freed_memory,
    make_accelerator,
)
from jet_diffusion.training.settings import (
    NOTEBOOK_NETWORKS,
    TrainSettings,
    changed_settings,
    check_batch,
    check_settings,
    parse_settings,
)
from jet_diffusion.training.signals import Interruption

BETAS, NOTEBOOK_BETAS = (0.9, 0.99), (0.9, 0.999)
"""AdamW's averages of gradients and of their squares."""


def main(argv: list[str] | None = None) -> None:
    """Train as the command line says."""
    train(parse_settings(argv))


def train(settings: TrainSettings) -> RunFolder:
    """Begin or continue a run, up to its last step.

    A signal ends it after the step under way, or in several processes within seconds, with a checkpoint.

    Raises:
        UserError: If the settings contradict each other, the run's, the data, or the processes that take part; or if
            a loss is not finite.
        FileNotFoundError: If the dataset or the weights to start from do not exist.
        BlockingIOError: If another process trains in the folder.
        ConnectionError: If the processes do not meet, or lose each other.
        OSError: If the disk is full.
        Interrupted: By a signal.
    """
    run = RunFolder(settings.run_dir)
    accelerator = make_accelerator(settings, run)
    check_settings(settings, accelerator.num_processes)
    if settings.dry_run:
        prepare(settings, accelerator, run)
        return run
    run.path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        in_main_process(accelerator, lambda: stack.enter_context(hold(run.path, "train")))
        begin_and_train(settings, accelerator, run)
    return run


def prepare(settings: TrainSettings, accelerator: Accelerator, run: RunFolder) -> tuple[JetDataset, JetDataset]:
    """Say what takes part, and load the training and validation jets; of a dry run, say what would run.

    Raises:
        UserError: If the batch is larger than the data, or the representation does not suit the validation jets.
    """
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    arithmetic = "float32" if accelerator.mixed_precision == "no" else accelerator.mixed_precision
    accelerator.print(f"{accelerator.num_processes} process(es) take part, on {accelerator.device} in {arithmetic}")
    run.require_record()
    jets = open_split(settings.data, f"train[:{settings.max_jets}]" if settings.max_jets else "train")
    validation = open_split(settings.data, "validation")
    if jets.shards:
        accelerator.print(
            f"images are streamed from the {len(jets.shards)} shards of {settings.data}: each is read once an "
            "epoch, and once or twice before the first step of a run"
        )
    check_batch(settings.batch_size, len(jets))
    check_towers(settings, validation)
    if settings.dry_run:
        pipeline = build_pipeline(settings, jets, train_first_stage=False)
        accelerator.print(describe(settings, accelerator, jets, pipeline))
    return jets, validation


def begin_and_train(settings: TrainSettings, accelerator: Accelerator, run: RunFolder) -> None:
    """All that is done in a run folder that no other process works in."""
    jets, validation = prepare(settings, accelerator, run)
    pipeline = begin_or_resume(settings, accelerator, run, jets)
    state = make_state(settings, pipeline)
    if run.checkpoint_steps():
        load_checkpoint(run.checkpoint("last"), state)
        accelerator.print(f"going on from step {state.step} of {settings.max_steps}")
    in_main_process(accelerator, lambda: check_disk(run, state.checkpoint_bytes(), settings, state.step))
    if accelerator.is_main_process:
        run.forget_after(state.step)
        run.add_session(
            step=state.step,
            processes=accelerator.num_processes,
            device=str(accelerator.device),
            precision=accelerator.mixed_precision,
        )
    accelerator.wait_for_everyone()
    with (
        explain_lost_processes(accelerator, run),
        explaining_full_disk(run.path, lambda: what_is_kept(run, state)),
        Interruption(accelerator) as interruption,
    ):
        run_steps(settings, accelerator, run, pipeline, state, jets, validation, interruption)
        stopped = interruption.agreed(state.step, now=True)
    accelerator.end_training()
    if stopped:
        again = f"jet-diffusion train --config {run.config}"
        raise Interrupted(stopped, f"the checkpoint of step {state.step} is saved; to go on: {again}")


def what_is_kept(run: RunFolder, state: TrainingState) -> str:
    """For a full disk: how much a checkpoint takes, and which one stays."""
    return f"a checkpoint takes {megabytes(state.checkpoint_bytes())}; {run.last_checkpoint_stays()}"


def begin_or_resume(
    settings: TrainSettings, accelerator: Accelerator, run: RunFolder, jets: JetDataset
) -> JetImagePipeline:
    """The run's initial pipeline, made by the main process if there is none yet and read by all.

    Raises:
        UserError: If the run was begun with other settings or other jets, or the processes see different folders.
    """

    def prepare_folder() -> None:
        if run.checkpoint_steps():
            check_same_run(settings, run, jets)
            run.update_config(settings_as_dict(settings))
            if not run.training_jets.is_file():
                np.save(run.training_jets, np.sort(jets.content_hash))
        else:  # a start that was refused or killed before its first checkpoint leaves nothing to go on from
            begin(settings, run, jets)

    in_main_process(accelerator, prepare_folder)
    check_same_folder(accelerator, run)
    return load_folder(run.initial)


def begin(settings: TrainSettings, run: RunFolder, jets: JetDataset) -> None:
    """Write all that a run begins with; its record comes last."""
    pipeline = build_pipeline(settings, jets, progress=True)
    if settings.init_from:
        start_from(pipeline, load_pipeline(settings.init_from))
    marginal = fit_marginal(settings, jets, pipeline)
    for folder in (run.initial, run.marginal):
        shutil.rmtree(folder, ignore_errors=True)
    with explaining_full_disk(run.path):
        pipeline.save_pretrained(run.initial)
        if marginal is not None:
            marginal.save_pretrained(run.marginal)
        np.save(run.training_jets, np.sort(jets.content_hash))
    dataset = {
        "path": settings.data,
        "on_hub": not Path(settings.data).is_dir(),
        "fingerprint": jets.fingerprint,
        "jets": len(jets),
        "shards": jets.shards,
    }
    run.begin(settings_as_dict(settings), {**dataset, "simulated": jets.simulated})


def check_same_run(settings: TrainSettings, run: RunFolder, jets: JetDataset) -> None:
    """Refuse to continue a run with options or jets that would make it another run.

    Raises:
        UserError: Naming what differs.
    """
    if changed := changed_settings(run.read_config(), settings):
        raise UserError(
            f"{run.path} was begun with other settings ({', '.join(changed)}); give the same, or another --run-dir"
        )
    begun = run.read_record()["dataset"]
    fingerprint = begun["fingerprint"]
    if fingerprint != jets.fingerprint:
        raise UserError(
            f"{run.path} was begun on other training jets ({fingerprint}) than {settings.data} holds now "
            f"({jets.fingerprint}); give the dataset as it was, or another --run-dir"
        )
    if tuple(begun.get("shards", ())) != jets.shards:
        raise UserError(
            f"{run.path} was begun on {begun['path']}, whose jets come in another order than those of {settings.data}: "
            "a streamed dataset (hf://user/name) is shuffled by shards, any other as a whole; give the same again"
        )


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
    interruption: Interruption,
) -> None:
    """Steps to the last or to a signal, and what is done between them: logging, validation, checkpoints, pictures."""
    marginal = SpikeAndSlabDenoiser.from_pretrained(run.marginal) if run.marginal.is_dir() else None
    loop = TrainingLoop(settings, accelerator, pipeline, state, jets, marginal)
    monitor = Monitor(settings, accelerator, run, pipeline, state, validation, loop.loss_of, len(jets), interruption)
    progress = tqdm(total=settings.max_steps, initial=state.step, unit="step", disable=not accelerator.is_main_process)
    monitor.sample()  # what a kill after the last checkpoint left out
    while state.step < settings.max_steps:
        loop.step()
        progress.update()
        last = state.step == settings.max_steps
        stopped = bool(interruption.agreed(state.step, now=last))
        log = state.step % settings.log_every == 0 or last
        save = state.step % settings.checkpoint_every == 0 or last
        waited_for = log or save or stopped or monitor.due()
        if waited_for:
            loop.check_finite(run)
        if log:
            monitor.log(loop.take_sums(), loop.clock, progress)
        validated = monitor.validate(due=save)
        if save or stopped:
            state.validation_loss = state.validation_loss if validated else None
            accelerator.wait_for_everyone()
            in_main_process(accelerator, lambda: save_checkpoint(run, state, settings.keep_checkpoints))
        if stopped:
            break
        monitor.sample()
        if waited_for:
            loop.clock.skip()
    progress.close()
    monitor.finish(loop.clock)


if __name__ == "__main__":
    run_command("train", main, sys.argv[1:])
