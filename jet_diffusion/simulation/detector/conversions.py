"""Photons that turn into an electron and a positron in the tracker's material."""

from __future__ import annotations

import math

import numpy as np

from jet_diffusion.simulation.compiled import compiled
from jet_diffusion.simulation.detector.propagation import ECAL_FACE, METRES_PER_GEV
from jet_diffusion.simulation.detector.tracker import turn_on

MATERIAL = (0.4, 0.6, 1.6)
"""Radiation lengths in front of the crystals: a + b eta^2, at most c (CMS, JINST 3 (2008) S08004)."""

RADII = (0.04, 1.10)
"""Metres from the beam between which that material lies; it is taken as spread evenly."""

TRACK_RADIUS, TRACK_EFFICIENCY = 0.40, 0.6
"""A leg born within that many metres of the beam has a track that often, one born farther out has none."""

MIN_LEG_ENERGY = 0.05
"""GeV; a softer leg is lost."""

MAX_BEND = 0.5
"""Radians; a leg bent farther away from its photon is lost."""


@compiled
def converts(rng: np.random.Generator, eta: float) -> bool:
    """Draw whether a photon converts; the probability is 1 - exp(-7/9 X/X0)."""
    lengths = min(MATERIAL[2], MATERIAL[0] + MATERIAL[1] * eta * eta)
    return rng.random() < 1 - math.exp(-7 / 9 * lengths)


@compiled
def conversion_radius(rng: np.random.Generator) -> float:
    """Draw the distance from the beam at which a photon converts, in metres."""
    return rng.uniform(RADII[0], RADII[1])


@compiled
def leg_has_track(rng: np.random.Generator, pt: float, radius: float) -> bool:
    """Draw whether a leg of `pt` GeV born at `radius` metres is found as a track."""
    return radius < TRACK_RADIUS and rng.random() < TRACK_EFFICIENCY * turn_on(pt)


@compiled
def bend_at_ecal(pt: float, radius: float) -> float:
    """Turn in phi, at the crystals, of a leg of `pt` GeV born at `radius` metres, relative to its photon."""
    return (ECAL_FACE[0] - radius) ** 2 / (2 * pt * METRES_PER_GEV) / ECAL_FACE[0]


@compiled
def bend_at_beam(pt: float, radius: float) -> float:
    """Turn in phi of the leg's track where it is nearest to the beam, relative to its photon."""
    return radius / (2 * pt * METRES_PER_GEV)
