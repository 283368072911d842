"""Random streams: every block of jets has its own, named by the master seed, and every shard of pile-up, by a constant.

A block's jets so depend on the seed and the block's number alone: not on the worker, nor on what else is made.
"""

from __future__ import annotations

import numpy as np

POOL_STREAM, SHUFFLE_STREAM, JET_STREAM = range(3)

MAX_PYTHIA_SEED = 900_000_000


def stream(seed: int, kind: int, *numbers: int) -> np.random.Generator:
    """The random stream of one purpose (POOL_STREAM, ...) and its numbers under a seed."""
    return np.random.default_rng(np.random.SeedSequence([seed, kind, *numbers]))


def pythia_seed(rng: np.random.Generator) -> int:
    """A seed Pythia accepts."""
    return int(rng.integers(1, MAX_PYTHIA_SEED))
