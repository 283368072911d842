"""FPD, KPD and W1 the way JetNet 0.2.5 draws and scales them, for comparison with papers.

JetNet divides features by their maximum in the real sample, draws samples with replacement, and extrapolates FPD to
infinitely many jets. The baseline (real against real) then tends to 0 and says nothing; our own metrics are in
`jet_diffusion.metrics.headline`. With the same seed these functions draw the same jets as JetNet does.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import curve_fit

from jet_diffusion.metrics.distances import check_features, frechet_distance, kernel_distance, wasserstein
from jet_diffusion.observables.hits import Array

FPD_SAMPLES = (20_000, 50_000)
"""JetNet's smallest and largest sample; `fpd_samples` lowers them where there are fewer jets."""

KPD_SAMPLES = 5_000


def fpd_samples(available: int) -> tuple[int, int]:
    """Smallest and largest sample for `available` jets: JetNet's, or the same proportion of fewer jets."""
    largest = min(available, FPD_SAMPLES[1])
    return largest * FPD_SAMPLES[0] // FPD_SAMPLES[1], largest


def jetnet_fpd(
    real: Array,
    generated: Array,
    min_samples: int = FPD_SAMPLES[0],
    max_samples: int = FPD_SAMPLES[1],
    num_batches: int = 20,
    num_points: int = 10,
    seed: int = 42,
) -> tuple[float, float]:
    """Frechet distance extrapolated linearly in 1/N to infinite N (arXiv:2211.10295).

    Args:
        real: (N, K) features.
        generated: (M, K) features.
        min_samples: smallest sample.
        max_samples: largest sample.
        num_batches: draws of each size.
        num_points: number of sizes, evenly spaced in 1/N.
        seed: seed of the draws.

    Returns:
        The intercept and its error from the fit.

    Raises:
        ValueError: see `check_features`.
    """
    real, generated = _scale_by_maximum(*check_features(real, generated))
    sizes = (1 / np.linspace(1 / min_samples, 1 / max_samples, num_points)).astype("int32")
    rng = np.random.default_rng(seed)
    means = []
    for size in sizes:
        draws = [frechet_distance(*_draw(real, generated, int(size), rng)) for _ in range(num_batches)]
        means.append(np.mean(draws))
    fitted, covariance = curve_fit(
        lambda x, intercept, slope: intercept + slope * x, 1 / sizes, means, bounds=([0, 0], [np.inf, np.inf])
    )
    return float(fitted[0]), float(np.sqrt(covariance[0, 0]))


def jetnet_kpd(
    real: Array, generated: Array, num_batches: int = 10, batch_size: int = KPD_SAMPLES, seed: int = 42
) -> tuple[float, float]:
    """Median over batches of the unbiased MMD^2, and half its central 67.45 % range (arXiv:2211.10295).

    Args:
        real: (N, K) features.
        generated: (M, K) features.
        num_batches: number of batches.
        batch_size: jets in a batch.
        seed: seed of the draws.

    Raises:
        ValueError: see `check_features`.
    """
    real, generated = _scale_by_maximum(*check_features(real, generated))
    values = [
        kernel_distance(*_draw(real, generated, batch_size, np.random.default_rng(seed + 1000 * batch)))
        for batch in range(num_batches)
    ]
    low, high = np.percentile(values, [16.275, 83.725])
    return float(np.median(values)), float((high - low) / 2)


def jetnet_wasserstein(
    real: Array, generated: Array, samples: int = 50_000, num_batches: int = 5, seed: int = 42
) -> tuple[Array, Array]:
    """Mean and standard deviation of each feature's W1 over batches: (K,), (K,).

    Args:
        real: (N, K) features in their own units.
        generated: (M, K) features.
        samples: jets in a batch.
        num_batches: number of batches.
        seed: seed of the draws.

    Raises:
        ValueError: see `check_features`.
    """
    real, generated = check_features(real, generated)
    rng = np.random.default_rng(seed)
    values = [wasserstein(*_draw(real, generated, samples, rng)) for _ in range(num_batches)]
    return np.mean(values, axis=0), np.std(values, axis=0)


def _scale_by_maximum(real: Array, generated: Array) -> tuple[Array, Array]:
    largest = np.abs(real).max(axis=0)
    largest = np.where(largest == 0, 1.0, largest)
    return real / largest, generated / largest


def _draw(real: Array, generated: Array, size: int, rng: np.random.Generator) -> tuple[Array, Array]:
    first = rng.choice(len(real), size=size)
    second = rng.choice(len(generated), size=size)
    return real[first], generated[second]
