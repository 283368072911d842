"""What the silicon tracker makes of a charged particle: found or lost, with which pT."""

from __future__ import annotations

import math

import numpy as np

from jet_diffusion.simulation.compiled import compiled
from jet_diffusion.simulation.detector.kinds import ELECTRON

MAX_ETA = 2.5
"""Acceptance of the tracker (CMS, JINST 3 (2008) S08004)."""

MIN_PT = 0.16
"""GeV; the softest track in the fragments of real images has 0.164 GeV."""

PLATEAU, TURN_ON = 0.99, 0.25
"""Probability of a high-purity track for a charged particle, and how many GeV above MIN_PT it takes to rise. The
efficiency for pions is 0.85 to 0.95 above 1 GeV (CMS, JINST 9 (2014) P10009); what is on top stands for the
secondaries of nuclear interactions and for fakes. (tuned: the number of track pixels and the soft ones' pT)"""

ELECTRON_FACTOR, DISPLACED_FACTOR = 0.9, 0.7
"""Further losses for electrons (bremsstrahlung), and for particles born more than 20 mm from the beam."""

DISPLACED_RADIUS, MAX_RADIUS = 0.020, 0.300
"""Metres from the beam beyond which tracks are harder to find, and not found."""

PT_RESOLUTION = 0.012
"""Relative resolution of pT at these momenta in the barrel (JINST 9 (2014) P10009)."""

OUTLIER_FRACTION, OUTLIER_INDEX = 2.8e-3, 1.15
"""Fraction of tracks that are mis-measured, and index of their spectrum: the fraction above pT falls as a power
of it. Where the curvature comes out near zero by chance, all curvatures are equally likely and the index is 1.
(tuned: the largest of 139,306 real jets' tracks has 75.7 TeV, one in a thousand has 60 GeV)"""

OUTLIER_MIN_PT, OUTLIER_MAX_PT = 10.0, 1.0e5
"""GeV; the range in which an outlier is drawn."""


@compiled
def turn_on(pt: float) -> float:
    """How the efficiency rises with pT (GeV), from 0 at MIN_PT to 1."""
    return 1 - math.exp(-max(0.0, pt - MIN_PT) / TURN_ON)


@compiled
def track_pt(rng: np.random.Generator, pt: float, eta: float, kind: int, radius: float) -> float:
    """Draw the pT of the track of a charged particle, in GeV, or 0 if none is found.

    Args:
        rng: Random stream.
        pt: True transverse momentum in GeV.
        eta: Pseudorapidity at the vertex.
        kind: Kind of the particle (`kinds`).
        radius: Distance from the beam at which it was born, in metres.
    """
    if pt < MIN_PT or abs(eta) > MAX_ETA or radius > MAX_RADIUS:
        return 0.0
    efficiency = PLATEAU * turn_on(pt)
    if kind == ELECTRON:
        efficiency *= ELECTRON_FACTOR
    if radius > DISPLACED_RADIUS:
        efficiency *= DISPLACED_FACTOR
    if rng.random() > efficiency:
        return 0.0
    return max(MIN_PT, pt * (1 + PT_RESOLUTION * rng.standard_normal()))


@compiled
def mismeasured_pt(rng: np.random.Generator, pt: float) -> float:
    """`pt` of a track in an image, or rarely that of an outlier drawn afresh, in GeV."""
    if rng.random() > OUTLIER_FRACTION:
        return pt
    return min(OUTLIER_MAX_PT, OUTLIER_MIN_PT * (1 - rng.random()) ** (-1 / OUTLIER_INDEX))
