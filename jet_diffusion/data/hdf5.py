"""Read quark/gluon HDF5 files of any chunking, without decompressing a chunk twice.

The schema: `X_jets` (N, 125, 125, 3) float32 and `y`, `pt`, `m0` of shape (N,); a file of simulated stand-in
jets says so in a text attribute `simulated` of its root. Channels-last ends here: reader and writer speak of
`energies` (N, 3, 125, 125).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from jet_diffusion.data.writer import JetWriter
from jet_diffusion.schema import PIXELS_SHAPE, check_energies, hcal_is_constant_in_towers

__all__ = ["JetWriter", "QuarkGluonFile", "hcal_is_constant_in_towers"]

KEYS = ("X_jets", "y", "pt", "m0")
"""The datasets a file must hold."""

SLICE_JETS = 128
"""Jets a slice holds unless the caller asks otherwise: 24 MB of dense energies."""


class StoredDataset(NamedTuple):
    """How a dataset of the file is stored."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...] | None
    compression: str | None
    stored_bytes: int


class QuarkGluonFile:
    """A quark/gluon HDF5 file, validated when opened.

    HDF5 decompresses whole chunks, and a chunk of the published file holds 6,400 jets (1.2 GB). So the file
    is read in bands: the jets that one row of chunks covers. The chunk cache holds exactly one band, and is
    freed before the next is read: a sequential pass decompresses each chunk once and holds one band at most.

    Args:
        path: The file. It is opened for reading only.

    Attributes:
        path: The file.
        num_jets: Number of jets N.
        labels: (N,) int64, 0 gluon and 1 quark.
        pt: (N,) float32, jet pT in GeV.
        m0: (N,) float32, jet mass in GeV.
        attrs: The root attributes, as plain Python values.
        simulated: The text that marks simulated stand-in jets, or None.
        datasets: How each dataset is stored.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no HDF5 file, is truncated, or breaks the schema.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = _open(self.path)
        try:
            _check_schema(self._file, self.path)
            self.attrs: dict[str, Any] = {name: _plain(value) for name, value in self._file.attrs.items()}
            self.simulated = _simulated_text(self.attrs, self.path)
            self.labels = _read_labels(self._file["y"], self.path)
            self.pt = _read_condition(self._file["pt"], self.path)
            self.m0 = _read_condition(self._file["m0"], self.path)
            self.datasets = [_storage(item) for item in self._file.values() if isinstance(item, h5py.Dataset)]
            self.num_jets = len(self.labels)
            self._chunks: tuple[int, ...] | None = self._file["X_jets"].chunks
        except BaseException:
            self._file.close()
            raise
        self._band_jets = _band_jets(self._chunks, self.num_jets)
        self._band: tuple[int, h5py.Dataset] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was read stays valid."""
        self._band = None
        self._file.close()

    def slices(self, size: int | None = None, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, int]]:
        """Cut jets start to stop into slices whose ends keep to the chunks.

        Args:
            size: Most jets in a slice; default about 128. A slice smaller than a chunk never straddles two.
            start: First jet.
            stop: One past the last jet; default all.

        Yields:
            (start, stop) of each slice, in order and without gaps.

        Raises:
            ValueError: The size is not positive or the range lies outside the file.
        """
        stop = self.num_jets if stop is None else stop
        self._check_range(start, stop)
        band = self._band_jets
        size = math.ceil(band / math.ceil(band / SLICE_JETS)) if size is None else size
        if size < 1:
            raise ValueError(f"a slice needs at least 1 jet, not {size}")
        step = size if size < band else size - size % band
        while start < stop:
            band_start = start - start % band
            slice_start = band_start + (start - band_start) // step * step
            end = min(slice_start + step, band_start + max(step, band), stop)
            yield start, end
            start = end

    def energies(self, start: int, stop: int, check: bool = True) -> NDArray[np.float32]:
        """Read jets start to stop, checking every value.

        Args:
            start: First jet.
            stop: One past the last jet.
            check: Whether to refuse negative and non-finite values; evaluation counts them instead.

        Returns:
            (stop - start, 3, 125, 125) float32: a transposed view of the channels-last pixels.

        Raises:
            ValueError: A value is negative or not finite (-0.0 passes), the range lies outside the file, or
                the file is damaged there.
        """
        self._check_range(start, stop)
        pixels = np.empty((stop - start, *PIXELS_SHAPE), np.float32)
        position = start
        while position < stop:
            band = position // self._band_jets
            end = min((band + 1) * self._band_jets, stop)
            self._read_from_band(band, position, end, pixels[position - start : end - start])
            position = end
        energies = np.moveaxis(pixels, -1, 1)
        if check:
            check_energies(energies, f"{self.path}: ", first_jet=start)
        return energies

    def _check_range(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self.num_jets:
            raise ValueError(f"jets {start} to {stop} lie outside {self.path}, which holds {self.num_jets}")

    def _read_from_band(self, band: int, start: int, stop: int, pixels: NDArray[np.float32]) -> None:
        if self._band is None or self._band[0] != band:
            self._band = None  # closing the dataset frees its chunk cache before the next band fills one
            access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
            access.set_chunk_cache(*_cache_of_one_band(self._chunks, self._band_jets), 1.0)
            self._band = band, h5py.Dataset(h5py.h5d.open(self._file.id, b"X_jets", access))
        try:
            self._band[1].read_direct(pixels, np.s_[start:stop])
        except OSError as error:
            message = f"{self.path}: jets {start} to {stop} cannot be read, the file is damaged: {error}"
            raise ValueError(message) from error


def _open(path: Path) -> h5py.File:
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if not path.is_file():
        raise ValueError(f"{path} is not a file; expected a quark/gluon HDF5 file")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if "truncated" in str(error):
            raise ValueError(f"{path} is truncated, an interrupted copy or download? ({error})") from error
        raise ValueError(f"{path} is not a readable HDF5 file: {error}") from error


def _check_schema(file: h5py.File, path: Path) -> None:
    missing = [key for key in KEYS if not isinstance(file.get(key), h5py.Dataset)]
    if missing:
        raise ValueError(f"{path}: no dataset {', '.join(missing)}; it holds {', '.join(file) or 'nothing'}")
    pixels = file["X_jets"]
    if pixels.shape[1:] != PIXELS_SHAPE:
        channels_first = pixels.shape[1:] == PIXELS_SHAPE[-1:] + PIXELS_SHAPE[:-1]
        hint = "; the channels stand first, move them to the last axis" if channels_first else ""
        raise ValueError(f"{path}: X_jets has shape {pixels.shape}, expected (N, 125, 125, 3){hint}")
    if pixels.dtype != np.float32:
        raise ValueError(f"{path}: X_jets has dtype {pixels.dtype}, expected float32")
    if pixels.shape[0] == 0:
        raise ValueError(f"{path}: X_jets holds no jets")
    for key in KEYS[1:]:
        if file[key].shape != pixels.shape[:1]:
            raise ValueError(f"{path}: {key} has shape {file[key].shape}, expected {pixels.shape[:1]}")


def _simulated_text(attrs: dict[str, Any], path: Path) -> str | None:
    text = attrs.get("simulated")
    if text is not None and not (isinstance(text, str) and text):
        raise ValueError(f"{path}: the attribute `simulated` holds {text!r}, expected a text")
    return text


def _read_labels(dataset: h5py.Dataset, path: Path) -> NDArray[np.int64]:
    if dataset.dtype.kind not in "fiub":
        raise ValueError(f"{path}: y has dtype {dataset.dtype}, expected numbers 0 (gluon) and 1 (quark)")
    values = dataset[:]
    wrong = np.flatnonzero((values != 0) & (values != 1))
    if wrong.size:
        first = wrong[0]
        seen = f"y of jet {first} is {values[first]}, as are {wrong.size - 1} others not 0 or 1"
        raise ValueError(f"{path}: {seen}; expected 0 (gluon) or 1 (quark)")
    return values.astype(np.int64)


def _read_condition(dataset: h5py.Dataset, path: Path) -> NDArray[np.float32]:
    name = dataset.name.lstrip("/")
    if dataset.dtype.kind != "f":
        raise ValueError(f"{path}: {name} has dtype {dataset.dtype}, expected float32 (GeV)")
    values = dataset[:]
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    for wrong, reason in (
        (~np.isfinite(values), "expected a finite number of GeV"),
        (single != values, "which float32 cannot hold exactly; round the column to float32 first"),
    ):
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            raise ValueError(f"{path}: {name} of jet {first} is {values[first]}, {reason}")
    return single


def _storage(dataset: h5py.Dataset) -> StoredDataset:
    name, stored = dataset.name.lstrip("/"), dataset.id.get_storage_size()
    dtype, compression = str(dataset.dtype), dataset.compression
    return StoredDataset(name, dataset.shape, dtype, dataset.chunks, compression, stored)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def _band_jets(chunks: tuple[int, ...] | None, num_jets: int) -> int:
    """Jets of a band: one row of chunks, or as many rows as make a slice."""
    if chunks is None:
        return num_jets
    return chunks[0] * math.ceil(SLICE_JETS / chunks[0])


def _cache_of_one_band(chunks: tuple[int, ...] | None, band_jets: int) -> tuple[int, int]:
    """Slots and bytes of a chunk cache that holds a band.

    HDF5 gives chunk (i, j, k, l) the slot of the packed bits of its indices, modulo the number of slots. With
    a slot for every such code of a band, no two of its chunks evict one another.
    """
    if chunks is None:
        return 1, 0
    along = [math.ceil(side / chunk) for side, chunk in zip(PIXELS_SHAPE, chunks[1:], strict=True)]
    rows = band_jets // chunks[0]
    slots = (rows + 1) * math.prod(1 << (number - 1).bit_length() for number in along)
    return slots, rows * math.prod(along) * 4 * math.prod(chunks)
