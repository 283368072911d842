"""`jet-diffusion demo`."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jet_diffusion.errors import UserError, require_least

if TYPE_CHECKING:
    from jet_diffusion.data.dataset import JetDataset
    from jet_diffusion.runs import RunFolder

LEAST_JETS, MOST_JETS = 100, 300
"""The report needs the first number at least, and the test split has twice the last."""

SHOWN_JETS = 6

FRACTIONS = (0.6, 0.1, 0.3)
"""Of the bundled sample, for training, validation and test: the report needs enough real jets."""


@dataclass
class Options:
    """Run every step on the bundled sample of simulated jets: convert, train, generate, evaluate, prepare for the Hub.

    It takes minutes on one CPU. It ends with the path of a picture of real and generated jets.

    Attributes:
        out: Folder for everything; what an earlier demo left there is replaced.
        max_steps: Training steps; those of the bundled configuration if you omit it.
        num_jets: Jets to generate, 100 to 300.
        reference: A trained model to draw and evaluate beside the short training's.
    """

    out: Path = Path("demo")
    max_steps: int | None = None
    num_jets: int = 300
    reference: str | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        require_least(self, max_steps=1)
        if not LEAST_JETS <= self.num_jets <= MOST_JETS:
            raise UserError(f"--num-jets must be {LEAST_JETS} to {MOST_JETS}, got {self.num_jets}")


def main(options: Options) -> None:
    """Run the demo and end with where the picture is."""
    started = time.perf_counter()
    picture = run_demo(options)
    _say(f"done in {time.perf_counter() - started:.0f} s; everything is in {options.out}")
    sys.stdout.write(f"picture: {picture.absolute()}\n")


def run_demo(options: Options) -> Path:
    """Run every step and return the path of the picture: that of the reference model, if there is one.

    Raises:
        FileExistsError: If the folder holds anything but an earlier demo.
    """
    from jet_diffusion.data.bundled import sample_path
    from jet_diffusion.data.convert import convert
    from jet_diffusion.data.dataset import JetDataset
    from jet_diffusion.runs import TRAINING_JETS
    from jet_diffusion.workflows.stage import stage

    out, marker = options.out, options.out / ".jet-diffusion-demo"
    if out.exists() and any(out.iterdir()) and not marker.exists():
        raise FileExistsError(f"{out} exists and is no earlier demo; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    marker.touch()
    dataset, generated = out / "dataset", out / "generated.hdf5"
    _say(f"bundled sample -> {dataset}")
    if not dataset.exists():
        convert(sample_path(), dataset, fractions=FRACTIONS)
    run = _train(dataset, out / "run", options.max_steps)
    test = JetDataset.load(dataset, "test")
    known: dict[str, Any] = {"training_hashes": run.training_jets, "training": str(dataset)}
    _generate_and_evaluate(str(run.path), generated, options.num_jets, test, out=run.evaluation, **known)
    picture = _draw(out / "jets.png", generated, test)
    _say(f"staging for the Hub -> {out / 'published'}")
    stage(run, out / "published", "user/jet-diffusion-demo")
    if options.reference is not None:
        generated, hashes = out / "reference.hdf5", Path(options.reference) / TRAINING_JETS
        known = {"training_hashes": hashes} if hashes.is_file() else {}  # a model on the Hub is asked for its own
        report: dict[str, Any] = {"out": out / "reference_report", "overwrite": True}
        _generate_and_evaluate(options.reference, generated, options.num_jets, test, **report, **known)
        picture = _draw(out / "reference.png", generated, test)
    return picture


def _train(dataset: Path, folder: Path, max_steps: int | None) -> RunFolder:
    """Train anew by the bundled configuration."""
    from importlib.resources import as_file, files

    from jet_diffusion.training.settings import parse_settings
    from jet_diffusion.training.train import train

    _say(f"training -> {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    with as_file(files("jet_diffusion.data.bundled") / "demo.yaml") as config:
        arguments = [f"--config={config}", f"--data={dataset}", f"--run_dir={folder}", "--cpu=true"]
        return train(parse_settings([*arguments, *([f"--max_steps={max_steps}"] if max_steps else [])]))


def _generate_and_evaluate(model: str, file: Path, num_jets: int, test: JetDataset, **options: Any) -> None:
    """Generate jets for the conditions of test jets, and write a report of them against all test jets."""
    from jet_diffusion.commands import evaluate
    from jet_diffusion.hub import load_pipeline
    from jet_diffusion.sampling.generate import generate

    _say(f"{num_jets} jets of {model} -> {file}")
    file.unlink(missing_ok=True)
    generate(load_pipeline(model), file, num_jets, seed=1, like=test, attrs={"model": model})
    _say(f"report of {file}")
    size, dataset = min(num_jets, len(test) // 2), str(file.parent / "dataset")
    evaluate.main(evaluate.Options(str(file), dataset, size=size, classifiers=["observables"], **options))


def _draw(picture: Path, file: Path, test: JetDataset) -> Path:
    """Draw real jets beside those generated for the same conditions."""
    from jet_diffusion.data.hdf5 import QuarkGluonFile
    from jet_diffusion.plotting.jets import plot_side_by_side, save_figure

    with QuarkGluonFile(file) as made:
        generated = made.energies(0, SHOWN_JETS)
    real, labels = test.energies(range(SHOWN_JETS)), test.labels[:SHOWN_JETS]
    save_figure(plot_side_by_side(real, generated, labels, note=test.simulated), picture)
    return picture


def _say(text: str) -> None:
    sys.stdout.write(f"\n== {text}\n")
    sys.stdout.flush()
