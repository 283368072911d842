"""`jet-diffusion inspect FILE`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from jet_diffusion.errors import require_least


@dataclass
class Options:
    """Look into a file of quark/gluon jets: how it is stored, its classes and energies, and pictures of a few jets.

    Attributes:
        file: The quark/gluon file, HDF5 or Parquet.
        out: Folder of the pictures; outputs/inspect-NAME if you omit it.
        max_jets: Use the energies of the first N jets only.
        columns: The file's column names if they are not X_jets, y, pt and m0, for example "pt=jetPt,m0=jetM".
        channels_first: The images are (N, 3, 125, 125).
        unit: Unit of the energies: GeV/100 (what HDF5 files have), GeV, a number of GeV, or raw for Parquet files.
        follow_links: Also read content that the file keeps in other files.
    """

    file: Path
    out: Path | None = None
    max_jets: int | None = None
    columns: str | None = None
    channels_first: bool = False
    unit: str | None = None
    follow_links: bool = False

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        require_least(self, max_jets=1)


def main(options: Options) -> None:
    """Print what the file holds and draw the pictures."""
    from jet_diffusion.data.checks import describe_findings
    from jet_diffusion.data.hdf5 import QuarkGluonFile
    from jet_diffusion.data.inspect import describe_energies, describe_file, draw_pictures, tally_energies

    with QuarkGluonFile(
        options.file,
        columns=options.columns,
        channels_first=options.channels_first or None,
        unit=options.unit,
        follow_links=options.follow_links,
        check=False,
    ) as file:
        sys.stdout.write(describe_file(file) + "\n\n")
        pictures = draw_pictures(file, options.out or Path("outputs") / f"inspect-{file.path.stem}")
        tally, findings = tally_energies(file, options.max_jets)
        sys.stdout.write(f"{describe_energies(tally)}\n\n{describe_findings(findings)}\n\n")
    sys.stdout.write(f"pictures: {', '.join(map(str, pictures))}\n")
