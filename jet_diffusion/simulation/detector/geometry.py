"""The grid of the images: 280 x 360 crystals over |eta| < 3, and the 56 x 72 HCAL towers of 5x5 crystals.

The barrel is the real one: 85 crystals a side in eta and 360 in phi (CMS ECAL TDR, CERN/LHCC 97-33), under 17
HCAL towers. Beyond it every endcap tower of the HCAL (CMS HCAL TDR, CERN/LHCC 97-31) is cut into five rows of
equal width, as the authors of the images did it (arXiv:1902.08276, github.com/mbandrews/MLAnalyzer): rows there
are wider in eta than a barrel crystal, and the map ends at |eta| = 3.
"""

from __future__ import annotations

import math

import numpy as np

from jet_diffusion.schema import CRYSTALS_PER_TOWER
from jet_diffusion.simulation.compiled import compiled

NUM_ROWS, NUM_COLUMNS = 280, 360
"""Crystal rows (eta, from -3 to 3) and columns (phi, from 0 to 2 pi)."""

NUM_TOWER_ROWS, NUM_TOWER_COLUMNS = NUM_ROWS // CRYSTALS_PER_TOWER, NUM_COLUMNS // CRYSTALS_PER_TOWER

BARREL_ROW_WIDTH = 0.0174
"""Width of a barrel row in eta; 85 of them reach 1.479, where the ECAL barrel ends."""

BARREL_ROWS = (55, 225)
"""First and one-past-last crystal row of the ECAL barrel; the rest is endcap."""

HB_TOWER_ROWS = (12, 44)
"""First and one-past-last tower row of the HCAL barrel (|ieta| <= 16, |eta| < 1.392)."""

ENDCAP_TOWER_EDGES = (1.479, 1.566, 1.653, 1.740, 1.830, 1.930, 2.043, 2.172, 2.322, 2.500, 2.650, 3.000)
"""|eta| edges of the HCAL towers |ieta| = 18 to 28."""

COLUMN_WIDTH = 2 * math.pi / NUM_COLUMNS


def _row_edges() -> np.ndarray:
    barrel = np.arange(86) * BARREL_ROW_WIDTH
    towers = np.array(ENDCAP_TOWER_EDGES)
    fractions = np.arange(1, CRYSTALS_PER_TOWER + 1) / CRYSTALS_PER_TOWER
    endcap = (towers[:-1, None] + np.diff(towers)[:, None] * fractions).ravel()
    positive = np.concatenate([barrel, endcap])
    return np.concatenate([-positive[:0:-1], positive])


ROW_EDGES = _row_edges()
"""The 281 edges in eta of the crystal rows."""

ROW_CENTRES = (ROW_EDGES[1:] + ROW_EDGES[:-1]) / 2

COSH_ETA = np.cosh(ROW_CENTRES)
"""E / E_T at the centre of each crystal row."""


@compiled
def row_of(eta: float) -> int:
    """Crystal row of a pseudorapidity, or -1 outside |eta| < 3."""
    if abs(eta) < ENDCAP_TOWER_EDGES[0]:
        return math.floor(eta / BARREL_ROW_WIDTH) + NUM_ROWS // 2
    if not abs(eta) < ENDCAP_TOWER_EDGES[-1]:
        return -1
    return int(np.searchsorted(ROW_EDGES, eta, side="right")) - 1


@compiled
def column_of(phi: float) -> int:
    """Crystal column of an azimuth in radians, which may lie outside 0 to 2 pi."""
    return math.floor(phi / COLUMN_WIDTH) % NUM_COLUMNS


@compiled
def phi_difference(first: float, second: float) -> float:
    """`first - second`, folded into [-pi, pi)."""
    return (first - second + math.pi) % (2 * math.pi) - math.pi
