"""The training step: what happens between two batches, and where a session's time goes."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.errors import UserError
from jet_diffusion.pipelines.denoiser import Denoiser
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.pipelines.spike_and_slab import SpikeAndSlabDenoiser
from jet_diffusion.runs import RunFolder
from jet_diffusion.training.batches import TIMESTEP_POWER, GlobalBatches, NoisyJets, Position, batch_loader
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

    Attributes:
        waiting: Seconds spent waiting for the loader after the first batch.
        busy: Seconds spent in steps, waiting included; pictures, validation and checkpoints are left out.
        jets: Jets trained on.
        mark: When the last lap ended.
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


class TrainingLoop:
    """All that a step needs, on its device; made once a session, at the state's step.

    Args:
        settings, accelerator: Of the run.
        pipeline: Whose components are trained; moved to the accelerator's device.
        state: Model, optimiser and averages; its step is counted on.
        jets: The training split.
        marginal: The one-pixel denoiser that a plain denoiser's loss is compared with.

    Attributes:
        noisy_jets, batches, loader: The batches from the state's step on.
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
        self.noisy_jets, self.batches = make_batches(settings, accelerator, pipeline, jets, state.step)
        pin = self.device.type == "cuda"
        self.loader = batch_loader(self.noisy_jets, self.batches, settings.num_workers, pin=pin)
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
        settings, state, clock = self.settings, self.state, self.clock
        # Dropout draws from the global state: key it, so that a resumed run draws the same.
        accelerator = self.accelerator
        key = settings.seed * 1_000_003 + state.step * accelerator.num_processes + accelerator.process_index
        torch.manual_seed(key)
        clock.lap()
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
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # the clock must see the step's end, not its launch
        clock.busy += clock.lap()
        clock.jets += settings.batch_size

    def _forward_and_backward(self, micro: int) -> None:
        """One micro-batch; gradients are exchanged after the last alone."""
        clock, last = self.clock, micro == self.settings.accumulation - 1
        batch = next(self._batches).to(self.device)
        waited = clock.lap() if clock.jets else 0 * clock.lap()  # the loader's start is no waiting
        with nullcontext() if last else self.accelerator.no_sync(self.model):
            output = self.model(self.loss_of.noisy(batch), *batch[2:])
            terms = self.loss_of(output, batch)
            # accelerate divides by the number of micro-batches.
            self.accelerator.backward(terms.loss)
        self.sums += terms.sums / self.settings.accumulation
        self._watch(terms.per_jet, micro)
        clock.waiting += waited
        clock.busy += waited + clock.lap()

    def _watch(self, per_jet: torch.Tensor, micro: int) -> None:
        """Note on the device the first loss that is not finite; nothing waits for it."""
        bad = ~per_jet.isfinite()
        first = bad.any() & (self._bad_micro < 0)
        number = self.state.step * self.settings.accumulation + micro
        self._bad_micro = torch.where(first, number, self._bad_micro)
        self._bad_jets = torch.where(first, bad, self._bad_jets)

    def check_finite(self, run: RunFolder) -> None:
        """Stop, in all processes, if a loss was not finite; waits for the device.

        Args:
            run: Whose last checkpoint the message names.

        Raises:
            UserError: Naming the first such step, its jets and the option to look at.
        """
        found = self.accelerator.gather(self._bad_micro.reshape(1))
        if bool((found >= 0).any()):
            self._stop(int(found[found >= 0].min()), run)

    def _stop(self, number: int, run: RunFolder) -> NoReturn:
        step, micro = divmod(number, self.settings.accumulation)
        batch: list[Position] = []
        if int(self._bad_micro) == number:
            batch = self.batches.positions(step, micro)
        rows = [position.jet for position, bad in zip(batch, self._bad_jets.tolist(), strict=False) if bad]
        rows, size = gather_object(rows), len(gather_object(batch))
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
            batch = self.noisy_jets.__getitems__([Position(0, slot, slot % len(self.jets)) for slot in range(count)])
            batch = batch.to(self.device)
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


def make_batches(
    settings: TrainSettings, accelerator: Accelerator, pipeline: JetImagePipeline, jets: JetDataset, first_step: int
) -> tuple[NoisyJets, GlobalBatches]:
    """What makes a batch of jets with their noise, and the batches of this process from a step on."""
    noisy_jets = NoisyJets(
        jets,
        pipeline.representation,
        pipeline.denoiser,
        batch_size=settings.batch_size,
        seed=settings.seed,
        **noise_range(pipeline.denoiser),
        condition_drop=settings.optimizer.condition_drop,
        with_ring_sums=settings.unet.conditioning == "rings",
    )
    batches = GlobalBatches(
        len(jets),
        settings.batch_size,
        settings.seed,
        range(first_step, settings.max_steps),
        process=accelerator.process_index,
        processes=accelerator.num_processes,
        accumulation=settings.accumulation,
    )
    return noisy_jets, batches
