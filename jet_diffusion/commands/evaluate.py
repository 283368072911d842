"""`jet-diffusion evaluate GENERATED REAL --out FOLDER`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jet_diffusion.arguments import Scheduler
from jet_diffusion.errors import UserError, printable, require_least


@dataclass
class Options:
    """Compare generated jets with real ones, and write a report of numbers with errors, baselines and pictures.

    GENERATED is an HDF5 file of jets or a model. A model is sampled for the conditions of real jets. Of REAL,
    twice --size jets are used for a file, and three times --size for a model. With fewer, the comparison is smaller.

    Attributes:
        generated: HDF5 file of generated jets; or a training run, a pipeline folder, or user/name on the Hub.
        real: HDF5 file of real jets, or a converted dataset (folder or Hub name).
        out: Folder of the report.
        overwrite: Replace an existing report.
        no_pictures: Write numbers only.
        style: Draw the pictures in the style of this experiment, without its label; our own style if you omit it.
        split: Split of REAL, if it is a dataset.
        size: Jets on each side of a comparison.
        seed: Seed of the sampling and of the choice of jets.
        jobs: Processes for the classifiers.
        dask: Let the workers of a Dask cluster train the classifiers: the address of its scheduler, or local:N for N
            processes.
        classifiers: Classifiers that try to tell generated from real jets; none if you name none. image comes along
            with observables.
        tagger: Train quark/gluon taggers on real and on generated jets, and compare them.
        training: HDF5 file or dataset of training jets, to measure whether the model memorised them.
        training_split: Split of these training jets, if they are a dataset.
        training_hashes: Content hashes of the training jets (.npy), by which they are refused among the real ones.
        allow_training_jets: Evaluate even on jets that were used in training.
        steps: Solver steps of a model; its own number if you omit it.
        scheduler: Solver of a model; its own if you omit it.
        batch_size: Jets of a model that are denoised at once; 16 on a CPU and 256 on a GPU if you omit it.
        checkpoint: Checkpoint of a training run: last, best or a step; the last if you omit it.
        sweep: For example "steps=5,10,25": add a table of quality and time for these numbers of solver steps.
        schedulers: Solvers of the sweep; the model's own if you name none.
        sweep_size: Jets of each row of the sweep.
    """

    generated: str
    real: str
    out: Path = Path("evaluation")
    overwrite: bool = False
    no_pictures: bool = False
    style: Literal["cms", "atlas"] | None = None
    split: str = "test"
    size: int = 5_000
    seed: int = 0
    jobs: int = 1
    dask: str | None = None
    classifiers: list[Literal["observables", "image", "voxels", "resnet", "convnextv2"]] = field(
        default_factory=lambda: ["observables", "voxels"]
    )
    tagger: bool = False
    training: str | None = None
    training_split: str = "train"
    training_hashes: Path | None = None
    allow_training_jets: bool = False
    steps: int | None = None
    scheduler: Scheduler | None = None
    batch_size: int | None = None
    checkpoint: str | None = None
    sweep: str | None = None
    schedulers: list[Scheduler] = field(default_factory=list)
    sweep_size: int = 1000

    @property
    def is_file(self) -> bool:
        """Whether the generated jets are a file."""
        from jet_diffusion.data.load import is_jet_file

        return is_jet_file(self.generated)

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        require_least(self, size=100, seed=0, jobs=1, steps=1, batch_size=1, sweep_size=1)
        given = [name for name in ("steps", "scheduler", "checkpoint", "sweep") if getattr(self, name) is not None]
        if self.is_file and given:
            raise UserError(f"--{given[0]} needs a model to sample, but {self.generated} is a file of jets")
        if self.no_pictures and self.style:
            raise UserError(f"--style {self.style} is for pictures; omit it, or --no-pictures")
        if self.schedulers and self.sweep is None:
            raise UserError("--schedulers are those of a sweep; give --sweep steps=5,10,25 too, or --scheduler")


def main(options: Options) -> None:
    """Evaluate and print the results."""
    from jet_diffusion.report.tables import number, verdict
    from jet_diffusion.workflows.evaluate import evaluate

    evaluation = evaluate(options)
    for notice in evaluation.report.notices:
        sys.stdout.write(f"! {printable(notice, None)}\n")
    for result in evaluation.report.results:
        value, baseline = number(result.value, result.error), number(result.baseline, result.baseline_error)
        sys.stdout.write(f"{result.label:<44} {value:>22}   baseline {baseline:>22}   {verdict(result)}\n")
    omitted: dict[str, list[str]] = {}
    for entry in evaluation.report.omitted:
        omitted.setdefault(printable(entry["reason"], None), []).append(entry["name"])
    for reason, names in omitted.items():
        sys.stdout.write(f"left out: {', '.join(names)}: {reason}\n")
    sys.stdout.write(f"report: {(options.out / 'report.html').absolute()}\n")
