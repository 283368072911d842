"""What the page in a browser computes: jets for a visitor's wishes, their pictures and their file."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jet_diffusion.data.bundled import sample_path
from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.data.load import load_jets
from jet_diffusion.data.views.show import show_jets
from jet_diffusion.data.writer import JetWriter
from jet_diffusion.errors import UserError, checking
from jet_diffusion.evaluation.plots import observable_page
from jet_diffusion.evaluation.result import Evaluation
from jet_diffusion.hub import load_pipeline
from jet_diffusion.observables.table import OBSERVABLES
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.plotting.animation import save_animation
from jet_diffusion.plotting.jets import plot_jets, save_figure
from jet_diffusion.report.model import Report
from jet_diffusion.sampling.batches import JetBatch, sample_jets
from jet_diffusion.sampling.generate import condition_attrs, generation_attrs
from jet_diffusion.schema import CLASS_NAMES

MOST_JETS = 64
"""Jets of one request by default: a minute of two CPU cores."""

MOST_STEPS = 100
MOST_SEED = 2**32 - 1
REAL_JETS = 1000
"""Jets, at most, whose observables are shown below those of generated ones."""

SHOWN_JETS = 8
BATCH_SIZE = 16

SHOWN_OBSERVABLES = ("energy", "image_mass", "hits_tracks", "hits_ecal", "width", "tau21")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Wish:
    """What a visitor asks for, as texts typed into the form.

    Attributes:
        num_jets, steps, seed: Whole numbers.
        label: "gluon" or "quark"; "" lets the model draw it.
        pt, m0: GeV; "" lets the model draw them.
    """

    num_jets: str
    steps: str
    seed: str
    label: str = ""
    pt: str = ""
    m0: str = ""


@dataclass(frozen=True)
class Made:
    """What came of a wish; all files lie in the visitor's folder.

    Attributes:
        jets: Picture and caption of each of the first jets.
        sheet: The same jets in one picture.
        file: All jets, in the schema of the original file.
        animation: The denoising of the first jet.
        observables: Histograms over those of real jets.
        text: One sentence on what was made.
    """

    jets: list[tuple[Path, str]]
    sheet: Path
    file: Path
    animation: Path
    observables: Path
    text: str


class JetBrowser:
    """Makes jets of one model for visitors.

    Args:
        pipeline: The model, on its device.
        name: Of the model, for files and the page.
        real: Jets whose observables the generated ones are drawn over.
        most_jets: Limit of one request.
    """

    def __init__(self, pipeline: JetImagePipeline, name: str, real: JetSample, most_jets: int = MOST_JETS) -> None:
        self.pipeline, self.name, self.real, self.most_jets = pipeline, name, real, most_jets
        self.most_steps = min(MOST_STEPS, len(pipeline.denoiser.alphas_cumprod))
        self.default_steps = min(pipeline.config.default_steps, self.most_steps)

    @property
    def conditional(self) -> bool:
        """Whether class, pT and mass can be chosen."""
        return self.pipeline.conditioner is not None

    def check(self, wish: Wish) -> tuple[int, int, int, dict[str, Any]]:
        """Number of jets, steps, seed, and conditions by name.

        Raises:
            UserError: Saying in a sentence what is wrong with the wish.
        """
        num_jets = _whole("number of jets", wish.num_jets, 1, self.most_jets)
        steps = _whole("number of steps", wish.steps, 1, self.most_steps)
        seed = _whole("seed", wish.seed, 0, MOST_SEED)
        label, pt, m0 = wish.label or None, _energy("pT", wish.pt), _energy("mass", wish.m0)
        with checking():
            self.pipeline.check_inputs(num_jets, label, pt, m0, steps, BATCH_SIZE, "np")
        given = {"labels": label, "pt": pt, "m0": m0}
        return num_jets, steps, seed, {name: value for name, value in given.items() if value is not None}

    def outside(self, conditions: dict[str, Any]) -> str:
        """A sentence if conditions lie outside the training jets, else nothing."""
        if self.pipeline.first_stage is None:
            return ""
        limits = self.pipeline.first_stage.limits().tolist()
        beyond = [
            f"{name} {low:.0f} to {high:.0f} GeV"
            for name, key, (low, high) in zip(("pT", "mass"), ("pt", "m0"), limits, strict=True)
            if key in conditions and not low <= conditions[key] <= high
        ]
        return f"Training jets have {' and '.join(beyond)}: the model extrapolates here." if beyond else ""

    def make(self, wish: Wish, folder: Path, progress: Progress) -> Made:
        """Sample, draw and write jets.

        Args:
            wish: What is asked for.
            folder: An empty folder of the visitor.
            progress: Called with the steps done and their number before each step; what it raises ends the sampling.

        Raises:
            UserError: Saying in a sentence what is wrong with the wish.
        """
        num_jets, steps, seed, conditions = self.check(wish)
        batches, done = -(-num_jets // BATCH_SIZE), 0
        states: list[torch.Tensor] = []

        def keep(pipeline: JetImagePipeline, _: int, timestep: int, tensors: dict[str, Any]) -> dict[str, Any]:
            nonlocal done
            done += 1
            if done <= steps:  # of the first batch
                states.append(pipeline.scheduler.scale_model_input(tensors["x"], timestep)[:1].cpu().clone())
            progress(done, batches * steps)
            return {}

        progress(0, batches * steps)
        started = time.perf_counter()
        made = sample_jets(
            self.pipeline,
            num_jets,
            conditions,
            seed=seed,
            steps=steps,
            batch_size=BATCH_SIZE,
            callback_on_step_end=keep,
        )
        seconds = time.perf_counter() - started
        attrs = {
            **generation_attrs(self.pipeline, seed, steps, BATCH_SIZE),
            **condition_attrs(conditions, None),
            "model": self.name,
        }
        jets = self._write(made, folder / "jets.hdf5", attrs)
        save_animation(self.pipeline.representation.render(torch.cat(states)).numpy(), folder / "denoising.gif")
        save_figure(show_jets(jets, SHOWN_JETS), folder / "jets.png")
        save_figure(self._observables(jets, conditions.get("labels")), folder / "observables.png")
        text = f"{num_jets} jets in {seconds:.0f} s. {self.outside(conditions)}"
        return Made(
            _draw_each(jets, folder),
            folder / "jets.png",
            folder / "jets.hdf5",
            folder / "denoising.gif",
            folder / "observables.png",
            text.strip(),
        )

    def _write(self, made: JetBatch, file: Path, attrs: dict[str, Any]) -> JetSample:
        energies, labels, pt, m0 = (getattr(made, name).numpy() for name in ("energies", "labels", "pt", "m0"))
        columns = [labels, pt, m0]
        if not self.conditional:  # the schema has these columns; the attribute `conditional` says they mean nothing
            columns = [np.zeros_like(labels), np.ones_like(pt), np.ones_like(m0)]
        with JetWriter(file, len(energies), attrs) as writer:
            writer.append(energies, *columns)
        return JetSample.from_batches(
            [energies], labels, pt, m0, source=self.name, simulated=f"generated by {self.name}"
        )

    def _observables(self, jets: JetSample, label: str | None) -> Any:
        real = self.real if label is None else self.real.of_class(CLASS_NAMES.index(label))
        evaluation = Evaluation(Report({}), real, real.take(np.arange(0)), jets)
        return observable_page([OBSERVABLES[name] for name in SHOWN_OBSERVABLES], evaluation)


def load_browser(model: str, jets: str | Path | None = None, most_jets: int = MOST_JETS) -> JetBrowser:
    """Load a model, and the jets that its own are drawn over.

    Args:
        model: A training run, a pipeline folder, or user/name on the Hub.
        jets: HDF5 file or converted dataset; the bundled simulated sample if None.
        most_jets: Limit of one request.

    Raises:
        UserError: If either is not what it should be.
        FileNotFoundError: If either does not exist.
    """
    pipeline = load_pipeline(model)
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    pipeline.set_progress_bar_config(disable=True)
    real = load_jets(sample_path() if jets is None else jets, REAL_JETS, np.random.default_rng(0))
    _ = real.observables  # now, not at the first visit
    name = (
        Path(model).resolve().name if Path(model).is_dir() else model
    )  # visitors need not know this machine's folders
    return JetBrowser(pipeline, name, real, most_jets)


def _draw_each(jets: JetSample, folder: Path) -> list[tuple[Path, str]]:
    """A picture of each of the first jets, with its caption."""
    pictures = []
    for row in range(min(SHOWN_JETS, len(jets))):
        path = folder / f"jet_{row}.png"
        save_figure(plot_jets(jets.energies(slice(row, row + 1)), columns=2), path)
        caption = f"jet {row}"
        if jets.labels[row] >= 0:
            caption = f"{CLASS_NAMES[jets.labels[row]]}, pT {jets.pt[row]:.0f} GeV, mass {jets.m0[row]:.0f} GeV"
        pictures.append((path, caption))
    return pictures


def _whole(name: str, text: str, least: int, most: int) -> int:
    """A whole number within its limits.

    Raises:
        UserError: Naming them.
    """
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise UserError(f"the {name} must be a whole number from {least} to {most}, not {_shown(text)}")
    return value


def _energy(name: str, text: str) -> float | None:
    """A positive number of GeV; None for an empty text.

    Raises:
        UserError: If it is anything else.
    """
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UserError(f"the {name} must be a positive number of GeV, not {_shown(text)}")
    return value


def _shown(text: str) -> str:
    """What a visitor typed, cut short."""
    return repr(text.strip()[:20])
