"""The image of a jet: 125 x 125 crystals about the hardest HCAL tower near its axis, in the file's unit."""

from __future__ import annotations

import numpy as np

from jet_diffusion.schema import CRYSTALS_PER_TOWER, ECAL, GEV_PER_UNIT, HCAL, NUM_CRYSTALS, NUM_TOWERS, TRACKS
from jet_diffusion.simulation.compiled import compiled
from jet_diffusion.simulation.detector.geometry import (
    HB_TOWER_ROWS,
    NUM_COLUMNS,
    NUM_TOWER_COLUMNS,
    NUM_TOWER_ROWS,
    column_of,
    row_of,
)
from jet_diffusion.simulation.detector.maps import Maps, Particles, clear, empty_maps, fill
from jet_diffusion.simulation.detector.readout import read_ecal, read_hcal
from jet_diffusion.simulation.detector.tracker import mismeasured_pt
from jet_diffusion.simulation.jets import Jets
from jet_diffusion.simulation.pileup import Overlay, PileupPool, add_hcal, add_pileup

SEARCH_WINDOW = 7
"""Towers on a side of the window about the jet axis in which the hardest tower is sought (arXiv:1902.08276)."""

HALF_TOWERS = NUM_TOWERS // 2
HALF_CRYSTALS = NUM_CRYSTALS // 2

SPURIOUS = ((2e-5, 410.0, 20.0, 940.0), (2e-5, 1075.0, 50.0, 1090.0))
"""ECAL and HCAL: rate per image above an energy, that energy, and the range drawn from, in GeV. Rare cells with
far too much energy (particles in the photodiodes), falling as 1/E. (tuned: the largest of 139,306 real images)"""


@compiled
def find_seed(towers: np.ndarray, eta: float, phi: float) -> tuple[int, int]:
    """Row and column of the hardest tower near a jet axis; the axis' own if none of them has energy."""
    row = row_of(eta) // CRYSTALS_PER_TOWER
    column = column_of(phi) // CRYSTALS_PER_TOWER
    half = SEARCH_WINDOW // 2
    best_row, best_column, highest = row, column, towers[row, column]
    for r in range(max(0, row - half), min(NUM_TOWER_ROWS, row + half + 1)):
        for c in range(column - half, column + half + 1):
            if towers[r, c % NUM_TOWER_COLUMNS] > highest:
                best_row, best_column = r, c % NUM_TOWER_COLUMNS
                highest = towers[best_row, best_column]
    return best_row, best_column


@compiled
def _add_spurious(rng: np.random.Generator, energies: np.ndarray, channel: int, width: int, parameters: tuple) -> None:
    """Rarely, give one cell (`width` crystals wide) of an image an energy it should not have."""
    rate, reference, lowest, highest = parameters
    if rng.random() > rate * reference / lowest:
        return
    energy = min(highest, lowest / max(1e-9, rng.random()))
    row = rng.integers(0, NUM_CRYSTALS // width) * width
    column = rng.integers(0, NUM_CRYSTALS // width) * width
    energies[channel, row : row + width, column : column + width] += energy / width**2 / GEV_PER_UNIT


@compiled
def crop(
    rng: np.random.Generator, tracks: np.ndarray, crystals: np.ndarray, towers: np.ndarray, row: int, column: int
) -> np.ndarray:
    """Energies (3, 125, 125) in GeV/100 about the tower (row, column), from maps in GeV.

    A tower's energy is spread evenly over its 5x5 crystals. Tracks are mis-measured here, one by one.
    """
    energies = np.zeros((3, NUM_CRYSTALS, NUM_CRYSTALS), np.float32)
    first_row = row * CRYSTALS_PER_TOWER + CRYSTALS_PER_TOWER // 2 - HALF_CRYSTALS
    first_column = column * CRYSTALS_PER_TOWER + CRYSTALS_PER_TOWER // 2 - HALF_CRYSTALS
    for i in range(NUM_CRYSTALS):
        r = first_row + i
        for j in range(NUM_CRYSTALS):
            c = (first_column + j) % NUM_COLUMNS
            if tracks[r, c] > 0:
                energies[TRACKS, i, j] = mismeasured_pt(rng, tracks[r, c]) / GEV_PER_UNIT
            energies[ECAL, i, j] = crystals[r, c] / GEV_PER_UNIT
            tower = towers[r // CRYSTALS_PER_TOWER, c // CRYSTALS_PER_TOWER]
            energies[HCAL, i, j] = tower / CRYSTALS_PER_TOWER**2 / GEV_PER_UNIT
    return energies


@compiled
def _image(
    rng: np.random.Generator, maps: Maps, before: np.ndarray, after: np.ndarray, eta: float, phi: float
) -> np.ndarray:
    """Energies of one jet, (1, 3, 125, 125), or (0, 3, 125, 125) if its image would leave the detector."""
    towers = read_hcal(rng, maps.hcal, before, after)
    row, column = find_seed(towers, eta, phi)
    if row < HB_TOWER_ROWS[0] or row >= HB_TOWER_ROWS[1]:
        return np.zeros((0, 3, NUM_CRYSTALS, NUM_CRYSTALS), np.float32)
    centre = column * CRYSTALS_PER_TOWER + CRYSTALS_PER_TOWER // 2
    crystals = read_ecal(rng, maps.tracks, maps.ecal, towers, centre, HALF_CRYSTALS)
    energies = crop(rng, maps.tracks, crystals, towers, row, column)
    _add_spurious(rng, energies, ECAL, 1, SPURIOUS[0])
    _add_spurious(rng, energies, HCAL, CRYSTALS_PER_TOWER, SPURIOUS[1])
    return energies.reshape((1, *energies.shape))


def draw_images(
    rng: np.random.Generator,
    jets: Jets,
    offsets: np.ndarray,
    particles: Particles,
    vertices: np.ndarray,
    pool: PileupPool,
    crossings: tuple[Overlay, Overlay, Overlay],
) -> tuple[np.ndarray, np.ndarray]:
    """Images of jets.

    Args:
        rng: Random stream.
        jets: The jets, of a batch of events.
        offsets: The events' offsets in `particles`.
        particles: Reconstructed particles of the events.
        vertices: (events,) positions of the hard scatters along the beam, in metres.
        pool: Pile-up collisions.
        crossings: Those in this crossing, in the one before and in the one after, by event.

    Returns:
        energies (images, 3, 125, 125) float32 in GeV/100, and which jets they belong to: one whose image would
        leave the detector has none.
    """
    maps, before, after = empty_maps(), empty_maps().hcal, empty_maps().hcal
    images, drawn = [], []
    for index, event in enumerate(jets.event):
        clear(maps)
        before[:], after[:] = 0, 0
        fill(rng, particles, offsets[event], offsets[event + 1], vertices[event], maps)
        add_pileup(pool, crossings[0], event, maps)
        add_hcal(pool, crossings[1], event, 1.0, before)
        add_hcal(pool, crossings[2], event, 1.0, after)
        image = _image(rng, maps, before, after, jets.eta[index], jets.phi[index])
        if len(image):
            images.append(image)
            drawn.append(index)
    energies = np.concatenate(images) if images else np.zeros((0, 3, NUM_CRYSTALS, NUM_CRYSTALS), np.float32)
    return energies, np.array(drawn, dtype=np.int64)
