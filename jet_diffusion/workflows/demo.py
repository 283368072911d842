"""Every step on the bundled sample: convert, train for minutes, generate, evaluate, stage for the Hub."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from jet_diffusion.data.bundled import sample_path
from jet_diffusion.data.convert import convert
from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.data.hdf5 import QuarkGluonFile
from jet_diffusion.hub import load_pipeline
from jet_diffusion.plotting.jets import plot_side_by_side, save_figure
from jet_diffusion.runs import TRAINING_JETS, RunFolder
from jet_diffusion.sampling.generate import generate
from jet_diffusion.training.settings import parse_settings
from jet_diffusion.training.train import train
from jet_diffusion.workflows.stage import stage

SHOWN_JETS = 6

FRACTIONS = (0.6, 0.1, 0.3)
"""Of the bundled sample, for training, validation and test: the report needs enough real jets."""


def run_demo(
    out: Path, max_steps: int | None, num_jets: int, reference: str | None, evaluate: Callable[..., None]
) -> Path:
    """Run every step into `out` and return the path of the picture.

    Args:
        out: Folder of the demo; what an earlier demo left there is replaced, except the converted dataset.
        max_steps: Training steps, by default those of the bundled configuration.
        num_jets: Jets to generate.
        reference: A trained model to evaluate and draw beside the short training's; its picture is returned then.
        evaluate: Called with generated and real jets and options of `jet-diffusion evaluate`; writes a report.

    Raises:
        FileExistsError: If the folder holds anything but an earlier demo.
    """
    marker = out / ".jet-diffusion-demo"
    if out.exists() and any(out.iterdir()) and not marker.exists():
        raise FileExistsError(f"{out} exists and is no earlier demo; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    marker.touch()
    dataset = out / "dataset"
    _say(f"bundled sample -> {dataset}")
    if not dataset.exists():
        convert(sample_path(), dataset, fractions=FRACTIONS)
    run = _train(dataset, out / "run", max_steps)
    test = JetDataset.load(dataset, "test")

    def judged(model: str, name: str, **options: Any) -> Path:
        """A file of a model's jets for the conditions of test jets, with a report beside it."""
        file = out / f"{name}.hdf5"
        _say(f"{num_jets} jets of {model} -> {file}")
        file.unlink(missing_ok=True)
        generate(load_pipeline(model), file, num_jets, seed=1, like=test, attrs={"model": model})
        _say(f"report of {file}")
        evaluate(file, dataset, size=min(num_jets, len(test) // 2), **options)
        return file

    known: dict[str, Any] = {"training_hashes": run.training_jets, "training": str(dataset)}
    generated = judged(str(run.path), "generated", out=run.evaluation, **known)
    picture = _draw(out / "jets.png", generated, test)
    _say(f"staging for the Hub -> {out / 'published'}")
    stage(run, out / "published", "user/jet-diffusion-demo")
    if reference is not None:
        hashes = Path(reference) / TRAINING_JETS
        known = {"training_hashes": hashes} if hashes.is_file() else {}  # a model on the Hub is not asked for them
        generated = judged(reference, "reference", out=out / "reference_report", overwrite=True, **known)
        picture = _draw(out / "reference.png", generated, test)
    return picture


def _train(dataset: Path, folder: Path, max_steps: int | None) -> RunFolder:
    """Train anew by the bundled configuration."""
    _say(f"training -> {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    with as_file(files("jet_diffusion.data.bundled") / "demo.yaml") as config:
        arguments = [f"--config={config}", f"--data={dataset}", f"--run-dir={folder}", "--cpu=true"]
        return train(parse_settings([*arguments, *([f"--max_steps={max_steps}"] if max_steps else [])]))


def _draw(picture: Path, file: Path, test: JetDataset) -> Path:
    """Draw real jets beside those generated for the same conditions."""
    with QuarkGluonFile(file) as made:
        generated = made.energies(0, SHOWN_JETS)
    real, labels = test.energies(range(SHOWN_JETS)), test.labels[:SHOWN_JETS]
    save_figure(plot_side_by_side(real, generated, labels, note=test.simulated), picture)
    return picture


def _say(text: str) -> None:
    sys.stdout.write(f"\n== {text}\n")
    sys.stdout.flush()
