"""Scores where the truth is known: an image against the jet it was made from, and draws against one true value.

SSIM, PSNR and squared error mean something here alone. Between unrelated sparse images they rank a blank picture
above a perfect generator.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.optimize import linprog
from scipy.sparse import coo_array

from jet_diffusion.errors import UserError
from jet_diffusion.observables.hits import TOWER_CENTRES, TOWER_PITCH, Array, Hits, divide
from jet_diffusion.observables.substructure import Substructure
from jet_diffusion.schema import GEV_PER_UNIT, NUM_TOWERS

PairScore = Callable[[Array, Array], Array]
"""(original energies (N, 3, 125, 125), others) -> (N,) scores."""

SSIM_WINDOW = 7
EMD_RADIUS = TOWER_PITCH * NUM_TOWERS / np.sqrt(2)
"""Half the image's diagonal: with it the energy mover's distance is a metric."""

_TOWER_PLACES = np.stack([np.repeat(TOWER_CENTRES, NUM_TOWERS), np.tile(TOWER_CENTRES, NUM_TOWERS)], axis=1)


def pixel_error(original: Array, other: Array) -> Array:
    """Root mean square difference of the crystals, GeV."""
    return np.asarray(GEV_PER_UNIT * np.sqrt(((original - other) ** 2).mean(axis=(1, 2, 3), dtype=np.float64)))


def peak_signal_to_noise(original: Array, other: Array) -> Array:
    """PSNR in dB, the peak being the original's largest crystal; infinite for equal images."""
    mse = ((original - other) ** 2).mean(axis=(1, 2, 3), dtype=np.float64)
    peak = original.max(axis=(1, 2, 3)).astype(np.float64)
    with np.errstate(divide="ignore"):
        return 10 * np.log10(peak**2 / mse)


def structural_similarity(original: Array, other: Array) -> Array:
    """Mean SSIM over 7x7 windows and channels (Wang et al. 2004), range the original's in each channel."""
    size = (1, 1, SSIM_WINDOW, SSIM_WINDOW)
    x, y = original.astype(np.float64), other.astype(np.float64)
    spread = original.max(axis=(2, 3), keepdims=True).astype(np.float64)
    c1, c2 = (0.01 * spread) ** 2, (0.03 * spread) ** 2
    mean_x, mean_y = uniform_filter(x, size), uniform_filter(y, size)
    var_x, var_y = uniform_filter(x * x, size) - mean_x**2, uniform_filter(y * y, size) - mean_y**2
    covariance = uniform_filter(x * y, size) - mean_x * mean_y
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    denominator = (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    # Where both are empty and the channel's range is 0 they are alike.
    ratio = np.where(denominator == 0, 1.0, divide(numerator, denominator))
    return np.asarray(ratio.mean(axis=(1, 2, 3)))


def energy_ratio(original: Array, other: Array) -> Array:
    """Summed energy over the original's."""
    first, second = (image.sum(axis=(1, 2, 3), dtype=np.float64) for image in (original, other))
    return divide(second, first)


def centroid_shift(original: Array, other: Array) -> Array:
    """Distance of the energy-weighted centroids in (eta, phi); an empty image's lies at its centre."""
    (eta, phi), (other_eta, other_phi) = (Substructure(Hits(image)).centroid for image in (original, other))
    return np.hypot(eta - other_eta, phi - other_phi)


def energy_movers_distance(original: Array, other: Array) -> Array:
    """Least work to move the towers' energy of one image into the other's, plus their difference, GeV.

    Komiske, Metodiev, Thaler (arXiv:1902.02346) with R half the image's diagonal, on the 25x25 towers of all
    channels together; negative energies count as none.
    """
    towers = [np.clip(Hits(image).tower_energy.sum(axis=1), 0, None) for image in (original, other)]
    return np.array([_move(first, second) for first, second in zip(*towers, strict=True)])


def _move(first: Array, second: Array) -> float:
    """Energy mover's distance of two jets' towers."""
    # Energy in the same tower of both stays where it is: no plan with straight distances can do better.
    surplus = first - second
    source, sink = np.flatnonzero(surplus > 0), np.flatnonzero(surplus < 0)
    difference = abs(float(surplus.sum()))
    if not len(source) or not len(sink):
        return difference
    cost = np.linalg.norm(_TOWER_PLACES[source][:, None] - _TOWER_PLACES[sink], axis=-1) / EMD_RADIUS
    give, take = np.divmod(np.arange(cost.size), len(sink))
    columns = np.tile(np.arange(cost.size), 2)
    limits = coo_array((np.ones(2 * cost.size), (np.concatenate([give, len(source) + take]), columns)))
    supply, demand = surplus[source], -surplus[sink]
    moved = min(supply.sum(), demand.sum())
    plan = linprog(
        cost.ravel(),
        A_ub=limits.tocsr(),
        b_ub=np.concatenate([supply, demand]),
        A_eq=np.ones((1, cost.size)),
        b_eq=[moved],
        method="highs",
    )
    if not plan.success:
        # Rounding can make the exact total infeasible; a hair less is not.
        raise ArithmeticError(f"no transport plan found: {plan.message}")
    return float(plan.fun) + difference


PAIR_SCORES: dict[str, tuple[str, str, PairScore]] = {
    "pixel_error": ("pixel error", "GeV", pixel_error),
    "energy_ratio": ("energy / original", "", energy_ratio),
    "centroid_shift": ("centroid shift", "", centroid_shift),
    "emd": ("energy mover's distance", "GeV", energy_movers_distance),
    "ssim": ("SSIM", "", structural_similarity),
    "psnr": ("PSNR", "dB", peak_signal_to_noise),
}
"""Name -> (label, unit, score)."""


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
        UserError: for fewer than two draws or shapes that do not fit.
    """
    _check_draws(draws, truth)
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
        UserError: for fewer than two draws, shapes that do not fit, or a level outside 0..1.
    """
    _check_draws(draws, truth)
    if not 0 < level < 1:
        raise UserError(f"level must lie between 0 and 1, got {level}")
    number = len(draws)
    left_out = int(np.clip(round((1 - level) * (number + 1) / 2), 1, number // 2))
    ordered = np.sort(draws, axis=0)
    low, high = ordered[left_out - 1], ordered[number - left_out]
    # A truth that ties with an end (often zero energy) is inside with half its weight.
    inside = ((truth > low) & (truth < high)) + 0.5 * ((truth == low) | (truth == high))
    return float(inside.mean()), 1 - 2 * left_out / (number + 1)


def _check_draws(draws: Array, truth: Array) -> None:
    if draws.ndim != 2 or len(draws) < 2 or draws.shape[1:] != np.shape(truth):
        raise UserError(f"draws must have shape (D, N) with D >= 2 for {np.shape(truth)} truths, got {draws.shape}")
