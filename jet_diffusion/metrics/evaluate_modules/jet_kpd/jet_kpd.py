"""Kernel physics distance as an `evaluate` module."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np

from jet_diffusion.metrics.distances import KERNEL_DEGREE, FeatureScale, check_features, kernel_distance

_DESCRIPTION = """Unbiased squared maximum mean discrepancy with kernel (x.y / K + 1)^4, after division of the
features by the 95 % quantile of their magnitude in the real sample.

Rows are jets, columns are features (such as those of `jet_diffusion.observables.table.compute_observables`) in one
order for both samples. Two finite samples of the same jets do not give 0 exactly: compute the same number between two
disjoint real samples of the same size and judge by the difference.
"""

_CITATION = """@article{kansal2023evaluating,
  title={Evaluating generative models in high energy physics},
  author={Kansal, Raghav and Li, Anni and Duarte, Javier and Chernyavskaya, Nadezda and Pierini, Maurizio and others},
  journal={Physical Review D}, volume={107}, pages={076017}, year={2023}, eprint={2211.10295}
}
"""

_INPUTS = """
Args:
    predictions: generated jets, (N, K) numbers.
    references: real jets, (M, K) numbers.
    degree: of the kernel, 4 by default.
Returns:
    kpd: the distance, negative about half of the time for alike samples.
"""


class JetKPD(evaluate.Metric):
    """Kernel physics distance: `evaluate.load(path).compute(predictions=..., references=...)`."""

    def _info(self) -> evaluate.MetricInfo:
        row = datasets.Sequence(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": row, "references": row}),
            reference_urls=["https://arxiv.org/abs/2211.10295"],
        )

    def _compute(self, predictions: Any, references: Any, degree: int = KERNEL_DEGREE) -> dict[str, Any]:
        real, generated = check_features(np.asarray(references), np.asarray(predictions), least=2)
        scale = FeatureScale.fit(real)
        return {"kpd": kernel_distance(scale(real), scale(generated), degree)}
