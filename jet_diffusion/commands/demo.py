"""The whole line on the bundled sample: convert, train for minutes, generate, report, stage for the Hub."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from importlib.resources import as_file, files
from pathlib import Path

from jet_diffusion.commands import evaluate
from jet_diffusion.commands.generate import generate
from jet_diffusion.commands.publish import stage
from jet_diffusion.data.bundled import sample_path
from jet_diffusion.data.convert import convert
from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.data.hdf5 import QuarkGluonFile
from jet_diffusion.evaluation.run import LEAST_JETS
from jet_diffusion.hub import load_pipeline
from jet_diffusion.plotting.jets import plot_side_by_side, save_figure
from jet_diffusion.runs import TRAINING_JETS, RunFolder
from jet_diffusion.training.settings import parse_settings
from jet_diffusion.training.train import train

SHOWN_JETS = 6
FRACTIONS = (0.6, 0.1, 0.3)
"""Of the bundled sample, for training, validation and test: the report needs enough real jets."""


def run_demo(out: Path, max_steps: int | None, num_jets: int, reference: str | None = None) -> Path:
    """Run every stage into `out` and return the path of the picture.

    Args:
        out: Folder of the demo; what an earlier demo left there is replaced, except the converted dataset.
        max_steps: Training steps, by default those of the bundled configuration.
        num_jets: Jets to generate.
        reference: A trained model to judge and draw beside the short training's; its picture is returned then.

    Raises:
        FileExistsError: If the folder holds anything but an earlier demo.
    """
    marker = out / ".jet-diffusion-demo"
    if out.exists() and any(out.iterdir()) and not marker.exists():
        raise FileExistsError(f"{out} exists and is no earlier demo; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    marker.touch()
    dataset, run_folder, generated_file = out / "dataset", out / "run", out / "generated.hdf5"
    _say(f"bundled sample -> {dataset}")
    if not dataset.exists():
        convert(sample_path(), dataset, fractions=FRACTIONS)
    _say(f"training -> {run_folder}")
    shutil.rmtree(run_folder, ignore_errors=True)
    with as_file(files("jet_diffusion.data.bundled") / "demo.yaml") as config:
        arguments = ["--config", str(config), "--data", str(dataset), "--run_dir", str(run_folder), "--cpu", "true"]
        run = train(parse_settings([*arguments, *(["--max_steps", str(max_steps)] if max_steps else [])]))
    test = JetDataset.load(dataset, "test")
    training = [f"--training-hashes={run.training_jets}", f"--training={dataset}"]
    make_and_judge(str(run.path), generated_file, num_jets, test, [f"--out={run.evaluation}", *training])
    picture = draw(out / "jets.png", generated_file, test)
    _say(f"staging for the Hub -> {out / 'published'}")
    stage(RunFolder.open(run_folder), out / "published", "user/jet-diffusion-demo")
    if reference is not None:
        reference_file, report = out / "reference.hdf5", out / "reference_report"
        hashes = Path(reference) / TRAINING_JETS  # travels with a model; one on the Hub is not asked for it
        known = [f"--training-hashes={hashes}"] if hashes.is_file() else []
        make_and_judge(reference, reference_file, num_jets, test, [f"--out={report}", "--overwrite", *known])
        picture = draw(out / "reference.png", reference_file, test)
    return picture


def make_and_judge(model: str, generated_file: Path, num_jets: int, test: JetDataset, options: list[str]) -> None:
    """Generate jets for the conditions of test jets, and write a report of them against all test jets."""
    _say(f"{num_jets} jets of {model} -> {generated_file}")
    generated_file.unlink(missing_ok=True)
    generate(load_pipeline(model), generated_file, num_jets, seed=1, like=test, attrs={"model": model})
    _say(f"report of {generated_file}")
    size = min(num_jets, len(test) // 2)
    dataset = str(generated_file.parent / "dataset")
    evaluate.main([str(generated_file), dataset, f"--size={size}", "--classifiers=observables", *options])


def draw(picture: Path, generated_file: Path, test: JetDataset) -> Path:
    """Draw real jets beside those generated for the same conditions."""
    with QuarkGluonFile(generated_file) as made:
        generated = made.energies(0, SHOWN_JETS)
    real, labels = test.energies(range(SHOWN_JETS)), test.labels[:SHOWN_JETS]
    save_figure(plot_side_by_side(real, generated, labels, note=test.simulated), picture)
    return picture


def main(argv: list[str] | None = None) -> None:
    """Run the demo and end with where the picture is."""
    parser = argparse.ArgumentParser(prog="jet-diffusion demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything (default demo)")
    parser.add_argument("--max-steps", type=int, help="training steps (default: the bundled configuration's)")
    parser.add_argument(
        "--num-jets", type=int, default=300, help=f"jets to generate, {LEAST_JETS} to 300 (default 300)"
    )
    parser.add_argument("--reference", help="a trained model to draw and judge beside the short training's")
    arguments = parser.parse_args(argv)
    if not LEAST_JETS <= arguments.num_jets <= 300 or (arguments.max_steps is not None and arguments.max_steps < 1):
        raise ValueError(
            f"--num-jets must be {LEAST_JETS} to 300 and --max-steps at least 1, "
            f"got {arguments.num_jets} and {arguments.max_steps}"
        )
    started = time.perf_counter()
    picture = run_demo(arguments.out, arguments.max_steps, arguments.num_jets, arguments.reference)
    _say(f"done in {time.perf_counter() - started:.0f} s; everything is in {arguments.out}")
    sys.stdout.write(f"picture: {picture.absolute()}\n")


def _say(text: str) -> None:
    sys.stdout.write(f"\n== {text}\n")
    sys.stdout.flush()
