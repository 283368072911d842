"""What a run reports: log lines, validation on fixed noise, pictures and a table of sampled jets, a summary."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.errors import UserError
from jet_diffusion.observables.table import quick_table
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.plotting.jets import plot_side_by_side, save_figure
from jet_diffusion.plotting.training import plot_history
from jet_diffusion.renames import flatten
from jet_diffusion.runs import RunFolder
from jet_diffusion.sampling.batches import sample_jets
from jet_diffusion.signals import Interrupted
from jet_diffusion.training.batches import Noiser, SparseBatch, validation_positions
from jet_diffusion.training.build import count_parameters
from jet_diffusion.training.checkpoints import TrainingState
from jet_diffusion.training.loss import DenoisingLoss, describe_jets
from jet_diffusion.training.settings import TrainSettings
from jet_diffusion.training.signals import Interruption

if TYPE_CHECKING:
    from tqdm.auto import tqdm

    from jet_diffusion.training.loop import Clock

SHOWN_JETS = 6


class Monitor:
    """Logs, validates and samples at the steps the settings name.

    Args:
        settings, accelerator, run, pipeline, state: Of the run; the pipeline's components are the trained ones.
        validation: The validation split.
        loss_of: The training loss.
        interruption: Knows whether a signal came, which ends sampling at once.
    """

    def __init__(
        self,
        settings: TrainSettings,
        accelerator: Accelerator,
        run: RunFolder,
        pipeline: JetImagePipeline,
        state: TrainingState,
        validation: JetDataset,
        loss_of: DenoisingLoss,
        epoch_jets: int,
        interruption: Interruption,
    ) -> None:
        self.settings, self.accelerator, self.run = settings, accelerator, run
        self.pipeline, self.state, self.validation, self.loss_of = pipeline, state, validation, loss_of
        self.bare, self.interruption = state.model, interruption
        self.logged = state.step
        self.validate_every = settings.validate_every or max(1, epoch_jets // settings.batch_size)
        positions = validation_positions(len(validation), settings.validation_jets)
        self.noiser = Noiser(
            pipeline.representation,
            pipeline.denoiser,
            accelerator.device,
            batch_size=len(positions.rows),
            seed=settings.seed,
            min_ratio=pipeline.denoiser.config.get("min_ratio", 0.0),
            with_ring_sums=settings.unet.conditioning == "rings",
        )
        mine = positions.part(slice(accelerator.process_index, None, accelerator.num_processes))
        self.validation_rows = mine.rows.tolist()
        size = max(1, settings.batch_size // (accelerator.num_processes * settings.accumulation))
        parts = [mine.part(slice(start, start + size)) for start in range(0, len(mine.rows), size)]
        self.validation_batches = [SparseBatch.pack(part, validation) for part in parts]
        accelerator.init_trackers("jet-diffusion", config=_tracker_config(settings))

    def log(self, sums: torch.Tensor, clock: Clock, progress: tqdm) -> None:
        """One training line: loss as a share of the marginal denoiser's, learning rate, speed, waiting."""
        steps, self.logged = self.state.step - self.logged, self.state.step
        loss, own, marginal = (self.accelerator.reduce(sums, "mean") / steps).tolist()
        self.state.training_loss = loss
        values = {
            "loss": loss,
            **({"loss_ratio": own / marginal} if marginal else {}),
            "learning_rate": self.state.lr_scheduler.get_last_lr()[0],
            "jets_per_second": clock.jets / clock.busy if clock.busy else 0.0,
            "waiting_share": clock.waiting / clock.busy if clock.busy else 0.0,
        }
        self._record("train", values)
        shown = "loss_ratio" if marginal else "loss"
        progress.set_postfix({shown: f"{values[shown]:.3f}", "jets/s": f"{values['jets_per_second']:.0f}"})

    def validate(self, due: bool) -> bool:
        """Validate if it is time, or due because a checkpoint follows, which is judged by this loss.

        Returns:
            Whether it was done.
        """
        due = due or self.validation_due()
        if due:
            self._validate()
        return due

    def validation_due(self) -> bool:
        """Whether it is time, because an epoch or so many steps have passed."""
        return self.state.step % self.validate_every == 0

    def due(self) -> bool:
        """Whether it is time for anything but a log line."""
        return self.validation_due() or self.sample_due()

    def sample_due(self) -> bool:
        """Whether it is time, every so often and at the end."""
        every, step = self.settings.sample_every, self.state.step
        return step > 0 and (step == self.settings.max_steps or bool(every and step % every == 0))

    def sample(self) -> None:
        """Sample jets if it is time, and they are not there from before a kill."""
        if self.sample_due():
            if self.accelerator.is_main_process and not self._sampled():
                self._sample()
            self.accelerator.wait_for_everyone()

    def finish(self, clock: Clock) -> None:
        """Say how the session went and close the trackers."""
        if clock.jets:
            self.accelerator.print(
                f"trained on {clock.jets} jets at {clock.jets / clock.busy:.1f} jets/s; "
                f"{100 * clock.waiting / clock.busy:.2f} % of the step time was spent waiting for data"
            )
        self.accelerator.print(f"run folder: {self.run.path}")

    @torch.no_grad()
    def _validate(self) -> None:
        """Loss of the averaged weights on the same jets, timesteps and noise every time."""
        sums, jets, bad = torch.zeros(3, device=self.accelerator.device), 0, []
        with self._averaged_weights():
            for sparse in self.validation_batches:
                batch = self.noiser(sparse)
                with self.accelerator.autocast():
                    output = self.bare(self.loss_of.noisy(batch), *batch[2:])
                terms = self.loss_of(output, batch)
                sums += terms.sums * sparse.num_jets
                bad.append(~terms.per_jet.isfinite())
                jets += sparse.num_jets
        self._check_validation(bad)
        total = self.accelerator.reduce(torch.cat([sums, sums.new_tensor([jets])]), "sum")
        loss, own, marginal = (total[:3] / total[3]).tolist()
        self.state.validation_loss = loss
        self._record("validation", {"loss": loss, **({"loss_ratio": own / marginal} if marginal else {})})
        if self.accelerator.is_main_process:
            save_figure(plot_history(self.run.read_metrics()), self.run.history)

    def _check_validation(self, bad: list[torch.Tensor]) -> None:
        """Refuse, in all processes, a validation loss that is not finite."""
        mine = torch.cat(bad).tolist() if bad else []
        rows = gather_object([row for row, is_bad in zip(self.validation_rows, mine, strict=True) if is_bad])
        if rows:
            raise UserError(
                f"the validation loss after step {self.state.step} is not finite for {len(rows)} jets: "
                f"{describe_jets(self.validation, rows)} of the validation split; {self.run.last_checkpoint_stays()}. "
                "Look at these jets, or begin another run with a smaller learning_rate"
            )

    def _sampled(self) -> bool:
        """Whether the picture of this step and its line in the metrics are there."""
        steps = [line["step"] for line in self.run.read_metrics("sample")]
        return self.state.step in steps and self._picture.is_file() and self.run.history.is_file()

    @property
    def _picture(self) -> Path:
        return self.run.samples / f"step-{self.state.step:08d}.png"

    def _sample(self) -> None:
        """Sample jets, unless a signal comes; the next start makes up for it."""
        try:
            self._draw_and_compare()
        except Interrupted:
            self.accelerator.print("sampling was stopped; the next start makes up for it")

    def _end_if_asked(self, *_: Any) -> dict[str, Any]:
        if self.interruption.number:
            raise Interrupted(self.interruption.number)
        return {}

    def _draw_and_compare(self) -> None:
        """Sample jets like the first validation jets, draw some beside them and compare energy and occupancy."""
        count = min(self.settings.sample_jets, len(self.validation))
        with self._averaged_weights(), self.accelerator.autocast():
            made = sample_jets(
                self.pipeline,
                count,
                self.validation,
                seed=self.settings.seed,
                callback_on_step_end=self._end_if_asked,
            )
        generated, real = made.energies.numpy(), self.validation.energies(np.arange(count))
        table = quick_table(real, generated)
        labels = self.validation.labels[: min(count, SHOWN_JETS)] if self.pipeline.conditioner is not None else None
        shown = real[:SHOWN_JETS], generated[:SHOWN_JETS]
        figure = plot_side_by_side(*shown, labels, note=self.validation.simulated)
        self.run.samples.mkdir(exist_ok=True)
        save_figure(figure, self._picture)
        self._record("sample", {"table": table, "clipped_fraction": made.clipped_fraction})
        save_figure(plot_history(self.run.read_metrics()), self.run.history)
        self.accelerator.print(format_table(table))

    @contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        parameters = list(self.bare.parameters())
        self.state.averaged.store(parameters)
        self.state.averaged.copy_to(parameters)
        self.bare.eval()
        try:
            yield
        finally:
            self.state.averaged.restore(parameters)
            self.bare.train()

    def _record(self, kind: str, values: dict[str, Any]) -> None:
        if not self.accelerator.is_main_process:
            return
        step = self.state.step
        self.run.log(kind=kind, step=step, jets=step * self.settings.batch_size, **values)
        numbers = {f"{kind}/{key}": value for key, value in values.items() if isinstance(value, float)}
        self.accelerator.log(numbers, step=step)


def format_table(table: list[dict[str, Any]]) -> str:
    """The quick table as text."""
    lines = [f"{'':<18}{'real':>10}{'generated':>12}{'ratio':>8}"]
    for row in table:
        name = f"{row['channel']} {row['quantity']} ({row['unit']})"
        lines.append(f"{name:<22}{row['real']:>8.4g}{row['generated']:>10.4g}{row['ratio']:>8.3f}")
    return "\n".join(lines)


def describe(settings: TrainSettings, accelerator: Accelerator, jets: JetDataset, pipeline: JetImagePipeline) -> str:
    """What `--dry-run` prints: model size, steps, batches, memory."""
    parameters = count_parameters(pipeline)
    share = settings.batch_size // accelerator.num_processes
    # Weights, gradients, averages and AdamW's two moments in float32.
    state_mb = 5 * 4 * sum(parameters.values()) / 2**20
    seen = settings.max_steps * settings.batch_size
    return "\n".join(
        [
            f"jets            {len(jets)} ({jets.simulated or 'no stand-in'})",
            f"representation  {type(pipeline.representation).__name__}, x {pipeline.representation.shape}",
            f"denoiser        {type(pipeline.denoiser).__name__}, {parameters.get('denoiser', 0):,} parameters",
            f"network         {type(pipeline.unet).__name__}, {parameters['unet']:,} parameters{widths(pipeline.unet)}",
            f"conditioning    {parameters.get('conditioner', 0):,} parameters",
            f"steps           {settings.max_steps} of {settings.batch_size} jets: {seen:,} jets seen, "
            f"{seen / len(jets):.1f} epochs",
            f"a process       {share} jets a step in {settings.accumulation} micro-batch(es)",
            f"memory          {state_mb:.0f} MiB for weights, gradients, averages and optimiser, beside activations",
            f"run             {settings.run_dir} (nothing written)",
        ]
    )


def widths(network: Any) -> str:
    """What to add of a network's channels; nothing for one that has no levels."""
    channels = network.config.get("block_out_channels")
    return f", channels {list(channels)}" if channels else ""


def _tracker_config(settings: TrainSettings) -> dict[str, Any]:
    """Dotted names; TensorBoard takes numbers and texts, nothing else."""
    flat = flatten(asdict(settings))
    return {name: value if isinstance(value, int | float | str) else json.dumps(value) for name, value in flat.items()}
