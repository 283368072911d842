"""A metric's value with its error, its sample size and its baseline (real against real)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jet_diffusion.errors import UserError
from jet_diffusion.observables.hits import Array

Metric = Callable[[Array, Array, np.random.Generator], float]
"""(real features (N, K), generated features (N, K), random generator) -> value."""

DRAWS = 5
SIGNIFICANT = 3.0
"""A difference counts from this many standard errors on."""


@dataclass(frozen=True)
class Estimate:
    """A metric's value, error and baseline.

    Attributes:
        value: mean over the draws, generated against real.
        error: standard deviation over the draws.
        baseline: the same metric between two disjoint real samples of the same size.
        baseline_error: its standard deviation over the draws.
        size: jets in each sample.
        draws: how often samples were drawn.
    """

    value: float
    error: float
    baseline: float
    baseline_error: float
    size: int
    draws: int

    @property
    def excess(self) -> float:
        """Value minus baseline: what the generator adds to the finite samples' own distance."""
        return self.value - self.baseline

    @property
    def excess_error(self) -> float:
        """Standard error of the excess; not divided by the root of the number of draws, because draws share jets."""
        return math.hypot(self.error, self.baseline_error)

    @property
    def significance(self) -> float:
        """Excess in standard errors; infinite if both spreads are 0 and the excess is not."""
        if self.excess_error > 0:
            return self.excess / self.excess_error
        return math.copysign(math.inf, self.excess) if self.excess else 0.0


def estimate(
    metric: Metric,
    real: Array,
    generated: Array,
    rng: np.random.Generator,
    *,
    size: int,
    draws: int = DRAWS,
) -> Estimate:
    """Measure a metric in several draws without replacement, beside its baseline.

    Each draw cuts the real jets into a reference and a second sample, both of `size`; generated and second
    sample are compared with the same reference.

    Args:
        metric: the distance.
        real: (R, K) features, R at least twice `size`.
        generated: (G, K) features, G at least `size`.
        rng: draws the samples.
        size: jets in each sample.
        draws: number of draws.

    Raises:
        UserError: for too few jets, or from the metric.
    """
    if len(real) < 2 * size or len(generated) < size:
        raise UserError(
            f"{size} against {size} needs {2 * size} real and {size} generated jets, "
            f"got {len(real)} and {len(generated)}"
        )
    values, baselines = [], []
    for _ in range(draws):
        order = rng.permutation(len(real))
        reference, second = real[order[:size]], real[order[size : 2 * size]]
        drawn = generated[rng.permutation(len(generated))[:size]]
        values.append(metric(reference, drawn, rng))
        baselines.append(metric(reference, second, rng))
    return Estimate(
        float(np.mean(values)),
        float(np.std(values, ddof=min(1, draws - 1))),
        float(np.mean(baselines)),
        float(np.std(baselines, ddof=min(1, draws - 1))),
        size,
        draws,
    )
