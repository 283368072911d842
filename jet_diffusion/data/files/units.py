"""Units of the energies in a file, and how they become GeV/100."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jet_diffusion.errors import UserError
from jet_diffusion.schema import GEV_PER_UNIT, HCAL

RAW = "raw"
"""The unit of the Parquet files: GeV, HCAL divided by 25, not zero-suppressed."""

RAW_THRESHOLD = 1e-3
"""Energies of the raw files below it (GeV, after HCAL's factor) become 0: what the HDF5 file must have had done."""

PLAUSIBLE_RESPONSE = (0.8, 5.0)
"""Median over jets of the energy in all channels over pT. Published and simulated jets have about 2."""

_UNIT = re.compile(r"\s*([0-9.eE+-]+)?\s*(GeV|MeV|TeV)\s*(?:/\s*([0-9.eE+-]+))?\s*")
_GEV = {"GeV": 1.0, "MeV": 1e-3, "TeV": 1e3}
_CANDIDATES = ("GeV/100", "GeV", "MeV", "TeV", RAW)


class Unit(NamedTuple):
    """A unit of stored energies.

    Attributes:
        name: As the user or this package wrote it.
        gev: (3,) GeV in one unit, for each channel.
        threshold: Energies below it (GeV) become 0; None where none do.
    """

    name: str
    gev: tuple[float, float, float]
    threshold: float | None = None

    @property
    def is_ours(self) -> bool:
        """Whether energies need no conversion."""
        return self.gev == (GEV_PER_UNIT,) * 3 and self.threshold is None

    def convert(self, pixels: NDArray[np.floating]) -> tuple[NDArray[np.float32], int, int]:
        """Turn stored values into GeV/100, rounded to float32.

        Args:
            pixels: (n, 125, 125, 3) stored values.

        Returns:
            The energies, channels last as before; how many non-zero values fell below the threshold and became 0;
            how many of these were negative.
        """
        factors = np.array(self.gev) / GEV_PER_UNIT
        energies = pixels * factors
        small = negative = 0
        if self.threshold is not None:
            # A value that is not finite is no small one: it stays, to be found and named.
            below = (energies < self.threshold / GEV_PER_UNIT) & (energies != 0) & ~np.isinf(energies)
            small, negative = int(below.sum()), int((below & (energies < 0)).sum())
            energies[below] = 0
        with np.errstate(over="ignore"):  # beyond float32 becomes infinite, and is found as such
            return energies.astype(np.float32), small, negative


def parse_unit(text: str | float) -> Unit:
    """Read a unit: "GeV", "GeV/100" (GeV divided by 100), "25500 GeV" in one unit, "MeV", "raw", or a number of GeV.

    Raises:
        UserError: It is none of these or not positive.
    """
    if str(text) == RAW:
        return Unit(RAW, (1.0, 1.0, 25.0), RAW_THRESHOLD)
    match = _UNIT.fullmatch(str(text))
    number, name, divisor = match.groups() if match else (text, "GeV", None)
    try:
        gev = float(number or 1) * _GEV[name] * float(divisor or 1)
    except ValueError:
        gev = float("nan")
    if not 0 < gev < float("inf"):
        raise UserError(f"the unit {text!r} is none; accepted are GeV/100, GeV, MeV, a number of GeV, and {RAW}")
    return Unit(str(text), (gev, gev, gev))


def response(energies: NDArray[np.floating], pt: NDArray[np.floating]) -> NDArray[np.float64]:
    """Energy of all channels over pT, one number a jet: about 2 for jets in GeV/100 and pT in GeV.

    Args:
        energies: (n, 3, 125, 125) in GeV/100.
        pt: (n,) GeV.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return energies.sum(axis=(1, 2, 3), dtype=np.float64) * GEV_PER_UNIT / pt


def infer_unit(pixels: NDArray[np.floating], pt: NDArray[np.floating]) -> tuple[Unit | None, float]:
    """Find the unit in which the energies over pT are what the published jets have.

    Args:
        pixels: (n, 125, 125, 3) stored values of some jets.
        pt: (n,) GeV.

    Returns:
        The unit, None if none fits; and the median of the sum over pT in it, or in GeV/100.
    """
    # In GeV with HCAL/25 the sum over pT may be plausible in plain GeV too: HCAL far below ECAL tells them apart.
    usual = [name for name in _CANDIDATES if name != RAW]
    sums = pixels.sum(axis=(1, 2), dtype=np.float64)
    for name in [RAW, *usual] if _looks_raw(sums) else usual:
        unit = parse_unit(name)
        seen = _median(sums @ np.array(unit.gev) / pt)
        if PLAUSIBLE_RESPONSE[0] < seen < PLAUSIBLE_RESPONSE[1]:
            return unit, seen
    return None, _median(sums.sum(axis=1) * GEV_PER_UNIT / pt)


def explain_response(seen: float) -> str:
    """What a median of energy over pT far from 2 may mean, in a phrase with the option that states it."""
    low, high = PLAUSIBLE_RESPONSE
    for name, gev in (("GeV", 1.0), ("MeV", 1e-3), ("TeV", 1e3)):
        if low < seen * gev / GEV_PER_UNIT < high:
            return f"as if the unit were {name}: state it with --unit {name}"
    if low < seen * 255 < high:
        return "as if divided by 255: state it with --unit GeV/25500"
    return "in no unit this package knows (a logarithm or a normalisation cannot be undone): state it with --unit"


def _looks_raw(sums: NDArray[np.float64]) -> bool:
    """Whether HCAL holds less than a tenth of ECAL: undivided it holds about two thirds."""
    ecal, hcal = np.median(sums[:, HCAL - 1]), np.median(sums[:, HCAL])
    return bool(0 < hcal < 0.1 * ecal)


def _median(values: NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else float("nan")
