"""The sections of a report: each computes its metrics, or notes why it could not."""

from __future__ import annotations

from typing import Any

import numpy as np

from jet_diffusion.data.jet_set import VOXELS, JetSample
from jet_diffusion.evaluation.goals import GOALS, inside_band_goal, response_bins_goal, response_goal
from jet_diffusion.evaluation.result import Evaluation
from jet_diffusion.metrics.bands import WassersteinBands, wasserstein_bands
from jet_diffusion.metrics.closure import Response, condition_closure
from jet_diffusion.metrics.distances import FeatureScale, Whitening, separation_power
from jet_diffusion.metrics.estimates import estimate
from jet_diffusion.metrics.headline import HEADLINE
from jet_diffusion.metrics.integrity import condition_mismatch, count_faults
from jet_diffusion.metrics.jetnet import KPD_SAMPLES, fpd_samples, jetnet_fpd, jetnet_kpd, jetnet_wasserstein
from jet_diffusion.metrics.neighbours import SPACES, memorisation, precision_recall
from jet_diffusion.observables.hits import Array
from jet_diffusion.observables.table import OBSERVABLES
from jet_diffusion.report.model import MetricResult
from jet_diffusion.schema import CHANNEL_LABELS, CHANNELS, CLASS_NAMES

LEAST_JETS = 200
"""Fewest jets a side for distances of 45 features; W1 alone takes any number."""


def add_integrity(result: Evaluation) -> None:
    """Count impossible jets, and say if generated jets were asked for other conditions."""
    faults = {"real": count_faults(result.reference), "generated": count_faults(result.generated)}
    result.report.tables["integrity"] = [
        {"fault": name, **{kind: counts[name] for kind, counts in faults.items()}, "of": len(result.generated)}
        for name in faults["real"]
    ]
    for name in ("not_finite", "negative"):
        if faults["generated"][name]:
            text = f"{faults['generated'][name]} of {len(result.generated)} generated jets hold values that are "
            result.report.notices.append(text + name.replace("_", " ") + "; they are counted, not dropped")
    for kind, sample in (("real", result.reference), ("generated", result.generated)):
        hits = np.bincount(sample.voxels.indices // (VOXELS // len(CHANNELS)), minlength=len(CHANNELS))
        for channel, label in enumerate(CHANNEL_LABELS):
            if not hits[channel]:
                result.report.notices.append(f"channel {channel} ({label}) is empty in all {len(sample)} {kind} jets")
    other = condition_mismatch(result.reference, result.generated)
    if other:
        result.report.notices.append(
            f"generated jets were asked for other conditions than the real ones have ({', '.join(other)}): "
            "distances measure that difference too"
        )


def _bad_observables(result: Evaluation, least: int) -> str | None:
    """Why distances of observables cannot be computed, or None."""
    bad = int(np.count_nonzero(~np.isfinite(result.generated.observables).all(axis=1)))
    if bad:
        return f"{bad} of {len(result.generated)} generated jets have observables that are not finite"
    size = len(result.generated)
    return f"needs {least} jets a side, got {size}" if size < least else None


def add_headline(result: Evaluation, rng: np.random.Generator) -> None:
    """Measure each headline metric in several draws, beside its baseline."""
    report, size = result.report, len(result.generated)
    every_real = np.concatenate([result.reference.observables, result.second.observables])
    for metric in HEADLINE.values():
        if metric.own_section:
            continue
        reason = _bad_observables(result, LEAST_JETS)
        if reason:
            report.omit(metric.name, reason)
            continue
        found = estimate(metric.compute, every_real, result.generated.observables, rng, size=size)
        report.add(
            MetricResult(
                metric.name,
                metric.label,
                "distances",
                found.value,
                found.error,
                found.baseline,
                found.baseline_error,
                size,
                goal=metric.goal,
                note=f"{found.draws} draws; {metric.source}",
            )
        )
    if not _bad_observables(result, LEAST_JETS):
        capped = FeatureScale.fit(result.reference.observables).capped(result.generated.observables)
        report.heading["jets_beyond_feature_scale"] = capped


def add_classes(result: Evaluation, rng: np.random.Generator) -> None:
    """Repeat distances within each class: only here does it show that a generator ignores its label."""
    for label, name in enumerate(CLASS_NAMES):
        real = np.concatenate([s.of_class(label).observables for s in (result.reference, result.second)])
        generated = result.generated.of_class(label).observables
        size = min(len(real) // 2, len(generated))
        for metric in (row for row in HEADLINE.values() if row.by_class):
            reason = _bad_observables(result, 0) or (size < LEAST_JETS and f"needs {LEAST_JETS} jets, got {size}")
            if reason:
                result.report.omit(f"{metric.name}_{name}", reason)
                continue
            found = estimate(metric.compute, real, generated, rng, size=size)
            numbers = (found.value, found.error, found.baseline, found.baseline_error, size)
            result.report.add(
                MetricResult(f"{metric.name}_{name}", f"{metric.label}, {name} jets", "classes", *numbers)
            )


def add_wasserstein(result: Evaluation, rng: np.random.Generator) -> None:
    """Measure W1 and separation power of every observable, beside the bands of a perfect generator."""
    report, size = result.report, len(result.generated)
    reason = _bad_observables(result, 1)
    if reason:
        report.omit("w1", reason)
        return
    real, second, generated = (s.observables for s in (result.reference, result.second, result.generated))
    bands = result.bands = wasserstein_bands(real, second, generated, rng)
    report.tables["observables"] = [
        _observable_row(index, bands, real, second, generated) for index in range(len(OBSERVABLES))
    ]
    inside, outside = float(bands.inside.mean()), int((~bands.inside_simultaneous).sum())
    report.add(
        MetricResult(
            "w1_inside_band",
            "observables inside their own 95 % band",
            "observables",
            inside,
            None,
            bands.baseline_inside,
            None,
            size,
            goal=inside_band_goal(bands.least_inside),
            note=f"95 % of perfect generators reach {bands.least_inside:.2f}, for observables depend on one another",
        ),
        MetricResult(
            "w1_outside_simultaneous",
            "observables outside the simultaneous 95 % band",
            "observables",
            outside,
            None,
            bands.baseline_outside_simultaneous,
            None,
            size,
            goal=GOALS["w1_outside_simultaneous"],
        ),
    )


def _observable_row(
    index: int, bands: WassersteinBands, real: Array, second: Array, generated: Array
) -> dict[str, Any]:
    row = list(OBSERVABLES.values())[index]
    return {
        "name": row.name,
        "unit": row.unit,
        "real_mean": real[:, index].mean(),
        "generated_mean": generated[:, index].mean(),
        "w1": bands.value[index],
        "w1_error": bands.error[index],
        "w1_baseline": bands.baseline[index],
        "w1_baseline_error": bands.baseline_error[index],
        "band": bands.band[index],
        "simultaneous_band": bands.simultaneous[index],
        "inside_band": bool(bands.inside[index]),
        "inside_simultaneous": bool(bands.inside_simultaneous[index]),
        "separation": separation_power(real[:, index], generated[:, index]),
        "separation_baseline": separation_power(real[:, index], second[:, index]),
    }


def add_neighbours(result: Evaluation) -> None:
    """Measure precision, recall, density and coverage one by one."""
    names = ("precision", "recall", "density", "coverage")
    reason = _bad_observables(result, LEAST_JETS)
    if reason:
        for name in names:
            result.report.omit(name, reason)
        return
    whitening = Whitening.fit(result.reference.observables)
    real, second, generated = (whitening(s.observables) for s in (result.reference, result.second, result.generated))
    value, baseline = precision_recall(real, generated), precision_recall(real, second)
    for name in names:
        result.report.add(
            MetricResult(
                name,
                name,
                "neighbours",
                getattr(value, name),
                None,
                getattr(baseline, name),
                None,
                len(result.generated),
                note="judge precision together with recall",
            )
        )


def add_jetnet(result: Evaluation) -> None:
    """Measure FPD, KPD and W1 as JetNet does, for comparison with papers; their baselines tend to 0."""
    names = ("jetnet_fpd", "jetnet_kpd", "jetnet_w1_mass")
    reason = _bad_observables(result, LEAST_JETS)
    if reason:
        for name in names:
            result.report.omit(name, reason)
        return
    size = len(result.generated)
    real, second, generated = (s.observables for s in (result.reference, result.second, result.generated))
    smallest, largest = fpd_samples(size)
    batch = min(size, KPD_SAMPLES)
    mass = list(OBSERVABLES).index("image_mass")

    def fpd(sample: Array) -> tuple[float, float]:
        return jetnet_fpd(real, sample, smallest, largest)

    def kpd(sample: Array) -> tuple[float, float]:
        return jetnet_kpd(real, sample, batch_size=batch)

    def w1(sample: Array) -> tuple[float, float]:
        means, spreads = jetnet_wasserstein(real[:, [mass]], sample[:, [mass]], samples=size)
        return float(means[0]), float(spreads[0])

    texts = (
        ("FPD as JetNet does", fpd, f"extrapolated from samples of {smallest} to {largest}, scaled by the maximum"),
        ("KPD as JetNet does", kpd, f"batches of {batch}, scaled by the maximum"),
        ("W1 of the image mass as JetNet does", w1, f"samples of {size} with replacement"),
    )
    for name, (label, compute, note) in zip(names, texts, strict=True):
        unit = "GeV" if name == "jetnet_w1_mass" else ""
        numbers = *compute(generated), *compute(second)
        result.report.add(MetricResult(name, label, "as in papers", *numbers, size, unit, note=note))


def add_closure(result: Evaluation, rng: np.random.Generator) -> None:
    """Measure how jets respond to the asked pT and mass: in bins, on average, and by how much the bins differ."""
    reason = _bad_observables(result, 0)
    if reason:
        result.report.omit("closure", reason)
        return
    pooled = JetSample.join([result.reference, result.second])
    closures = condition_closure(pooled, result.generated, rng)
    baselines = condition_closure(result.reference, result.second, rng)
    result.closure = [one for closure in closures for one in closure.bins]
    result.report.tables["closure"] = [one.row() for one in result.closure]
    for closure, baseline in zip(closures, baselines, strict=True):
        about = f"{closure.condition}, generated / real, {closure.jet_class} jets"
        names = [f"{kind}_{closure.condition}_{closure.jet_class}" for kind in ("response", "response_bins")]
        try:
            responses = _response_results(names, about, closure.response(), baseline.response())
        except ValueError as error:
            for name in names:
                result.report.omit(name, error)
            continue
        result.report.add(*responses)


def _response_results(names: list[str], about: str, found: Response, baseline: Response) -> list[MetricResult]:
    return [
        MetricResult(
            names[0],
            f"mean response to {about}",
            "closure",
            found.ratio,
            found.error,
            baseline.ratio,
            baseline.error,
            found.jets,
            goal=response_goal(found.error),
        ),
        MetricResult(
            names[1],
            f"mean squared pull of the responses to {about}",
            "closure",
            found.square_pull,
            found.square_pull_error,
            baseline.square_pull,
            baseline.square_pull_error,
            found.jets,
            goal=response_bins_goal(found.bins),
        ),
    ]


def add_memorisation(result: Evaluation, training: JetSample | None, rng: np.random.Generator) -> None:
    """Compare distances to training jets with distances to held-out ones, in both spaces."""
    for space in SPACES:
        name = f"memorisation_{space}"
        if training is None:
            result.report.omit(name, "no training jets given (--training)")
            continue
        try:
            found = memorisation(result.generated, training, result.reference, space, rng)
            baseline = memorisation(result.second, training, result.reference, space, rng)
        except ValueError as error:
            result.report.omit(name, error)
            continue
        result.report.add(
            MetricResult(
                name,
                f"memorisation ratio, {space}",
                "memorisation",
                found.ratio,
                found.error,
                baseline.ratio,
                baseline.error,
                found.size,
                goal=GOALS[name],
                note=f"{100 * found.nearer:.1f} % of jets nearer to training than to held-out ones",
            )
        )
