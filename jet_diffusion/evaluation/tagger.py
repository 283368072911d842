"""The section of a report that trains a quark/gluon tagger on generated jets and tests it on real ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.evaluation.goals import GOALS
from jet_diffusion.evaluation.result import Evaluation
from jet_diffusion.metrics.tagger import LEAST_JETS, TaggerScores, score_tagger, train_tagger
from jet_diffusion.parallel import Workers
from jet_diffusion.report.model import MetricResult

SEEDS = 3
VALIDATION = 0.15
"""Share of the training jets that chooses the state."""

LEAST_AUC = 0.55
"""A tagger that barely beats chance on real jets says nothing about generated ones."""


def add_tagger(result: Evaluation, seed: int, pool: Workers) -> None:
    """Train taggers on the reference and on the generated jets, test both on the second real sample."""
    if (reason := _reason_against(result.generated)) is not None:
        result.report.omit("tagger_fraction", reason)
        return
    sources = {"real": result.reference, "generated": result.generated}
    tasks = [(name, number) for name in sources for number in range(seed, seed + SEEDS)]
    scores: list[TaggerScores] = pool.run(
        _train_and_score, ((sources[name], result.second, number) for name, number in tasks)
    )
    found = {name: [s for (n, _), s in zip(tasks, scores, strict=True) if n == name] for name in sources}
    rows = [_row(name, found[name], len(sources[name])) for name in sources]
    result.report.tables["tagger"] = rows
    real, generated = rows
    fraction = generated["auc"] / real["auc"]
    error = fraction * math.hypot(real["auc_error"] / real["auc"], generated["auc_error"] / generated["auc"])
    has_power = real["auc"] >= LEAST_AUC
    result.report.add(
        MetricResult(
            "tagger_fraction",
            "AUC of a tagger trained on generated jets over one trained on real ones",
            "tagger",
            fraction,
            error,
            None,
            None,
            len(result.generated),
            goal=GOALS["tagger_fraction"],
            has_power=has_power,
            note=f"{SEEDS} seeds" + ("" if has_power else f"; no power: the AUC of the real one is below {LEAST_AUC}"),
        )
    )


def _reason_against(generated: JetSample) -> str | None:
    if not np.isfinite(generated.voxels.data).all():
        return "generated jets hold energies that are not finite"
    fewest = min(int((generated.labels == label).sum()) for label in (0, 1))
    return f"needs {LEAST_JETS} generated jets of each class, got {fewest}" if fewest < LEAST_JETS else None


def _train_and_score(source: JetSample, test: JetSample, seed: int) -> TaggerScores:
    number = round(VALIDATION * len(source))
    validation, train = source.split([number, len(source) - number], np.random.default_rng(seed))
    return score_tagger(train_tagger(train, validation, seed=seed), test)


def _row(name: str, scores: list[TaggerScores], train_jets: int) -> dict[str, Any]:
    aucs = np.array([score.auc for score in scores])
    return {
        "trained_on": name,
        "auc": float(aucs.mean()),
        "auc_error": float(aucs.std(ddof=1)),
        "accuracy": float(np.mean([score.accuracy for score in scores])),
        **{key: float(np.mean([score.by_class[key] for score in scores])) for key in scores[0].by_class},
        "train_jets": train_jets,
        "test_jets": scores[0].jets,
        "seeds": len(scores),
    }
