"""Several files of jets read as one, in their order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jet_diffusion.errors import UserError

if TYPE_CHECKING:
    from jet_diffusion.data.hdf5 import QuarkGluonFile

WHOLE_BYTES = 4 * 2**30
"""Files up to this size are digested whole, in about one second a GB; of larger ones 1,024 pieces of 4 MiB."""

_PIECE, _PIECES = 4 * 2**20, 1024


class JetFiles:
    """Several open files of jets, read as if they were one.

    Args:
        files: The open files; whoever opened them closes them.

    Attributes:
        num_jets: Jets of all files.
        labels, pt, m0: (N,) columns of all files.
        starts: (files + 1,) number of each file's first jet, and N.

    Raises:
        UserError: A file is named twice.
    """

    def __init__(self, files: Sequence[QuarkGluonFile]) -> None:
        paths = [file.path.resolve() for file in files]
        twice = sorted({str(path) for path in paths if paths.count(path) > 1})
        if twice:
            raise UserError(f"{', '.join(twice)} is named twice")
        self.files = list(files)
        self.labels: NDArray[np.int64] = np.concatenate([file.labels for file in files])
        self.pt: NDArray[np.float32] = np.concatenate([file.pt for file in files])
        self.m0: NDArray[np.float32] = np.concatenate([file.m0 for file in files])
        self.starts = np.cumsum([0, *(file.num_jets for file in files)]).tolist()
        self.num_jets: int = self.starts[-1]

    @property
    def suppressed(self) -> NDArray[np.int64]:
        """(2,) energies read so far that became 0 as noise, and how many of them were negative."""
        return np.sum([file.suppressed for file in self.files], axis=0)

    def file_of(self, jet: int) -> QuarkGluonFile:
        """The file that holds a jet."""
        return self.files[int(np.searchsorted(self.starts, jet, side="right")) - 1]

    def slices(self, size: int | None = None, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, int]]:
        """Cut jets start to stop into slices as `QuarkGluonFile.slices` does; none spans two files."""
        stop = self.num_jets if stop is None else stop
        for file, first in zip(self.files, self.starts, strict=False):
            begin, end = max(start, first), min(stop, first + file.num_jets)
            if begin < end:
                yield from ((first + a, first + b) for a, b in file.slices(size, begin - first, end - first))

    def energies(self, start: int, stop: int, check: bool = True) -> NDArray[np.float32]:
        """Read jets start to stop, all of one file."""
        file = self.file_of(start)
        first = self.starts[self.files.index(file)]
        return file.energies(start - first, stop - first, check)

    def provenance(self) -> list[dict[str, Any]]:
        """Where the jets come from: a row for each file."""
        rows = []
        for file, first in zip(self.files, self.starts, strict=False):
            status = file.path.stat()
            rows.append(
                {
                    "name": file.path.name,
                    "kind": file.kind,
                    "size": status.st_size,
                    "modified": datetime.fromtimestamp(status.st_mtime, UTC).isoformat(),
                    "digest": digest_of_file(file.path),
                    "num_jets": file.num_jets,
                    "first_row": first,
                    "simulated": file.simulated,
                    "remarks": file.remarks,
                }
            )
        return rows


def joined(sources: Sequence[Mapping[str, Any]]) -> dict[str, str | None]:
    """Names, digests and simulated markers of several files as one text each; no marker if no file has one."""
    return {
        "source": ", ".join(row["name"] for row in sources),
        "digest": " ".join(row["digest"] for row in sources),
        "simulated": "; ".join(dict.fromkeys(row["simulated"] for row in sources if row["simulated"])) or None,
    }


def digest_of_file(path: Path) -> str:
    """Hexadecimal BLAKE2b of a file's bytes; of a very large file, of pieces spread evenly over it.

    Pieces miss a change between them, so the modification time of a large file goes into its digest.
    """
    digest = blake2b(digest_size=16)
    size = path.stat().st_size
    with path.open("rb") as stream:
        if size <= WHOLE_BYTES:
            while piece := stream.read(_PIECE):
                digest.update(piece)
        else:
            digest.update(str(path.stat().st_mtime_ns).encode())
            for place in np.linspace(0, size - _PIECE, _PIECES).astype(np.int64).tolist():
                stream.seek(place)
                digest.update(stream.read(_PIECE))
    return digest.hexdigest()
