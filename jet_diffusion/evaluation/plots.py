"""Pictures of an evaluation: each function draws one figure from samples or results, none computes a metric."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from jet_diffusion.evaluation.result import Evaluation
from jet_diffusion.evaluation.two_sample import TwoSampleOutcome
from jet_diffusion.metrics.bands import WassersteinBands
from jet_diffusion.metrics.closure import ClosureBin
from jet_diffusion.observables.hits import Array
from jet_diffusion.observables.table import OBSERVABLES, Observable
from jet_diffusion.plotting.style import (
    CLASS_COLOURS,
    FAINT,
    GENERATED,
    LINE_COLOURS,
    RATIO_LIMITS,
    REAL,
    Figure,
    styled,
)
from jet_diffusion.schema import CLASS_NAMES

BINS = 40
PANELS = 6


def observable_pages(evaluation: Evaluation) -> Iterator[tuple[str, Figure]]:
    """Histograms of all observables with ratio panels, six a page: (name of the page, figure)."""
    rows = list(OBSERVABLES.values())
    for page, start in enumerate(range(0, len(rows), PANELS), start=1):
        yield f"observables_{page}", observable_page(rows[start : start + PANELS], evaluation)


@styled()
def observable_page(rows: Sequence[Observable], evaluation: Evaluation) -> Figure:
    """Histograms of up to six observables with ratio panels: generated jets over real ones."""
    # Laid out by hand: twelve axes a page cost the automatic layout most of the time a report takes.
    figure = Figure(figsize=(7.2, 9.6))
    outer = figure.add_gridspec(PANELS // 2, 2, left=0.11, right=0.97, bottom=0.05, top=0.975, hspace=0.24, wspace=0.28)
    for index, row in enumerate(rows):
        inner = outer[index // 2, index % 2].subgridspec(2, 1, height_ratios=(3, 1), hspace=0.06)
        main, ratio = np.asarray(inner.subplots(sharex=True))
        real, second, generated = (
            sample.observable(row.name) for sample in (evaluation.reference, evaluation.second, evaluation.generated)
        )
        draw_histograms(main, ratio, np.concatenate([real, second]), generated, row)
        if index == 0:
            main.legend(loc="upper right")
    return figure


def draw_histograms(main: Axes, ratio: Axes, real: Array, generated: Array, row: Observable) -> None:
    """A histogram of real and generated jets over the row's range, and their ratio, with standard errors."""
    edges = np.linspace(*row.limits, BINS + 1)
    centres = (edges[1:] + edges[:-1]) / 2
    inside = [np.clip(values[np.isfinite(values)], *row.limits) for values in (real, generated)]
    counts = [np.histogram(values, edges)[0] for values in inside]
    density = [count / max(count.sum(), 1) / np.diff(edges) for count in counts]
    errors = [np.sqrt(count) / max(count.sum(), 1) / np.diff(edges) for count in counts]
    main.stairs(density[0], edges, fill=True, color=FAINT, label=f"real ({len(real)})")
    main.stairs(density[0] + errors[0], edges, baseline=density[0] - errors[0], fill=True, color=REAL, alpha=0.5)
    main.stairs(density[1], edges, color=GENERATED, lw=1.4, label=f"generated ({len(generated)})")
    main.errorbar(centres, density[1], errors[1], fmt="none", ecolor=GENERATED, elinewidth=0.8)
    main.set_ylim(bottom=0, top=1.3 * max(density[0].max(), density[1].max(), 1e-12))
    main.set_ylabel("density")
    filled = counts[0] > 0
    relative = errors[0][filled] / density[0][filled]
    ratio.bar(centres[filled], 2 * relative, np.diff(edges)[filled], 1 - relative, color=FAINT)
    ratio.errorbar(
        centres[filled],
        density[1][filled] / density[0][filled],
        errors[1][filled] / density[0][filled],
        fmt="o",
        ms=2.5,
        color=GENERATED,
        elinewidth=0.8,
    )
    ratio.axhline(1, color=REAL, lw=0.7)
    ratio.set(ylim=RATIO_LIMITS, yticks=(0.75, 1, 1.25), xlim=row.limits, xlabel=row.axis_label)
    ratio.set_ylabel("gen. / real", size="small")  # as high as the panel


@styled()
def wasserstein_chart(bands: WassersteinBands) -> Figure:
    """W1 of every observable in units of its own band, with the baseline and the simultaneous band."""
    figure = Figure(figsize=(7.2, 9.6), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(OBSERVABLES))[::-1]
    unit = np.where(bands.band > 0, bands.band, 1.0)
    limit = bands.simultaneous / unit
    axes.barh(rows, limit, height=0.8, color=FAINT, alpha=0.6, label="simultaneous 95 % band")
    axes.plot(bands.baseline / unit, rows, "|", color=REAL, ms=9, mew=1.6, label="baseline (real against real)")
    value = bands.value / unit
    outside = ~bands.inside
    for chosen, marker, text in ((~outside, "o", "generated, inside its band"), (outside, "D", "generated, outside")):
        if chosen.any():
            style: dict[str, Any] = {
                "color": GENERATED,
                "ms": 4,
                "elinewidth": 0.9,
                "mfc": "white" if marker == "o" else GENERATED,
            }
            axes.errorbar(
                value[chosen], rows[chosen], xerr=(bands.error / unit)[chosen], fmt=marker, label=text, **style
            )
    axes.axvline(1, color=REAL, lw=0.8, ls="--")
    axes.set_yticks(rows, list(OBSERVABLES), size=8)
    axes.yaxis.minorticks_off()
    if value.max() > 8:
        axes.set_xscale("log")
    axes.set(xlabel=r"$W_1$ in units of the observable's own 95 % band", ylim=(-1, len(rows)))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.05), ncols=2)
    return figure


@styled()
def correlation_matrices(evaluation: Evaluation) -> Figure:
    """Correlations of the observables: real, generated, and their difference."""
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    real = np.concatenate([evaluation.reference.observables, evaluation.second.observables])
    matrices = [_correlation(sample) for sample in (real, evaluation.generated.observables)]
    panels = figure.subplots(1, 3)
    titles = ("real", "generated", "generated - real")
    for axes, matrix, title in zip(panels, [*matrices, matrices[1] - matrices[0]], titles, strict=True):
        limit = 0.5 if axes is panels[2] else 1.0
        shown = axes.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set_title(title)
        ticks = np.arange(0, len(OBSERVABLES), 4)
        axes.set_xticks(ticks, [list(OBSERVABLES)[i] for i in ticks], rotation=90, size=7)
        axes.set_yticks(ticks, [list(OBSERVABLES)[i] for i in ticks] if axes is panels[0] else [], size=7)
        axes.minorticks_off()
        figure.colorbar(shown, ax=axes, shrink=0.7)
    return figure


def _correlation(features: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(np.corrcoef(features, rowvar=False))


@styled()
def roc_curves(outcomes: Mapping[str, TwoSampleOutcome]) -> Figure:
    """Mean ROC curve of each classifier, its real halves dotted."""
    figure = Figure(figsize=(5.2, 5.0), layout="constrained")
    axes = figure.subplots()
    for (name, outcome), colour in zip(outcomes.items(), LINE_COLOURS, strict=False):
        test, halves = outcome.test, outcome.known["real halves"]
        axes.plot(
            test.false_positive_rate,
            test.true_positive_rate,
            color=colour,
            label=rf"{name}: {test.auc:.3f} $\pm$ {test.error:.3f}",
        )
        axes.plot(halves.false_positive_rate, halves.true_positive_rate, color=colour, ls=":")
    axes.plot([0, 1], [0, 1], color=FAINT, lw=0.8)
    axes.set(xlabel="real jets called generated", ylabel="generated jets called generated", xlim=(0, 1), ylim=(0, 1))
    axes.legend(title="AUC (dotted: real halves)", loc="lower right")
    return figure


@styled()
def perturbation_chart(outcomes: Mapping[str, TwoSampleOutcome]) -> Figure:
    """AUC of each classifier for every known perturbation and for the generated jets."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    names = [*next(iter(outcomes.values())).known, "generated"]
    width = 0.8 / len(outcomes)
    for number, ((name, outcome), colour) in enumerate(zip(outcomes.items(), LINE_COLOURS, strict=False)):
        tests = [*outcome.known.values(), outcome.test]
        place = np.arange(len(names)) + (number - (len(outcomes) - 1) / 2) * width
        heights = [test.auc - 0.5 for test in tests]
        axes.bar(
            place, heights, width, bottom=0.5, color=colour, label=name, yerr=[np.nan_to_num(t.error) for t in tests]
        )
    axes.axhline(0.9, color=REAL, lw=0.8, ls="--")
    axes.axhline(0.5, color=REAL, lw=0.8)
    axes.set_xticks(range(len(names)), [fill(name, 12) for name in names])
    axes.xaxis.minorticks_off()
    axes.set(ylabel="AUC", ylim=(0.4, 1.05))
    axes.legend(loc="upper left", ncols=2)
    return figure


@styled()
def closure_chart(bins: Sequence[ClosureBin]) -> Figure:
    """Median and width of the response against pT and mass, real and generated, for each class."""
    figure = Figure(figsize=(8.4, 6.4), layout="constrained")
    conditions = [name for name in ("pt", "m0") if any(found.condition == name for found in bins)]
    panels = figure.subplots(2, len(conditions), squeeze=False)
    titles = {"pt": r"image $p_\mathrm{T}$ / asked $p_\mathrm{T}$", "m0": "image mass / asked mass"}
    labels = {"pt": r"asked $p_\mathrm{T}$ [GeV]", "m0": "asked mass [GeV]"}
    for column, condition in enumerate(conditions):
        for name in CLASS_NAMES:
            chosen = [found for found in bins if found.condition == condition and found.jet_class == name]
            for row, quantity in enumerate(("median", "width")):
                _draw_closure(panels[row, column], chosen, quantity, name)
        panels[0, column].set_title(titles[condition])
        panels[1, column].set_xlabel(labels[condition])
    panels[0, 0].set_ylabel("median response")
    panels[1, 0].set_ylabel("half 16-84 % width")
    panels[0, 0].legend()
    return figure


def _draw_closure(axes: Axes, bins: Sequence[ClosureBin], quantity: str, name: str) -> None:
    centres = np.array([(found.low + found.high) / 2 for found in bins])
    styles: dict[str, dict[str, Any]] = {"real": {"fmt": "s", "mfc": "white"}, "generated": {"fmt": "o"}}
    for kind, style in styles.items():
        values = [getattr(found, f"{kind}_{quantity}") for found in bins]
        errors = [getattr(found, f"{kind}_{quantity}_error") for found in bins]
        axes.errorbar(centres, values, errors, color=CLASS_COLOURS[name], ms=4, label=f"{name}, {kind}", **style)
