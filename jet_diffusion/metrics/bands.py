"""W1 (Wasserstein-1 distance) of each observable, and the bands in which a perfect generator's W1 lie."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from jet_diffusion.errors import UserError
from jet_diffusion.metrics.distances import central_width, check_features
from jet_diffusion.observables.hits import Array

REPLICAS = 200
LEVEL = 0.95


@dataclass(frozen=True)
class WassersteinBands:
    """W1 of K observables with its bands; arrays are (K,), in the observables' units.

    Attributes:
        value: generated against real.
        error: bootstrap standard error of the value.
        baseline: second real sample against real.
        baseline_error: its bootstrap standard error.
        band: a perfect generator's W1 of this observable lies below in 95 % of all cases.
        simultaneous: all its W1 lie below in 95 % of all cases.
        least_inside: fraction of the observables in their own bands that a perfect generator reaches in 95 % of
            all cases; less than .95, for observables depend on one another.
        baseline_inside: fraction of the observables whose baseline lies in its own band, which comes from shuffling the
            two real samples.
        baseline_outside_simultaneous: number of baselines outside that comparison's simultaneous band.
        width: half the 16-84 % width of the real observable, the unit of the means.
        mean: mean of value / width, with `mean_error`.
        mean_error: bootstrap standard error.
        mean_baseline: mean of baseline / width, with `mean_baseline_error`.
        mean_baseline_error: bootstrap standard error.
        size: jets in each sample.
    """

    value: Array
    error: Array
    baseline: Array
    baseline_error: Array
    band: Array
    simultaneous: Array
    least_inside: float
    baseline_inside: float
    baseline_outside_simultaneous: int
    width: Array
    mean: float
    mean_error: float
    mean_baseline: float
    mean_baseline_error: float
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
    """Measure W1 between generated and real jets, observable by observable, with bands from a permutation test.

    The bands are a permutation test: real and generated jets are shuffled into two new samples, again and again.
    If both are the same jets, their W1 is one more draw of the shuffled ones whatever the distribution; a bootstrap
    of the real jets would need finite variances, which an observable with a single mis-measured track a thousand
    times the usual one does not have. A statistic is the W1 less its mean over the shuffles, over its spread; the
    simultaneous band is the 95 % quantile of the largest statistic of all observables (max-statistic), so
    correlations between observables are in it.

    Args:
        real: (N, K) observables of the reference.
        second: (N, K) of other real jets.
        generated: (N, K) of generated jets.
        rng: draws bootstrap and shuffles.
        replicas: of each.

    Raises:
        UserError: if the samples differ in size or hold values that are not finite.
    """
    real, generated = check_features(real, generated)
    real, second = check_features(real, second)
    if not len(real) == len(second) == len(generated):
        raise UserError(f"samples must be of one size, got {len(real)}, {len(second)} and {len(generated)}")
    width = central_width(real)
    candidate, other = PooledPair(real, generated), PooledPair(real, second)
    values, baselines = candidate.bootstrap(rng, replicas), other.bootstrap(rng, replicas)
    bands, baseline_bands = _Bands.of(candidate.shuffle(rng, replicas)), _Bands.of(other.shuffle(rng, replicas))
    return WassersteinBands(
        value=candidate.distance,
        error=values.std(axis=0),
        baseline=other.distance,
        baseline_error=baselines.std(axis=0),
        band=bands.own,
        simultaneous=bands.simultaneous,
        least_inside=bands.least_inside,
        baseline_inside=float((other.distance <= baseline_bands.own).mean()),
        baseline_outside_simultaneous=int((other.distance > baseline_bands.simultaneous).sum()),
        width=width,
        mean=float((candidate.distance / width).mean()),
        mean_error=float((values / width).mean(axis=1).std()),
        mean_baseline=float((other.distance / width).mean()),
        mean_baseline_error=float((baselines / width).mean(axis=1).std()),
        size=len(real),
    )


class PooledPair:
    """Two samples of N jets, sorted once, so that W1 of any resampling is a fast sum.

    W1 is the area between the two cumulative distributions: the difference of the counts so far, times the gap to
    the next value.

    Args:
        first: (N, K) features.
        second: (N, K) features.
    """

    def __init__(self, first: Array, second: Array) -> None:
        self.size = len(first)
        pool = np.concatenate([first, second]).T
        self._order = np.argsort(pool, axis=1)
        self._gaps = np.diff(np.take_along_axis(pool, self._order, axis=1), axis=1) / self.size
        self.distance: Array = self._w1(self._signs())

    def bootstrap(self, rng: np.random.Generator, replicas: int) -> Array:
        """(replicas, K) W1 of samples drawn with replacement from either: whole jets."""
        chances = np.full(self.size, 1 / self.size)
        counts = (rng.multinomial(self.size, chances, size=2).ravel() for _ in range(replicas))
        return np.stack([self._w1(self._signs() * count) for count in counts])

    def shuffle(self, rng: np.random.Generator, replicas: int) -> Array:
        """(replicas, K) W1 of samples the jets of both are shuffled into."""
        return np.stack([self._w1(rng.permutation(self._signs())) for _ in range(replicas)])

    def _signs(self) -> Array:
        return np.repeat(np.array([1, -1], dtype=np.int64), self.size)

    def _w1(self, signs: Array) -> Array:
        """(K,) W1 when jet i of the pool counts `signs[i]` times for the first sample, negative for the second."""
        ahead = np.abs(np.cumsum(signs[self._order[:, :-1]], axis=1))
        return np.einsum("kn,kn->k", ahead, self._gaps)


@dataclass(frozen=True)
class _Bands:
    """Bands of shuffled W1; a perfect generator's is inside each in 95 % of all cases."""

    own: Array
    simultaneous: Array
    least_inside: float

    @classmethod
    def of(cls, shuffled: Array) -> _Bands:
        """Take them from (replicas, K) shuffled W1."""
        centre, spread = shuffled.mean(axis=0), shuffled.std(axis=0)
        spread = np.where(spread > 0, spread, 1.0)
        largest = ((shuffled - centre) / spread).max(axis=1)
        own = _upper(shuffled)
        inside = (shuffled <= own).mean(axis=1)
        return cls(own, centre + spread * _upper(largest), -float(_upper(-inside)))


def _upper(replicas: Array) -> Array:
    """The replica that one more draw exceeds in at most 5 % of all cases; the largest when they are too few."""
    rank = min(math.ceil(LEVEL * (len(replicas) + 1)), len(replicas))
    return np.asarray(np.sort(replicas, axis=0)[rank - 1])
