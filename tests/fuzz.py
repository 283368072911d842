"""Give readers mutated files; `make fuzz` runs this with atheris.

    python tests/fuzz.py --seconds 60 [--only hdf5 parquet options index checkpoint]

Whatever a file holds, a reader gives jets or raises an error of one line (UserError, OSError). Anything else is a find:
its bytes are kept in `--kept`, and become a unit test made by code.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

REFERENCE = Path(__file__).parents[1] / "reference" / "model"

LARGEST = 100_000
"""Bytes of an input."""


def hdf5(folder: Path) -> tuple[list[bytes], Callable[[bytes], object]]:
    """Read a file of jets, HDF5, to its end."""
    import h5py

    from jet_diffusion.data.bundled import sample_path

    with h5py.File(sample_path()) as sample, h5py.File(folder / "seed", "w") as file:
        for name in ("X_jets", "y", "pt", "m0"):
            compression = "gzip" if name == "X_jets" else None
            file.create_dataset(name, data=sample[name][:3], compression=compression)
        file.attrs["simulated"] = "stand-in"
    return [(folder / "seed").read_bytes()], lambda data: read_jets(folder / "jets.hdf5", data)


def parquet(folder: Path) -> tuple[list[bytes], Callable[[bytes], object]]:
    """Read a file of jets, Parquet with nested lists, to its end."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    image = [[[0.0] * 125] * 125] * 3
    columns = {"X_jets": [image, image], "pt": [[100.0]] * 2, "m0": [[20.0]] * 2, "y": [[0.0], [1.0]]}
    # Without statistics, so that fewer inputs make those contradict each other: Arrow ends the process then, by
    # "Definition level histogram size mismatch", whoever asks for a column's metadata.
    pq.write_table(pa.table(columns), folder / "seed", write_statistics=False)
    return [(folder / "seed").read_bytes()], lambda data: read_jets(folder / "jets.parquet", data)


def read_jets(path: Path, data: bytes) -> None:
    """Open a file of these bytes and read all jets."""
    from jet_diffusion.data.hdf5 import QuarkGluonFile

    path.write_bytes(data)
    with QuarkGluonFile(path, check=False) as file:
        for start, stop in file.slices():
            file.energies(start, stop, check=False)


def options(folder: Path) -> tuple[list[bytes], Callable[[bytes], object]]:
    """Read a training configuration."""
    from jet_diffusion.training.settings import parse_settings

    def read(data: bytes) -> None:
        (folder / "config.yaml").write_bytes(data)
        parse_settings([f"--config={folder / 'config.yaml'}"])

    seed = "data: jets\nrun_dir: run\nunet:\n  block_out_channels: [8, 8]\n  conditioning: rings\nnoise: {}\nseed: 0\n"
    return [seed.encode()], read


def index(folder: Path) -> tuple[list[bytes], Callable[[bytes], object]]:
    """Load a pipeline by its model_index.json."""
    from jet_diffusion.hub import load_folder

    for part in REFERENCE.iterdir():
        if part.is_dir():
            (folder / part.name).symlink_to(part)

    def read(data: bytes) -> None:
        (folder / "model_index.json").write_bytes(data)
        load_folder(folder)

    return [(REFERENCE / "model_index.json").read_bytes()], read


def checkpoint(folder: Path) -> tuple[list[bytes], Callable[[bytes], object]]:
    """Read a checkpoint: its state, if the first byte is `{`, else its averaged weights."""
    import torch
    from safetensors.torch import save

    from jet_diffusion.hub import load_averaged, load_folder

    pipeline = load_folder(REFERENCE)

    def state_of(data: bytes) -> bytes:
        """Whoever makes a bad checkpoint makes its digests too."""
        return json.dumps({"step": 3, "sha256": {"averaged.safetensors": hashlib.sha256(data).hexdigest()}}).encode()

    def read(data: bytes) -> None:
        own = data[:1] == b"{"
        (folder / "state.json").write_bytes(data if own else state_of(data))
        (folder / "averaged.safetensors").write_bytes(weights if own else data)
        load_averaged(pipeline, folder)

    weights = save({"unet.conv_in.bias": torch.zeros(2)})
    return [state_of(weights), weights], read


TARGETS = {each.__name__: each for each in (hdf5, parquet, options, index, checkpoint)}


def fuzz(target: str, flags: list[str]) -> None:
    """Fuzz one target in this process; it does not return."""
    import atheris

    with tempfile.TemporaryDirectory() as place, atheris.instrument_imports(include=["jet_diffusion"]):
        folder = Path(place)
        seeds, read = TARGETS[target](folder)
        corpus = folder / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(seeds):
            (corpus / str(number)).write_bytes(seed)
            try_one(read, seed)  # imports what is left

        atheris.Setup([sys.argv[0], *flags, str(corpus)], lambda data: try_one(read, data))
        atheris.Fuzz()


def try_one(read: Callable[[bytes], object], data: bytes) -> None:
    """Read these bytes; errors of one line are what should come."""
    from jet_diffusion.errors import UserError

    with suppress(UserError, OSError):
        read(data)


def main() -> None:
    """Fuzz each target in a process of its own and print the table."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--seconds", type=int, default=60, help="for each target (default 60)")
    made.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS))
    made.add_argument("--kept", type=Path, default=Path("outputs/fuzz"), help="folder of what is found")
    made.add_argument("--target", help=argparse.SUPPRESS)
    given = made.parse_args()
    given.kept.mkdir(parents=True, exist_ok=True)
    flags = [f"-max_total_time={given.seconds}", f"-max_len={LARGEST}", "-timeout=60", "-rss_limit_mb=4096"]
    flags += [f"-artifact_prefix={given.kept.absolute()}/"]
    if given.target:
        return fuzz(given.target, flags)
    sys.stdout.write(f"{'target':<12} {'inputs':>8}  found\n")
    for target in given.only:
        command = [sys.executable, __file__, f"--seconds={given.seconds}", f"--kept={given.kept}", f"--target={target}"]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        inputs = max(map(int, re.findall(r"^#(\d+)", done.stderr, re.MULTILINE)), default=0)
        lines = [
            line
            for line in done.stderr.splitlines()
            if re.match(r"\w+(\.\w+)*(Error|Exception)\b|  what|==\d+==", line)
        ]
        found = "nothing" if done.returncode == 0 else (lines or done.stderr.splitlines() or [""])[0]
        sys.stdout.write(f"{target:<12} {inputs:>8}  {found:.200}\n")
        sys.stdout.flush()
    return None


if __name__ == "__main__":
    main()
