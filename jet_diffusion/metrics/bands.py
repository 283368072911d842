"""W1 of many observables at once, each against its own band and all against a simultaneous one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jet_diffusion.hits import Array
from jet_diffusion.metrics.distances import check_features
from jet_diffusion.metrics.scaling import central_width

REPLICAS = 200
LEVEL = 0.95


@dataclass(frozen=True)
class WassersteinBands:
    """W1 of K observables; arrays are (K,), in the observables' units.

    Attributes:
        value: generated against real.
        error: bootstrap standard error of the value.
        floor: second real sample against real.
        floor_error: its bootstrap standard error.
        band: 95 % of real-against-real values of this observable lie below.
        simultaneous: in 95 % of real-against-real comparisons all observables lie below.
        width: half the 16-84 % width of the real observable, the unit of the means.
        mean: mean of value / width, with `mean_error`.
        mean_error: bootstrap standard error.
        mean_floor: mean of floor / width, with `mean_floor_error`.
        mean_floor_error: bootstrap standard error.
        size: jets in each sample.
    """

    value: Array
    error: Array
    floor: Array
    floor_error: Array
    band: Array
    simultaneous: Array
    width: Array
    mean: float
    mean_error: float
    mean_floor: float
    mean_floor_error: float
    size: int

    @property
    def inside(self) -> Array:
        """(K,) whether the value lies in the observable's own band."""
        return self.value <= self.band

    @property
    def inside_simultaneous(self) -> Array:
        """(K,) whether the value lies in the simultaneous band."""
        return self.value <= self.simultaneous


def wasserstein_bands(
    real: Array, second: Array, generated: Array, rng: np.random.Generator, replicas: int = REPLICAS
) -> WassersteinBands:
    """Compare generated with real jets, observable by observable.

    The bands come from pairs of samples drawn with replacement from all real jets. A statistic is the W1
    less its mean over those pairs, over its spread; the simultaneous band is the 95 % quantile of the largest
    statistic of all observables (max-statistic), so correlations between observables are in it.

    Args:
        real: (N, K) observables of the reference.
        second: (N, K) of other real jets.
        generated: (N, K) of generated jets.
        rng: draws the bootstrap.
        replicas: bootstrap replicas.

    Raises:
        ValueError: if the samples differ in size or hold values that are not finite.
    """
    real, generated = check_features(real, generated)
    real, second = check_features(real, second)
    if not len(real) == len(second) == len(generated):
        raise ValueError(f"samples must be of one size, got {len(real)}, {len(second)} and {len(generated)}")
    reference, other, candidate = (np.ascontiguousarray(sample.T) for sample in (real, second, generated))
    every = np.concatenate([reference, other], axis=1)
    width = central_width(real)

    def bootstrap(first: Array, last: Array) -> Array:
        return np.stack(
            [_sorted_w1(_resample(first, len(real), rng), _resample(last, len(real), rng)) for _ in range(replicas)]
        )

    null = bootstrap(every, every)
    centre, spread = null.mean(axis=0), null.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    largest = ((null - centre) / spread).max(axis=1)
    value, floor = _sorted_w1(reference, candidate), _sorted_w1(reference, other)
    values, floors = bootstrap(reference, candidate), bootstrap(reference, other)
    return WassersteinBands(
        value=value,
        error=values.std(axis=0),
        floor=floor,
        floor_error=floors.std(axis=0),
        band=np.quantile(null, LEVEL, axis=0),
        simultaneous=centre + spread * np.quantile(largest, LEVEL),
        width=width,
        mean=float((value / width).mean()),
        mean_error=float((values / width).mean(axis=1).std()),
        mean_floor=float((floor / width).mean()),
        mean_floor_error=float((floors / width).mean(axis=1).std()),
        size=len(real),
    )


def _resample(columns: Array, size: int, rng: np.random.Generator) -> Array:
    """(K, size) whole jets drawn with replacement."""
    return columns[:, rng.integers(columns.shape[1], size=size)]


def _sorted_w1(first: Array, second: Array) -> Array:
    """(K,) W1 of samples of one size, observables along the first axis."""
    return np.abs(np.sort(first, axis=1) - np.sort(second, axis=1)).mean(axis=1)
