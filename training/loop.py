"""The training step, in which the host waits for nothing but the loader, and where a session's time goes."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.errors import UserError
from jet_diffusion.pipelines.denoiser import Denoiser
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.pipelines.spike_and_slab import SpikeAndSlabDenoiser
from jet_diffusion.runs import RunFolder
from jet_diffusion.training.batches import TIMESTEP_POWER, GlobalBatches, Noiser, Positions, SparseBatch, batch_loader
from jet_diffusion.training.checkpoints import TrainingState
from jet_diffusion.training.loss import DenoisingLoss, describe_jets
from jet_diffusion.training.processes import average_in_order
from jet_diffusion.training.runtime import check_memory
from jet_diffusion.training.settings import NOTEBOOK_NETWORKS, TrainSettings

CLIP_NORM = 1.0
"""Gradients are clipped to this norm."""


@dataclass
class Clock:
    """Where a session's time goes.

    It is read only where the host has waited for the device anyway: reading it after each step would make the device
    wait for the host.

    Attributes:
        waiting: Seconds that the host waited for the loader after the first batch.
        busy: Seconds spent in steps, waiting included; pictures, validation and checkpoints are left out.
        jets: Jets trained on.
        mark: When the steps began that are not yet in `busy`; None before the first batch.
    """

    waiting: float = 0.0
    busy: float = 0.0
    jets: int = 0
    mark: float | None = None

    def lap(self) -> None:
        """Count the time since the mark; the device must have finished."""
        now = time.perf_counter()
        self.busy += 0.0 if self.mark is None else now - self.mark
        self.mark = now

    def skip(self) -> None:
        """Leave out the time since the mark."""
        self.mark = time.perf_counter()


class TrainingLoop:
    """All that a step needs, on its device; made once a session, at the state's step.

    Args:
        settings, accelerator: Of the run.
        pipeline: Whose components are trained; moved to the accelerator's device.
        state: Model, optimiser and averages; its step is counted on.
        jets: The training split.
        marginal: The one-pixel denoiser that a plain denoiser's loss is compared with.

    Attributes:
        batches, loader, noiser: Which jets are in which batch, their hits, and what makes noisy jets of them.
        loss_of: The training loss.
        clock: Where the time went.
        sums: (3,) the loss terms of the steps since `take_sums`, added up.
    """

    def __init__(
        self,
        settings: TrainSettings,
        accelerator: Accelerator,
        pipeline: JetImagePipeline,
        state: TrainingState,
        jets: JetDataset,
        marginal: SpikeAndSlabDenoiser | None = None,
    ) -> None:
        self.settings, self.accelerator, self.state, self.jets = settings, accelerator, state, jets
        self.device = accelerator.device
        self.batches = GlobalBatches(
            len(jets),
            settings.batch_size,
            settings.seed,
            process=accelerator.process_index,
            processes=accelerator.num_processes,
            accumulation=settings.accumulation,
            shards=jets.shards,
        )
        steps, pin = range(state.step, settings.max_steps), self.device.type == "cuda"
        self.loader = batch_loader(jets, self.batches, steps, settings.num_workers, pin=pin)
        self.noiser = make_noiser(settings, pipeline, self.device)
        pipeline.to(self.device)
        self.loss_of = DenoisingLoss(
            pipeline.denoiser, pipeline.representation, settings.optimizer, self.device, marginal
        )
        state.averaged.to(self.device)
        self.parameters = list(state.model.parameters())
        self._check_memory()
        self.model, state.optimizer = accelerator.prepare(state.model, state.optimizer)
        average_in_order(self.model)
        if settings.compile:
            pipeline.unet.compile()
        self.clock, self.sums = Clock(), torch.zeros(3, device=self.device)
        # The first micro-batch with a loss that was not finite (-1: none), and which of its jets had it.
        self._bad_micro = torch.tensor(-1, device=self.device)
        self._bad_jets = torch.zeros(self.batches.micro_batch, dtype=torch.bool, device=self.device)
        self.model.train()
        self._batches = iter(self.loader)

    def step(self) -> None:
        """One optimiser step."""
        settings, state = self.settings, self.state
        # Dropout draws from the global state: key it, so that a resumed run draws the same.
        accelerator = self.accelerator
        key = settings.seed * 1_000_003 + state.step * accelerator.num_processes + accelerator.process_index
        torch.manual_seed(key)
        for micro in range(settings.accumulation):
            self._forward_and_backward(micro)
        if settings.unet.network not in NOTEBOOK_NETWORKS:  # theirs were trained without
            accelerator.clip_grad_norm_(self.parameters, CLIP_NORM)
        state.optimizer.step()
        state.lr_scheduler.step()
        state.optimizer.zero_grad()
        state.averaged.step(self.parameters)
        state.step += 1
        state.epoch = state.step * settings.batch_size / len(self.jets)
        self.clock.jets += settings.batch_size

    def _forward_and_backward(self, micro: int) -> None:
        """One micro-batch; gradients are exchanged after the last alone."""
        last = micro == self.settings.accumulation - 1
        batch = self.noiser(self._next_batch())
        with nullcontext() if last else self.accelerator.no_sync(self.model):
            output = self.model(self.loss_of.noisy(batch), *batch[2:])
            terms = self.loss_of(output, batch)
            # accelerate divides by the number of micro-batches.
            self.accelerator.backward(terms.loss)
        self.sums += terms.sums / self.settings.accumulation
        self._watch(terms.per_jet, micro)

    def _next_batch(self) -> SparseBatch:
        begun = time.perf_counter()
        batch: SparseBatch | Exception = next(self._batches)
        if isinstance(batch, Exception):
            raise batch
        if self.clock.mark is None:  # the loader's start is no waiting
            self.clock.skip()
        else:
            self.clock.waiting += time.perf_counter() - begun
        return batch

    def _watch(self, per_jet: torch.Tensor, micro: int) -> None:
        """Note on the device the first loss that is not finite; nothing waits for it."""
        bad = ~per_jet.isfinite()
        first = bad.any() & (self._bad_micro < 0)
        number = self.state.step * self.settings.accumulation + micro
        self._bad_micro = torch.where(first, number, self._bad_micro)
        self._bad_jets = torch.where(first, bad, self._bad_jets)

    def check_finite(self, run: RunFolder) -> None:
        """Stop, in all processes, if a loss was not finite; waits for the device and reads the clock.

        Args:
            run: Whose last checkpoint the message names.

        Raises:
            UserError: Naming the first such step, its jets and the option to look at.
        """
        found = self.accelerator.gather(self._bad_micro.reshape(1))
        if bool((found >= 0).any()):
            self._stop(int(found[found >= 0].min()), run)
        self.clock.lap()

    def _stop(self, number: int, run: RunFolder) -> NoReturn:
        step, micro = divmod(number, self.settings.accumulation)
        batch = self.batches.positions(step, micro).rows
        if int(self._bad_micro) != number:
            batch = batch[:0]
        rows = gather_object(batch[self._bad_jets.cpu().numpy()[: len(batch)]].tolist())
        size = len(gather_object(batch.tolist()))
        advice = "begin another run with a smaller learning_rate, more warmup_steps or precision no"
        if len(rows) < size:
            advice = f"look at these jets (`jet-diffusion convert --drop-bad` leaves out faulty ones), or {advice}"
        raise UserError(
            f"the loss of step {step + 1} is not finite for {len(rows)} of {size} jets of the training split: "
            f"{describe_jets(self.jets, rows)}; {run.last_checkpoint_stays()}. To go on, {advice}; "
            f"learning_rate is {self.settings.learning_rate:g}, warmup_steps {self.settings.warmup_steps}, "
            f"precision {self.accelerator.mixed_precision}"
        )

    def _check_memory(self) -> None:
        """Refuse a batch that does not fit, before the loader makes the first."""
        model = self.state.model

        def losses(count: int) -> torch.Tensor:
            slots = np.arange(count)
            batch = self.noiser(SparseBatch.pack(Positions(0, slots, slots % len(self.jets)), self.jets))
            with self.accelerator.autocast():
                output = model(self.loss_of.noisy(batch), *batch[2:])
            return self.loss_of(output, batch).loss

        model.eval()  # statistics of normalisations stay as they are
        check_memory(losses, self.parameters, self.batches.micro_batch, self.accelerator)

    def take_sums(self) -> torch.Tensor:
        """The loss terms added up since the last call, which begin again at zero."""
        sums, self.sums = self.sums, torch.zeros_like(self.sums)
        return sums


def noise_range(denoiser: Denoiser) -> dict[str, float]:
    """Range of noise levels for training; spike and slab leaves out low noise, where every pixel is known."""
    if not isinstance(denoiser, SpikeAndSlabDenoiser):
        return {}
    return {"min_ratio": denoiser.config.min_ratio, "timestep_power": TIMESTEP_POWER}


def make_noiser(settings: TrainSettings, pipeline: JetImagePipeline, device: torch.device) -> Noiser:
    """What makes a training batch of sparse ones."""
    return Noiser(
        pipeline.representation,
        pipeline.denoiser,
        device,
        batch_size=settings.batch_size,
        seed=settings.seed,
        **noise_range(pipeline.denoiser),
        condition_drop=settings.optimizer.condition_drop,
        with_ring_sums=settings.unet.conditioning == "rings",
    )
