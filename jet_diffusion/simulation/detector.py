"""One collision in the detector: maps of tracks, crystals and towers before any readout."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jet_diffusion.simulation.compiled import compiled

from jet_diffusion.simulation.calorimeter import deposit
from jet_diffusion.simulation.geometry import (
    NUM_COLUMNS,
    NUM_ROWS,
    NUM_TOWER_COLUMNS,
    NUM_TOWER_ROWS,
    column_of,
    row_of,
)


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
def fill(particles: Particles, start: int, stop: int, z: float, maps: Maps) -> None:
    """Add particles `start:stop`, born at z metres along the beam, to the maps.

    A track counts where it points at the vertex, (eta, phi), as in the real images; a shower where it is.
    """
    for i in range(start, stop):
        pt, eta, phi = particles.pt[i], particles.eta[i], particles.phi[i]
        if particles.track[i] > 0:
            row = row_of(eta)
            if row >= 0:
                maps.tracks[row, column_of(phi)] += particles.track[i]
        deposit(
            particles.energy[i],
            pt,
            eta,
            phi,
            particles.kind[i],
            particles.charge[i],
            z,
            maps.ecal,
            maps.hcal,
        )
