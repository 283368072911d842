"""Conversion against a bare sequential h5py read; sizes on disk; random batches.

    python -m benchmarks.speed.conversion FILE [--rewrite] [--work FOLDER] [--repeats 3]

`--rewrite` first writes FILE anew as the published one is stored: LZF, chunks of 6,400 jets. Every measurement
runs in a process of its own, so that its peak memory is its own; reads and conversions take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHUNK_JETS = 6400


def rewrite(source: Path, path: Path) -> None:
    """Store a file as the published one is."""
    import h5py

    with h5py.File(source) as old, h5py.File(path, "w") as new:
        new.attrs.update(old.attrs)
        pixels = old["X_jets"]
        chunk = (min(CHUNK_JETS, len(pixels)), *pixels.shape[1:])
        copy = new.create_dataset("X_jets", pixels.shape, pixels.dtype, chunks=chunk, compression="lzf")
        for start in range(0, len(pixels), chunk[0]):
            copy[start : start + chunk[0]] = pixels[start : start + chunk[0]]
        for key in ("y", "pt", "m0"):
            new[key] = old[key][:]


def bare_read(path: str) -> float:
    """Read whole chunks in order, as plainly as h5py allows."""
    import h5py

    with h5py.File(path) as file:
        pixels = file["X_jets"]
        step = pixels.chunks[0] if pixels.chunks else 100
        start_time = time.perf_counter()
        for start in range(0, len(pixels), step):
            pixels[start : start + step]
        return time.perf_counter() - start_time


def cached_read(path: str) -> float:
    """Read slices of 128 jets through a chunk cache of one chunk, into one buffer: the fastest we know."""
    import h5py
    import numpy as np

    with h5py.File(path, rdcc_nbytes=CHUNK_JETS * 187_500, rdcc_nslots=10) as file:
        pixels = file["X_jets"]
        buffer = np.empty((128, *pixels.shape[1:]), np.float32)
        start_time = time.perf_counter()
        for start in range(0, len(pixels), 128):
            stop = min(start + 128, len(pixels))
            pixels.read_direct(buffer[: stop - start], np.s_[start:stop])
        return time.perf_counter() - start_time


def convert(path: str, out: str) -> float:
    """Convert with the default settings."""
    from jet_diffusion.data.convert import convert

    shutil.rmtree(out, ignore_errors=True)
    start_time = time.perf_counter()
    convert(path, out)
    return time.perf_counter() - start_time


def random_batches(out: str, batch_size: str) -> float:
    """Seconds a jet for random batches of the training split, decoded."""
    import numpy as np

    from jet_diffusion.data.dataset import JetDataset

    jets, random = JetDataset.load(out, "train"), np.random.default_rng(0)
    count, start_time = 0, time.perf_counter()
    while time.perf_counter() - start_time < 5:
        count += len(jets.energies(random.integers(0, len(jets), int(batch_size))))
    return (time.perf_counter() - start_time) / count


TASKS = {task.__name__: task for task in (bare_read, cached_read, convert, random_batches)}


def run(task: str, *arguments: object, cache: Path | None = None) -> tuple[float, float]:
    """Run a task in a process of its own.

    Returns:
        What it returned (seconds), and its peak memory in GB.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if cache is not None:
        environment |= {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", f"benchmarks.speed.{Path(__file__).stem}", "--task", task, *map(str, arguments)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    seconds, memory = json.loads(output.splitlines()[-1])
    return seconds, memory


def size(folder: Path, pattern: str) -> int:
    """Bytes of the files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob(pattern))


def measure(path: Path, work: Path, repeats: int) -> None:
    """Print every figure."""
    import h5py

    with h5py.File(path) as file:
        num_jets, chunks = len(file["X_jets"]), file["X_jets"].chunks
    out, cache = work / "converted", work / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    print(f"{path}: {num_jets} jets, {path.stat().st_size / 1e6:.1f} MB, chunks {chunks}, {os.cpu_count()} cores")
    results: dict[str, list[tuple[float, float]]] = {"bare_read": [], "cached_read": [], "convert": []}
    for _ in range(repeats):
        results["bare_read"].append(run("bare_read", path))
        results["cached_read"].append(run("cached_read", path))
        results["convert"].append(run("convert", path, out))
    rates = {}
    for task, runs in results.items():
        rates[task] = num_jets / statistics.median(seconds for seconds, _ in runs)
        every = ", ".join(f"{num_jets / seconds:.0f}" for seconds, _ in runs)
        memory = max(memory for _, memory in runs)
        print(f"{task:<12} {rates[task]:7.0f} jets/s (runs: {every}), peak memory {memory:.2f} GB")
    for peer in ("bare_read", "cached_read"):
        print(f"convert / {peer}: {rates['convert'] / rates[peer]:.2f}")
    for batch_size in (32, 128):
        seconds, _ = run("random_batches", out, batch_size, cache=cache)
        print(f"random batches of {batch_size}: {1 / seconds:.0f} jets/s")
    stored = path.stat().st_size
    parquet, arrow = size(out, "*.parquet"), size(cache, "*.arrow")
    for name, number in (("Parquet", parquet), ("Arrow cache", arrow)):
        print(f"{name}: {number / 1e6:.1f} MB, {number / stored:.3f} of the file, {number / num_jets:.0f} bytes a jet")


def main() -> None:
    """Parse the command line; `--task` is how the benchmark calls itself."""
    if sys.argv[1:2] == ["--task"]:
        seconds = TASKS[sys.argv[2]](*sys.argv[3:])
        status = Path("/proc/self/status").read_text()
        peak = re.search(r"VmHWM:\s+(\d+)", status)
        print(json.dumps([seconds, int(peak[1]) * 1024 / 1e9 if peak else float("nan")]))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--rewrite", action="store_true", help="store it first as the published file is")
    parser.add_argument("--work", type=Path, help="folder for what is written (default: a temporary one)")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        path = options.file
        if options.rewrite:
            path = work / "rewritten.hdf5"
            rewrite(options.file, path)
        measure(path, work, options.repeats)


if __name__ == "__main__":
    main()
