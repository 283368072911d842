"""The whole line on the bundled sample: convert, train for minutes, generate, report, stage for the Hub."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from importlib.resources import as_file, files
from pathlib import Path

from jet_diffusion.conversion import convert
from jet_diffusion.hdf5 import QuarkGluonFile
from jet_diffusion.hub import load_pipeline
from jet_diffusion.observables import quick_table
from jet_diffusion.plots import plot_side_by_side, save_figure
from jet_diffusion.runs import RunFolder
from jet_diffusion.sample import sample_path
from jet_diffusion.training.generate import generate
from jet_diffusion.training.monitor import format_table
from jet_diffusion.training.publish import stage
from jet_diffusion.training.settings import parse_settings
from jet_diffusion.training.train import train

SHOWN_JETS = 6


def run_demo(out: Path, max_steps: int | None, num_jets: int) -> Path:
    """Run every stage into `out` and return the path of the picture.

    Args:
        out: Folder of the demo; what an earlier demo left there is replaced, except the converted dataset.
        max_steps: Training steps, by default those of the bundled configuration.
        num_jets: Jets to generate.
    """
    out.mkdir(parents=True, exist_ok=True)
    dataset, run_folder, generated_file = out / "dataset", out / "run", out / "generated.hdf5"
    _say(f"bundled sample -> {dataset}")
    if not dataset.exists():
        convert(sample_path(), dataset)
    _say(f"training -> {run_folder}")
    shutil.rmtree(run_folder, ignore_errors=True)
    with as_file(files("jet_diffusion.sample") / "demo.yaml") as config:
        arguments = ["--config", str(config), "--data", str(dataset), "--run_dir", str(run_folder), "--cpu", "true"]
        run = train(parse_settings([*arguments, *(["--max_steps", str(max_steps)] if max_steps else [])]))
    _say(f"{num_jets} jets -> {generated_file}")
    generated_file.unlink(missing_ok=True)
    pipeline = load_pipeline(run.path)
    with QuarkGluonFile(sample_path()) as sample:
        generate(pipeline, generated_file, num_jets, seed=1, like=sample, attrs={"model": "demo"})
    picture = report(out, generated_file, num_jets)
    _say(f"staging for the Hub -> {out / 'published'}")
    stage(RunFolder.open(run_folder), out / "published", "user/jet-diffusion-demo")
    return picture


def report(out: Path, generated_file: Path, num_jets: int) -> Path:
    """Print energy and occupancy of generated against real jets, and draw them side by side."""
    with QuarkGluonFile(sample_path()) as sample, QuarkGluonFile(generated_file) as made:
        real, generated, labels = sample.energies(0, num_jets), made.energies(0, num_jets), made.labels[:SHOWN_JETS]
    _say("generated against real jets")
    sys.stdout.write(format_table(quick_table(real, generated)) + "\n")
    picture = out / "jets.png"
    save_figure(plot_side_by_side(real[:SHOWN_JETS], generated[:SHOWN_JETS], labels), picture)
    return picture


def main(argv: list[str] | None = None) -> None:
    """Run the demo and end with where the picture is."""
    parser = argparse.ArgumentParser(prog="jet-diffusion demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything (default demo)")
    parser.add_argument("--max-steps", type=int, help="training steps (default: the bundled configuration's)")
    parser.add_argument("--num-jets", type=int, default=256, help="jets to generate (default 256)")
    arguments = parser.parse_args(argv)
    if arguments.num_jets < SHOWN_JETS or (arguments.max_steps is not None and arguments.max_steps < 1):
        raise ValueError(f"--num-jets must be at least {SHOWN_JETS} and --max-steps at least 1")
    started = time.perf_counter()
    picture = run_demo(arguments.out, arguments.max_steps, arguments.num_jets)
    _say(f"done in {time.perf_counter() - started:.0f} s; everything is in {arguments.out}")
    sys.stdout.write(f"picture: {picture.absolute()}\n")


def _say(text: str) -> None:
    sys.stdout.write(f"\n== {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError, FileExistsError) as problem:
        sys.exit(f"demo: {problem}")
