"""Pictures of tables: quality against cost, paired scores against noise, drawn against true energies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter

from jet_diffusion.metrics.pairs import PAIR_SCORES
from jet_diffusion.observables.hits import Array
from jet_diffusion.plotting.style import GENERATED, LINE_COLOURS, REAL, Figure, styled

CANDIDATE_COLOURS = ("#d55e00", "#0072b2", "#009e73", "#999999")


@styled()
def sweep_chart(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Quality against network evaluations and against milliseconds a jet, a line per scheduler."""
    figure = Figure(figsize=(8.4, 6.4), layout="constrained")
    panels = figure.subplots(2, 2, sharex="col", sharey="row")
    qualities = (("auc", "AUC, observables", "auc_baseline"), ("fpd", "FPD", "fpd_baseline"))
    costs = (("evaluations", "network evaluations a jet"), ("ms_per_jet", "ms a jet"))
    for line, (quality, label, baseline) in enumerate(qualities):
        for column, (cost, axis) in enumerate(costs):
            axes = panels[line, column]
            for scheduler, colour in zip(dict.fromkeys(row["scheduler"] for row in rows), cycle(LINE_COLOURS)):
                chosen = sorted((row for row in rows if row["scheduler"] == scheduler), key=lambda row: row[cost])
                values = np.array([[row[cost], row[quality], row[f"{quality}_error"]] for row in chosen], dtype=float)
                axes.errorbar(*values.T[:2], values[:, 2], fmt="o-", ms=4, lw=1, color=colour, label=scheduler)
            axes.axhline(np.mean([row[baseline] for row in rows]), color=REAL, ls=":", lw=1, label="baseline")
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
            if quality == "fpd":
                axes.set_yscale("log")
                axes.set_xlabel(axis)
        panels[line, 0].set_ylabel(label)
    panels[0, 0].legend()
    return figure


@styled()
def reconstruction_chart(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Each paired score against the timestep jets were noised to, a line per candidate."""
    scores = list(dict.fromkeys(row["score"] for row in rows))
    candidates = list(dict.fromkeys(row["candidate"] for row in rows))
    figure = Figure(figsize=(10.5, 3.3 * -(-len(scores) // 3)), layout="constrained")
    panels = np.ravel(figure.subplots(-(-len(scores) // 3), 3, squeeze=False))
    for axes, score in zip(panels, scores, strict=False):
        for candidate, colour in zip(candidates, cycle(CANDIDATE_COLOURS)):
            chosen = [row for row in rows if row["score"] == score and row["candidate"] == candidate]
            values = [[row["timestep"], row["mean"], row["error"] or 0] for row in chosen]
            timestep, mean, error = np.array(values, dtype=float).T
            shown = np.isfinite(mean)
            axes.errorbar(
                timestep[shown], mean[shown], error[shown], fmt="o-", ms=3.5, lw=1, color=colour, label=candidate
            )
        label, unit, _ = PAIR_SCORES[score]
        axes.set(xlabel="t*", ylabel=f"{label} [{unit}]" if unit else label)
        if score in ("energy_ratio", "pixel_error", "emd"):
            axes.set_yscale("symlog", linthresh=1 if score == "energy_ratio" else 0.1)
    for axes in panels[len(scores) :]:
        axes.set_axis_off()
    panels[0].legend()
    return figure


@styled()
def imputation_chart(truth: Array, draws: Array) -> Figure:
    """Median and central 68 % of the drawn HCAL energies against the true one."""
    figure = Figure(figsize=(5.2, 5.0), layout="constrained")
    axes = figure.subplots()
    low, median, high = np.quantile(draws, [0.16, 0.5, 0.84], axis=0)
    axes.errorbar(truth, median, [median - low, high - median], fmt="o", ms=3, lw=0.8, color=GENERATED)
    limit = 1.05 * max(truth.max(), high.max())
    axes.plot([0, limit], [0, limit], color=REAL, lw=0.8)
    axes.set(xlabel="true HCAL energy [GeV]", ylabel="drawn HCAL energy [GeV]", xlim=(0, limit), ylim=(0, limit))
    return figure
