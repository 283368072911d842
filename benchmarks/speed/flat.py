"""Peak memory of commands against the number of jets: it should not grow with a file.

    python -m benchmarks.speed.flat convert --jets 5000 50000
    python -m benchmarks.speed.flat generate --jets 500 2000 --model reference/model
    python -m benchmarks.speed.flat evaluate --jets 2000 4000

The jets are the bundled sample, tiled. Each row is one process of `jet-diffusion`, and its peak is what the system says
of it (`ru_maxrss`). Generating takes one solver step; evaluating leaves out classifiers and pictures.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from jet_diffusion.data.bundled import sample_path


def tile(path: Path, num_jets: int) -> None:
    """Write the bundled sample again and again, by its compressed chunks, until there are enough jets."""
    with h5py.File(sample_path()) as sample, h5py.File(path, "w") as tiled:
        tiled.attrs.update(sample.attrs)
        images = sample["X_jets"]
        chunk = images.chunks
        period = len(images) // chunk[0] * chunk[0]
        for name in ("y", "pt", "m0"):
            tiled[name] = np.resize(sample[name][:period], num_jets)
        shape = (num_jets, *images.shape[1:])
        made = tiled.create_dataset("X_jets", shape, images.dtype, chunks=chunk, compression=images.compression)
        for start in range(0, num_jets, chunk[0]):
            mask, jets = images.id.read_direct_chunk((start % period, 0, 0, 0))
            made.id.write_direct_chunk((start, 0, 0, 0), jets, mask)


def peak(*arguments: object) -> tuple[float, float]:
    """Run `jet-diffusion`; its peak of resident memory in MB, and its seconds."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "jet_diffusion", *map(str, arguments)]
    child = os.posix_spawn(sys.executable, command, os.environ)
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss * 1024 / 1e6, time.perf_counter() - start


def measure(options: argparse.Namespace, num_jets: int, folder: Path) -> tuple[float, float]:
    """Peak and seconds of the command with so many jets."""
    jets = folder / "jets.hdf5"
    if options.command == "generate":
        more = ["--num-jets", num_jets, "--steps", 1, "--batch-size", 100]
        return peak("generate", options.model, folder / "out.hdf5", *more)
    tile(jets, num_jets if options.command == "convert" else 2 * num_jets)
    if options.command == "convert":
        return peak("convert", jets, folder / "out")
    more = ["--size", num_jets, "--classifiers=[]", "--no-pictures", "--out", folder / "report"]
    return peak("evaluate", jets, jets, *more)


def main() -> None:
    """Measure every row and print the table."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("command", choices=["convert", "generate", "evaluate"])
    made.add_argument("--jets", type=int, nargs="+", default=[5_000, 50_000])
    made.add_argument("--model", default="reference/model", help="to generate with")
    options = made.parse_args()
    print(f"{'jets':>7} {'peak MB':>8} {'seconds':>8}")
    for num_jets in options.jets:
        with tempfile.TemporaryDirectory() as folder:
            found, seconds = measure(options, num_jets, Path(folder))
        print(f"{num_jets:>7} {found:>8.0f} {seconds:>8.1f}", flush=True)


if __name__ == "__main__":
    main()
