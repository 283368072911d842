"""Condition closure: whether generated jets have the pT, mass and class that were asked for.

The image's own response is not 1 (charged energy counts in tracks and calorimeter, energies are E and not
E_T), so generated jets are compared with real ones in the same bins, never with 1.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np

from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.errors import UserError
from jet_diffusion.observables.hits import Array
from jet_diffusion.schema import CLASS_NAMES

BINS = 5
LEAST_JETS = 50
REPLICAS = 200

RESPONSES = {"pt": "image_pt", "m0": "image_mass"}
"""Condition -> the observable that answers it."""


@dataclass(frozen=True)
class ClosureBin:
    """Response (measured over asked pT or mass) of the jets of one class, in one bin of the asked value.

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


@dataclass(frozen=True)
class Response:
    """Response of generated jets of one class against that of real ones, over all bins of a condition.

    Attributes:
        ratio: of the medians, generated over real, averaged over the bins, which hold equally many real jets.
        error: its standard error, by those of the medians.
        square_pull: mean over the bins of the squared difference of the medians in standard errors: 1 on average
            where both respond alike, and large where one is high in some bins and low in others, whatever `ratio` is.
        bins: number of bins.
        jets: number of generated jets.
    """

    ratio: float
    error: float
    square_pull: float
    bins: int
    jets: int

    @property
    def square_pull_error(self) -> float:
        """Standard error of `square_pull`: that of a chi-square, non-central where `square_pull` exceeds 1."""
        return math.sqrt(2 * (1 + 2 * max(0.0, self.square_pull - 1)) / self.bins)


@dataclass(frozen=True)
class ClassClosure:
    """Closure of one class of jets in one condition.

    Attributes:
        condition: "pt" or "m0".
        jet_class: "gluon" or "quark".
        bins: from low to high.
        left_out: why the class, or some of its bins, are not there.
    """

    condition: str
    jet_class: str
    bins: tuple[ClosureBin, ...]
    left_out: tuple[str, ...]

    def response(self) -> Response:
        """The response over all bins.

        Raises:
            UserError: where some are left out, or real jets do not respond at all, so that there is no ratio.
        """
        if self.left_out:
            raise UserError("; ".join(self.left_out))
        bins = self.bins
        silent = sum(not one.real_median > 0 for one in bins)
        if silent:
            raise UserError(f"the median response of real jets is not positive in {silent} of {len(bins)} bins")
        ratios = np.array([one.generated_median / one.real_median for one in bins])
        errors = [
            math.hypot(one.generated_median_error, ratio * one.real_median_error) / one.real_median
            for one, ratio in zip(bins, ratios, strict=True)
        ]
        return Response(
            ratio=float(ratios.mean()),
            error=math.hypot(*errors) / len(bins),
            square_pull=float(np.mean([one.median_pull**2 for one in bins])),
            bins=len(bins),
            jets=sum(one.generated_jets for one in bins),
        )


def _pull(difference: float, first_error: float, second_error: float) -> float:
    error = math.hypot(first_error, second_error)
    return difference / error if error else (math.copysign(math.inf, difference) if difference else 0.0)


def condition_closure(
    real: JetSample, generated: JetSample, rng: np.random.Generator, bins: int = BINS
) -> list[ClassClosure]:
    """Median and width of the response in bins of pT and mass, for each class.

    Args:
        real: real jets, whose quantiles make the bins.
        generated: generated jets with the conditions they were asked for.
        rng: draws the bootstrap.
        bins: bins per condition and class; fewer where a bin would hold less than 50 jets on average.
    """
    return [
        _class_closure(condition, label, (real, generated), rng, bins)
        for condition, label in product(RESPONSES, range(len(CLASS_NAMES)))
    ]


def _class_closure(
    condition: str, label: int, samples: tuple[JetSample, JetSample], rng: np.random.Generator, bins: int
) -> ClassClosure:
    name = CLASS_NAMES[label]
    pair = [_responses(sample.of_class(label), condition, RESPONSES[condition]) for sample in samples]
    fewest = min(len(asked) for asked, _ in pair)
    if fewest < LEAST_JETS:
        return ClassClosure(condition, name, (), (f"{fewest} jets, {LEAST_JETS} needed",))
    found: list[ClosureBin] = []
    left_out: list[str] = []
    edges = np.quantile(pair[0][0], np.linspace(0, 1, min(bins, fewest // LEAST_JETS) + 1))
    for low, high in pairwise(edges):
        inside = [answer[_between(asked, low, high, edges)] for asked, answer in pair]
        if min(map(len, inside)) < LEAST_JETS // 2:
            counts = f"{len(inside[0])} real and {len(inside[1])} generated jets"
            left_out.append(f"{counts} of {low:.0f} to {high:.0f} GeV, {LEAST_JETS // 2} needed")
            continue
        found.append(_closure_bin(condition, name, (float(low), float(high)), inside, rng))
    return ClassClosure(condition, name, tuple(found), tuple(left_out))


def _between(asked: Array, low: float, high: float, edges: Array) -> Array:
    """Which values lie in a bin; the outer bins are open."""
    return ((asked >= low) | (low == edges[0])) & ((asked < high) | (high == edges[-1]))


def _closure_bin(
    condition: str, name: str, limits: tuple[float, float], inside: list[Array], rng: np.random.Generator
) -> ClosureBin:
    real, generated = (_median_and_width(values, rng) for values in inside)
    return ClosureBin(
        condition=condition,
        jet_class=name,
        low=limits[0],
        high=limits[1],
        real_jets=len(inside[0]),
        generated_jets=len(inside[1]),
        **{f"real_{key}": value for key, value in real.items()},
        **{f"generated_{key}": value for key, value in generated.items()},
    )


def _responses(sample: JetSample, condition: str, observable: str) -> tuple[Array, Array]:
    """The condition (GeV) and the response of each jet."""
    asked = np.asarray(getattr(sample, condition), dtype=np.float64)
    return asked, sample.observable(observable) / asked


def _median_and_width(values: Array, rng: np.random.Generator) -> dict[str, float]:
    """Median and half 16-84 % width with their bootstrap errors."""
    replicas = values[rng.integers(len(values), size=(REPLICAS, len(values)))]
    low, median, high = np.quantile(values, [0.16, 0.5, 0.84])
    lows, medians, highs = np.quantile(replicas, [0.16, 0.5, 0.84], axis=1)
    return {
        "median": float(median),
        "median_error": float(medians.std()),
        "width": float(high - low) / 2,
        "width_error": float((highs - lows).std()) / 2,
    }
