"""The headline metrics, one row each. A new metric is a new row: reports, benchmarks and tests take it from here.

FPD, mean W1 and the AUC stand twice: for all observables, and for those that the first stage of a model does not fix.
The admissibility test demands that every metric sees every control that its row does not name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score

from jet_diffusion.metrics.classifiers import ObservableClassifier
from jet_diffusion.metrics.distances import (
    FeatureScale,
    Whitening,
    central_width,
    frechet_distance,
    kernel_distance,
    sliced_wasserstein,
    wasserstein,
)
from jet_diffusion.metrics.neighbours import precision_recall
from jet_diffusion.metrics.two_sample import Labelled, thirds
from jet_diffusion.observables.hits import Array
from jet_diffusion.observables.table import IMAGE_ONLY, SCALE
from jet_diffusion.report.model import Goal

Compute = Callable[[Array, Array, np.random.Generator], float]
"""(real observables (N, K), generated ones (N, K), random generator) -> value, larger is worse."""


@dataclass(frozen=True)
class HeadlineMetric:
    """A metric that gives one number for a whole sample of generated jets.

    Attributes:
        name: identifier in reports.
        label: name in tables.
        compute: observables of two samples -> value; larger is worse.
        source: paper the definition is from.
        goal: what a very good generator reaches, or None.
        by_class: whether a report repeats it within each class.
        own_section: whether a report measures it in a section of its own, and not with the distances.
        blind_to: controls (`jet_diffusion.metrics.perturbations`) that it need not see.
    """

    name: str
    label: str
    compute: Compute
    source: str
    goal: Goal | None = None
    by_class: bool = False
    own_section: bool = False
    blind_to: frozenset[str] = frozenset()


def _scaled(metric: Callable[[Array, Array], float]) -> Compute:
    """A distance of features on the real sample's scale."""

    def compute(real: Array, generated: Array, rng: np.random.Generator) -> float:
        scale = FeatureScale.fit(real)
        return metric(scale(real), scale(generated))

    return compute


def _whitened(metric: Callable[[Array, Array], float]) -> Compute:
    """A metric of neighbours in the real sample's whitened features."""

    def compute(real: Array, generated: Array, rng: np.random.Generator) -> float:
        whitening = Whitening.fit(real)
        return metric(whitening(real), whitening(generated))

    return compute


def _sliced(real: Array, generated: Array, rng: np.random.Generator) -> float:
    scale = FeatureScale.fit(real)
    return sliced_wasserstein(scale(real), scale(generated), rng)


def mean_wasserstein(real: Array, generated: Array, rng: np.random.Generator) -> float:
    """Mean over the observables of W1 in units of the real one's half 16-84 % width."""
    return float((wasserstein(real, generated) / central_width(real)).mean())


def observables_auc(real: Array, generated: Array, rng: np.random.Generator) -> float:
    """AUC of one classifier on observables, trained on one third and tested on another."""
    inputs, labels = np.concatenate([real, generated]), np.repeat([0, 1], [len(real), len(generated)])
    train, validation, test = thirds(len(real), rng)
    scores = ObservableClassifier().scores(
        Labelled(inputs[train], labels[train]),
        Labelled(inputs[validation], labels[validation]),
        inputs[test],
        int(rng.integers(2**31)),
    )
    return float(roc_auc_score(labels[test], scores))


def _image_only(metric: Compute) -> Compute:
    """A metric of the observables that the first stage does not fix."""
    return lambda real, generated, rng: metric(real[:, IMAGE_ONLY], generated[:, IMAGE_ONLY], rng)


def precision_recall_loss(real: Array, generated: Array) -> float:
    """1 minus the smaller of precision and recall: neither can be bought with the other."""
    pair = precision_recall(real, generated)
    return 1 - min(pair.precision, pair.recall)


def density_coverage_loss(real: Array, generated: Array) -> float:
    """1 minus the smaller of density and coverage."""
    pair = precision_recall(real, generated)
    return 1 - min(pair.density, pair.coverage)


ENERGIES = frozenset({SCALE})
"""What an image-only distance need not see: the first stage fixes energies, and only the image mass depends on them."""

HEADLINE: dict[str, HeadlineMetric] = {
    row.name: row
    for row in (
        HeadlineMetric(
            "fpd",
            "FPD",
            _scaled(frechet_distance),
            "arXiv:2211.10295",
            goal=Goal(high=0.5, of="excess"),
            by_class=True,
        ),
        HeadlineMetric(
            "fpd_image",
            "FPD, image only",
            _image_only(_scaled(frechet_distance)),
            "arXiv:2211.10295",
            goal=Goal(high=0.5, of="excess"),
            blind_to=ENERGIES,
        ),
        HeadlineMetric("kpd", "KPD", _scaled(kernel_distance), "arXiv:2211.10295"),
        HeadlineMetric("mean_w1", "mean W1", mean_wasserstein, "arXiv:2106.11535", by_class=True),
        HeadlineMetric(
            "mean_w1_image",
            "mean W1, image only",
            _image_only(mean_wasserstein),
            "arXiv:2106.11535",
            blind_to=ENERGIES,
        ),
        HeadlineMetric("sliced_w1", "sliced W1", _sliced, "Bonneel et al. 2015"),
        HeadlineMetric("auc_observables", "AUC observables", observables_auc, "arXiv:1610.06545", own_section=True),
        HeadlineMetric(
            "auc_image",
            "AUC observables, image only",
            _image_only(observables_auc),
            "arXiv:1610.06545",
            own_section=True,
        ),
        HeadlineMetric(
            "precision_recall", "1 - min(precision, recall)", _whitened(precision_recall_loss), "arXiv:1904.06991"
        ),
        HeadlineMetric(
            "density_coverage", "1 - min(density, coverage)", _whitened(density_coverage_loss), "arXiv:2002.09797"
        ),
    )
}
"""Name -> metric, in the order of reports."""
