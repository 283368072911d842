"""Look into a quark/gluon file, layout, classes, energies and pictures: `jet-diffusion inspect FILE`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jet_diffusion.data.checks import describe_findings
from jet_diffusion.data.hdf5 import QuarkGluonFile
from jet_diffusion.data.inspect import describe_energies, describe_file, draw_pictures, tally_energies


def main(argv: list[str]) -> None:
    """`jet-diffusion inspect FILE`."""
    parser = argparse.ArgumentParser(prog="jet-diffusion inspect", description=(__doc__ or "").strip())
    parser.add_argument("file", type=Path, help="the quark/gluon file, HDF5 or Parquet")
    parser.add_argument("--out", type=Path, help="folder of the pictures (default outputs/inspect-NAME)")
    parser.add_argument("--max-jets", type=int, help="take the energies of the file's first jets only")
    parser.add_argument("--columns", help="the file's names of columns: pt=jetPt,m0=jetM")
    parser.add_argument("--channels-first", action="store_true", help="the images are (N, 3, 125, 125)")
    parser.add_argument("--unit", help="unit of the energies: GeV/100 (default of HDF5), GeV, a number of GeV, raw")
    parser.add_argument("--follow-links", action="store_true", help="read content that lies in other files too")
    options = parser.parse_args(argv)
    with QuarkGluonFile(
        options.file,
        columns=options.columns,
        channels_first=options.channels_first or None,
        unit=options.unit,
        follow_links=options.follow_links,
        check=False,
    ) as file:
        sys.stdout.write(describe_file(file) + "\n\n")
        tally, findings = tally_energies(file, options.max_jets)
        sys.stdout.write(f"{describe_energies(tally)}\n\n{describe_findings(findings)}\n\n")
        pictures = draw_pictures(file, options.out or Path("outputs") / f"inspect-{file.path.stem}")
    sys.stdout.write(f"pictures: {', '.join(map(str, pictures))}\n")
