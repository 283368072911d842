"""Speed against quality: the same model with several schedulers and numbers of steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.errors import UserError
from jet_diffusion.metrics.classifiers import ObservableClassifier
from jet_diffusion.metrics.estimates import Estimate, estimate
from jet_diffusion.metrics.headline import HEADLINE
from jet_diffusion.metrics.two_sample import two_sample_test
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.sampling.sample import SampledJets, sample_like, set_sampler, solver_name

Row = dict[str, Any]


def parse_steps(text: str) -> list[int]:
    """The numbers of steps of `steps=5,10,25`.

    Raises:
        UserError: for anything else, or a number that is not positive.
    """
    name, _, values = text.partition("=")
    try:
        steps = [int(value) for value in values.split(",")]
    except ValueError:
        steps = []
    if name != "steps" or not steps or min(steps) < 1:
        raise UserError(f"--sweep takes steps=5,10,25 or the like, got {text!r}")
    return steps


def run_sweep(
    pipeline: JetImagePipeline,
    real: JetSample,
    steps: Sequence[int],
    schedulers: Sequence[str | None],
    *,
    size: int,
    seed: int,
    batch_size: int | None = None,
) -> list[Row]:
    """One row of quality and cost per scheduler and number of steps; the pipeline's own scheduler comes back.

    Args:
        pipeline: the model.
        real: real jets, twice `size` of them.
        steps: numbers of solver steps.
        schedulers: names from `SCHEDULERS`; None for the pipeline's own.
        size: jets of each row.
        seed: of the sampling and the draws.
        batch_size: jets denoised at once; by default as suits the device.

    Raises:
        ValueError: from the metrics, for too few jets.
    """
    rng = np.random.default_rng(seed)
    reference, second = real.split([size, size], rng)
    halves = two_sample_test(ObservableClassifier(), reference, second, seed=seed)
    baseline = {"auc_baseline": halves.auc, "auc_baseline_error": halves.error}
    own = pipeline.scheduler
    combinations = [(name, number) for name in schedulers for number in steps]
    rows = []
    try:
        for name, number in tqdm(combinations, desc="sweep", unit="setting"):
            pipeline.scheduler = own
            set_sampler(pipeline, name)
            sampled = sample_like(pipeline, reference, steps=number, seed=seed, batch_size=batch_size)
            quality = _quality(real, reference, sampled, seed)
            rows.append({"scheduler": name or solver_name(own), "steps": number, **quality, **baseline})
    finally:
        pipeline.scheduler = own
    return rows


def _quality(real: JetSample, reference: JetSample, sampled: SampledJets, seed: int) -> Row:
    """FPD, mean W1 and AUC of one setting; null where generated jets are not finite."""
    size = len(reference)
    row: Row = {"evaluations": sampled.evaluations, "ms_per_jet": sampled.ms_per_jet, "size": size}
    usable = bool(np.isfinite(sampled.jets.observables).all())
    for name in ("fpd", "mean_w1"):
        found = Estimate(np.nan, np.nan, np.nan, np.nan, size, draws=0)
        if usable:
            rng = np.random.default_rng(seed)
            found = estimate(HEADLINE[name].compute, real.observables, sampled.jets.observables, rng, size=size)
        row |= {name: found.value, f"{name}_error": found.error, f"{name}_baseline": found.baseline}
    if not usable:
        return {**row, "auc": None, "auc_error": None}
    test = two_sample_test(ObservableClassifier(), reference, sampled.jets, seed=seed)
    return {**row, "auc": test.auc, "auc_error": test.error}
