"""Look into a quark/gluon HDF5 file: layout, classes, energies of each channel, HCAL towers, pictures."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from jet_diffusion.energies import hcal_is_constant_in_towers
from jet_diffusion.hdf5 import QuarkGluonFile
from jet_diffusion.schema import CHANNEL_LABELS, CHANNELS, CLASS_NAMES, NUM_CRYSTALS

_DROPPED_BITS = 12
"""Bits of a float32 left out in the histogram of non-zero energies: its bins are 0.05 % wide."""

_BINS = 0x7F800000 >> _DROPPED_BITS


@dataclass
class EnergyTally:
    """Running statistics of the non-zero energies, by class and channel.

    Attributes:
        num_jets: (2,) jets of each class.
        total: (2, 3) sum of the energies.
        histogram: (2, 3, bins) non-zero energies by the upper bits of their float32, which order as they do.
        smallest: (2, 3) smallest non-zero energy.
        largest: (2, 3) largest energy.
        hcal_not_in_towers: Jets whose HCAL is not constant in 5x5 towers.
    """

    num_jets: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2, np.int64))
    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros((2, 3)))
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, 3, _BINS), np.int64))
    smallest: NDArray[np.float32] = field(default_factory=lambda: np.full((2, 3), np.inf, np.float32))
    largest: NDArray[np.float32] = field(default_factory=lambda: np.zeros((2, 3), np.float32))
    hcal_not_in_towers: int = 0

    def add(self, energies: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
        """Take in jets: energies (n, 3, 125, 125) float32 and their labels (n,)."""
        self.num_jets += np.bincount(labels, minlength=2)
        self.hcal_not_in_towers += int(np.count_nonzero(~hcal_is_constant_in_towers(energies)))
        for channel in range(len(CHANNELS)):
            images = energies[:, channel]
            jet, row, column = np.nonzero(images)
            values = images[jet, row, column]
            for label in range(len(CLASS_NAMES)):
                self._add_hits(label, channel, values[labels[jet] == label])

    def _add_hits(self, label: int, channel: int, values: NDArray[np.float32]) -> None:
        if not values.size:
            return
        place = label, channel
        self.total[place] += values.sum(dtype=np.float64)
        self.histogram[place] += np.bincount(values.view(np.uint32) >> _DROPPED_BITS, minlength=_BINS)
        self.smallest[place] = min(self.smallest[place], values.min())
        self.largest[place] = max(self.largest[place], values.max())

    def quantile(self, labels: list[int], channel: int, share: float) -> float:
        """Quantile of the non-zero energies, to 0.05 %; nan where there are none."""
        counts = self.histogram[labels, channel].sum(axis=0)
        if not counts.any():
            return float("nan")
        below = np.searchsorted(np.cumsum(counts), share * counts.sum())
        middle = np.uint32((int(below) << _DROPPED_BITS) + (1 << (_DROPPED_BITS - 1)))
        return float(middle.view(np.float32))


def tally_energies(file: QuarkGluonFile, max_jets: int | None = None) -> EnergyTally:
    """Run over a file, or its first jets, with a progress bar.

    Raises:
        ValueError: `max_jets` is not positive or an energy breaks the schema.
    """
    if max_jets is not None and max_jets < 1:
        raise ValueError(f"max_jets must be positive, not {max_jets}")
    num_jets = min(file.num_jets, max_jets or file.num_jets)
    tally = EnergyTally()
    with tqdm(total=num_jets, unit=" jets", desc="inspect") as progress:
        for start, stop in file.slices(stop=num_jets):
            tally.add(file.energies(start, stop), file.labels[start:stop])
            progress.update(stop - start)
    return tally


def describe_layout(file: QuarkGluonFile) -> str:
    """The file's datasets, attributes, classes, and the ranges of pT and mass."""
    ...
