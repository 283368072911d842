"""Readout: from deposited energy to recorded hits, with noise, zero suppression and hit selection of CMS in 2012.

The images were made from the AOD format (arXiv:1902.08276), which keeps only part of the ECAL's hits: those in
5x5 crystals about a cluster, and those above a threshold around electron and photon candidates. Both can be seen
in the fragments of real images, and decide how many crystals of a jet are not zero. Names in brackets are those
of the parameters in CMSSW, whose reconstruction made the samples.
"""

from __future__ import annotations

import math

import numpy as np

from jet_diffusion.schema import CRYSTALS_PER_TOWER
from jet_diffusion.simulation.compiled import compiled
from jet_diffusion.simulation.detector.geometry import (
    BARREL_ROWS,
    COLUMN_WIDTH,
    COSH_ETA,
    HB_TOWER_ROWS,
    NUM_COLUMNS,
    NUM_ROWS,
    NUM_TOWER_COLUMNS,
    ROW_CENTRES,
)

MIN_STORED = 1e-5 * 100
"""GeV in a crystal (1e-5 in the file); the fragments of real images have nothing below. (fact)"""

CRYSTAL_NOISE = 0.042
"""GeV; electronic noise of a barrel crystal (CMS, JINST 8 (2013) P09009)."""

ENDCAP_NOISE = 0.15
"""GeV; the same for an endcap crystal, here a cell of 2x2 rows and columns."""

ISOLATION_THRESHOLD, ISOLATION_RADIUS = 0.095, 0.6
"""GeV and dR: hits kept about electrons and photons (interestingGamIsoDetIdEB, interestingEleIsoDetIdEB)."""

ENDCAP_SEED_ET, ENDCAP_THRESHOLD, ENDCAP_FRACTION = 2.0, 0.15, 0.04
"""GeV of E_T that makes an endcap cell a cluster, GeV in a cell outside any, and the fraction of those kept.
(tuned: the endcap hits in the fragments, which are few and soft)"""

CLUSTER_SEED_ET, CLUSTER_PEAK, CLUSTER_MINIMUM, CLUSTER_ROAD = 1.0, 0.35, 0.1, 17
"""Hybrid superclusters of the barrel: they start from a crystal of 1 GeV E_T, walk 17 columns either way over
strips of 5 crystals in eta, and call a peak above 0.35 GeV a cluster, the strips above 0.1 GeV part of it
(HybridBarrelSeedThr, eseed, ethresh, step)."""

PHOTON_ET, PHOTON_HADRONIC = 10.0, 0.5
"""A supercluster is a photon candidate above 10 GeV E_T if the towers behind have less than half its energy
(photons: minSCEtBarrel, maxHoverEBarrel)."""

ELECTRON_ET, ELECTRON_HADRONIC, ELECTRON_TRACK_PT = 4.0, 0.15, 2.0
"""It is an electron candidate above 4 GeV E_T, with less than 0.15 behind and a track in front
(gsfElectrons: minSCEtBarrel, maxHOverE; window 0.02 x 0.15 in eta x phi)."""

HADRONIC_RADIUS = 0.15
"""dR of the towers counted behind a supercluster."""

FLAGGED_FRACTION = 0.05
"""Fraction of all barrel hits above the threshold that is kept wherever it lies, being flagged or beside a dead
channel. (tuned: the lonely hits in the fragments)"""

TOWER_NOISE = 0.20
"""GeV; noise of an HCAL barrel tower (CMS, JINST 5 (2010) T03012)."""

TOWER_THRESHOLD = 0.60
"""GeV; a tower is read out if this crossing or one beside it left more in it. (tuned: the number of towers)"""

OUT_OF_TIME = (0.10, 0.50)
"""Share of the energy of the crossings 50 ns before and after that is counted in this one: the pulse is 100 ns
long. Towers kept for such energy are what is soft in the HCAL channel."""


@compiled
def read_hcal(rng: np.random.Generator, hcal: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Energy of the HCAL towers as read out, (56, 72) in GeV; 0 where nothing is.

    The endcap (|ieta| > 16) is left out: in the fragments of real images none of its towers has energy.

    Args:
        rng: Random stream.
        hcal: (56, 72) energy in this crossing, GeV.
        before: The same in the crossing before.
        after: The same in the crossing after.
    """
    out = np.zeros_like(hcal)
    for row in range(*HB_TOWER_ROWS):
        for column in range(NUM_TOWER_COLUMNS):
            early, late = before[row, column], after[row, column]
            noise = TOWER_NOISE * rng.standard_normal()
            energy = hcal[row, column] + noise + OUT_OF_TIME[0] * early + OUT_OF_TIME[1] * late
            largest = max(energy, early, late)
            if largest > TOWER_THRESHOLD and energy > MIN_STORED * CRYSTALS_PER_TOWER**2:
                out[row, column] = energy
    return out


@compiled
def _strip(ecal: np.ndarray, row: int, column: int) -> float:
    """Energy of the five crystals about `row` in one column."""
    total = 0.0
    for r in range(row - 2, row + 3):
        if BARREL_ROWS[0] <= r < BARREL_ROWS[1]:
            total += ecal[r, column]
    return total


@compiled
def _is_seed(ecal: np.ndarray, row: int, column: int) -> bool:
    energy = ecal[row, column]
    if energy < CLUSTER_SEED_ET * COSH_ETA[row]:
        return False
    for r in range(max(BARREL_ROWS[0], row - 1), min(BARREL_ROWS[1], row + 2)):
        for c in range(column - 1, column + 2):
            if ecal[r, c % NUM_COLUMNS] > energy:
                return False
    return True


@compiled
def _mark_patch(keep: np.ndarray, row: int, column: int) -> None:
    for r in range(max(BARREL_ROWS[0], row - 2), min(BARREL_ROWS[1], row + 3)):
        for c in range(column - 2, column + 3):
            keep[r, c % NUM_COLUMNS] = 2


@compiled
def _supercluster(ecal: np.ndarray, row: int, column: int, keep: np.ndarray) -> float:
    """Mark the 5x5 crystals of each cluster along the road of a seed; returns the energy of them all."""
    strips = np.empty(2 * CLUSTER_ROAD + 3)
    for k in range(len(strips)):
        strips[k] = _strip(ecal, row, (column + k - CLUSTER_ROAD - 1) % NUM_COLUMNS)
    total = 0.0
    for k in range(1, len(strips) - 1):
        if strips[k] > CLUSTER_MINIMUM:
            total += strips[k]
        if strips[k] > CLUSTER_PEAK and strips[k] > strips[k - 1] and strips[k] >= strips[k + 1]:
            peak = (column + k - CLUSTER_ROAD - 1) % NUM_COLUMNS
            best = row
            for r in range(max(BARREL_ROWS[0], row - 2), min(BARREL_ROWS[1], row + 3)):
                if ecal[r, peak] > ecal[best, peak]:
                    best = r
            _mark_patch(keep, best, peak)
    return total


@compiled
def _energy_behind(towers: np.ndarray, row: int, column: int) -> float:
    """Energy of the towers whose centre is within HADRONIC_RADIUS of a crystal, in GeV."""
    total = 0.0
    tower, around = row // CRYSTALS_PER_TOWER, column // CRYSTALS_PER_TOWER
    for r in range(max(0, tower - 2), min(len(towers), tower + 3)):
        delta_row = (r * CRYSTALS_PER_TOWER + 2 - row) * COLUMN_WIDTH
        for c in range(around - 2, around + 3):
            delta_column = (c * CRYSTALS_PER_TOWER + 2 - column) * COLUMN_WIDTH
            if delta_row * delta_row + delta_column * delta_column < HADRONIC_RADIUS * HADRONIC_RADIUS:
                total += towers[r, c % NUM_TOWER_COLUMNS]
    return total


@compiled
def _has_track(tracks: np.ndarray, row: int, column: int) -> bool:
    for r in range(max(0, row - 1), min(NUM_ROWS, row + 2)):
        for c in range(column - 8, column + 9):
            if tracks[r, c % NUM_COLUMNS] > ELECTRON_TRACK_PT:
                return True
    return False


@compiled
def _mark_disc(keep: np.ndarray, row: int, column: int) -> None:
    """Mark the barrel crystals within ISOLATION_RADIUS, unless they are marked already."""
    for r in range(*BARREL_ROWS):
        delta = ROW_CENTRES[r] - ROW_CENTRES[row]
        if abs(delta) >= ISOLATION_RADIUS:
            continue
        reach = int(math.sqrt(ISOLATION_RADIUS * ISOLATION_RADIUS - delta * delta) / COLUMN_WIDTH)
        for c in range(column - reach, column + reach + 1):
            if keep[r, c % NUM_COLUMNS] == 0:
                keep[r, c % NUM_COLUMNS] = 1


@compiled
def _select_hits(tracks: np.ndarray, ecal: np.ndarray, towers: np.ndarray, centre: int, reach: int) -> np.ndarray:
    """Which barrel crystals are kept: 2 in a cluster, 1 above the threshold, 0 only if flagged."""
    keep = np.zeros(ecal.shape, np.int8)
    for row in range(*BARREL_ROWS):
        for c in range(centre - reach, centre + reach + 1):
            column = c % NUM_COLUMNS
            if not _is_seed(ecal, row, column):
                continue
            transverse = _supercluster(ecal, row, column, keep) / COSH_ETA[row]
            if transverse < ELECTRON_ET:
                continue
            hadronic = _energy_behind(towers, row, column) / (transverse * COSH_ETA[row])
            photon = transverse > PHOTON_ET and hadronic < PHOTON_HADRONIC
            if photon or (hadronic < ELECTRON_HADRONIC and _has_track(tracks, row, column)):
                _mark_disc(keep, row, column)
    return keep


@compiled
def read_ecal(
    rng: np.random.Generator, tracks: np.ndarray, ecal: np.ndarray, towers: np.ndarray, centre: int, reach: int
) -> np.ndarray:
    """Energy of the crystals as it is kept, (280, 360) in GeV; 0 where nothing is.

    Args:
        rng: Random stream.
        tracks: (280, 360) map of track pT, GeV.
        ecal: (280, 360) map of energy, GeV.
        towers: (56, 72) HCAL energy as read out, GeV.
        centre: Column about which it is wanted.
        reach: Columns wanted to either side; clusters count up to an isolation radius beyond.
    """
    margin = int(ISOLATION_RADIUS / COLUMN_WIDTH) + 1
    keep = _select_hits(tracks, ecal, towers, centre, min(reach + margin, NUM_COLUMNS // 2 - 1))
    out = np.zeros_like(ecal)
    for row in range(*BARREL_ROWS):
        for c in range(centre - reach, centre + reach + 1):
            column = c % NUM_COLUMNS
            kept, energy = keep[row, column], ecal[row, column]
            if kept == 0 and (energy < ISOLATION_THRESHOLD / 2 or rng.random() > FLAGGED_FRACTION):
                continue
            energy += CRYSTAL_NOISE * rng.standard_normal()
            if energy > (MIN_STORED if kept == 2 else ISOLATION_THRESHOLD):
                out[row, column] = energy
    _read_endcaps(rng, ecal, out, centre, reach)
    return out


@compiled
def _endcap_cells(ecal: np.ndarray, side: int) -> np.ndarray:
    """Energy in cells of 2x2, (28, 180), from the barrel outwards; 55 rows are odd, and the last cell is cut."""
    cells = np.zeros(((BARREL_ROWS[0] + 1) // 2, NUM_COLUMNS // 2))
    for k in range(BARREL_ROWS[0]):
        row = BARREL_ROWS[1] + k if side else BARREL_ROWS[0] - 1 - k
        for column in range(NUM_COLUMNS):
            cells[k // 2, column // 2] += ecal[row, column]
    return cells


@compiled
def _in_endcap_cluster(cells: np.ndarray, k: int, column: int, cosh_eta: float) -> bool:
    """Whether one of the 5x5 cells about this one has enough E_T to start a supercluster."""
    for i in range(max(0, k - 2), min(len(cells), k + 3)):
        for j in range(column - 2, column + 3):
            if cells[i, j % cells.shape[1]] > ENDCAP_SEED_ET * cosh_eta:
                return True
    return False


@compiled
def _read_endcaps(rng: np.random.Generator, ecal: np.ndarray, out: np.ndarray, centre: int, reach: int) -> None:
    """Endcaps as the images have them: in cells of 2x2, about the size of an endcap crystal, spread evenly."""
    for side in range(2):
        cells = _endcap_cells(ecal, side)
        for k in range(len(cells)):
            first = BARREL_ROWS[1] + 2 * k if side else max(0, BARREL_ROWS[0] - 2 - 2 * k)
            last = min(NUM_ROWS, first + 2) if side else BARREL_ROWS[0] - 2 * k
            for j in range((centre - reach) // 2, (centre + reach) // 2 + 1):
                column = j % cells.shape[1]
                clustered = _in_endcap_cluster(cells, k, column, COSH_ETA[first])
                if not clustered and rng.random() > ENDCAP_FRACTION:
                    continue
                energy = cells[k, column] + ENDCAP_NOISE * rng.standard_normal()
                if energy > (4 * MIN_STORED if clustered else ENDCAP_THRESHOLD):
                    out[first:last, 2 * column : 2 * column + 2] = energy / 4
