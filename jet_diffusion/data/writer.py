"""Write jets into an HDF5 file of the original schema, so that an interrupted run can continue."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jet_diffusion.errors import UserError
from jet_diffusion.io import claim_partial_folder, partial_folder, sync, write_atomically
from jet_diffusion.schema import PIXELS_SHAPE, check_energies

CHUNK_JETS = 100
"""Jets in a chunk of a written file."""

AUTO_FLUSH_JETS = 1000
"""Jets held in memory (188 MB) before they are made durable unasked."""


class _Jets(NamedTuple):
    """Some jets, each field under the name of its HDF5 dataset."""

    X_jets: NDArray[np.float32]  # channels last
    y: NDArray[np.float32]
    pt: NDArray[np.float32]
    m0: NDArray[np.float32]

    def cut(self, start: int, stop: int | None = None) -> _Jets:
        return _Jets(*(column[start:stop] for column in self))


class JetWriter:
    """Writes `num_jets` jets to `path`, which gets its name only once all are there.

    Until then they lie in the folder `.{name}.partial` beside it, in part files that each begin where a chunk
    of the final file begins. A part appears whole or not at all, so a killed run loses only what came after
    the last `flush`. The last step copies compressed chunks; nothing is compressed twice.

    As in the published file `X_jets` is (N, 125, 125, 3) float32 and `y`, `pt`, `m0` are float32; its chunks
    hold 100 jets (gzip 4). Use it as a context manager: leaving it without an error completes the file.

    Args:
        path: The file to write.
        num_jets: Jets it will hold.
        attrs: Root attributes: texts, numbers, truth values or flat lists of them.
        resume: Go on where an interrupted run of the same `num_jets` and `attrs` stopped, if there was one.

    Attributes:
        path: The file to write.
        num_jets: Jets it will hold.
        num_written: Jets appended so far, those of the interrupted run included.

    Raises:
        FileExistsError: The file exists; or the parts of an interrupted run do and `resume` is false.
        FileNotFoundError: The folder of `path` does not exist.
        UserError: The interrupted run had other settings, `num_jets` is not positive, or an attribute cannot
            be stored.
    """

    def __init__(self, path: str | Path, num_jets: int, attrs: Mapping[str, Any], *, resume: bool = False) -> None:
        if num_jets < 1:
            raise UserError(f"num_jets must be positive, not {num_jets}")
        self.path = Path(path)
        self.num_jets = num_jets
        self.num_written = 0
        self._attrs = _storable(attrs)
        self._chunk_jets = min(CHUNK_JETS, num_jets)
        self._pending: list[_Jets] = []
        self._folder = partial_folder(self.path)
        if self.path.exists():
            raise FileExistsError(f"{self.path} exists; delete it or choose another name")
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {self.path.parent}")
        claim_partial_folder(self._folder, "generate", {"num_jets": num_jets} | self._attrs, resume=resume)
        self._pick_up_parts()

    @classmethod
    def resume(cls, path: str | Path, num_jets: int, attrs: Mapping[str, Any]) -> Self:
        """Continue an interrupted file or begin it: the constructor with `resume=True`."""
        return cls(path, num_jets, attrs, resume=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.complete()
        elif not self._parts():  # nothing to go on with, which would only refuse a corrected start
            shutil.rmtree(self._folder, ignore_errors=True)

    def append(self, energies: NDArray[np.float32], labels: ArrayLike, pt: ArrayLike, m0: ArrayLike) -> None:
        """Add jets after those written so far.

        Args:
            energies: (n, 3, 125, 125) float32, finite and not negative.
            labels: (n,) 0 gluon or 1 quark.
            pt: (n,) jet pT in GeV, stored as float32.
            m0: (n,) jet mass in GeV, stored as float32.

        Raises:
            UserError: An array breaks the schema, their lengths differ, or there are more than `num_jets`.
        """
        check_energies(energies, f"{self.path}: ", first_jet=self.num_written)
        count = len(energies)
        columns = {"labels": np.asarray(labels), "pt": np.asarray(pt), "m0": np.asarray(m0)}
        for name, values in columns.items():
            if values.shape != (count,) or not np.isfinite(values).all():
                seen = f"shape {values.shape}, values {values.ravel()[:3]}..."
                raise UserError(f"{name} must be {count} finite numbers, one a jet, not {seen}")
        if not np.isin(columns["labels"], (0, 1)).all():
            raise UserError(f"labels must be 0 (gluon) or 1 (quark), not {np.unique(columns['labels'])}")
        if self.num_written + count > self.num_jets:
            raise UserError(f"{self.num_written} + {count} jets are more than the {self.num_jets} announced")
        pixels = np.moveaxis(energies, 1, -1).copy(order="C")
        self._pending.append(_Jets(pixels, *(values.astype(np.float32) for values in columns.values())))
        self.num_written += count
        if sum(len(jets.y) for jets in self._pending) >= AUTO_FLUSH_JETS:
            self.flush()

    def flush(self) -> None:
        """Make every jet appended so far durable."""
        if not self._pending:
            return
        jets = _Jets(*(np.concatenate(columns) for columns in zip(*self._pending, strict=True)))
        count = len(jets.y)
        start, whole = self.num_written - count, count - count % self._chunk_jets
        if whole:
            self._write_part(start, jets.cut(0, whole))
        self._pending = []
        if whole < count:  # kept in memory too: a later part with the same start replaces this one
            self._pending = [jets.cut(whole)]
            self._write_part(start + whole, jets.cut(whole))

    def _parts(self) -> list[tuple[int, Path]]:
        """First jet and path of every part, in order."""
        return sorted((int(path.stem.split("-")[1]), path) for path in self._folder.glob("part-*.hdf5"))

    def _pick_up_parts(self) -> None:
        for start, path in self._parts():
            if start != self.num_written or self._pending:
                raise UserError(f"{path} does not follow the jets before it; delete {self._folder}")
            with h5py.File(path) as file:
                self.num_written += file["y"].shape[0]
                if self.num_written % self._chunk_jets:
                    self._pending = [_Jets(*(file[name][:] for name in _Jets._fields))]

    def _write_part(self, start: int, jets: _Jets) -> None:
        def write(path: Path) -> None:
            with h5py.File(path, "w") as file:
                _create_pixels(file, len(jets.y), self._chunk_jets)[:] = jets.X_jets
                for name in _Jets._fields[1:]:
                    file[name] = getattr(jets, name)

        write_atomically(self._folder / f"part-{start:09d}.hdf5", write)

    def complete(self) -> None:
        """Write what is left and give the file its name; leaving the context manager does it too.

        Raises:
            UserError: Fewer jets were appended than announced.
        """
        self.flush()
        if self.num_written < self.num_jets:
            seen = f"only {self.num_written} of {self.num_jets} jets were written"
            raise UserError(f"{seen}; they wait in {self._folder} for the run to be resumed")
        complete = self._folder / "complete.hdf5"
        write_atomically(complete, self._assemble)
        if self.path.exists():
            raise FileExistsError(f"{self.path} has appeared meanwhile; the jets wait in {self._folder}")
        os.replace(complete, self.path)
        sync(self.path.parent)
        shutil.rmtree(self._folder)

    def _assemble(self, path: Path) -> None:
        """Copy the parts' compressed chunks into one file."""
        with h5py.File(path, "w") as file:
            file.attrs.update(self._attrs)
            pixels = _create_pixels(file, self.num_jets, self._chunk_jets)
            for name in _Jets._fields[1:]:
                file.create_dataset(name, (self.num_jets,), np.float32)
            for start, part_path in self._parts():
                with h5py.File(part_path) as part:
                    count = part["y"].shape[0]
                    for jet in range(0, count, self._chunk_jets):
                        mask, chunk = part["X_jets"].id.read_direct_chunk((jet, 0, 0, 0))
                        pixels.id.write_direct_chunk((start + jet, 0, 0, 0), chunk, mask)
                    for name in _Jets._fields[1:]:
                        file[name][start : start + count] = part[name][:]


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
