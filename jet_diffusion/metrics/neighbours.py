"""Metrics of nearest neighbours: precision, recall, density, coverage, and memorisation of training jets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from jet_diffusion.metrics.distances import BLOCK, check_features
from jet_diffusion.observables.hits import Array

NEIGHBOURS = 5


@dataclass(frozen=True)
class PrecisionRecall:
    """Fidelity and diversity of generated jets, each 0..1 (density can exceed 1).

    Attributes:
        precision: fraction of generated jets within the real sample's neighbourhoods.
        recall: fraction of real jets within the generated sample's neighbourhoods.
        density: real neighbourhoods a generated jet lies in, over k.
        coverage: fraction of real jets with a generated jet in their neighbourhood.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall(real: Array, generated: Array, neighbours: int = NEIGHBOURS) -> PrecisionRecall:
    """Precision and recall (arXiv:1904.06991), density and coverage (arXiv:2002.09797).

    A jet's neighbourhood is the ball that reaches its k-th nearest neighbour in its own sample.

    Args:
        real: (N, K) scaled features.
        generated: (M, K) scaled features.
        neighbours: k.

    Raises:
        ValueError: see `check_features`; there must be more than k jets.
    """
    # Single precision halves the time, and a neighbourhood's edge is nobody's in particular.
    real, generated = (f.astype(np.float32) for f in check_features(real, generated, least=neighbours + 1))
    real_radius = _neighbour_distance(real, neighbours)
    generated_radius = _neighbour_distance(generated, neighbours)
    inside_real = np.zeros(len(generated))
    recalled, covered = [], []
    for start in range(0, len(real), BLOCK):
        rows = slice(start, start + BLOCK)
        distance = squared_distances(real[rows], generated)
        within = distance <= real_radius[rows, None]
        inside_real += within.sum(axis=0)
        covered.append(within.any(axis=1))
        recalled.append((distance <= generated_radius).any(axis=1))
    return PrecisionRecall(
        precision=float((inside_real > 0).mean()),
        recall=float(np.concatenate(recalled).mean()),
        density=float(inside_real.mean() / neighbours),
        coverage=float(np.concatenate(covered).mean()),
    )


def squared_distances(first: Array, second: Array) -> Array:
    """(N, M) squared Euclidean distances of rows, dense or sparse, never negative."""
    cross = first @ second.T
    cross = cross.toarray() if isinstance(cross, csr_array) else cross
    return np.clip(_norms(first)[:, None] + _norms(second) - 2 * cross, 0, None)


def _norms(rows: Array) -> Array:
    return np.asarray(rows.multiply(rows).sum(axis=1) if isinstance(rows, csr_array) else (rows**2).sum(axis=1))


def _neighbour_distance(sample: Array, neighbours: int) -> Array:
    """(N,) squared distance of each row to its k-th nearest other row."""
    blocks = [
        np.partition(squared_distances(sample[start : start + BLOCK], sample), neighbours, axis=1)[:, neighbours]
        for start in range(0, len(sample), BLOCK)
    ]
    return np.concatenate(blocks)


def nearest_neighbours(sample: Array, reference: Array, number: int) -> tuple[Array, Array]:
    """Distances to the nearest rows of `reference` and their numbers, ascending: (N, number) each.

    Args:
        sample: (N, K) rows, dense or sparse.
        reference: (M, K) rows of the same kind.
        number: how many neighbours, at most M.
    """
    distances, rows = [], []
    for start in range(0, sample.shape[0], BLOCK):
        block = squared_distances(sample[start : start + BLOCK], reference)
        nearest = np.argpartition(block, number - 1, axis=1)[:, :number]
        order = np.argsort(np.take_along_axis(block, nearest, axis=1), axis=1)
        rows.append(np.take_along_axis(nearest, order, axis=1))
        distances.append(np.sqrt(np.take_along_axis(block, rows[-1], axis=1)))
    return np.concatenate(distances), np.concatenate(rows)
