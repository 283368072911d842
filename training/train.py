"""Train a diffusion model of jet images: `accelerate launch training/train.py --config configs/tiny.yaml`.

The same command goes on where it stopped. One process or many, one CPU or many GPUs: the loop is the same.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from tqdm import tqdm

from jet_diffusion.cli import run_command
from jet_diffusion.dataset import JetDataset
from jet_diffusion.hub import load_folder, load_pipeline, trained_tensors
from jet_diffusion.pipelines.denoiser import SpikeAndSlabDenoiser
from jet_diffusion.pipelines.jet_image import JetImagePipeline
from jet_diffusion.runs import RunFolder
from jet_diffusion.training.batches import GlobalBatches, NoisyJets, batch_loader
from jet_diffusion.training.build import TrainedModule, build_pipeline, fit_marginal, settings_as_dict
from jet_diffusion.training.checkpoints import TrainingState, load_checkpoint, load_tensors, save_checkpoint
from jet_diffusion.training.loss import DenoisingLoss
from jet_diffusion.training.monitor import Monitor, describe
from jet_diffusion.training.processes import make_accelerator
from jet_diffusion.training.settings import TrainSettings, changed_settings, check_settings, parse_settings


@dataclass
class Clock:
    """Where a session's time goes.

    Attributes:
        started: When the first step began.
        waiting: Seconds spent waiting for the loader after the first batch.
        busy: Seconds spent in steps, waiting included; pictures, validation and checkpoints are left out.
        jets: Jets trained on.
    """

    waiting: float = 0.0
    busy: float = 0.0
    jets: int = 0
    mark: float = field(default_factory=time.perf_counter)

    def lap(self) -> float:
        """Seconds since the last lap."""
        now = time.perf_counter()
        elapsed, self.mark = now - self.mark, now
        return elapsed


def main(argv: list[str] | None = None) -> None:
    """Train as the command line says."""
    train(parse_settings(argv))


def train(settings: TrainSettings) -> RunFolder:
    """Begin a run or go on with it, to its last step.

    Raises:
        ValueError: If the settings contradict each other, the run's, or the processes that take part.
        FileNotFoundError: If the dataset or the weights to start from do not exist.
    """
    run = RunFolder(settings.run_dir)
    accelerator = make_accelerator(settings, run)
    check_settings(settings, accelerator.num_processes)
    accelerator.print(f"{accelerator.num_processes} process(es) take part, on {accelerator.device}")
    jets = JetDataset.load(settings.data, f"train[:{settings.max_jets}]" if settings.max_jets else "train")
    validation = JetDataset.load(settings.data, "validation")
    if settings.dry_run:
        accelerator.print(describe(settings, accelerator, jets, build_pipeline(settings, jets)))
        return run
    pipeline = begin_or_resume(settings, accelerator, run, jets)
    state = make_state(settings, pipeline)
    if run.checkpoint_steps():
        load_checkpoint(run.checkpoint("last"), state)
        accelerator.print(f"going on from step {state.step} of {settings.max_steps}")
    if accelerator.is_main_process:
        run.forget_after(state.step)
        run.add_session(step=state.step, processes=accelerator.num_processes, device=str(accelerator.device))
    accelerator.wait_for_everyone()
    run_steps(settings, accelerator, run, pipeline, state, jets, validation)
    accelerator.end_training()
    return run


def begin_or_resume(
    settings: TrainSettings, accelerator: Accelerator, run: RunFolder, jets: JetDataset
) -> JetImagePipeline:
    """The run's initial pipeline, made by the main process if there is none yet and read by all.

    Raises:
        ValueError: If the run was begun with other settings or other jets.
    """
    failure: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            if run.begun:
                check_same_run(settings, run, jets)
                run.update_config(settings_as_dict(settings))
            else:
                pipeline = build_pipeline(settings, jets)
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
    return load_folder(run.initial)


def check_same_run(settings: TrainSettings, run: RunFolder, jets: JetDataset) -> None:
    """Refuse to go on with what would be another run.

    Raises:
        ValueError: Naming what differs.
    """
    if changed := changed_settings(run.read_config(), settings):
        raise ValueError(
            f"{run.path} was begun with other settings ({', '.join(changed)}); give the same, or another --run_dir"
        )
    fingerprint = run.read_record()["dataset"]["fingerprint"]
    if fingerprint != jets.fingerprint:
        raise ValueError(f"{run.path} was begun on jets {fingerprint}, {settings.data} holds {jets.fingerprint}")


def start_from(pipeline: JetImagePipeline, trained: JetImagePipeline) -> None:
    """Warm start: the trained weights, with the value map and the denoiser's fit they were trained in.

    Raises:
        ValueError: If the settings ask for another representation, denoiser or noise schedule than was trained.
    """
    for name in ("representation", "denoiser"):
        asked, found = (describe_choice(getattr(one, name)) for one in (pipeline, trained))
        different = [key for key in asked.keys() | found.keys() if asked.get(key) != found.get(key)]
        if different:
            raise ValueError(
                f"the weights to start from were trained with another {name}: "
                + ", ".join(f"{key} {found.get(key)}, not {asked.get(key)}" for key in sorted(different))
            )
    load_tensors(trained_tensors(pipeline.unet), trained_tensors(trained.unet))
    if pipeline.conditioner is not None and trained.conditioner is not None:
        load_tensors(trained_tensors(pipeline.conditioner), trained_tensors(trained.conditioner))
        for name in (n for n in trained.conditioner.config if n.startswith("log_")):
            pipeline.conditioner.register_to_config(**{name: trained.conditioner.config[name]})
    pipeline.register_modules(representation=trained.representation, denoiser=trained.denoiser)


def describe_choice(component: Any) -> dict[str, Any]:
    """What a user chose of a representation or denoiser: its class and settings, without the numbers fitted."""
    fitted = {"log_low", "log_high", "log_max", "mean", "std", "zero", "slab_weights", "slab_means", "slab_stds"}
    config = {key: value for key, value in component.config.items() if not key.startswith("_")}
    chosen = {key: value for key, value in config.items() if key not in fitted and "range" not in key}
    return {"class": type(component).__name__, **json.loads(json.dumps(chosen))}


def make_state(settings: TrainSettings, pipeline: JetImagePipeline) -> TrainingState:
    """Model, optimiser, learning-rate schedule and averaged weights at step 0."""
    model, options = TrainedModule(pipeline), settings.optimizer
    if settings.memory_format == "channels_last":
        model.unet.to(memory_format=torch.channels_last)
    if settings.unet.gradient_checkpointing:
        model.unet.enable_gradient_checkpointing()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings.learning_rate,
        betas=(options.beta1, options.beta2),
        eps=options.epsilon,
        weight_decay=options.weight_decay,
        fused=options.fused,
    )
    lr_scheduler = get_scheduler(
        options.lr_schedule,
        optimizer,
        num_warmup_steps=settings.warmup_steps,
        num_training_steps=settings.max_steps,
    )
    averaged = EMAModel(list(model.parameters()), decay=settings.ema_decay, foreach=True)
    return TrainingState(model, optimizer, lr_scheduler, averaged)


def run_steps(  # noqa: PLR0915
    settings: TrainSettings,
    accelerator: Accelerator,
    run: RunFolder,
    pipeline: JetImagePipeline,
    state: TrainingState,
    jets: JetDataset,
    validation: JetDataset,
) -> None:
    """The training loop."""
    device, processes = accelerator.device, accelerator.num_processes
    noisy_jets = NoisyJets(
        jets,
        pipeline.representation,
        pipeline.denoiser,
        batch_size=settings.batch_size,
        seed=settings.seed,
        min_ratio=settings.noise.min_ratio,
        condition_drop=settings.optimizer.condition_drop,
        with_totals=settings.unet.totals,
    )
    batches = GlobalBatches(
        len(jets),
        settings.batch_size,
        settings.seed,
        range(state.step, settings.max_steps),
        process=accelerator.process_index,
        processes=processes,
        accumulation=settings.accumulation,
    )
    loader = batch_loader(noisy_jets, batches, settings.num_workers, pin=device.type == "cuda")
    pipeline.to(device)
    marginal = SpikeAndSlabDenoiser.from_pretrained(run.marginal) if run.marginal.is_dir() else None
    loss_of = DenoisingLoss(pipeline.denoiser, pipeline.representation, settings.optimizer, device, marginal)
    state.averaged.to(device)
    bare = state.model
    model, state.optimizer = accelerator.prepare(bare, state.optimizer)
    if settings.compile:
        pipeline.unet.compile()
    monitor = Monitor(settings, accelerator, run, pipeline, state, validation, loss_of, len(jets))
    parameters, clock = list(bare.parameters()), Clock()
    sums = torch.zeros(3, device=device)
    progress = tqdm(total=settings.max_steps, initial=state.step, unit="step", disable=not accelerator.is_main_process)
    model.train()
    loading = iter(loader)
    while state.step < settings.max_steps:
        # Dropout draws from the global state: key it, so that a resumed run draws the same.
        torch.manual_seed(settings.seed * 1_000_003 + state.step * processes + accelerator.process_index)
        clock.lap()
        for micro in range(settings.accumulation):
            batch = next(loading).to(device)
            waited = clock.lap() if clock.jets else 0 * clock.lap()  # the loader's start is no waiting
            last = micro == settings.accumulation - 1
            with nullcontext() if last else accelerator.no_sync(model):
                output = model(loss_of.noisy(batch), *batch[2:])
                terms = loss_of(output, batch)
                # accelerate divides by the number of micro-batches.
                accelerator.backward(terms.loss)
            sums += terms.sums / settings.accumulation
            clock.waiting += waited
            clock.busy += waited + clock.lap()
        if settings.optimizer.max_grad_norm:
            accelerator.clip_grad_norm_(parameters, settings.optimizer.max_grad_norm)
        state.optimizer.step()
        state.lr_scheduler.step()
        state.optimizer.zero_grad()
        state.averaged.step(parameters)
        state.step += 1
        state.epoch = state.step * settings.batch_size / len(jets)
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # the clock must see the step's end, not its launch
        clock.busy += clock.lap()
        clock.jets += settings.batch_size
        progress.update()
        if state.step % settings.log_every == 0 or state.step == settings.max_steps:
            monitor.log(sums, clock, progress)
            sums = torch.zeros(3, device=device)
        save = state.step % settings.checkpoint_every == 0 or state.step == settings.max_steps
        monitor.validate(due=save)
        if save:
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                save_checkpoint(run, state, settings.keep_checkpoints)
            accelerator.wait_for_everyone()
        monitor.sample()
    progress.close()
    monitor.finish(clock)


if __name__ == "__main__":
    run_command("train", main, sys.argv[1:])
