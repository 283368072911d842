"""Look into a quark/gluon HDF5 file, layout, classes, energies and pictures: `jet-diffusion inspect FILE`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jet_diffusion.data.hdf5 import QuarkGluonFile
from jet_diffusion.data.inspect import describe_energies, describe_file, draw_pictures, tally_energies


def main(argv: list[str]) -> None:
    """`jet-diffusion inspect FILE`."""
    parser = argparse.ArgumentParser(prog="jet-diffusion inspect", description=(__doc__ or "").strip())
    parser.add_argument("file", type=Path, help="the quark/gluon HDF5 file")
    parser.add_argument("--out", type=Path, help="folder of the pictures (default outputs/inspect-NAME)")
    parser.add_argument("--max-jets", type=int, help="take the energies of the file's first jets only")
    options = parser.parse_args(argv)
    with QuarkGluonFile(options.file) as file:
        sys.stdout.write(describe_file(file) + "\n\n")
        pictures = draw_pictures(file, options.out or Path("outputs") / f"inspect-{file.path.stem}")
        sys.stdout.write(describe_energies(tally_energies(file, options.max_jets)) + "\n\n")
    sys.stdout.write(f"pictures: {', '.join(map(str, pictures))}\n")
