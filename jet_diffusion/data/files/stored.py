"""What every kind of file offers to the reader: named columns, read whole or a range of jets at a time."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from jet_diffusion.errors import UserError

MAX_JETS = 1_000_000_000
"""Most jets of a file: more is taken for a damaged or hostile one."""

MAX_BAND_BYTES = 4 * 2**30
"""Most bytes that the file's own chunks may force into memory at once."""


class StoredDataset(NamedTuple):
    """How a column of the file is stored."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...] | None
    compression: str | None
    stored_bytes: int


class Stored(Protocol):
    """An open file of some kind.

    Attributes:
        kind: "HDF5" or "Parquet".
        contents: How each column is stored, by its name.
        attrs: What the file says of itself, as plain Python values.
        elsewhere: Other files that the content lies in, as sentences; empty unless links are followed.
    """

    kind: str
    contents: dict[str, StoredDataset]
    attrs: dict[str, Any]
    elsewhere: list[str]

    def has(self, name: str) -> bool:
        """Whether there is such a column."""

    def storage(self, name: str) -> StoredDataset:
        """How a column is stored."""

    def check(self, name: str) -> None:
        """Refuse a column that cannot be read within the limits."""

    def band_jets(self, name: str) -> int:
        """Number of jets that are always read at once: a row of chunks, or as many jets as fill a slice."""

    def column(self, name: str) -> NDArray[Any]:
        """All values of a column."""

    def images(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Values of jets start to stop, of which `band_jets` hold one band at most."""

    def close(self) -> None:
        """Close the file."""


def count_bytes(number: float) -> str:
    """Write a number of bytes for a message."""
    return f"{number / 1e9:.1f} GB" if number >= 1e8 else f"{number / 1e6:.1f} MB"


def check_shape(origin: str, shape: tuple[int, ...]) -> None:
    """Refuse more jets than any file holds."""
    if shape and shape[0] > MAX_JETS:
        raise UserError(f"{origin} claims {shape[0]} jets; the limit is {MAX_JETS}")


SLICE_JETS = 128
"""Jets a slice holds unless the caller asks otherwise: 24 MB of dense energies."""


def plain(value: object) -> Any:
    """An attribute as a plain Python value."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value
