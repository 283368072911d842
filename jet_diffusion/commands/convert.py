"""`jet-diffusion convert FILE OUT`."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jet_diffusion.commands import require_repo
from jet_diffusion.errors import UserError, require_least
from jet_diffusion.schema import CLASS_NAMES


@dataclass
class Options:
    """Turn files of quark/gluon jets into a Hugging Face dataset, without loss and at a third of the size.

    The same command continues an interrupted conversion. With --push-to, a folder that the same command has already
    made is only uploaded.

    Attributes:
        files: Quark/gluon files, HDF5 or Parquet.
        out: The dataset folder to make.
        append: Add the files to the finished dataset folder. The jets it has stay in their split.
        max_jets: Convert only the first N jets of the files.
        seed: Seed of the split into training, validation and test jets.
        val: Share of validation jets.
        test: Share of test jets.
        workers: Threads that encode, beside the one that reads.
        dask: Let the workers of a Dask cluster convert: the address of its scheduler, or local:N for N processes.
        license: Licence on the dataset's card, as the Hub names it.
        push_to: Also upload to this dataset repository (user/name).
        columns: The file's column names if they are not X_jets, y, pt and m0, for example "pt=jetPt,m0=jetM".
        channels_first: The images are (N, 3, 125, 125).
        unit: Unit of the energies: GeV/100 (what HDF5 files have), GeV, a number of GeV, or raw for Parquet files.
        follow_links: Also read content that the file keeps in other files.
        drop_bad: Leave out faulty, empty and repeated jets, and count them on the card.
        private: Make the repository private, if --push-to makes one.
    """

    files: list[Path]
    out: Path
    append: bool = False
    max_jets: int | None = None
    seed: int = 0
    val: float = 0.1
    test: float = 0.1
    workers: int = 2
    dask: str | None = None
    license: str = "unknown"
    push_to: str | None = None
    columns: str | None = None
    channels_first: bool = False
    unit: str | None = None
    follow_links: bool = False
    drop_bad: bool = False
    private: bool = False

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        require_least(self, max_jets=1, seed=0, workers=1, val=0, test=0)
        require_repo("--push-to", self.push_to)
        if not self.val + self.test < 1:
            raise UserError(f"--val and --test must leave jets to train on, got {self.val} and {self.test}")
        if self.private and self.push_to is None:
            raise UserError("--private is of the repository that --push-to makes; give both or neither")


def main(options: Options) -> None:
    """Convert, print a summary, and push if asked to."""
    # Arrow then takes the memory that numpy freed after reading. Its own pool would keep as much again of every block.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    from jet_diffusion.data.convert import convert, converted_before
    from jet_diffusion.data.dataset_card import push
    from jet_diffusion.repositories import require_writable

    settings: dict[str, Any] = {
        "seed": options.seed,
        "fractions": (round(1 - options.val - options.test, 12), options.val, options.test),
        "max_jets": options.max_jets,
        "license_name": options.license,
        "drop_bad": options.drop_bad,
        "columns": options.columns,
        "channels_first": options.channels_first or None,
        "unit": options.unit,
        "follow_links": options.follow_links,
        "append": options.append,
    }
    metadata = None
    if options.push_to is not None and options.out.exists():
        metadata = converted_before(options.files, options.out, **settings)
    if metadata is None:
        if options.push_to is not None:
            require_writable(options.push_to, "dataset", "leave out --push-to to convert now, and push later")
        metadata = convert(options.files, options.out, workers=options.workers, dask=options.dask, **settings)
    sys.stdout.write(describe(metadata, options.out))
    if options.push_to is not None:
        sys.stdout.write(f"pushed to {push(options.out, options.push_to, options.private)}\n")


def describe(metadata: dict[str, Any], out: Path) -> str:
    """The summary that the command prints."""
    lines = [f"{out}: {sum(counts['num_jets'] for counts in metadata['splits'].values())} jets of {metadata['source']}"]
    lines += [f"  {remark}" for source in metadata["sources"] for remark in source["remarks"]]
    lines += [f"  {finding['level']}: {finding['text']}" for finding in metadata["findings"]]
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
