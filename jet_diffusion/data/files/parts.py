"""The part files of an HDF5 file of jets, in a hidden folder until all are there.

The name of a part says which jets it holds. So the folder's listing is all that an interrupted run, or one of many
processes on many machines, needs to know what is left to do. No process ever holds or sends another's jets.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from jet_diffusion.errors import UserError
from jet_diffusion.io import (
    claim_partial_folder,
    explaining_full_disk,
    megabytes,
    partial_folder,
    sync,
    write_atomically,
)
from jet_diffusion.schema import PIXELS_SHAPE

CHUNK_JETS = 100
"""Jets in a chunk of a written file."""


class Jets(NamedTuple):
    """Some jets, each field under the name of its HDF5 dataset."""

    X_jets: NDArray[np.float32]  # channels last
    y: NDArray[np.float32]
    pt: NDArray[np.float32]
    m0: NDArray[np.float32]

    def cut(self, start: int, stop: int | None = None) -> Jets:
        """The jets from `start` to `stop`."""
        return Jets(*(column[start:stop] for column in self))


class PartialFile:
    """A file of `num_jets` jets that is being made, by any number of processes that share a file system.

    Until it is complete its jets lie in the folder `.{name}.partial` beside it, in part files named
    `part-FIRST-END.hdf5`. A part appears whole or not at all. The last step copies compressed chunks.

    Args:
        path: The file to make.
        num_jets: Jets it will hold.
        attrs: Root attributes: texts, numbers, truth values or flat lists of them.
        resume: Go on where an interrupted run of the same `num_jets` and `attrs` stopped, if there was one.

    Attributes:
        path: The file to make.
        num_jets: Jets it will hold.
        folder: The folder of its parts.
        chunk_jets: Jets in a chunk of the file.

    Raises:
        FileExistsError: The file exists; or the parts of an interrupted run do and `resume` is false.
        FileNotFoundError: The folder of `path` does not exist.
        UserError: The interrupted run had other settings, `num_jets` is not positive, or an attribute cannot
            be stored.
    """

    def __init__(self, path: str | Path, num_jets: int, attrs: Mapping[str, Any], *, resume: bool = False) -> None:
        if num_jets < 1:
            raise UserError(f"num_jets must be positive, not {num_jets}")
        self.path, self.num_jets, self._attrs = Path(path), num_jets, _storable(attrs)
        self.folder, self.chunk_jets = partial_folder(self.path), min(CHUNK_JETS, num_jets)
        if self.path.exists():
            raise FileExistsError(f"{self.path} exists; delete it or choose another name")
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {self.path.parent}")
        claim_partial_folder(self.folder, "generate", {"num_jets": num_jets} | self._attrs, resume=resume)

    def missing(self, jets: range | None = None) -> list[range]:
        """Runs of consecutive jets that no part holds, among these jets or all.

        Args:
            jets: Numbers of jets, one after the other.
        """
        wanted = range(self.num_jets) if jets is None else jets
        left, first = [], wanted.start
        for start, stop, _ in self._parts():
            if first < min(start, wanted.stop):
                left.append(range(first, min(start, wanted.stop)))
            first = max(first, stop)
        return left + ([range(first, wanted.stop)] if first < wanted.stop else [])

    def write(self, first: int, jets: Jets) -> None:
        """Write the part that begins with jet number `first`; it replaces a shorter one that begins there.

        Raises:
            OSError: The disk is full.
        """
        stop, image = first + len(jets.y), io.BytesIO()
        with h5py.File(image, "w") as file:  # in memory: on a full disk HDF5 itself can crash the process
            _create_pixels(file, len(jets.y), self.chunk_jets)[:] = jets.X_jets
            for name in Jets._fields[1:]:
                file[name] = getattr(jets, name)
        with explaining_full_disk(self.folder, lambda: "the jets before stay"):
            part = self.folder / f"part-{first:09d}-{stop:09d}.hdf5"
            write_atomically(part, lambda path: path.write_bytes(image.getbuffer()))
        for shorter in self.folder.glob(f"part-{first:09d}-*.hdf5"):
            if _jets_of(shorter).stop < stop:
                shorter.unlink()

    def complete(self) -> None:
        """Put the parts together and give the file its name.

        Raises:
            OSError: The disk has no room for the file beside its parts.
            UserError: Jets are missing.
        """
        if left := sum(map(len, self.missing())):
            seen = f"only {self.num_jets - left} of {self.num_jets} jets were written"
            raise UserError(f"{seen}; they wait in {self.folder} for the run to be resumed")
        complete = self.folder / "complete.hdf5"
        needed = sum(path.stat().st_size for _, _, path in self._parts())
        with explaining_full_disk(self.folder, lambda: f"the file takes {megabytes(needed)}, and all its jets stay"):
            if shutil.disk_usage(self.folder).free < needed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write_atomically(complete, self._assemble)
        if self.path.exists():
            raise FileExistsError(f"{self.path} has appeared meanwhile; the jets wait in {self.folder}")
        os.replace(complete, self.path)
        sync(self.path.parent)
        shutil.rmtree(self.folder)

    def discard_if_empty(self) -> None:
        """Remove a folder without parts: there is nothing to go on with, and it would refuse a corrected start."""
        if not self._parts():
            shutil.rmtree(self.folder, ignore_errors=True)

    def _parts(self) -> list[tuple[int, int, Path]]:
        """First jet, end and path of every part, in order; of two that begin together the longer one."""
        longest = {jets.start: (jets.start, jets.stop, path) for jets, path in sorted(
            ((_jets_of(path), path) for path in self.folder.glob("part-*.hdf5")), key=lambda part: len(part[0])
        )}  # fmt: skip
        return sorted(longest.values())

    def _assemble(self, path: Path) -> None:
        """Copy the parts into one file: whole chunks as they are, those that two parts share by their jets."""
        with h5py.File(path, "w") as file:
            file.attrs.update(self._attrs)
            pixels = _create_pixels(file, self.num_jets, self.chunk_jets)
            for name in Jets._fields[1:]:
                file.create_dataset(name, (self.num_jets,), np.float32)
            for first, end, part_path in self._parts():
                with h5py.File(part_path) as part:
                    for start in range(first, end, self.chunk_jets):
                        stop = min(start + self.chunk_jets, end)
                        whole = stop - start == self.chunk_jets or stop == self.num_jets
                        if start % self.chunk_jets == 0 and whole:
                            mask, chunk = part["X_jets"].id.read_direct_chunk((start - first, 0, 0, 0))
                            pixels.id.write_direct_chunk((start, 0, 0, 0), chunk, mask)
                        else:
                            pixels[start:stop] = part["X_jets"][start - first : stop - first]
                    for name in Jets._fields[1:]:
                        file[name][first:end] = part[name][:]


def _jets_of(part: Path) -> range:
    """Numbers of the jets of a part, by its name."""
    _, first, end = part.stem.split("-")
    return range(int(first), int(end))


def _create_pixels(file: h5py.File, num_jets: int, chunk_jets: int) -> h5py.Dataset:
    return file.create_dataset(
        "X_jets",
        (num_jets, *PIXELS_SHAPE),
        np.float32,
        maxshape=(max(num_jets, chunk_jets), *PIXELS_SHAPE),  # a part may hold less than a chunk
        chunks=(chunk_jets, *PIXELS_SHAPE),
        compression="gzip",
        compression_opts=4,
    )


def _storable(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes as plain values that HDF5 and JSON both hold."""
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in attrs.items()}
    for name, value in plain.items():
        items = value if isinstance(value, list) else [value]
        if name == "num_jets" or not all(isinstance(item, str | int | float) for item in items):
            accepted = "texts, numbers, truth values or lists of them, under another name than num_jets"
            raise UserError(f"the attribute {name} = {value!r} cannot be stored; accepted are {accepted}")
    return plain
