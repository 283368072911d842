"""The non-zero values of a batch of jets: what every observable is computed from.

A jet image is about 1.5 % full, so one pass finds the hits and everything after it works on them.
Values are in GeV, positions are (eta, phi) distances from the image's centre.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np

from jet_diffusion.schema import (
    CHANNELS,
    CRYSTAL_PITCH,
    CRYSTAL_TO_TOWER,
    CRYSTALS_PER_TOWER,
    GEV_PER_UNIT,
    HCAL,
    NUM_CRYSTALS,
    NUM_TOWERS,
    check_energies,
)

Array = np.ndarray

PIXELS = NUM_CRYSTALS**2
TOWERS = NUM_TOWERS**2
TOWER_PITCH = CRYSTALS_PER_TOWER * CRYSTAL_PITCH

CRYSTAL_CENTRES = (np.arange(NUM_CRYSTALS) - NUM_CRYSTALS // 2) * CRYSTAL_PITCH
"""eta of each row and phi of each column, from the image's central crystal."""

TOWER_CENTRES = (np.arange(NUM_TOWERS) - NUM_TOWERS // 2) * TOWER_PITCH
"""eta and phi of the towers' rows and columns, from the image's central tower."""


class Particles(NamedTuple):
    """Massless deposits, one row each: tracks and ECAL crystal by crystal, the HCAL tower by tower.

    Attributes:
        jet: index of the jet, int64.
        channel: its channel.
        eta: distance from the image's centre.
        phi: distance from the image's centre (radians).
        energy: GeV.
    """

    jet: Array
    channel: Array
    eta: Array
    phi: Array
    energy: Array


class Hits:
    """The non-zero values of a batch of jets.

    Args:
        energies: (N, 3, 125, 125) in GeV/100, finite or not, of either sign.

    Attributes:
        num_jets: N.
        jet: (M,) index of each hit's jet, ascending.
        channel: (M,) its channel.
        pixel: (M,) its pixel, row * 125 + column.
        energy: (M,) its value in GeV.

    Raises:
        ValueError: for a wrong shape or type.
    """

    def __init__(self, energies: Array) -> None:
        energies = np.ascontiguousarray(energies)
        check_energies(energies, physical=False)
        self.num_jets = len(energies)
        flat = np.flatnonzero(energies != 0)
        image, self.pixel = np.divmod(flat, PIXELS)
        self.jet, self.channel = np.divmod(image, len(CHANNELS))
        self.energy = energies.reshape(-1)[flat].astype(np.float64) * GEV_PER_UNIT

    def sum(self, weights: Array | None = None, per: Array | None = None, bins: int = 1) -> Array:
        """Sum `weights` of all hits (or count them) in each jet: (N,), or (N, bins) for bin numbers `per`."""
        return sum_by_jet(self.jet, self.num_jets, weights, per, bins)

    @cached_property
    def channel_energy(self) -> Array:
        """(N, 3): energy in each channel, GeV."""
        return self.sum(self.energy, self.channel, len(CHANNELS))

    @cached_property
    def channel_hits(self) -> Array:
        """(N, 3): non-zero crystals in each channel."""
        return self.sum(None, self.channel, len(CHANNELS))

    @cached_property
    def tower_energy(self) -> Array:
        """(N, 3, 625): energy in each tower, GeV."""
        tower = self.channel * TOWERS + CRYSTAL_TO_TOWER[self.pixel]
        return self.sum(self.energy, tower, len(CHANNELS) * TOWERS).reshape(-1, len(CHANNELS), TOWERS)

    @cached_property
    def particles(self) -> Particles:
        """Tracks and ECAL crystals as they are, HCAL towers as one deposit at the tower's centre."""
        fine = self.channel != HCAL
        row, column = np.divmod(self.pixel[fine], NUM_CRYSTALS)
        jet, tower = np.nonzero(self.tower_energy[:, HCAL])
        return Particles(
            np.concatenate([self.jet[fine], jet]),
            np.concatenate([self.channel[fine], np.full(len(jet), HCAL)]),
            np.concatenate([CRYSTAL_CENTRES[row], TOWER_CENTRES[tower // NUM_TOWERS]]),
            np.concatenate([CRYSTAL_CENTRES[column], TOWER_CENTRES[tower % NUM_TOWERS]]),
            np.concatenate([self.energy[fine], self.tower_energy[:, HCAL][jet, tower]]),
        )


def sum_by_jet(
    jet: Array, num_jets: int, weights: Array | None = None, per: Array | None = None, bins: int = 1
) -> Array:
    """Sum `weights` (or count) over the rows of each jet.

    Args:
        jet: (M,) index of each row's jet.
        num_jets: number of jets N.
        weights: (M,) what is summed; counts when absent.
        per: (M,) bin in 0..bins-1 of each row, or None.
        bins: number of bins.

    Returns:
        (N,) float64, or (N, bins) with `per`.
    """
    index = jet if per is None else jet * bins + per
    total = np.bincount(index, weights=weights, minlength=num_jets * bins).astype(np.float64, copy=False)
    return total if per is None else total.reshape(num_jets, bins)


def divide(numerator: Array, denominator: Array) -> Array:
    """`numerator / denominator`, and 0 where the denominator is 0 (an empty jet)."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    return np.divide(numerator, denominator, out=np.zeros(numerator.shape), where=denominator != 0)
