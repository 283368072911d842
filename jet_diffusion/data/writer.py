"""Write jets into an HDF5 file of the original schema, so that an interrupted run can continue."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jet_diffusion.data.files.parts import Jets, PartialFile
from jet_diffusion.errors import UserError
from jet_diffusion.schema import check_energies

AUTO_FLUSH_JETS = 1000
"""Jets held in memory (188 MB) before they are made durable unasked."""


class PartWriter:
    """Writes some consecutive jets of a file that is being made.

    Args:
        file: The file.
        jets: Numbers of the jets, one after the other.

    Attributes:
        num_written: Number of the jet that comes next: so many are written if the jets begin with number 0.
    """

    def __init__(self, file: PartialFile, jets: range) -> None:
        self.file, self._end = file, jets.stop
        self.num_written = jets.start
        self._pending: list[Jets] = []

    def append(self, energies: NDArray[np.float32], labels: ArrayLike, pt: ArrayLike, m0: ArrayLike) -> None:
        """Add jets after those written so far.

        Args:
            energies: (n, 3, 125, 125) float32, finite and not negative.
            labels: (n,) 0 gluon or 1 quark.
            pt: (n,) jet pT in GeV, stored as float32.
            m0: (n,) jet mass in GeV, stored as float32.

        Raises:
            UserError: An array breaks the schema, their lengths differ, or there are more jets than announced.
        """
        check_energies(energies, f"{self.file.path}: ", first_jet=self.num_written)
        count = len(energies)
        columns = {"labels": np.asarray(labels), "pt": np.asarray(pt), "m0": np.asarray(m0)}
        for name, values in columns.items():
            if values.shape != (count,) or not np.isfinite(values).all():
                seen = f"shape {values.shape}, values {values.ravel()[:3]}..."
                raise UserError(f"{name} must be {count} finite numbers, one a jet, not {seen}")
        if not np.isin(columns["labels"], (0, 1)).all():
            raise UserError(f"labels must be 0 (gluon) or 1 (quark), not {np.unique(columns['labels'])}")
        if self.num_written + count > self._end:
            raise UserError(f"{self.num_written} + {count} jets are more than the {self._end} announced")
        pixels = np.moveaxis(energies, 1, -1).copy(order="C")
        self._pending.append(Jets(pixels, *(values.astype(np.float32) for values in columns.values())))
        self.num_written += count
        if sum(len(jets.y) for jets in self._pending) >= AUTO_FLUSH_JETS:
            self.flush()

    def flush(self) -> None:
        """Make every jet appended so far durable."""
        if not self._pending:
            return
        jets = Jets(*(np.concatenate(columns) for columns in zip(*self._pending, strict=True)))
        chunk, first = self.file.chunk_jets, self.num_written - len(jets.y)
        # Parts begin and end where chunks of the file do, but for the first jets and the last.
        ends = sorted({min(-(-first // chunk) * chunk, self.num_written), self.num_written // chunk * chunk})
        self._pending = []
        for end in [*ends, self.num_written]:
            if end > first:
                part, jets = jets.cut(0, end - first), jets.cut(end - first)
                self.file.write(first, part)
                if end % chunk:  # kept in memory too: a longer part with the same first jet replaces this one
                    self._pending = [part]
                first = end


class JetWriter(PartWriter):
    """Writes `num_jets` jets to `path`, which gets its name only once all are there.

    A killed run loses only what came after the last `flush`; `PartialFile` says how its jets are kept.

    As in the published file `X_jets` is (N, 125, 125, 3) float32 and `y`, `pt`, `m0` are float32; its chunks
    hold 100 jets (gzip 4). Use it as a context manager: leaving it without an error completes the file.

    Args:
        path: The file to write.
        num_jets: Jets it will hold.
        attrs: Root attributes: texts, numbers, truth values or flat lists of them.
        resume: Go on where an interrupted run of the same `num_jets` and `attrs` stopped, if there was one.

    Attributes:
        num_written: Jets appended so far, those of the interrupted run included.

    Raises:
        FileExistsError: The file exists; or the parts of an interrupted run do and `resume` is false.
        FileNotFoundError: The folder of `path` does not exist.
        UserError: The interrupted run had other settings, `num_jets` is not positive, or an attribute cannot
            be stored.
    """

    def __init__(self, path: str | Path, num_jets: int, attrs: Mapping[str, Any], *, resume: bool = False) -> None:
        file = PartialFile(path, num_jets, attrs, resume=resume)
        left = file.missing()
        super().__init__(file, range(left[0].start if left else num_jets, num_jets))

    @classmethod
    def resume(cls, path: str | Path, num_jets: int, attrs: Mapping[str, Any]) -> Self:
        """Continue an interrupted file or begin it: the constructor with `resume=True`."""
        return cls(path, num_jets, attrs, resume=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.complete()
        else:
            self.file.discard_if_empty()

    def complete(self) -> None:
        """Write what is left and give the file its name; leaving the context manager does it too.

        Raises:
            UserError: Fewer jets were appended than announced.
        """
        self.flush()
        self.file.complete()
