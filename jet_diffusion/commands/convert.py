"""Turn a quark/gluon HDF5 file into a Hugging Face dataset: `jet-diffusion convert FILE OUT`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from jet_diffusion.data.convert import FRACTIONS, convert, push, read_metadata
from jet_diffusion.schema import CLASS_NAMES


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jet-diffusion convert", description=__doc__)
    parser.add_argument("file", type=Path, help="the quark/gluon HDF5 file")
    parser.add_argument("out", type=Path, help="the dataset folder to make")
    parser.add_argument("--max-jets", type=int, help="convert only the file's first jets")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split (default 0)")
    parser.add_argument("--val", type=float, default=FRACTIONS[1], help="share of validation (default 0.1)")
    parser.add_argument("--test", type=float, default=FRACTIONS[2], help="share of test (default 0.1)")
    parser.add_argument("--workers", type=int, default=2, help="encoding threads beside the reading one")
    parser.add_argument("--dask", metavar="ADDRESS", help="a Dask scheduler whose workers convert, or local:N")
    parser.add_argument("--license", default="unknown", help="licence on the card, as the Hub names it")
    parser.add_argument("--push-to", metavar="USER/NAME", help="also upload to this dataset repository")
    parser.add_argument("--private", action="store_true", help="a repository that --push-to makes is private")
    return parser


def main(argv: list[str]) -> None:
    """`jet-diffusion convert FILE OUT`."""
    options = _parser().parse_args(argv)
    train = round(1 - options.val - options.test, 12)
    if options.push_to and options.out.exists():
        metadata = read_metadata(options.out)  # converted before: this time only the upload is left
    else:
        metadata = convert(
            options.file,
            options.out,
            seed=options.seed,
            fractions=(train, options.val, options.test),
            max_jets=options.max_jets,
            workers=options.workers,
            license_name=options.license,
            dask=options.dask,
        )
    sys.stdout.write(_describe(metadata, options.out))
    if options.push_to:
        sys.stdout.write(f"pushed to {push(options.out, options.push_to, options.private)}\n")


def _describe(metadata: dict[str, Any], out: Path) -> str:
    """What the command says at its end."""
    lines = [f"{out}: {metadata['num_jets']} jets of {metadata['source']['name']}"]
    for name, counts in metadata["splits"].items():
        classes = ", ".join(f"{counts[label]} {label}" for label in CLASS_NAMES)
        lines.append(f"  {name:<11}{counts['num_jets']:>8} jets: {classes}")
    duplicates = metadata["duplicates"]
    lines += [
        f"  duplicate images: {duplicates['jets']}, jets that share one across splits: "
        f"{duplicates['jets_across_splits']}",
        f"  jets whose HCAL is not constant in 5x5 towers: {metadata['num_hcal_not_in_towers']}",
    ]
    if metadata["simulated"]:
        lines.append(f"  NOT COLLISION DATA: {metadata['simulated']}")
    return "\n".join(lines) + "\n"
