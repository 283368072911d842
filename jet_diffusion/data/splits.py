"""Seeded, stratified splits, and a count of the images that occur in two of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jet_diffusion.errors import UserError

SPLITS = ("train", "validation", "test")
"""Names of the splits, as `datasets` knows them."""


def assign_splits(labels: NDArray[np.int64], fractions: Sequence[float], seed: int) -> NDArray[np.int64]:
    """Draw a split for every jet, so that each split holds the classes in the file's own proportion.

    Args:
        labels: (N,) the classes.
        fractions: Share of train, validation and test; non-negative, their sum 1.
        seed: Seed of the draw.

    Returns:
        (N,) position of each jet's split in `SPLITS`.

    Raises:
        UserError: The fractions are no such shares, or a split that should have jets gets none.
    """
    shares = np.asarray(fractions, np.float64)
    if shares.shape != (len(SPLITS),) or not (shares >= 0).all() or not np.isclose(shares.sum(), 1):
        wanted = f"{len(SPLITS)} shares of {', '.join(SPLITS)} that are not negative and add up to 1"
        raise UserError(f"the fractions must be {wanted}, not {tuple(fractions)}")
    random = np.random.default_rng(seed)
    splits = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        ends = np.rint(np.cumsum(shares) * len(members))
        splits[members] = np.searchsorted(ends, np.arange(len(members)), side="right")
    for split, name in enumerate(SPLITS):
        if shares[split] > 0 and not (splits == split).any():
            enough = f"about {_enough(shares)} of each class are enough, or other shares"
            raise UserError(f"{len(labels)} jets are too few to give {name} a share of {shares[split]:g}; {enough}")
    return splits


def _enough(shares: NDArray[np.float64]) -> int:
    """Jets of a class with which every split that has a share gets one."""
    smallest = shares[shares > 0].min()
    return int(np.ceil(1 / smallest))


def count_duplicates(hashes: Sequence[NDArray[np.uint64]]) -> dict[str, int]:
    """Count jets whose image another jet has too.

    Args:
        hashes: Content hashes of the jets of each split.

    Returns:
        `jets`: how many would go if one jet of each image were kept; `jets_across_splits`: how many share
        their image with a jet of another split.
    """
    images, image = np.unique(np.concatenate(hashes), return_inverse=True)
    split = np.repeat(np.arange(len(hashes)), [len(part) for part in hashes])
    table = np.zeros((len(images), len(hashes)), np.int64)
    np.add.at(table, (image, split), 1)
    straddling = np.count_nonzero(table, axis=1) > 1
    return {"jets": len(image) - len(images), "jets_across_splits": int(table[straddling].sum())}
