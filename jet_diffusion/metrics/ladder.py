"""Small, known faults put into real jets: what a metric must see to be believed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jet_diffusion.observables.hits import Array
from jet_diffusion.schema import CRYSTALS_PER_TOWER, HCAL, NUM_TOWERS

Change = Callable[[Array, np.random.Generator], Array]
"""(energies (N, 3, 125, 125), random generator) -> changed energies, the input left as it is."""

ENERGY_SCALE = 1.03
DROPPED = 0.05
SMEARING = 0.10


def scale_energies(energies: Array, rng: np.random.Generator) -> Array:
    """All energies x 1.03."""
    return energies * np.float32(ENERGY_SCALE)


def drop_hits(energies: Array, rng: np.random.Generator) -> Array:
    """5 % of the hits gone; an HCAL tower is one hit."""
    return energies * (_per_hit(energies, rng.random) >= DROPPED)


def smear_hits(energies: Array, rng: np.random.Generator) -> Array:
    """Each hit's energy smeared by a Gaussian of 10 %; an HCAL tower is one hit."""
    factors = _per_hit(energies, lambda shape: 1 + SMEARING * rng.normal(size=shape))
    return energies * np.clip(factors, 0, None).astype(np.float32)


def share_hcal_wrongly(energies: Array, rng: np.random.Generator) -> Array:
    """Each HCAL tower's energy shared at random over its 25 crystals instead of evenly, its sum kept."""
    changed = energies.copy()
    blocks = changed[:, HCAL].reshape(-1, NUM_TOWERS, CRYSTALS_PER_TOWER, NUM_TOWERS, CRYSTALS_PER_TOWER)
    shares = rng.standard_exponential(blocks.shape, dtype=np.float32)
    blocks *= shares / shares.mean(axis=(2, 4), keepdims=True)
    changed[:, HCAL] = blocks.reshape(changed[:, HCAL].shape)
    return changed


def _per_hit(energies: Array, draw: Callable[[tuple[int, ...]], Array]) -> Array:
    """(N, 3, 125, 125) random numbers, one per crystal of tracks and ECAL and one per HCAL tower."""
    numbers = draw(energies.shape)
    towers = numbers[:, HCAL, ::CRYSTALS_PER_TOWER, ::CRYSTALS_PER_TOWER]
    numbers[:, HCAL] = towers.repeat(CRYSTALS_PER_TOWER, axis=1).repeat(CRYSTALS_PER_TOWER, axis=2)
    return numbers


LADDER: dict[str, Change] = {
    "energies x1.03": scale_energies,
    "10 % smeared": smear_hits,
    "5 % of hits dropped": drop_hits,
    "HCAL shared wrongly": share_hcal_wrongly,
}
"""Name of the rung -> change, weakest first for a classifier on observables."""
