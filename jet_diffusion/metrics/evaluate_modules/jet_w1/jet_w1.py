"""W1 of each feature of jets as an `evaluate` module."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np

from jet_diffusion.metrics.distances import central_width, check_features, wasserstein

_DESCRIPTION = """Wasserstein-1 distance of every feature in its own unit, and their mean in units of the real
feature's half 16-84 % width.

Rows are jets, columns are features (such as those of `jet_diffusion.observables.table.compute_observables`) in one
order for both samples. Two finite samples of the same jets do not give 0 exactly: compute the same number between two
disjoint real samples of the same size and judge by the difference.
"""

_CITATION = """@inproceedings{kansal2021particle,
  title={Particle Cloud Generation with Message Passing Generative Adversarial Networks},
  author={Kansal, Raghav and Duarte, Javier and Su, Hao and Orzari, Breno and Tomei, Thiago and others},
  booktitle={NeurIPS}, year={2021}, eprint={2106.11535}
}
"""

_INPUTS = """
Args:
    predictions: generated jets, (N, K) numbers.
    references: real jets, (M, K) numbers.
Returns:
    w1: one distance per feature; mean_w1: mean of w1 / width.
"""


class JetW1(evaluate.Metric):
    """W1 of each feature of jets: `evaluate.load(path).compute(predictions=..., references=...)`."""

    def _info(self) -> evaluate.MetricInfo:
        row = datasets.Sequence(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": row, "references": row}),
            reference_urls=["https://arxiv.org/abs/2106.11535"],
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, Any]:
        real, generated = check_features(np.asarray(references), np.asarray(predictions), least=2)
        distances = wasserstein(real, generated)
        return {"w1": distances.tolist(), "mean_w1": float((distances / central_width(real)).mean())}
