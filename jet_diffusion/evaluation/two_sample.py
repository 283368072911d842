"""The section of a report that trains classifiers: AUCs, beside those of real jets with known perturbations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.errors import UserError
from jet_diffusion.evaluation.goals import GOALS
from jet_diffusion.evaluation.result import Evaluation, TwoSampleOutcome
from jet_diffusion.metrics.perturbations import PERTURBATIONS, perturb
from jet_diffusion.metrics.two_sample import (
    LEAST_JETS,
    POWER,
    SEEDS,
    TwoSampleTest,
    has_power,
    two_sample_test,
)
from jet_diffusion.parallel import Workers
from jet_diffusion.report.model import MetricResult

REAL_HALVES = "real halves"

PERTURBATION_SEEDS = {"observables": SEEDS, "image": SEEDS, "voxels": 2, "resnet": 2, "convnextv2": 2}
"""Repetitions for each known perturbation; fewer where a training takes long."""

INPUTS = {"image": "observables, image only"}
"""What a classifier sees, where its name does not say it."""


def add_two_sample_tests(result: Evaluation, classifiers: Sequence[str], seed: int, pool: Workers) -> None:
    """Train each classifier to tell generated from real jets, and perturbed real jets from real ones.

    The classifier `image` comes along with `observables`.

    Args:
        result: evaluation to add to.
        classifiers: names from `CLASSIFIERS`.
        seed: first seed.
        pool: trains them, each seed by itself.

    Raises:
        UserError: for a name that is not in the table.
    """
    from jet_diffusion.metrics.classifiers import CLASSIFIERS

    unknown = [name for name in classifiers if name not in CLASSIFIERS]
    if unknown:
        raise UserError(f"no classifier {unknown[0]!r}; there are {', '.join(CLASSIFIERS)}")
    if "observables" in classifiers and "image" not in classifiers:
        classifiers = [*classifiers, "image"]
    reason = _reason_against(result)
    if reason:
        for name in classifiers:
            result.report.omit(f"auc_{name}", reason)
        return
    changed = {name: perturb(name, result.second, seed) for name in PERTURBATIONS} if classifiers else {}
    others = {"generated": result.generated, REAL_HALVES: result.second, **changed}
    if "image" in classifiers:
        for sample in changed.values():
            _ = sample.observables
    seeds = {
        (name, other): SEEDS if other == "generated" else PERTURBATION_SEEDS[name]
        for name in classifiers
        for other in others
    }
    tasks = [(name, other, number) for (name, other), count in seeds.items() for number in range(seed, seed + count)]
    tests = pool.run(train_and_test, ((name, result.reference, others[other], number) for name, other, number in tasks))
    outcomes = {
        key: TwoSampleTest.join([test for task, test in zip(tasks, tests, strict=True) if task[:2] == key])
        for key in seeds
    }
    for name in classifiers:
        known = {other: outcomes[name, other] for other in (REAL_HALVES, *PERTURBATIONS)}
        _add(result, name, TwoSampleOutcome(CLASSIFIERS[name]().description, outcomes[name, "generated"], known))


def _reason_against(result: Evaluation) -> str | None:
    bad = int(np.count_nonzero(~np.isfinite(result.generated.observables).all(axis=1)))
    if bad:
        return f"{bad} of {len(result.generated)} generated jets have observables that are not finite"
    size = len(result.generated)
    return f"needs {LEAST_JETS} jets a side, got {size}" if size < LEAST_JETS else None


def train_and_test(name: str, real: JetSample, other: JetSample, seed: int) -> TwoSampleTest:
    """Train and test one classifier with one seed."""
    from jet_diffusion.metrics.classifiers import CLASSIFIERS

    return two_sample_test(CLASSIFIERS[name](), real, other, seeds=1, seed=seed)


def _add(result: Evaluation, name: str, outcome: TwoSampleOutcome) -> None:
    report, halves = result.report, outcome.known[REAL_HALVES]
    powerful = has_power([outcome.test, *outcome.known.values()])
    strongest = max(outcome.known, key=lambda name: outcome.known[name].auc)
    reached = f"{outcome.known[strongest].auc:.3f} on '{strongest}'"
    note = f"{outcome.description}; {len(outcome.test.aucs)} seeds; reaches {reached}"
    if not powerful:
        note += f", below {POWER}: no power"
    result.two_sample[name] = outcome
    report.add(
        MetricResult(
            f"auc_{name}",
            f"AUC, classifier on {INPUTS.get(name, name)}",
            "classifiers",
            outcome.test.auc,
            outcome.test.error,
            halves.auc,
            halves.error,
            outcome.test.size,
            goal=GOALS[f"auc_{name}"],
            has_power=powerful,
            note=note,
        )
    )
    report.tables.setdefault("perturbations", []).extend(_rows(name, outcome))
    test = outcome.test
    report.tables.setdefault("roc", []).append(
        {"classifier": name, "false_positive": test.false_positive_rate, "true_positive": test.true_positive_rate}
    )


def _rows(name: str, outcome: TwoSampleOutcome) -> Iterator[dict[str, object]]:
    for sample, test in {"generated": outcome.test, **outcome.known}.items():
        seeds = len(test.aucs)
        yield {
            "classifier": name,
            "sample": sample,
            "auc": test.auc,
            "error": test.error,
            "seeds": seeds,
            "size": test.size,
        }
