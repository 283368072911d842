"""The result of an evaluation: the report, the jets, and what the pictures are drawn from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.metrics.bands import WassersteinBands
from jet_diffusion.metrics.closure import ClosureBin
from jet_diffusion.metrics.two_sample import TwoSampleTest
from jet_diffusion.report.model import Report
from jet_diffusion.schema import CLASS_NAMES


@dataclass(frozen=True)
class TwoSampleOutcome:
    """What a classifier found, and what it finds in jets with known perturbations.

    Attributes:
        description: model and budget.
        test: generated against real.
        known: "real halves" and each known perturbation -> real jets against those jets.
    """

    description: str
    test: TwoSampleTest
    known: dict[str, TwoSampleTest]


@dataclass
class Evaluation:
    """A report and what its pictures are drawn from.

    Attributes:
        report: the results.
        reference: real jets that all are compared with.
        second: as many other real jets, for the baselines.
        generated: as many generated jets.
        bands: W1 of the observables, if computed.
        two_sample: outcome of each classifier.
        closure: bins of the condition closure.
    """

    report: Report
    reference: JetSample
    second: JetSample
    generated: JetSample
    bands: WassersteinBands | None = None
    two_sample: dict[str, TwoSampleOutcome] = field(default_factory=dict)
    closure: list[ClosureBin] = field(default_factory=list)


def describe(sample: JetSample) -> dict[str, Any]:
    """Describe a sample for the report's heading."""
    return {
        "source": sample.source,
        "jets": len(sample),
        "fingerprint": sample.fingerprint,
        "simulated": sample.simulated,
        **{f"{name}s": int((sample.labels == label).sum()) for label, name in enumerate(CLASS_NAMES)},
    }
