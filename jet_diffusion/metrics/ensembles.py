"""Scores of drawn answers where one truth is known: how sharp they are and whether their intervals hold it."""

from __future__ import annotations

import numpy as np

from jet_diffusion.observables.hits import Array


def crps(draws: Array, truth: Array) -> Array:
    """Continuous ranked probability score of an ensemble, in the truth's unit, smaller is better.

    The unbiased ensemble form: mean |x_i - y| - 1/2 mean |x_i - x_j| over pairs of different draws
    (Ferro, 2014).

    Args:
        draws: (D, N) draws for N truths.
        truth: (N,) values.

    Returns:
        (N,) scores.

    Raises:
        ValueError: for fewer than two draws or shapes that do not fit.
    """
    _check(draws, truth)
    number = len(draws)
    error = np.abs(draws - truth).mean(axis=0)
    ordered = np.sort(draws, axis=0)
    # sum over pairs |x_i - x_j| from the order statistics
    weights = 2 * np.arange(number) - number + 1
    spread = 2 * (weights[:, None] * ordered).sum(axis=0) / (number * (number - 1))
    return np.asarray(error - spread / 2)


def interval_coverage(draws: Array, truth: Array, level: float) -> tuple[float, float]:
    """How often the central interval of the draws holds the truth.

    A calibrated ensemble of D draws puts the truth in each of its D + 1 gaps equally often, so the interval that
    leaves out k draws on either side holds it in a fraction 1 - 2 k / (D + 1) of the cases.

    Args:
        draws: (D, N) draws.
        truth: (N,) values.
        level: wanted fraction; the nearest that D draws allow is taken.

    Returns:
        The fraction found, and the fraction a calibrated ensemble gives.

    Raises:
        ValueError: for fewer than two draws, shapes that do not fit, or a level outside 0..1.
    """
    _check(draws, truth)
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    number = len(draws)
    left_out = int(np.clip(round((1 - level) * (number + 1) / 2), 1, number // 2))
    ordered = np.sort(draws, axis=0)
    low, high = ordered[left_out - 1], ordered[number - left_out]
    # A truth that ties with an end (often zero energy) is inside with half its weight.
    inside = ((truth > low) & (truth < high)) + 0.5 * ((truth == low) | (truth == high))
    return float(inside.mean()), 1 - 2 * left_out / (number + 1)


def _check(draws: Array, truth: Array) -> None:
    if draws.ndim != 2 or len(draws) < 2 or draws.shape[1:] != np.shape(truth):
        raise ValueError(f"draws must have shape (D, N) with D >= 2 for {np.shape(truth)} truths, got {draws.shape}")
