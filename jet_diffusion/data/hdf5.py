"""Read quark/gluon files, HDF5 of any chunking and Parquet, without decompressing anything twice.

The schema: `X_jets` (N, 125, 125, 3) float32 and `y`, `pt`, `m0` of shape (N,); a file of simulated stand-in
jets says so in a text attribute `simulated` of its root. Channels-last ends here: reader and writer speak of
`energies` (N, 3, 125, 125).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from jet_diffusion.data.files.hdf5 import Hdf5File
from jet_diffusion.data.files.kinds import kind_of
from jet_diffusion.data.files.layout import as_single, check_columns, parse_columns
from jet_diffusion.data.files.parquet import ParquetFile
from jet_diffusion.data.files.stored import SLICE_JETS, Stored
from jet_diffusion.data.files.units import Unit, explain_response, infer_unit, parse_unit
from jet_diffusion.data.writer import JetWriter
from jet_diffusion.errors import UserError
from jet_diffusion.schema import PIXELS_SHAPE, check_energies, hcal_is_constant_in_towers

__all__ = ["JetWriter", "QuarkGluonFile", "hcal_is_constant_in_towers"]


class QuarkGluonFile:
    """A file of quark/gluon jets, opened by its content whatever its name, and validated.

    The file is read in bands, the jets of one row of chunks; one band is in memory at most.

    Args:
        path: The file, HDF5 or Parquet. It is opened for reading only.
        columns: The file's names of `X_jets`, `y`, `pt`, `m0` where they are others: "pt=jetPt,m0=jetM" or a mapping.
        channels_first: Whether the images are (N, 3, 125, 125); by default only a Parquet file's may be.
        unit: Unit of the energies: "GeV/100", "GeV", a number of GeV, or "raw" (GeV, HCAL divided by 25, as in the
            Parquet files). By default an HDF5 file is in GeV/100, and that of a Parquet file is inferred from the
            energies over pT.
        follow_links: Whether to read content that lies in other files.
        check: Whether to refuse a pT or mass that is not finite; `jet_diffusion.data.checks` counts them instead.

    Attributes:
        path: The file.
        kind: "HDF5" or "Parquet".
        num_jets: Number of jets N.
        labels: (N,) int64, 0 gluon and 1 quark.
        pt: (N,) float32, jet pT in GeV.
        m0: (N,) float32, jet mass in GeV.
        attrs: The root attributes, as plain Python values.
        simulated: The text that marks simulated stand-in jets, or None.
        datasets: How each column is stored.
        unit: The unit of the stored energies, and whether the user stated it or it was inferred.
        suppressed: Stored energies read so far that became 0 as noise, and how many of them were negative.

    Raises:
        FileNotFoundError: There is no such file.
        UserError: It is of another kind, truncated, or breaks the schema or a limit; or an option is wrong.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        columns: str | Mapping[str, str] | None = None,
        channels_first: bool | None = None,
        unit: str | float | None = None,
        follow_links: bool = False,
        check: bool = True,
    ) -> None:
        self.path = Path(path)
        names = parse_columns(columns)
        self._images = names["X_jets"]
        stated = None if unit is None else parse_unit(unit)
        kind = kind_of(self.path)
        self._stored: Stored = Hdf5File(self.path, follow_links) if kind == "hdf5" else ParquetFile(self.path)
        try:
            self._channels_first = check_columns(self._stored, self.path, names, channels_first)
            self.kind, self.attrs = self._stored.kind, self._stored.attrs
            self.simulated = _simulated_text(self.attrs, self.path)
            self.labels = _read_labels(self._stored.column(names["y"]), self.path)
            self.pt, self.m0 = (self._read_condition(names[key], key, check) for key in ("pt", "m0"))
            self.datasets = list(self._stored.contents.values())
            self.num_jets = len(self.labels)
            self._band_jets = self._stored.band_jets(self._images)
            self.suppressed = [0, 0]
            self.unit_is_stated, self.unit = stated is not None, stated or parse_unit("GeV/100")
            if stated is None and self.kind == "Parquet":
                self.unit = self._infer_unit()
        except BaseException:
            self._stored.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def elsewhere(self) -> list[str]:
        """What is read from other files, as phrases; empty unless links are followed."""
        return self._stored.elsewhere

    @property
    def remarks(self) -> list[str]:
        """What reading changed or assumed, as sentences for the user and the dataset card."""
        said = [f"{phrase} (links were followed)" for phrase in self.elsewhere]
        if not self.unit.is_ours:
            how = "as stated" if self.unit_is_stated else "inferred from the energies over pT, not proven"
            factors = ", ".join(f"{gev:g}" for gev in self.unit.gev)
            said.append(f"energies were in the unit {self.unit.name} ({how}): {factors} GeV for tracks, ECAL, HCAL")
        if self.unit.threshold is not None:
            said.append(f"energies below {self.unit.threshold:g} GeV were set to 0")
        if self.kind == "Parquet":
            said.append("pt and m0 were rounded to float32")
        return said

    def close(self) -> None:
        """Close the file; what was read stays valid."""
        self._stored.close()

    def slices(self, size: int | None = None, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, int]]:
        """Cut jets start to stop into slices whose ends keep to the chunks.

        Args:
            size: Most jets in a slice; default about 128. A slice smaller than a chunk never straddles two.
            start: First jet.
            stop: One past the last jet; default all.

        Yields:
            (start, stop) of each slice, in order and without gaps.

        Raises:
            UserError: The size is not positive or the range lies outside the file.
        """
        stop = self.num_jets if stop is None else stop
        self._check_range(start, stop)
        band = self._band_jets
        size = math.ceil(band / math.ceil(band / SLICE_JETS)) if size is None else size
        if size < 1:
            raise UserError(f"a slice needs at least 1 jet, not {size}")
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
            UserError: A value is negative or not finite (-0.0 passes), float32 does not hold it, the range lies
                outside the file, or the file is damaged there.
        """
        self._check_range(start, stop)
        pixels = np.empty((stop - start, *PIXELS_SHAPE), np.float32)
        position = start
        while position < stop:
            end = min(position - position % self._band_jets + self._band_jets, stop)
            pixels[position - start : end - start] = self._converted(self._pixels(position, end), position)
            position = end
        energies = np.moveaxis(pixels, -1, 1)
        if check:
            check_energies(energies, f"{self.path}: ", first_jet=start)
        return energies

    def _pixels(self, start: int, stop: int) -> NDArray[Any]:
        """Stored values of jets within one band, channels last."""
        values = self._stored.images(self._images, start, stop)
        return np.moveaxis(values, 1, -1) if self._channels_first else values

    def _converted(self, pixels: NDArray[Any], first_jet: int) -> NDArray[np.float32]:
        if self.unit.is_ours:
            return as_single(pixels, self._images, self.path, first_jet)
        energies, small, negative = self.unit.convert(pixels)
        self.suppressed[0] += small
        self.suppressed[1] += negative
        return energies

    def _infer_unit(self) -> Unit:
        """The unit in which the first jets' energies over pT are as published."""
        stop = min(self.num_jets, SLICE_JETS)
        unit, seen = infer_unit(self._pixels(0, stop), self.pt[:stop])
        if unit is None:
            raise UserError(
                f"{self.path}: the energies add up to {seen:.3g} of pt, about 2 is usual, {explain_response(seen)}"
            )
        return unit

    def _check_range(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self.num_jets:
            raise UserError(f"jets {start} to {stop} lie outside {self.path}, which holds {self.num_jets}")

    def _read_condition(self, stored_name: str, name: str, check: bool) -> NDArray[np.float32]:
        values = self._stored.column(stored_name).reshape(-1)
        if check and values.dtype.kind == "f" and not np.isfinite(values).all():
            first = int(np.flatnonzero(~np.isfinite(values))[0])
            raise UserError(f"{self.path}: {name} of jet {first} is {values[first]}, expected a finite number of GeV")
        if self.kind == "Parquet" and values.dtype == np.float64:
            values = values.astype(np.float32)
        return as_single(values, name, self.path)


def _simulated_text(attrs: dict[str, Any], path: Path) -> str | None:
    text = attrs.get("simulated")
    if text is not None and not (isinstance(text, str) and text):
        raise UserError(f"{path}: the attribute `simulated` holds {text!r}, expected a text")
    return text


def _read_labels(values: NDArray[Any], path: Path) -> NDArray[np.int64]:
    if values.dtype.kind not in "fiub":
        raise UserError(f"{path}: y has dtype {values.dtype}, expected numbers 0 (gluon) and 1 (quark)")
    values = values.reshape(-1)
    wrong = np.flatnonzero((values != 0) & (values != 1))
    if wrong.size:
        first = wrong[0]
        seen = f"y of jet {first} is {values[first]}, as are {wrong.size - 1} others not 0 or 1"
        raise UserError(f"{path}: {seen}; expected 0 (gluon) or 1 (quark)")
    return values.astype(np.int64)
