"""`jet-diffusion inspect FILE`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from jet_diffusion.errors import require_least


@dataclass
class Options:
    """Look into a quark/gluon HDF5 file: how it is stored, its classes and energies, and pictures of a few jets.

    Attributes:
        file: The quark/gluon HDF5 file.
        out: Folder of the pictures; outputs/inspect-NAME if you omit it.
        max_jets: Take the energies of the first so many jets only.
    """

    file: Path
    out: Path | None = None
    max_jets: int | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        require_least(self, max_jets=1)


def main(options: Options) -> None:
    """Print what the file holds and draw the pictures."""
    from jet_diffusion.data.hdf5 import QuarkGluonFile
    from jet_diffusion.data.inspect import describe_energies, describe_file, draw_pictures, tally_energies

    with QuarkGluonFile(options.file) as file:
        sys.stdout.write(describe_file(file) + "\n\n")
        pictures = draw_pictures(file, options.out or Path("outputs") / f"inspect-{file.path.stem}")
        sys.stdout.write(describe_energies(tally_energies(file, options.max_jets)) + "\n\n")
    sys.stdout.write(f"pictures: {', '.join(map(str, pictures))}\n")
