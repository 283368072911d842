"""Collisions of the same bunch crossing: one pool of them for all files, laid on each hard scatter turned and mirrored.

A pool event has passed tracker, showers and particle flow, but no readout: noise, thresholds and mis-measured
tracks are drawn when the image is made. The detector is symmetric under turns by one HCAL tower (72 of them) and
under eta -> -eta, so each event stands for 144.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jet_diffusion.io import write_atomically
from jet_diffusion.schema import CRYSTALS_PER_TOWER
from jet_diffusion.simulation.compiled import compiled
from jet_diffusion.simulation.detector.geometry import NUM_TOWER_COLUMNS
from jet_diffusion.simulation.detector.maps import Maps, clear, empty_maps, fill
from jet_diffusion.simulation.detector.particle_flow import reconstruct
from jet_diffusion.simulation.events import MinimumBias
from jet_diffusion.simulation.seeds import POOL_STREAM, pythia_seed, stream

POOL_SHARDS = 10
"""Parts of the pool, each with a random stream of its own, so that several processes can make it."""

SHARD_EVENTS = 2000
"""Events of a shard; their mean activity scatters from shard to shard by about 2 %."""

POOL_SEED = 8000
"""Names the random streams of the pool, which all files share, whatever their seed."""

BATCH_EVENTS = 250

MIN_CELL_ENERGY = 0.002
"""GeV; cells of a pool event with less are dropped (a twentieth of the noise)."""

PILEUP_SPREAD = 5.0
"""Spread of the expected number of collisions from crossing to crossing, as wide as that of 2012."""

BEAM_SPOT_LENGTH = 0.05
"""Metres; the spread of the vertices along the beam (CMS, JINST 9 (2014) P10009)."""


class PileupPool(NamedTuple):
    """Pool events as flat arrays; those of event i are `*_offsets[i]:*_offsets[i + 1]`.

    `tracks`, `ecal` and `hcal` are cells, indices into the flattened map, with their pT or energy in GeV.
    `candidates` are the particle-flow candidates: columns pT (GeV), eta, phi, and 1 if charged.
    """

    track_offsets: np.ndarray
    track_cells: np.ndarray
    track_values: np.ndarray
    ecal_offsets: np.ndarray
    ecal_cells: np.ndarray
    ecal_values: np.ndarray
    hcal_offsets: np.ndarray
    hcal_cells: np.ndarray
    hcal_values: np.ndarray
    candidate_offsets: np.ndarray
    candidates: np.ndarray

    @property
    def num_events(self) -> int:
        """Events in the pool."""
        return len(self.track_offsets) - 1


class Overlay(NamedTuple):
    """Which pool events lie on each hard event: event i has `offsets[i]:offsets[i + 1]`.

    `turns` are in towers (0 to 71); `mirrored` is 1 where eta is turned to -eta.
    """

    offsets: np.ndarray
    events: np.ndarray
    turns: np.ndarray
    mirrored: np.ndarray


def make_shard(number: int, num_events: int = SHARD_EVENTS) -> PileupPool:
    """Generate shard `number` of the pool; takes about twelve seconds, half of it Pythia's start."""
    rng = stream(POOL_SEED, POOL_STREAM, number)
    generator = MinimumBias(pythia_seed(rng))
    maps = empty_maps()
    hits: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in maps._fields}
    candidates = []
    for start in range(0, num_events, BATCH_EVENTS):
        events = generator.batch(min(BATCH_EVENTS, num_events - start))
        particles = reconstruct(rng, events)
        for begin, end in pairwise(events.offsets):
            clear(maps)
            fill(rng, particles, begin, end, rng.normal(0, BEAM_SPOT_LENGTH), maps)
            for name, image in zip(maps._fields, maps, strict=True):
                cells = np.flatnonzero(image > MIN_CELL_ENERGY)
                hits[name].append((cells.astype(np.int32), image.ravel()[cells].astype(np.float32)))
            kept = begin + np.flatnonzero(particles.candidate[begin:end])
            columns = (particles.candidate, particles.eta, particles.phi, particles.charge != 0)
            candidates.append(np.stack([column[kept] for column in columns], axis=-1))
    return PileupPool(
        *_flatten(hits["tracks"]),
        *_flatten(hits["ecal"]),
        *_flatten(hits["hcal"]),
        _offsets([len(rows) for rows in candidates]),
        np.concatenate(candidates),
    )


def _flatten(hits: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets, cells and values of the hits of all events."""
    cells, values = zip(*hits, strict=True)
    return _offsets([len(event) for event in cells]), np.concatenate(cells), np.concatenate(values)


def join_pools(pools: Sequence[PileupPool]) -> PileupPool:
    """One pool of the events of several, in their order."""

    def joined(name: str) -> np.ndarray:
        columns = [getattr(pool, name) for pool in pools]
        if name.endswith("_offsets"):
            return _offsets(np.concatenate([np.diff(offsets) for offsets in columns]))
        return np.concatenate(columns)

    return PileupPool(*map(joined, PileupPool._fields))


def empty_pool() -> PileupPool:
    """A pool of no events, for simulations without pile-up."""
    nothing = np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32)
    return PileupPool(*nothing, *nothing, *nothing, np.zeros(1, np.int64), np.zeros((0, 4)))


def save_pool(pool: PileupPool, path: Path) -> None:
    """Write a pool as a numpy archive, whole or not at all."""
    write_atomically(path, lambda temporary: np.savez(temporary, **pool._asdict()))


def load_pool(path: Path) -> PileupPool:
    """Read a pool written by `save_pool`."""
    with np.load(path, allow_pickle=False) as archive:
        return PileupPool(**{name: archive[name] for name in PileupPool._fields})


def draw_overlay(rng: np.random.Generator, num_pool_events: int, mean: float, num_events: int) -> Overlay:
    """Choose the pile-up of `num_events` crossings with `mean` further collisions on average."""
    counts = np.zeros(num_events, np.int64)
    if num_pool_events and mean > 0:
        counts = rng.poisson(np.maximum(1.0, rng.normal(mean, PILEUP_SPREAD, num_events)))
    total = counts.sum()
    return Overlay(
        _offsets(counts),
        rng.integers(0, max(1, num_pool_events), total),
        rng.integers(0, NUM_TOWER_COLUMNS, total),
        rng.integers(0, 2, total),
    )


@compiled
def _add_cells(
    image: np.ndarray, cells: np.ndarray, values: np.ndarray, turn: int, mirrored: int, scale: float
) -> None:
    rows, columns = image.shape
    for cell, value in zip(cells, values):  # noqa: B905 (numba)
        row = cell // columns
        if mirrored:
            row = rows - 1 - row
        image[row, (cell % columns + turn) % columns] += scale * value


@compiled
def add_pileup(pool: PileupPool, overlay: Overlay, event: int, maps: Maps) -> None:
    """Lay the pile-up of one event on its maps."""
    for k in range(overlay.offsets[event], overlay.offsets[event + 1]):
        i, turn, mirrored = overlay.events[k], overlay.turns[k], overlay.mirrored[k]
        crystals = turn * CRYSTALS_PER_TOWER
        cut = slice(pool.track_offsets[i], pool.track_offsets[i + 1])
        _add_cells(maps.tracks, pool.track_cells[cut], pool.track_values[cut], crystals, mirrored, 1.0)
        cut = slice(pool.ecal_offsets[i], pool.ecal_offsets[i + 1])
        _add_cells(maps.ecal, pool.ecal_cells[cut], pool.ecal_values[cut], crystals, mirrored, 1.0)
    add_hcal(pool, overlay, event, 1.0, maps.hcal)


@compiled
def add_hcal(pool: PileupPool, overlay: Overlay, event: int, scale: float, hcal: np.ndarray) -> None:
    """Lay `scale` times the HCAL energy of one event's pile-up on a map of towers."""
    for k in range(overlay.offsets[event], overlay.offsets[event + 1]):
        i = overlay.events[k]
        cut = slice(pool.hcal_offsets[i], pool.hcal_offsets[i + 1])
        cells, values = pool.hcal_cells[cut], pool.hcal_values[cut]
        _add_cells(hcal, cells, values, overlay.turns[k], overlay.mirrored[k], scale)


def _offsets(counts: list[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
