"""Classifier two-sample tests: how well a classifier tells generated from real jets.

A perfect generator gives an AUC of .5, and so does a weak classifier. Known perturbations tell the two apart: the same
classifier, trained for as long, has to find real jets with a known fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.errors import UserError
from jet_diffusion.observables.hits import Array

SEEDS = 5
LEAST_JETS = 300
"""Fewest jets of each kind: a hundred each to train, validate and test on."""

POWER = 0.9
"""A classifier has power if it reaches this AUC on the strongest perturbation; without power its AUC says nothing."""

ROC_POINTS = 101


class Labelled(NamedTuple):
    """Classifier inputs and what they are: 1 generated, 0 real."""

    inputs: Any
    labels: Array


class Classifier(Protocol):
    """A classifier that a two-sample test trains.

    Attributes:
        name: identifier in reports.
        description: one line: model and budget.
    """

    name: str
    description: str

    def prepare(self, sample: JetSample) -> Any:
        """Turn jets into inputs that an index array selects from, once for all seeds."""

    def stack(self, parts: list[Any]) -> Any:
        """Join prepared inputs along the jets."""

    def scores(self, train: Labelled, validation: Labelled, test_inputs: Any, seed: int) -> Array:
        """Train, choose the best state on the validation jets, and score the test jets (higher: generated)."""


@dataclass(frozen=True)
class TwoSampleTest:
    """Outcome of a classifier two-sample test.

    Attributes:
        aucs: (seeds,) area under the ROC curve on the test third.
        size: jets of each kind, all thirds together.
        false_positive_rate: grid of the mean ROC curve.
        true_positive_rate: mean over the seeds on that grid.
    """

    aucs: Array
    size: int
    false_positive_rate: Array
    true_positive_rate: Array

    @classmethod
    def join(cls, tests: Sequence[TwoSampleTest]) -> TwoSampleTest:
        """The outcome of one test with the seeds of several, which were done one by one."""
        first = tests[0]
        return cls(
            np.concatenate([test.aucs for test in tests]),
            first.size,
            first.false_positive_rate,
            np.mean([test.true_positive_rate for test in tests], axis=0),
        )

    @property
    def auc(self) -> float:
        """Mean over the seeds."""
        return float(self.aucs.mean())

    @property
    def error(self) -> float:
        """Standard deviation over the seeds, which differ in thirds and in initial weights."""
        return float(self.aucs.std(ddof=1)) if len(self.aucs) > 1 else float("nan")


def two_sample_test(
    classifier: Classifier, real: JetSample, generated: JetSample, *, seeds: int = SEEDS, seed: int = 0
) -> TwoSampleTest:
    """Train and test a classifier on disjoint thirds of equally many real and generated jets.

    Args:
        classifier: what is trained.
        real: N real jets.
        generated: N generated jets.
        seeds: number of repetitions.
        seed: first of the seeds.

    Raises:
        UserError: for samples of different size or fewer than 300 jets each.
    """
    if len(real) != len(generated):
        raise UserError(f"a two-sample test takes samples of one size, got {len(real)} and {len(generated)}")
    if len(real) < LEAST_JETS:
        raise UserError(f"a two-sample test needs {LEAST_JETS} jets of each kind, got {len(real)}")
    prepared = classifier.stack([classifier.prepare(real), classifier.prepare(generated)])
    labels = np.repeat([0, 1], len(real))
    grid = np.linspace(0, 1, ROC_POINTS)
    aucs, curves = [], []
    for number in range(seed, seed + seeds):
        train, validation, test = thirds(len(real), np.random.default_rng(number))
        scores = classifier.scores(
            Labelled(prepared[train], labels[train]),
            Labelled(prepared[validation], labels[validation]),
            prepared[test],
            number,
        )
        aucs.append(roc_auc_score(labels[test], scores))
        false_positive, true_positive, _ = roc_curve(labels[test], scores)
        curves.append(np.interp(grid, false_positive, true_positive))
    return TwoSampleTest(np.array(aucs), len(real), grid, np.mean(curves, axis=0))


def thirds(size: int, rng: np.random.Generator) -> list[Array]:
    """Row numbers of three disjoint parts, each with equally many real and generated jets, shuffled."""
    thirds = zip(np.array_split(rng.permutation(size), 3), np.array_split(rng.permutation(size), 3), strict=True)
    return [rng.permutation(np.concatenate([real, size + generated])) for real, generated in thirds]


def has_power(tests: Iterable[TwoSampleTest]) -> bool:
    """Whether a classifier reaches `POWER` on any of the samples, so that its AUC may be believed.

    The samples are real jets with known perturbations, and the generated jets: a classifier that finds those has
    shown what it can do.
    """
    return max(test.auc for test in tests) >= POWER
