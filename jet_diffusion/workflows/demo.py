"""What `jet-diffusion demo` does: the reference model and a short training of one's own, on the bundled sample."""

from __future__ import annotations

import shutil
import sys
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np

import jet_diffusion
from jet_diffusion.data.bundled import sample_path
from jet_diffusion.data.convert import convert
from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.data.hdf5 import QuarkGluonFile
from jet_diffusion.errors import UserError
from jet_diffusion.hub import load_pipeline
from jet_diffusion.observables.hits import Array
from jet_diffusion.observables.table import quick_table
from jet_diffusion.plotting.jets import plot_side_by_side, save_figure
from jet_diffusion.report.tables import number
from jet_diffusion.runs import RunFolder
from jet_diffusion.sampling.generate import generate
from jet_diffusion.training.settings import parse_settings
from jet_diffusion.training.train import train
from jet_diffusion.workflows.stage import stage

SHOWN_JETS = 3

STEPS = 12
"""Solver steps: fewer than the models' own number, so that the demo is short."""

FRACTIONS = (0.6, 0.1, 0.3)
"""Of the bundled sample, for training, validation and test."""

NO_REFERENCE = (
    "there is no reference model here: an installed package has none. It lies in reference/model of the source tree; "
    "clone that and give --reference path/to/reference/model, or --reference user/name for a model on the Hub"
)

NEXT = """\
next, with a file of your own:
  jet-diffusion inspect FILE.hdf5
  jet-diffusion convert FILE.hdf5 jets
  jet-diffusion train --data jets --run-dir runs/first
"""

Table = list[dict[str, float | str]]


def run_demo(out: Path, *, reference: str | None, quick: bool, max_steps: int | None, num_jets: int) -> dict[str, Path]:
    """Run all stages into `out`, print a table of averages, and return each model's picture by the model's name.

    Args:
        out: Folder of the demo; what an earlier demo left there is replaced, except the converted dataset.
        reference: A trained model; that of the source tree if None.
        quick: Whether to end after the reference model's jets.
        max_steps: Training steps, by default those of the bundled configuration.
        num_jets: Jets of each model.

    Raises:
        FileExistsError: If the folder holds anything but an earlier demo.
        UserError: If the demo is to be quick and there is no reference model.
    """
    in_tree = Path(jet_diffusion.__file__).parents[1] / "reference" / "model"
    if reference is None and in_tree.is_dir():
        reference = str(in_tree)
    if quick and reference is None:
        raise UserError(NO_REFERENCE)
    marker = out / ".jet-diffusion-demo"
    if out.exists() and any(out.iterdir()) and not marker.exists():
        raise FileExistsError(f"{out} exists and is no earlier demo; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    marker.touch()
    last = (1 if quick else 4) + (reference is not None)
    stages = (f"[{number}/{last}]" for number in range(1, last + 1))

    _say(f"{next(stages)} converting the bundled sample of 2,048 simulated jets, about 10 s")
    dataset = out / "dataset"
    if not dataset.exists():
        convert(sample_path(), dataset, fractions=FRACTIONS)
    test = JetDataset.load(dataset, "test")
    tables: dict[str, Table] = {}
    pictures: dict[str, Path] = {}
    if reference is not None:
        _say(f"{next(stages)} sampling {num_jets} jets of the reference model, about 40 s")
        pictures["reference model"] = out / "reference.png"
        tables["reference model"] = _sample(reference, test, num_jets, pictures["reference model"])
    else:
        _say(NO_REFERENCE)
    if not quick:
        _say(f"{next(stages)} training a small model, about 90 s; the recommended one learns for hours")
        run = _train(dataset, out / "run", max_steps)
        _say(f"{next(stages)} sampling {num_jets} jets of it, about 30 s")
        pictures["short training"] = out / "jets.png"
        tables["short training"] = _sample(str(run.path), test, num_jets, pictures["short training"])
        _say(f"{next(stages)} preparing it for the Hub, about 5 s; nothing is pushed")
        _say(f"the model and its card: {stage(run, out / 'published', 'user/jet-diffusion-demo')}")
    _say(f"\nAverages of {num_jets} jets with their standard errors; occupancy is the share of crystals that are hit.")
    _say(format_tables(tables))
    return pictures


def _sample(model: str, test: JetDataset, num_jets: int, picture: Path) -> Table:
    """Write a model's jets for the conditions of test jets, draw them beside those, and compare averages."""
    file = picture.with_suffix(".hdf5")
    file.unlink(missing_ok=True)
    generate(
        load_pipeline(model),
        file,
        num_jets,
        seed=1,
        steps=STEPS,
        like=test,
        attrs={"model": model},
    )
    with QuarkGluonFile(file) as made:
        generated = made.energies(0, num_jets)
    real = test.energies(np.arange(num_jets))
    shown: tuple[Array, Array] = (real[:SHOWN_JETS], generated[:SHOWN_JETS])
    titles = [f"pT {pt:.0f}, m {m0:.0f} GeV" for pt, m0 in zip(test.pt[:SHOWN_JETS], test.m0[:SHOWN_JETS], strict=True)]
    names = ("Simulated", "Generated for the same class, pT and mass")
    save_figure(plot_side_by_side(*shown, test.labels[:SHOWN_JETS], names, test.simulated, titles), picture)
    _say(f"picture: {picture.absolute()}")
    return quick_table(real, generated)


def _train(dataset: Path, folder: Path, max_steps: int | None) -> RunFolder:
    """Train anew by the bundled configuration."""
    shutil.rmtree(folder, ignore_errors=True)
    with as_file(files("jet_diffusion.data.bundled") / "demo.yaml") as config:
        arguments = [f"--config={config}", f"--data={dataset}", f"--run-dir={folder}", "--cpu=true"]
        return train(parse_settings([*arguments, *([f"--max_steps={max_steps}"] if max_steps else [])]))


def format_tables(tables: dict[str, Table]) -> str:
    """Six lines: mean energy and occupancy of each channel, of simulated jets and of each model.

    Args:
        tables: Name of a model -> its `quick_table`, all against the same simulated jets.
    """
    names = list(tables)
    lines = [f"{'average of a jet':<22}{'simulated':>16}" + "".join(f"{name:>18}" for name in names)]
    for rows in zip(*tables.values(), strict=True):
        first: dict[str, Any] = rows[0]
        line = f"{first['channel']} {first['quantity']} [{first['unit']}]"
        line = f"{line:<22}{number(first['real'], first['real_error']):>16}"
        for row in rows:
            generated: Any = row["generated"], row["generated_error"]
            line += f"{number(*generated):>18}"
        lines.append(line)
    return "\n".join(lines)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
