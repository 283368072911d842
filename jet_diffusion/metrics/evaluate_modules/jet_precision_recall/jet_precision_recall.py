"""Precision, recall, density and coverage of jets as an `evaluate` module."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import datasets
import evaluate
import numpy as np

from jet_diffusion.metrics.distances import Whitening, check_features
from jet_diffusion.metrics.neighbours import NEIGHBOURS, precision_recall

_DESCRIPTION = """Precision and recall of Kynkaanniemi et al., density and coverage of Naeem et al., among whitened
features.

Rows are jets, columns are features (such as those of `jet_diffusion.observables.table.compute_observables`) in one
order for both samples. Two finite samples of the same jets do not give 1 exactly: compute the same number between two
disjoint real samples of the same size and judge by the difference.
"""

_CITATION = """@inproceedings{kynkaanniemi2019improved,
  title={Improved Precision and Recall Metric for Assessing Generative Models},
  author={Kynkaanniemi, Tuomas and Karras, Tero and Laine, Samuli and Lehtinen, Jaakko and Aila, Timo},
  booktitle={NeurIPS}, year={2019}, eprint={1904.06991}
}
@inproceedings{naeem2020reliable,
  title={Reliable Fidelity and Diversity Metrics for Generative Models},
  author={Naeem, Muhammad Ferjad and Oh, Seong Joon and Uh, Youngjung and Choi, Yunjey and Yoo, Jaejun},
  booktitle={ICML}, year={2020}, eprint={2002.09797}
}
"""

_INPUTS = """
Args:
    predictions: generated jets, (N, K) numbers.
    references: real jets, (M, K) numbers.
    neighbours: k, 5 by default.
Returns:
    precision, recall, density, coverage.
"""


class JetPrecisionRecall(evaluate.Metric):
    """Precision, recall, density and coverage: `evaluate.load(path).compute(predictions=..., references=...)`."""

    def _info(self) -> evaluate.MetricInfo:
        row = datasets.Sequence(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": row, "references": row}),
            reference_urls=["https://arxiv.org/abs/2002.09797"],
        )

    def _compute(self, predictions: Any, references: Any, neighbours: int = NEIGHBOURS) -> dict[str, Any]:
        real, generated = check_features(np.asarray(references), np.asarray(predictions), least=2)
        whitening = Whitening.fit(real)
        return asdict(precision_recall(whitening(real), whitening(generated), neighbours))
