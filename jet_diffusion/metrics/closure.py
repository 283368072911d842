"""Condition closure: do generated jets respond to the pT, mass and class they were asked for as real jets do?

The image's own response is not 1 (charged energy counts in tracks and calorimeter, energies are E and not
E_T), so generated jets are compared with real ones in the same bins, never with 1.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from jet_diffusion.hits import Array
from jet_diffusion.jet_sample import JetSample
from jet_diffusion.schema import CLASS_NAMES

BINS = 5
LEAST_JETS = 50
REPLICAS = 200

RESPONSES = {"pt": "image_pt", "m0": "image_mass"}
"""Condition -> the observable that answers it."""


@dataclass(frozen=True)
class ClosureBin:
    """Response (observable / condition) of one class in one bin of the condition.

    Attributes:
        condition: "pt" or "m0".
        jet_class: "gluon" or "quark".
        low: lower edge, GeV.
        high: upper edge, GeV.
        real_jets: number of real jets.
        generated_jets: number of generated jets.
        real_median: median response.
        real_median_error: bootstrap standard error.
        generated_median: median response.
        generated_median_error: bootstrap standard error.
        real_width: half the 16-84 % width of the response.
        real_width_error: bootstrap standard error.
        generated_width: half the 16-84 % width.
        generated_width_error: bootstrap standard error.
    """

    condition: str
    jet_class: str
    low: float
    high: float
    real_jets: int
    generated_jets: int
    real_median: float
    real_median_error: float
    generated_median: float
    generated_median_error: float
    real_width: float
    real_width_error: float
    generated_width: float
    generated_width_error: float

    @property
    def median_pull(self) -> float:
        """Difference of the medians in standard errors."""
        return _pull(self.generated_median - self.real_median, self.generated_median_error, self.real_median_error)

    @property
    def width_pull(self) -> float:
        """Difference of the widths in standard errors."""
        return _pull(self.generated_width - self.real_width, self.generated_width_error, self.real_width_error)

    def row(self) -> dict[str, Any]:
        """All values and the pulls, for a table."""
        return {**asdict(self), "median_pull": self.median_pull, "width_pull": self.width_pull}


def _pull(difference: float, first_error: float, second_error: float) -> float:
    error = math.hypot(first_error, second_error)
    return difference / error if error else (math.copysign(math.inf, difference) if difference else 0.0)


def condition_closure(
    real: JetSample, generated: JetSample, rng: np.random.Generator, bins: int = BINS
) -> tuple[list[ClosureBin], list[str]]:
    """Median and width of the response in bins of pT and mass, for each class.

    Args:
        real: real jets, whose quantiles make the bins.
        generated: generated jets with the conditions they were asked for.
        rng: draws the bootstrap.
        bins: bins per condition and class.

    Returns:
        The bins, and for each bin with fewer than 50 real or generated jets a line that says so.
    """
    found, omitted = [], []
    for condition, observable in RESPONSES.items():
        for label, name in enumerate(CLASS_NAMES):
            pair = [_responses(sample.of_class(label), condition, observable) for sample in (real, generated)]
            if len(pair[0][0]) == 0:
                omitted.append(f"{condition}, {name}: no real jets")
                continue
            edges = np.quantile(pair[0][0], np.linspace(0, 1, bins + 1))
            for low, high in pairwise(edges):
                inside = [answer[(asked >= low) & ((asked < high) | (high == edges[-1]))] for asked, answer in pair]
                if min(map(len, inside)) < LEAST_JETS:
                    omitted.append(
                        f"{condition} {low:.0f}-{high:.0f} GeV, {name}: {len(inside[0])} real and {len(inside[1])} "
                        f"generated jets, {LEAST_JETS} needed"
                    )
                    continue
                numbers = [value for sample in inside for value in _median_and_width(sample, rng)]
                found.append(
                    ClosureBin(condition, name, float(low), float(high), *map(len, inside), *_interleave(numbers))
                )
    return found, omitted


def _responses(sample: JetSample, condition: str, observable: str) -> tuple[Array, Array]:
    """The condition (GeV) and the response of each jet."""
    asked = np.asarray(getattr(sample, condition), dtype=np.float64)
    return asked, sample.observable(observable) / asked


def _median_and_width(values: Array, rng: np.random.Generator) -> list[float]:
    """Median, its error, half 16-84 % width, its error."""
    replicas = values[rng.integers(len(values), size=(REPLICAS, len(values)))]
    low, median, high = np.quantile(values, [0.16, 0.5, 0.84])
    lows, medians, highs = np.quantile(replicas, [0.16, 0.5, 0.84], axis=1)
    return [float(x) for x in (median, medians.std(), (high - low) / 2, ((highs - lows) / 2).std())]


def _interleave(numbers: list[float]) -> list[float]:
    """Real and generated (median, error, width, error) -> medians first, then widths."""
    real, generated = numbers[:4], numbers[4:]
    return [*real[:2], *generated[:2], *real[2:], *generated[2:]]
