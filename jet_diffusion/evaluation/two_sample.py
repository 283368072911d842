"""The section of an evaluation that trains classifiers: AUCs with the power ladder beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.evaluation.result import Evaluation, TwoSampleOutcome
from jet_diffusion.metrics.ladder import LADDER
from jet_diffusion.metrics.two_sample import (
    LEAST_JETS,
    POWER,
    SEEDS,
    TwoSampleTest,
    apply_rung,
    has_power,
    two_sample_test,
)
from jet_diffusion.parallel import Workers
from jet_diffusion.report.model import Figure, Goal

REAL_HALVES = "real halves"

LADDER_SEEDS = {"observables": SEEDS, "voxels": 2, "resnet": 2, "convnextv2": 2}
"""Repetitions of each rung; fewer where a training takes long."""

GOALS = {
    "observables": Goal(high=0.55),
    "voxels": Goal(high=0.55),
    "resnet": Goal(high=0.65),
    "convnextv2": Goal(high=0.65),
}
"""AUC a very good generator reaches."""


def add_two_sample_tests(result: Evaluation, classifiers: Sequence[str], seed: int, pool: Workers) -> None:
    """Train each classifier on generated against real jets and on every rung of the ladder.

    Args:
        result: evaluation to add to.
        classifiers: names from `CLASSIFIERS`.
        seed: first seed.
        pool: trains them, each seed by itself.

    Raises:
        ValueError: for a name that is not in the table.
    """
    from jet_diffusion.metrics.classifiers import CLASSIFIERS

    unknown = [name for name in classifiers if name not in CLASSIFIERS]
    if unknown:
        raise ValueError(f"no classifier {unknown[0]!r}; there are {', '.join(CLASSIFIERS)}")
    reason = _reason_against(result)
    if reason:
        for name in classifiers:
            result.report.omit(f"auc_{name}", reason)
        return
    changed = {rung: apply_rung(rung, result.second, seed) for rung in LADDER} if classifiers else {}
    others = {"generated": result.generated, REAL_HALVES: result.second, **changed}
    if "observables" in classifiers:
        for sample in changed.values():
            _ = sample.observables
    seeds = {(name, other): SEEDS if other == "generated" else LADDER_SEEDS[name]
             for name in classifiers for other in others}  # fmt: skip
    tasks = [(name, other, number) for (name, other), count in seeds.items() for number in range(seed, seed + count)]
    tests = pool.run(train_and_test, ((name, result.reference, others[other], number) for name, other, number in tasks))
    outcomes = {
        key: TwoSampleTest.join([test for task, test in zip(tasks, tests, strict=True) if task[:2] == key])
        for key in seeds
    }
    for name in classifiers:
        ladder = {rung: outcomes[name, rung] for rung in (REAL_HALVES, *LADDER)}
        _add(result, name, TwoSampleOutcome(CLASSIFIERS[name]().description, outcomes[name, "generated"], ladder))


def _reason_against(result: Evaluation) -> str | None:
    bad = int(np.count_nonzero(~np.isfinite(result.generated.observables).all(axis=1)))
    if bad:
        return f"{bad} of {len(result.generated)} generated jets have observables that are not finite"
    size = len(result.generated)
    return f"needs {LEAST_JETS} jets a side, got {size}" if size < LEAST_JETS else None


def train_and_test(name: str, real: JetSample, other: JetSample, seed: int) -> TwoSampleTest:
    """One classifier's test with one seed."""
    from jet_diffusion.metrics.classifiers import CLASSIFIERS

    return two_sample_test(CLASSIFIERS[name](), real, other, seeds=1, seed=seed)


def _add(result: Evaluation, name: str, outcome: TwoSampleOutcome) -> None:
    report, halves = result.report, outcome.ladder[REAL_HALVES]
    counts = has_power([outcome.test, *outcome.ladder.values()])
    strongest = max(outcome.ladder, key=lambda rung: outcome.ladder[rung].auc)
    reached = f"{outcome.ladder[strongest].auc:.3f} on '{strongest}'"
    note = f"{outcome.description}; {len(outcome.test.aucs)} seeds; reaches {reached}"
    if not counts:
        note += f", below {POWER}: does not count"
    result.two_sample[name] = outcome
    report.add(
        Figure(
            f"auc_{name}",
            f"AUC, classifier on {name}",
            "classifiers",
            outcome.test.auc,
            outcome.test.error,
            halves.auc,
            halves.error,
            outcome.test.size,
            goal=GOALS[name],
            counts=counts,
            note=note,
        )
    )
    report.tables.setdefault("ladder", []).extend(_ladder_rows(name, outcome))
    test = outcome.test
    report.tables.setdefault("roc", []).append(
        {"classifier": name, "false_positive": test.false_positive_rate, "true_positive": test.true_positive_rate}
    )


def _ladder_rows(name: str, outcome: TwoSampleOutcome) -> Iterator[dict[str, object]]:
    for rung, test in {"generated": outcome.test, **outcome.ladder}.items():
        seeds = len(test.aucs)
        yield {
            "classifier": name,
            "sample": rung,
            "auc": test.auc,
            "error": test.error,
            "seeds": seeds,
            "size": test.size,
        }
