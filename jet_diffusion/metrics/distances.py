"""Distances between two samples of jets, each given as features (N, K), and the scales features are put on first.

No distance is zero for two finite samples of the same jets: `jet_diffusion.metrics.estimates` puts the baseline (real
against real) and an error beside each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import wasserstein_distance

from jet_diffusion.errors import UserError
from jet_diffusion.observables.hits import Array

KERNEL_DEGREE = 4
SLICES = 64
MAX_BINS = 50
JETS_PER_BIN = 20
BLOCK = 1024

SCALE_QUANTILE = 0.95
"""High enough to be a feature's usual range, low enough to lie below its outliers.

One jet in some hundreds has a mis-measured track, which makes the 99.9 % quantile of the track energy five times
the 95 % one: in such units a factor 1.25 on all energies vanishes among the fluctuations of a thousand jets.
"""


def check_features(real: Array, generated: Array, least: int = 2) -> tuple[Array, Array]:
    """Return both as float64 matrices of the same width, finite, with enough rows.

    Raises:
        UserError: for shapes that do not fit, values that are not finite, or fewer than `least` jets.
    """
    pair = []
    for name, values in (("real", real), ("generated", generated)):
        matrix = np.asarray(values, dtype=np.float64)
        if matrix.ndim != 2:
            raise UserError(f"{name} features must have shape (jets, features), got {matrix.shape}")
        if len(matrix) < least:
            raise UserError(f"{name} sample holds {len(matrix)} jets, at least {least} are needed")
        bad = np.count_nonzero(~np.isfinite(matrix).all(axis=1))
        if bad:
            raise UserError(f"{bad} of {len(matrix)} {name} jets hold features that are not finite")
        pair.append(matrix)
    if pair[0].shape[1] != pair[1].shape[1]:
        raise UserError(f"real jets have {pair[0].shape[1]} features, generated ones {pair[1].shape[1]}")
    return pair[0], pair[1]


def wasserstein(real: Array, generated: Array) -> Array:
    """W1 of each feature, in the feature's unit: (K,).

    The area between the two cumulative distributions; for samples of one size the mean difference of the
    sorted values.

    Raises:
        UserError: see `check_features`.
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
        UserError: see `check_features`.
    """
    real, generated = check_features(real, generated)
    directions = rng.normal(size=(real.shape[1], slices))
    directions /= np.linalg.norm(directions, axis=0)
    return float(wasserstein(real @ directions, generated @ directions).mean())


def frechet_distance(real: Array, generated: Array) -> float:
    """Squared Frechet distance of Gaussians with the samples' means and covariances (FPD, arXiv:2211.10295).

    Raises:
        UserError: see `check_features`.
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
        UserError: see `check_features`.
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
        UserError: see `check_features`.
    """
    checked = check_features(np.asarray(real)[:, None], np.asarray(generated)[:, None], least=JETS_PER_BIN)
    edges = reference_bins(checked[0][:, 0])
    first, second = (np.histogram(values[:, 0], edges)[0] / len(values) for values in checked)
    filled = first + second > 0
    return float(0.5 * ((first - second)[filled] ** 2 / (first + second)[filled]).sum())


@dataclass(frozen=True)
class FeatureScale:
    """Division by each feature's 95 % quantile of magnitude in the reference, capped at twice that.

    A single mis-measured track of the real file is 1,000 times a usual one: dividing by the maximum would
    flatten every other jet, and without the cap such a jet alone would make up the covariance.

    Attributes:
        scale: (K,) what features are divided by; 1 for a feature that is 0 throughout.
        cap: largest magnitude after scaling.
    """

    scale: Array
    cap: float = 2.0

    @classmethod
    def fit(cls, reference: Array) -> FeatureScale:
        """Take the scale from the real reference jets (N, K)."""
        scale = np.quantile(np.abs(reference), SCALE_QUANTILE, axis=0)
        return cls(np.where(scale > 0, scale, 1.0))

    def __call__(self, features: Array) -> Array:
        """Scale features (N, K); NaN stays NaN."""
        return np.clip(features / self.scale, -self.cap, self.cap)

    def capped(self, features: Array) -> int:
        """How many jets have a feature that the cap changes."""
        return int(np.count_nonzero((np.abs(features / self.scale) > self.cap).any(axis=1)))


LEAST_VARIANCE = 1e-3
"""Directions with less than this fraction of the largest variance carry no information of their own."""

OUTLIER_WIDTHS = 6.0


@dataclass(frozen=True)
class Whitening:
    """Uncorrelated features of unit variance, for metrics of nearest neighbours.

    Features are put on their median and central width, capped at six widths, and rotated into the reference's
    principal directions; those of negligible variance (one observable determined by others) are left out.

    Attributes:
        centre: (K,) medians.
        width: (K,) central widths.
        rotation: (K, L) map to the L directions.
    """

    centre: Array
    width: Array
    rotation: Array

    @classmethod
    def fit(cls, reference: Array) -> Whitening:
        """Take all three from the real reference jets (N, K)."""
        whitening = cls(np.median(reference, axis=0), central_width(reference), np.eye(reference.shape[1]))
        variance, directions = np.linalg.eigh(np.atleast_2d(np.cov(whitening(reference), rowvar=False)))
        kept = variance > LEAST_VARIANCE * variance.max()
        return cls(whitening.centre, whitening.width, directions[:, kept] / np.sqrt(variance[kept]))

    def __call__(self, features: Array) -> Array:
        """Whiten features: (N, K) -> (N, L)."""
        capped = np.clip((features - self.centre) / self.width, -OUTLIER_WIDTHS, OUTLIER_WIDTHS)
        return capped @ self.rotation


def central_width(reference: Array) -> Array:
    """(K,) half the distance between the 16 % and 84 % quantiles, 1 where that is 0: a robust sigma."""
    low, high = np.quantile(reference, [0.16, 0.84], axis=0)
    return np.where(high > low, (high - low) / 2, 1.0)
