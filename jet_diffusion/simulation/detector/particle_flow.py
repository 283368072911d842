"""What particle flow makes of each particle: the candidates the jets are clustered from.

Charged particles have the momentum of their track, photons that of their crystals, and what is left is measured
by the HCAL (CMS, JINST 12 (2017) P10003). Jets of raw candidates, pile-up included and uncorrected, are what the
real file's pt and m0 belong to.
"""

from __future__ import annotations

import math

import numpy as np

from jet_diffusion.simulation.compiled import compiled
from jet_diffusion.simulation.detector.calorimeter import CONSTANT, STOCHASTIC
from jet_diffusion.simulation.detector.kinds import CHARGED_HADRON, ELECTRON, MUON, PHOTON
from jet_diffusion.simulation.detector.maps import Particles
from jet_diffusion.simulation.detector.propagation import ECAL_FACE, METRES_PER_GEV
from jet_diffusion.simulation.detector.tracker import track_pt
from jet_diffusion.simulation.events import Events

MAX_ETA = 2.6
"""Candidates beyond this are no part of a jet with |eta| < 2."""

MIN_PHOTON_ENERGY = 0.4
"""GeV; below, a photon makes no cluster above the noise (JINST 12 (2017) P10003)."""

MIN_HADRON_ENERGY = 1.0
"""GeV; the same for clusters of the HCAL."""

HADRON_RESOLUTION = (1.1, 0.09)
"""110 %/sqrt(E) and 9 % for a calibrated neutral hadron (JINST 12 (2017) P10003)."""

REACHES_ECAL_PT = ECAL_FACE[0] / (2 * METRES_PER_GEV)
"""GeV; a charged particle of less pT curls up inside the barrel."""

PION_MASS = 0.13957
"""GeV; given to charged candidates. Neutral ones have none."""


@compiled
def candidate_pt(rng: np.random.Generator, pt: float, eta: float, kind: int, track: float) -> float:
    """Draw the pT of a particle's candidate in GeV, or 0 if it leaves none.

    Args:
        rng: Random stream.
        pt: True transverse momentum in GeV.
        eta: Pseudorapidity at the vertex.
        kind: Kind of the particle (`kinds`).
        track: pT of its track in GeV, 0 without one.
    """
    if track > 0:
        return track
    cosh_eta = math.cosh(eta)
    energy = pt * cosh_eta
    if kind in (PHOTON, ELECTRON):
        measured = energy * (1 + math.hypot(STOCHASTIC / math.sqrt(energy), CONSTANT) * rng.standard_normal())
        return measured / cosh_eta if measured > MIN_PHOTON_ENERGY else 0.0
    if kind == MUON or (kind == CHARGED_HADRON and pt < REACHES_ECAL_PT):
        return 0.0
    relative = min(0.9, math.hypot(HADRON_RESOLUTION[0] / math.sqrt(energy), HADRON_RESOLUTION[1]))
    measured = energy * (1 + relative * rng.standard_normal())
    return measured / cosh_eta if measured > MIN_HADRON_ENERGY else 0.0


def reconstruct(rng: np.random.Generator, events: Events) -> Particles:
    """Tracks and candidates of the final particles of many events; 0 where a particle leaves none."""
    momentum = events.momentum
    pt = np.hypot(momentum[:, 0], momentum[:, 1])
    eta, phi = np.arcsinh(momentum[:, 2] / pt), np.arctan2(momentum[:, 1], momentum[:, 0])
    track, candidate = _reconstruct(rng, pt, eta, events.kind, events.charge, events.radius)
    return Particles(pt, eta, phi, momentum[:, 3].copy(), events.kind, events.charge, track, candidate)


@compiled
def _reconstruct(
    rng: np.random.Generator, pt: np.ndarray, eta: np.ndarray, kind: np.ndarray, charge: np.ndarray, radius: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    track, candidate = np.zeros(len(pt)), np.zeros(len(pt))
    for i in range(len(pt)):
        if charge[i] != 0:
            track[i] = track_pt(rng, pt[i], eta[i], kind[i], radius[i])
        if abs(eta[i]) < MAX_ETA:
            candidate[i] = candidate_pt(rng, pt[i], eta[i], kind[i], track[i])
    return track, candidate
