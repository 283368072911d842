"""Distances between two sets of jets, each given as features (N, K): pure functions of two arrays.

None of them is zero for two finite samples of the same jets; `jet_diffusion.metrics.estimates` puts the
real-against-real floor and an error beside each.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import wasserstein_distance

from jet_diffusion.observables.hits import Array

KERNEL_DEGREE = 4
SLICES = 64
MAX_BINS = 50
JETS_PER_BIN = 20
BLOCK = 1024


def check_features(real: Array, generated: Array, least: int = 2) -> tuple[Array, Array]:
    """Return both as float64 matrices of the same width, finite, with enough rows.

    Raises:
        ValueError: for shapes that do not fit, values that are not finite, or fewer than `least` jets.
    """
    pair = []
    for name, values in (("real", real), ("generated", generated)):
        matrix = np.asarray(values, dtype=np.float64)
        if matrix.ndim != 2:
            raise ValueError(f"{name} features must have shape (jets, features), got {matrix.shape}")
        if len(matrix) < least:
            raise ValueError(f"{name} sample holds {len(matrix)} jets, at least {least} are needed")
        bad = np.count_nonzero(~np.isfinite(matrix).all(axis=1))
        if bad:
            raise ValueError(f"{bad} of {len(matrix)} {name} jets hold features that are not finite")
        pair.append(matrix)
    if pair[0].shape[1] != pair[1].shape[1]:
        raise ValueError(f"real jets have {pair[0].shape[1]} features, generated ones {pair[1].shape[1]}")
    return pair[0], pair[1]


def wasserstein(real: Array, generated: Array) -> Array:
    """W1 of each feature, in the feature's unit: (K,).

    The area between the two cumulative distributions; for samples of one size the mean difference of the
    sorted values.

    Raises:
        ValueError: see `check_features`.
    """
    real, generated = check_features(real, generated, least=1)
    if len(real) == len(generated):
        return np.abs(np.sort(real, axis=0) - np.sort(generated, axis=0)).mean(axis=0)
    return np.array([wasserstein_distance(a, b) for a, b in zip(real.T, generated.T, strict=True)])


def sliced_wasserstein(real: Array, generated: Array, rng: np.random.Generator, slices: int = SLICES) -> float:
    """Mean W1 along random directions: cheap, sees correlations, in the unit of the (scaled) features.

    Args:
        real: (N, K).
        generated: (M, K).
        rng: draws the directions.
        slices: number of directions.

    Raises:
        ValueError: see `check_features`.
    """
    real, generated = check_features(real, generated)
    directions = rng.normal(size=(real.shape[1], slices))
    directions /= np.linalg.norm(directions, axis=0)
    return float(wasserstein(real @ directions, generated @ directions).mean())


def frechet_distance(real: Array, generated: Array) -> float:
    """Squared Frechet distance of Gaussians with the samples' means and covariances (FPD, arXiv:2211.10295).

    Raises:
        ValueError: see `check_features`.
    """
    real, generated = check_features(real, generated)
    shift = real.mean(axis=0) - generated.mean(axis=0)
    first, second = np.atleast_2d(np.cov(real, rowvar=False)), np.atleast_2d(np.cov(generated, rowvar=False))
    root = _symmetric_root(first)
    # tr sqrt(A B) = tr sqrt(sqrt(A) B sqrt(A)), whose eigenvalues are real whatever the rank of A and B.
    overlap = np.sqrt(np.clip(np.linalg.eigvalsh(root @ second @ root), 0, None)).sum()
    return float(shift @ shift + np.trace(first) + np.trace(second) - 2 * overlap)


def _symmetric_root(matrix: Array) -> Array:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def kernel_distance(real: Array, generated: Array, degree: int = KERNEL_DEGREE) -> float:
    """Unbiased squared maximum mean discrepancy with kernel (x.y / K + 1)^degree (KPD, arXiv:2211.10295).

    Unbiased: it is negative about half of the time for two samples of the same jets.

    Raises:
        ValueError: see `check_features`.
    """
    real, generated = check_features(real, generated)

    def within(sample: Array) -> float:
        diagonal = ((sample**2).sum(axis=1) / sample.shape[1] + 1) ** degree
        return (_kernel_sum(sample, sample, degree) - diagonal.sum()) / (len(sample) * (len(sample) - 1))

    between = _kernel_sum(real, generated, degree) / (len(real) * len(generated))
    return float(within(real) + within(generated) - 2 * between)


def _kernel_sum(first: Array, second: Array, degree: int) -> float:
    """Sum of the kernel over all pairs, block by block."""
    width = first.shape[1]
    total = 0.0
    for start in range(0, len(first), BLOCK):
        kernel = first[start : start + BLOCK] @ second.T
        kernel /= width
        kernel += 1
        total += float((kernel**degree).sum() if degree != KERNEL_DEGREE else np.square(np.square(kernel)).sum())
    return total


def reference_bins(real: Array) -> Array:
    """Edges of bins that hold equally many real jets each: at most 50, at least 20 jets a bin.

    The outer edges are infinite; a value many jets share (a multiplicity) makes fewer, wider bins.
    """
    number = int(np.clip(len(real) // JETS_PER_BIN, 1, MAX_BINS))
    inner = np.unique(np.quantile(real, np.arange(1, number) / number))
    return np.concatenate([[-np.inf], inner, [np.inf]])


def separation_power(real: Array, generated: Array) -> float:
    """1/2 sum (h1 - h2)^2 / (h1 + h2) of normalised histograms in `reference_bins`: 0 alike, 1 disjoint.

    Args:
        real: (N,) values, which fix the bins.
        generated: (M,) values.

    Raises:
        ValueError: see `check_features`.
    """
    checked = check_features(np.asarray(real)[:, None], np.asarray(generated)[:, None], least=JETS_PER_BIN)
    edges = reference_bins(checked[0][:, 0])
    first, second = (np.histogram(values[:, 0], edges)[0] / len(values) for values in checked)
    filled = first + second > 0
    return float(0.5 * ((first - second)[filled] ** 2 / (first + second)[filled]).sum())
