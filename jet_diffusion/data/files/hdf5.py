"""Columns of an HDF5 file, within limits, each chunk decompressed once.

HDF5 decompresses whole chunks, and a chunk of the published file holds 6,400 jets (1.2 GB). So the file is read in
bands: the jets that one row of chunks covers. The chunk cache holds exactly one band, and is freed before the next
is read: a sequential pass decompresses each chunk once and holds one band at most.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from jet_diffusion.data.files.links import resolve
from jet_diffusion.data.files.stored import MAX_BAND_BYTES, SLICE_JETS, StoredDataset, check_shape, count_bytes, plain
from jet_diffusion.errors import UserError, printable

MAX_ATTRIBUTE_BYTES = 1_000_000
"""Most bytes of an attribute of the root."""

MAX_RATIO = 5_000
"""Most bytes that one byte on disk may stand for; gzip reaches 1,030."""

_MAX_LISTED = 50


class Hdf5File:
    """An open HDF5 file as `Stored` describes it.

    Args:
        path: The file.
        follow_links: Whether to read content that lies in other files.

    Raises:
        UserError: It is locked, truncated or damaged.
    """

    kind = "HDF5"

    def __init__(self, path: Path, follow_links: bool = False) -> None:
        self.path, self._follow = path, follow_links
        self._file = _open(path)
        self.elsewhere: list[str] = []
        self._band: tuple[str, int, h5py.Dataset] | None = None
        try:
            self.contents = self._list_contents()
            self.attrs = self._read_attributes()
        except (RuntimeError, OSError, KeyError) as error:
            self._file.close()
            raise UserError(f"{path} is a damaged HDF5 file: {printable(error, 200)}") from error
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._band = None
        self._file.close()

    def has(self, name: str) -> bool:
        """Whether there is a dataset of this name, perhaps within groups."""
        return name in self.contents or self._dataset(name) is not None

    def storage(self, name: str) -> StoredDataset:
        """How a dataset is stored."""
        return _storage(name, self._dataset(name))

    def check(self, name: str) -> None:
        """Refuse a dataset that lies elsewhere, was never written, cannot be unpacked or breaks a limit.

        Raises:
            UserError: Names file, dataset, what was seen and the limit.
        """
        dataset = self._dataset(name)
        where = f"{self.path}: {printable(name)}"
        check_shape(where, dataset.shape)
        plist = dataset.id.get_create_plist()
        for number in range(plist.get_nfilters()):
            code, *_, label = plist.get_filter(number)
            if not h5py.h5z.filter_avail(code):
                label = printable(label.decode(errors="replace"))
                remedy = "install hdf5plugin and load it with h5py, or rewrite the file with gzip: h5repack -f GZIP=4"
                raise UserError(f"{where} is compressed with filter {code} ({label}), which h5py lacks; {remedy}")
        if dataset.is_virtual or dataset.external or dataset.size == 0:
            return
        self._check_chunks(dataset, where)
        stored, whole = dataset.id.get_storage_size(), dataset.size * dataset.dtype.itemsize
        if stored == 0:
            raise UserError(f"{where} was never written: it would read as {dataset.fillvalue}")
        if whole > MAX_RATIO * stored:
            seen = f"{count_bytes(whole)} in {count_bytes(stored)} on disk"
            raise UserError(f"{where} holds {seen}, more than {MAX_RATIO} to 1: damaged, or made to fill memory")

    def _check_chunks(self, dataset: h5py.Dataset, where: str) -> None:
        if dataset.chunks is None:
            return
        wanted = math.prod(math.ceil(side / chunk) for side, chunk in zip(dataset.shape, dataset.chunks, strict=True))
        written = dataset.id.get_num_chunks()
        if written < wanted:
            raise UserError(
                f"{where}: {wanted - written} of {wanted} chunks were never written and would read as zeros"
            )
        band = _bytes_of_one_row(dataset)
        if band > MAX_BAND_BYTES:
            seen = f"its chunks of {dataset.chunks} take {count_bytes(band)} to read"
            smaller = "x".join(map(str, (100, *dataset.shape[1:])))
            remedy = f"rewrite them smaller: h5repack -l {printable(dataset.name)}:CHUNK={smaller}"
            raise UserError(f"{where}: {seen}, more than {count_bytes(MAX_BAND_BYTES)}; {remedy}")

    def band_jets(self, name: str) -> int:
        """Jets of a band: one row of chunks, or as many rows as make a slice."""
        dataset = self._dataset(name)
        chunks = dataset.chunks
        if chunks is None:
            return max(1, dataset.shape[0]) if not dataset.is_virtual else SLICE_JETS
        return int(chunks[0] * max(1, SLICE_JETS // chunks[0] + (SLICE_JETS % chunks[0] > 0)))

    def column(self, name: str) -> NDArray[Any]:
        """All values of a dataset.

        Raises:
            UserError: The file is damaged there.
        """
        try:
            return np.asarray(self._dataset(name)[()])
        except (OSError, RuntimeError) as error:
            where = f"{self.path}: the column {printable(name)} cannot be read, the file is damaged"
            raise UserError(f"{where}: {printable(error, 200)}") from error

    def images(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Values of jets start to stop, all within one band.

        Raises:
            UserError: The file is damaged there.
        """
        band = start // self.band_jets(name)
        if self._band is None or self._band[:2] != (name, band):
            self._band = None  # closing the dataset frees its chunk cache before the next band fills one
            self._band = name, band, self._with_cache_of_one_band(name)
        dataset = self._band[2]
        values = np.empty((stop - start, *dataset.shape[1:]), dataset.dtype)
        try:
            if stop > start:
                dataset.read_direct(values, np.s_[start:stop])
        except (OSError, RuntimeError) as error:
            message = f"{self.path}: jets {start} to {stop} of {printable(name)} cannot be read, the file is damaged"
            raise UserError(f"{message}: {printable(error, 200)}") from error
        return values

    def _with_cache_of_one_band(self, name: str) -> h5py.Dataset:
        dataset = self._dataset(name)
        if dataset.is_virtual or dataset.external:
            return dataset
        access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
        access.set_chunk_cache(*_cache_of_one_band(dataset, self.band_jets(name)), 1.0)
        folder, leaf = dataset.parent.id, dataset.name.rpartition("/")[2].encode()
        del dataset  # while a dataset is open, opening it again shares the chunk cache it has
        return h5py.Dataset(h5py.h5d.open(folder, leaf, access))

    def _dataset(self, name: str) -> Any:
        """The dataset, None if there is none; refuses what lies elsewhere."""
        node, elsewhere = resolve(self._file, name, self._follow)
        self.elsewhere += [phrase for phrase in elsewhere if phrase not in self.elsewhere]
        return node if isinstance(node, h5py.Dataset) else None

    def _list_contents(self) -> dict[str, StoredDataset]:
        """The datasets of the root and of its groups, none of them outside the file."""
        found: dict[str, StoredDataset] = {}
        for name in self._file:
            node = self._local(self._file, name)
            if isinstance(node, h5py.Dataset):
                found[name] = _storage(name, node)
            elif isinstance(node, h5py.Group):
                inner = ((f"{name}/{item}", self._local(node, item)) for item in node)
                found |= {path: _storage(path, item) for path, item in inner if isinstance(item, h5py.Dataset)}
            if len(found) >= _MAX_LISTED:
                break
        return found

    @staticmethod
    def _local(group: h5py.Group, name: str) -> Any:
        link = group.get(name, getlink=True)
        return group[name] if isinstance(link, h5py.HardLink) else None

    def _read_attributes(self) -> dict[str, Any]:
        attrs = {}
        for name in self._file.attrs:
            size = self._file.attrs.get_id(name).get_storage_size()
            if size > MAX_ATTRIBUTE_BYTES:
                seen = f"the attribute {printable(name)} takes {count_bytes(size)}"
                raise UserError(f"{self.path}: {seen}; the limit is {count_bytes(MAX_ATTRIBUTE_BYTES)}")
            attrs[name] = plain(self._file.attrs[name])
        return attrs


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        said = str(error)
        if isinstance(error, BlockingIOError) or "unable to lock" in said:
            remedy = "wait until it is done; on a file system without locks set HDF5_USE_FILE_LOCKING=FALSE"
            raise UserError(f"{path} is locked: another process has it open for writing; {remedy}") from error
        if "already open for write" in said or "h5clear" in said:
            remedy = f"if none is running it crashed: h5clear -s {path} mends the mark"
            raise UserError(f"{path} is marked as being written by a process; {remedy}") from error
        if "truncated" in said:
            raise UserError(f"{path} is truncated, an interrupted copy or download? ({error})") from error
        if isinstance(error, PermissionError):
            raise UserError(f"{path} may not be read by you: {error.strerror or error}") from error
        raise UserError(f"{path} is not a readable HDF5 file: {error}") from error


def _storage(name: str, dataset: h5py.Dataset) -> StoredDataset:
    stored, dtype = dataset.id.get_storage_size(), str(dataset.dtype)
    shape = dataset.shape if dataset.shape is not None else ()
    return StoredDataset(name, shape, dtype, dataset.chunks, dataset.compression, stored)


def _bytes_of_one_row(dataset: h5py.Dataset) -> int:
    """Bytes of one row of chunks, which cover the jets of one chunk."""
    across = [math.ceil(side / chunk) for side, chunk in zip(dataset.shape[1:], dataset.chunks[1:], strict=True)]
    return math.prod(across) * math.prod(dataset.chunks) * int(dataset.dtype.itemsize)


def _cache_of_one_band(dataset: h5py.Dataset, band_jets: int) -> tuple[int, int]:
    """Slots and bytes of a chunk cache that holds a band.

    HDF5 gives chunk (i, j, k, l) the slot of the packed bits of its indices, modulo the number of slots. With
    a slot for every such code of a band, no two of its chunks evict one another.
    """
    if dataset.chunks is None:
        return 1, 0
    across = [math.ceil(side / chunk) for side, chunk in zip(dataset.shape[1:], dataset.chunks[1:], strict=True)]
    rows = band_jets // dataset.chunks[0]
    slots = (rows + 1) * math.prod(1 << (number - 1).bit_length() for number in across)
    return slots, rows * _bytes_of_one_row(dataset)
