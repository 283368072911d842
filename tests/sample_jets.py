"""What tests of many folders say of jets: their columns, and whether two arrays are the same."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Jets(NamedTuple):
    """Some jets of the bundled sample."""

    energies: np.ndarray
    labels: np.ndarray
    pt: np.ndarray
    m0: np.ndarray


def same_bits(left, right):
    """Whether two float32 arrays are the same bit for bit, signs of zeros included."""
    left, right = (np.ascontiguousarray(array).view(np.uint32) for array in (left, right))
    return np.array_equal(left, right)
