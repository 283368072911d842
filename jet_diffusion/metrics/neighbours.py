"""Metrics of nearest neighbours: precision, recall, density, coverage, and memorisation of training jets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, vstack

from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.errors import UserError
from jet_diffusion.metrics.distances import BLOCK, Whitening, check_features
from jet_diffusion.observables.hits import Array, divide

NEIGHBOURS = 5

LEAST_JETS = 100
EXCHANGES = 200

NEAREST = 32
"""Nearest jets looked at: that none of them is a training jet, or all are, is one chance in four billion."""

SPACES = ("observables", "pixels")


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
        UserError: see `check_features`; there must be more than k jets.
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


@dataclass(frozen=True)
class Memorisation:
    """Nearest-neighbour distances to training jets against those to as many held-out jets.

    Attributes:
        ratio: mean distance to the nearest training jet over that to the nearest held-out jet: 1 for a
            generator that has learnt the distribution, below 1 for one that has learnt the jets.
        error: spread the ratio has when training and held-out jets are exchanged at random.
        nearer: fraction of jets nearer to the training set than to the held-out one, .5 without memory.
        nearer_error: its spread under the same exchange.
        size: jets in the training and held-out sets each.
        jets: generated jets.
    """

    ratio: float
    error: float
    nearer: float
    nearer_error: float
    size: int
    jets: int


def memorisation(
    generated: JetSample, training: JetSample, held_out: JetSample, space: str, rng: np.random.Generator
) -> Memorisation:
    """Compare distances of generated jets to training and to held-out jets.

    Both reference sets are cut at random to the smaller one's size: the nearest of more jets is nearer.

    Args:
        generated: generated jets.
        training: jets the generator was trained on.
        held_out: real jets it has not seen.
        space: "observables" (whitened) or "pixels" (directions of the square roots of the energies).
        rng: draws the reference sets and the exchanges.

    Raises:
        UserError: for another space, fewer than 100 jets in a set, or values that are not finite.
    """
    size = min(len(training), len(held_out))
    if min(size, len(generated)) < LEAST_JETS:
        raise UserError(
            f"memorisation needs {LEAST_JETS} jets of each kind, got {len(generated)} generated, "
            f"{len(training)} training and {len(held_out)} held-out ones"
        )
    training, held_out = (sample.split([size], rng)[0] for sample in (training, held_out))
    points, *references = _points(space, [generated, training, held_out])
    pooled = vstack(references, format="csr") if space == "pixels" else np.concatenate(references)
    distances, neighbours = nearest_neighbours(points, pooled, NEAREST)
    is_training = np.arange(2 * size) < size
    ratio, nearer = _compare(distances, is_training[neighbours])
    exchanged = np.array([_compare(distances, rng.permutation(is_training)[neighbours]) for _ in range(EXCHANGES)])
    error, nearer_error = exchanged.std(axis=0)
    return Memorisation(ratio, float(error), nearer, float(nearer_error), size, len(generated))


def _compare(distances: Array, training: Array) -> tuple[float, float]:
    """Ratio of the mean nearest distances, and fraction of jets nearer to training jets.

    Args:
        distances: (N, k) to the nearest jets of both sets together, ascending.
        training: (N, k) which of those are training jets.
    """
    rows = np.arange(len(distances))
    to_training = distances[rows, training.argmax(axis=1)]
    to_held_out = distances[rows, (~training).argmax(axis=1)]
    # A tie (the same image in both sets) is no sign of either.
    nearer = (to_training < to_held_out).mean() + 0.5 * (to_training == to_held_out).mean()
    return float(to_training.mean() / to_held_out.mean()), float(nearer)


def _points(space: str, samples: list[JetSample]) -> list[Array | csr_array]:
    """Rows between which distances are taken."""
    if space not in SPACES:
        raise UserError(f"no space {space!r}; there are {', '.join(SPACES)}")
    if space == "pixels":
        return [_directions(sample) for sample in samples]
    bad = np.count_nonzero(~np.isfinite(samples[0].observables).all(axis=1))
    if bad:
        raise UserError(f"{bad} generated jets have observables that are not finite")
    # Training and held-out jets count alike in the scale, so neither is favoured.
    whitening = Whitening.fit(np.concatenate([sample.observables for sample in samples[1:]]))
    return [whitening(sample.observables) for sample in samples]


def _directions(sample: JetSample) -> csr_array:
    """Square roots of the energies, signs kept, each jet scaled to unit length.

    The root keeps a single hard track from deciding every distance; without the scaling the emptiest jet of a
    set is the nearest to all others.
    """
    voxels = sample.voxels.astype(np.float64)
    if not np.isfinite(voxels.data).all():
        raise UserError("generated jets hold energies that are not finite")
    total = np.asarray(np.abs(voxels).sum(axis=1))
    per_hit = np.repeat(total, np.diff(voxels.indptr))
    voxels.data = np.sign(voxels.data) * np.sqrt(divide(np.abs(voxels.data), per_hit))
    return voxels
