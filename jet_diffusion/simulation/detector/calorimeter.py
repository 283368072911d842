"""Showers: how much energy a particle leaves in ECAL and HCAL, and on which cells.

A shower is drawn as many equal spots around its axis, which gives the shape, the sharing between cells and their
fluctuation in one go. The radial profile is that of Grindhammer and Peters (hep-ex/0001020): a core and a tail,
each with density 2 r R^2 / (r^2 + R^2)^2.
"""

from __future__ import annotations

import math

import numpy as np

from jet_diffusion.schema import CRYSTALS_PER_TOWER
from jet_diffusion.simulation.compiled import compiled
from jet_diffusion.simulation.detector.geometry import HB_TOWER_ROWS, column_of, row_of
from jet_diffusion.simulation.detector.kinds import CHARGED_HADRON, ELECTRON, MUON, PHOTON
from jet_diffusion.simulation.detector.propagation import ECAL_FACE, HCAL_FACE, arrive

EM_SPOTS = (0.03, 10, 500, 0.92, 0.0042, 0.026)
"""An electromagnetic shower in PbWO4 (Moliere radius 2.2 cm, crystals of 2.2 cm): GeV a spot, fewest and most
spots, share of the core, radius R of core and tail in metres. About 80 % of a centred photon fall into one
crystal, as in the test beam (CMS, JINST 2 (2007) P04004)."""

HADRON_IN_ECAL_SPOTS = (0.04, 6, 400, 0.70, 0.010, 0.060)
"""A hadron shower that starts in the crystals: pi0 make its core, the other pions its wide tail."""

HADRON_IN_HCAL_SPOTS = (0.25, 6, 200, 0.90, 0.030, 0.090)
"""A hadron shower in brass and scintillator (interaction length 16 cm; core and halo)."""

MAX_SPREAD = 0.6
"""Farthest spot from the axis of its shower, in eta-phi."""

STOCHASTIC, CONSTANT = 0.028, 0.006
"""Energy resolution of the crystals: 2.8 %/sqrt(E) and about 0.6 % for what a shower leaks (JINST 2 (2007) P04004)."""

INTERACTS_IN_ECAL = 0.67
"""Hadrons that shower in the crystals, which are 1.1 interaction lengths thick: 1 - exp(-1.1)."""

ECAL_SHARE = (1.6, 2.4)
"""Beta distribution of the share of its energy such a hadron spends in the crystals (mean 0.4)."""

ECAL_RESPONSE = (0.72, 0.09, 1.0)
"""Response of the crystals to E GeV of a hadron, relative to a photon: a + b ln E, at most c. PbWO4 does not
compensate (e/h about 2; CMS, EPJ C 60 (2009) 359). (tuned: the mean of the ECAL channel)"""

MIP_ECAL = (0.22, 0.06)
"""GeV and spread left in the crystals by a charged particle that does not shower (23 cm of PbWO4)."""

MIP_HCAL = (1.8, 0.5)
"""GeV and spread left by a muon in the HCAL barrel."""

HCAL_RESPONSE = (0.20, 0.185, 1.1)
"""The HCAL's response to a hadron of E GeV, a + b ln E, at most c: it is calibrated with pions of 50 GeV and
sees less of softer ones, which make fewer pi0; so rises that of the test beam (EPJ C 60 (2009) 359), and that of
raw calorimeter jets (CMS, JINST 6 (2011) P11002: 0.7 at 100 GeV). (tuned: the mean of the HCAL channel)"""

HCAL_RESOLUTION = (1.0, 0.07)
"""Resolution of the HCAL: 100 %/sqrt(E) and 7 % (EPJ C 60 (2009) 359), of the mean signal."""

MIN_HCAL_ENERGY = 0.3
"""GeV; less than this does not come out behind the crystals."""


@compiled
def _spread(
    rng: np.random.Generator,
    energy: float,
    eta: float,
    phi: float,
    spots: tuple,
    face: tuple,
    cells: np.ndarray,
    per_cell: int,
) -> None:
    """Lay `energy` on the map `cells`, whose cells are `per_cell` crystals wide, around (eta, phi)."""
    gev_per_spot, fewest, most, core_share, core, tail = spots
    distance = min(face[0], face[1] / max(0.1, abs(math.sinh(eta))))  # from the beam, for metres in eta-phi
    number = int(min(most, max(fewest, energy / gev_per_spot)))
    share = energy / number
    for _ in range(number):
        uniform = rng.random()
        width = core if rng.random() < core_share else tail
        radius = min(MAX_SPREAD, width / distance * math.sqrt(uniform / (1 - uniform)))
        angle = 2 * math.pi * rng.random()
        row = row_of(eta + radius * math.cos(angle))
        if row >= 0:
            cells[row // per_cell, column_of(phi + radius * math.sin(angle)) // per_cell] += share


@compiled
def deposit_electromagnetic(rng: np.random.Generator, energy: float, eta: float, phi: float, ecal: np.ndarray) -> None:
    """Add a photon or electron of `energy` GeV that meets the crystals at (eta, phi) to their map."""
    relative = math.hypot(STOCHASTIC / math.sqrt(energy), CONSTANT)
    measured = energy * (1 + relative * rng.standard_normal())
    if measured > 0:
        _spread(rng, measured, eta, phi, EM_SPOTS, ECAL_FACE, ecal, 1)


@compiled
def hadron_response(energy: float, parameters: tuple[float, float, float]) -> float:
    """Mean signal for a hadron of `energy` GeV, relative to it (HCAL_RESPONSE, ECAL_RESPONSE)."""
    at_one_gev, slope, most = parameters
    return max(0.1, min(most, at_one_gev + slope * math.log(energy)))


@compiled
def _hadron_in_ecal(
    rng: np.random.Generator, energy: float, charged: bool, eta: float, phi: float, ecal: np.ndarray
) -> float:
    """Lay a hadron's deposit in the crystals; returns the energy it takes on to the HCAL, in GeV."""
    if rng.random() < INTERACTS_IN_ECAL:
        share = rng.beta(ECAL_SHARE[0], ECAL_SHARE[1])
        signal = share * energy * hadron_response(energy, ECAL_RESPONSE)
        _spread(rng, signal, eta, phi, HADRON_IN_ECAL_SPOTS, ECAL_FACE, ecal, 1)
        return (1 - share) * energy
    if not charged:
        return energy
    ionisation = min(energy, MIP_ECAL[0] + MIP_ECAL[1] * abs(rng.standard_normal()))
    row = row_of(eta)
    if row >= 0:
        ecal[row, column_of(phi)] += ionisation
    return energy - ionisation


@compiled
def _hadron_in_hcal(rng: np.random.Generator, energy: float, eta: float, phi: float, hcal: np.ndarray) -> None:
    if energy < MIN_HCAL_ENERGY:
        return
    mean = energy * hadron_response(energy, HCAL_RESPONSE)
    relative = min(0.9, math.hypot(HCAL_RESOLUTION[0] / math.sqrt(mean), HCAL_RESOLUTION[1]))
    shape = 1 / relative**2
    signal = rng.gamma(shape, mean / shape)
    _spread(rng, signal, eta, phi, HADRON_IN_HCAL_SPOTS, HCAL_FACE, hcal, CRYSTALS_PER_TOWER)


@compiled
def deposit(
    rng: np.random.Generator,
    energy: float,
    pt: float,
    eta: float,
    phi: float,
    kind: int,
    charge: int,
    z: float,
    ecal: np.ndarray,
    hcal: np.ndarray,
) -> None:
    """Add what one particle leaves in the calorimeters to two maps of energy (GeV, not E_T).

    Args:
        rng: Random stream.
        energy: Energy of the particle in GeV.
        pt: Transverse momentum in GeV.
        eta: Pseudorapidity at the vertex.
        phi: Azimuth at the vertex.
        kind: Kind of the particle (`kinds`).
        charge: In units of e.
        z: Vertex position along the beam, in metres.
        ecal: (280, 360) map of crystals, added to.
        hcal: (56, 72) map of towers, added to; the endcap's stay empty, which is not read (`readout`).
    """
    reached, ecal_eta, ecal_phi = arrive(pt, eta, phi, charge, z, ECAL_FACE)
    if not reached or abs(ecal_eta) > 3.0:
        return
    if kind in (PHOTON, ELECTRON):
        deposit_electromagnetic(rng, energy, ecal_eta, ecal_phi, ecal)
        return
    left = energy
    if kind != MUON:
        left = _hadron_in_ecal(rng, energy, kind == CHARGED_HADRON, ecal_eta, ecal_phi, ecal)
    reached, hcal_eta, hcal_phi = arrive(pt, eta, phi, charge, z, HCAL_FACE)
    row = row_of(hcal_eta) // CRYSTALS_PER_TOWER if reached else -1
    if row < HB_TOWER_ROWS[0] - 2 or row >= HB_TOWER_ROWS[1] + 2:
        return
    if kind == MUON:
        hcal[row, column_of(hcal_phi) // CRYSTALS_PER_TOWER] += max(
            0.0, MIP_HCAL[0] + MIP_HCAL[1] * rng.standard_normal()
        )
        return
    _hadron_in_hcal(rng, left, hcal_eta, hcal_phi, hcal)
