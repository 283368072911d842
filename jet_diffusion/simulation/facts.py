"""What is publicly known of the real file, as numbers to compare a simulation with.

Means, occupancies and extremes were read from the notebooks of people who have the file; the fragments are parts
of real images that public pictures preserve bit for bit: rows 0 to 30 of twenty jets, far from the jet's core,
and one track pixel in thirty of a thousand jets of the file's training companion (n793900).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TUNED, FREE = "tuned", "free"
"""Whether a parameter of the simulation was moved with the fact in view, or the fact is a test of it."""


@dataclass(frozen=True)
class Fact:
    """One published number.

    Attributes:
        name: What it is.
        value: The number, in the file's units (GeV for pt and m0, GeV/100 for energies).
        use: TUNED or FREE.
        tolerance: Largest accepted relative deviation, or None for a number that is only shown.
    """

    name: str
    value: float
    use: str
    tolerance: float | None = None


JETS = (
    Fact("pt mean", 117.1, TUNED, 0.1),
    Fact("pt std", 26.1, TUNED, 0.1),
    Fact("pt min", 70.1, TUNED),
    Fact("pt max", 337.0, FREE),
    Fact("m0 mean", 21.4, TUNED, 0.1),
    Fact("m0 std", 6.4, FREE, 0.1),
    Fact("m0 min", 3.37, FREE),
    Fact("m0 max", 76.0, FREE),
)
"""Of all jets."""

OCCUPANCY = {"tracks": (0.53, 0.47), "ecal": (1.74, 1.41), "hcal": (2.82, 2.56)}
"""Crystals that are not zero, in per cent: of gluon and of quark jets. (tuned; of the class differences only that of
the tracks)"""

MEAN = {"tracks": (8.1e-5, 7.9e-5), "ecal": (4.9e-5, 5.3e-5), "hcal": (2.9e-5, 3.3e-5)}
"""Mean energy of a crystal in GeV/100, of gluon and of quark jets. (tuned, but not the class difference)"""

HITS = (794.0, 693.0)
"""Crystals that are not zero in a jet, all channels together: gluon, quark."""

TAILS = {"tracks": (0.60, 757.0), "ecal": (0.20, 9.3), "hcal": (0.032, 0.433)}
"""99.9 % quantile of the energies that are not zero, and the largest of all jets. (tuned)"""

SMALLEST = {"tracks": 1.64e-3, "ecal": 1.73e-5, "hcal": 1.07e-5}
"""Smallest energies that are not zero, of those in the fragments; the file has many more jets."""

FRAGMENT_ROWS = 31
"""Rows of the fragments: 0 to 30. HCAL towers are those that lie in them whole."""

FRAGMENT_SHARES = (0.05, 0.25, 0.50, 0.75, 0.95)

FRAGMENTS = {
    "tracks": (0.00388, (2.73e-3, 4.15e-3, 6.08e-3, 8.78e-3, 1.72e-2), TUNED),
    "ecal": (0.00521, (2.31e-4, 5.32e-4, 9.04e-4, 1.56e-3, 3.64e-3), FREE),
    "hcal": (0.0127, (2.52e-5, 1.35e-4, 2.31e-4, 4.35e-4, 7.49e-4), FREE),
}
"""Share of cells that are not zero in rows 0 to 30 (tuned), quantiles of their energies, and whether these were.
From 301 tracks, 404 crystals and 38 towers in 20 jets: the shares are good to about 20 %."""

GRID = np.array((19, 24, 29, 35, 40, 46, 51, 57, 62, 67, 73, 78, 84, 89, 95, 100))
"""Rows and columns of the sparse grid of track pixels."""

GRID_TRACKS = (
    Fact("share of pixels with a track", 0.00582, TUNED, 0.1),
    Fact("share of images without any", 0.250, TUNED, 0.1),
    Fact("5 % quantile of them", 2.79e-3, TUNED),
    Fact("25 % quantile of them", 4.91e-3, TUNED),
    Fact("50 % quantile of them", 7.68e-3, FREE, 0.1),
    Fact("75 % quantile of them", 1.49e-2, FREE, 0.1),
    Fact("95 % quantile of them", 7.64e-2, FREE),
    Fact("99 % quantile of them", 2.68e-1, FREE),
)
"""Track pixels on the sparse grid: 1,489 in 1,000 jets."""

AUC_RANGE = (0.78, 0.84)
"""Area under the curve a quark/gluon classifier on simple observables should reach; networks on the real images
reach 0.80 to 0.82 (arXiv:1902.08276)."""

CLASS_FACTOR = 1.5
"""Factor within which a difference of the classes' occupancies should agree."""
