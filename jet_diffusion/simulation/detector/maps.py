"""One collision in the detector: maps of tracks, crystals and towers before any readout."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jet_diffusion.simulation.compiled import compiled
from jet_diffusion.simulation.detector.calorimeter import deposit, deposit_electromagnetic
from jet_diffusion.simulation.detector.conversions import (
    MAX_BEND,
    MIN_LEG_ENERGY,
    bend_at_beam,
    bend_at_ecal,
    conversion_radius,
    converts,
    leg_has_track,
)
from jet_diffusion.simulation.detector.geometry import (
    NUM_COLUMNS,
    NUM_ROWS,
    NUM_TOWER_COLUMNS,
    NUM_TOWER_ROWS,
    column_of,
    row_of,
)
from jet_diffusion.simulation.detector.kinds import PHOTON
from jet_diffusion.simulation.detector.propagation import ECAL_FACE, arrive
from jet_diffusion.simulation.detector.tracker import MAX_ETA


class Maps(NamedTuple):
    """Energy on the whole detector: tracks (280, 360) pT, ecal (280, 360) and hcal (56, 72) E, all in GeV."""

    tracks: np.ndarray
    ecal: np.ndarray
    hcal: np.ndarray


class Particles(NamedTuple):
    """Reconstructed particles of many events, flat (`particle_flow.reconstruct`), (particles,) each."""

    pt: np.ndarray
    eta: np.ndarray
    phi: np.ndarray
    energy: np.ndarray
    kind: np.ndarray
    charge: np.ndarray
    track: np.ndarray
    candidate: np.ndarray


def empty_maps() -> Maps:
    """Maps without energy, to be filled and cleared over and over."""
    return Maps(
        np.zeros((NUM_ROWS, NUM_COLUMNS)),
        np.zeros((NUM_ROWS, NUM_COLUMNS)),
        np.zeros((NUM_TOWER_ROWS, NUM_TOWER_COLUMNS)),
    )


@compiled
def clear(maps: Maps) -> None:
    """Take all energy off the maps."""
    maps.tracks[:] = 0
    maps.ecal[:] = 0
    maps.hcal[:] = 0


@compiled
def _add_track(pt: float, eta: float, phi: float, tracks: np.ndarray) -> None:
    """A track counts where it points at the vertex, (eta, phi), as in the real images."""
    row = row_of(eta)
    if row >= 0:
        tracks[row, column_of(phi)] += pt


@compiled
def _fill_conversion(
    rng: np.random.Generator, energy: float, pt: float, eta: float, phi: float, z: float, maps: Maps
) -> None:
    """Add the two legs of a converted photon: their showers, and their tracks if they are found."""
    radius = conversion_radius(rng)
    reached, ecal_eta, ecal_phi = arrive(pt, eta, phi, 0, z, ECAL_FACE)
    share = rng.random()
    for part, sign in ((share, 1.0), (1 - share, -1.0)):
        if part * energy < MIN_LEG_ENERGY:
            continue
        bend = bend_at_ecal(part * pt, radius)
        if reached and bend < MAX_BEND:
            deposit_electromagnetic(rng, part * energy, ecal_eta, ecal_phi + sign * bend, maps.ecal)
        if abs(eta) < MAX_ETA and leg_has_track(rng, part * pt, radius):
            _add_track(part * pt, eta, phi - sign * bend_at_beam(part * pt, radius), maps.tracks)


@compiled
def fill(rng: np.random.Generator, particles: Particles, start: int, stop: int, z: float, maps: Maps) -> None:
    """Add particles `start:stop`, born at z metres along the beam, to the maps."""
    for i in range(start, stop):
        pt, eta, phi, energy = particles.pt[i], particles.eta[i], particles.phi[i], particles.energy[i]
        kind, charge = particles.kind[i], particles.charge[i]
        if kind == PHOTON and converts(rng, eta):
            _fill_conversion(rng, energy, pt, eta, phi, z, maps)
            continue
        if particles.track[i] > 0:
            _add_track(particles.track[i], eta, phi, maps.tracks)
        deposit(rng, energy, pt, eta, phi, kind, charge, z, maps.ecal, maps.hcal)
