"""A report as titled tables of text: what the Markdown file and the HTML page both show."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jet_diffusion.report.model import Figure, Report

Row = dict[str, Any]

GROUP_TITLES = {
    "distances": "Distances",
    "classifiers": "Classifier two-sample tests",
    "observables": "Observables in their bands",
    "classes": "Within each class",
    "closure": "Response to the conditions",
    "neighbours": "Precision and recall",
    "memorisation": "Memorisation",
    "tagger": "Quark/gluon tagger",
    "cost": "Cost",
    "as papers": "As in papers",
}
"""Groups of figures in the order they are shown; others follow."""


@dataclass(frozen=True)
class Table:
    """A titled table.

    Attributes:
        title: heading.
        text: what the columns mean, in one or two sentences.
        columns: names.
        rows: cells, all text.
    """

    title: str
    text: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def number(value: float | None, error: float | None = None) -> str:
    """A number with the digits its error allows, or three significant ones; a dash for none."""
    if value is None or not math.isfinite(value):
        return "-"
    if error is None or not math.isfinite(error) or error <= 0:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    scale, suffix = (1e-6, "e-6") if max(abs(value), error) < 1e-3 else (1.0, "")
    value, error = value / scale, error / scale
    # Two digits for errors that begin with 1 or 2, else one: the usual rule.
    first = math.floor(math.log10(error))
    digits = max(0, (1 if error / 10**first < 3 else 0) - first)
    text = f"{value:.{digits}f} ± {error:.{digits}f}"
    return f"({text}){suffix}" if suffix else text


def verdict(figure: Figure) -> str:
    """Whether a figure meets its goal, in a word."""
    if not figure.counts:
        return "does not count"
    return {True: "met", False: "missed", None: ""}[figure.met]


def figure_table(report: Report) -> Table:
    """All figures, group by group."""
    groups = [*GROUP_TITLES, *(f.group for f in report.figures if f.group not in GROUP_TITLES)]
    ordered = sorted(report.figures, key=lambda figure: groups.index(figure.group))
    rows = [
        (
            figure.label + (f" [{figure.unit}]" if figure.unit else ""),
            number(figure.value, figure.error),
            number(figure.floor, figure.floor_error),
            str(figure.size),
            figure.goal.text if figure.goal else "",
            verdict(figure),
            figure.note,
        )
        for figure in ordered
    ]
    columns = ("figure", "generated", "floor", "jets", "goal", "", "note")
    return Table("Figures", "Floor: the same figure between two disjoint real samples of that size.", columns, rows)


def _observable_row(row: Row) -> tuple[str, ...]:
    inside = "inside" if row["inside_band"] else ("outside" if row["inside_simultaneous"] else "outside both")
    return (
        row["name"] + (f" [{row['unit']}]" if row["unit"] else ""),
        number(row["real_mean"]),
        number(row["generated_mean"]),
        number(row["w1"], row["w1_error"]),
        number(row["w1_floor"], row["w1_floor_error"]),
        number(row["band"]),
        number(row["simultaneous_band"]),
        inside,
        number(row["separation"]),
        number(row["separation_floor"]),
    )


def _ladder_row(row: Row) -> tuple[str, ...]:
    return row["classifier"], row["sample"], number(row["auc"], row["error"]), str(row["seeds"]), str(row["size"])


def _closure_row(row: Row) -> tuple[str, ...]:
    return (
        f"{row['condition']} {row['low']:.0f}-{row['high']:.0f} GeV",
        row["jet_class"],
        f"{row['real_jets']} / {row['generated_jets']}",
        number(row["real_median"], row["real_median_error"]),
        number(row["generated_median"], row["generated_median_error"]),
        number(row["median_pull"]),
        number(row["real_width"], row["real_width_error"]),
        number(row["generated_width"], row["generated_width_error"]),
        number(row["width_pull"]),
    )


def _integrity_row(row: Row) -> tuple[str, ...]:
    return row["fault"].replace("_", " "), str(row["real"]), str(row["generated"]), str(row["of"])


def _sweep_row(row: Row) -> tuple[str, ...]:
    return (
        row["scheduler"],
        str(row["steps"]),
        str(row["evaluations"]),
        number(row["ms_per_jet"]),
        number(row["fpd"], row["fpd_error"]),
        number(row["fpd_floor"]),
        number(row["mean_w1"], row["mean_w1_error"]),
        number(row["mean_w1_floor"]),
        number(row["auc"], row["auc_error"]),
        number(row["auc_floor"], row["auc_floor_error"]),
        str(row["size"]),
    )


def _tagger_row(row: Row) -> tuple[str, ...]:
    return (
        row["trained_on"],
        number(row["auc"], row["auc_error"]),
        number(row["accuracy"]),
        number(row["gluon"]),
        number(row["quark"]),
        str(row["train_jets"]),
        str(row["test_jets"]),
        str(row["seeds"]),
    )


def _reconstruction_row(row: Row) -> tuple[str, ...]:
    unit = f" [{row['unit']}]" if row["unit"] else ""
    score = row["score"].replace("_", " ") + unit
    return str(row["timestep"]), score, row["candidate"], number(row["mean"], row["error"]), str(row["jets"])


def _imputation_row(row: Row) -> tuple[str, ...]:
    return (
        row["draws_from"],
        number(row["crps"], row["crps_error"]),
        f"{number(row['coverage_68'])} ({number(row['nominal_68'])})",
        f"{number(row['coverage_90'])} ({number(row['nominal_90'])})",
        str(row["draws"]),
        str(row["jets"]),
    )


_Shown = tuple[str, str, tuple[str, ...], Callable[[Row], tuple[str, ...]]]

SHOWN: dict[str, _Shown] = {
    "ladder": (
        "Power ladder",
        "The same classifier and budget on real jets with known faults; an AUC counts only if the strongest rung "
        "reaches .9, and the real halves should give .5.",
        ("classifier", "sample", "AUC", "seeds", "jets"),
        _ladder_row,
    ),
    "closure": (
        "Condition closure",
        "Response: image pT or mass over what was asked for. It is not 1 for real jets either; pulls are differences "
        "between generated and real in standard errors.",
        ("bin", "class", "jets real / gen.", "median real", "median gen.", "pull", "width real", "width gen.", "pull"),
        _closure_row,
    ),
    "tagger": (
        "Quark/gluon tagger",
        "An image classifier trained on real or on generated jets and tested on the same real jets.",
        ("trained on", "AUC", "accuracy", "gluons right", "quarks right", "trained on jets", "tested on", "seeds"),
        _tagger_row,
    ),
    "sweep": (
        "Speed against quality",
        "One row per scheduler and number of steps.",
        (
            "scheduler",
            "steps",
            "evaluations",
            "ms a jet",
            "FPD",
            "floor",
            "mean W1",
            "floor",
            "AUC",
            "real halves",
            "jets",
        ),
        _sweep_row,
    ),
    "imputation": (
        "HCAL from tracks and ECAL",
        "Energy of the HCAL drawn for given tracks and ECAL. CRPS in GeV, smaller is better; coverage of the central "
        "intervals, in brackets what a calibrated ensemble gives.",
        ("draws", "CRPS", "68 % interval", "90 % interval", "draws a jet", "jets"),
        _imputation_row,
    ),
    "reconstruction": (
        "Reconstruction",
        "Scores of each image against the very jet it was made from, noised to timestep t*.",
        ("t*", "score", "image", "mean", "jets"),
        _reconstruction_row,
    ),
    "integrity": (
        "Integrity",
        "Jets with impossible content, counted and never dropped.",
        ("fault", "real", "generated", "of jets"),
        _integrity_row,
    ),
    "observables": (
        "Observables",
        "W1 in the observable's unit; own band: a perfect generator's W1 lies below in 95 % of all cases (real and "
        "generated jets shuffled into two samples); simultaneous band: all of them do; separation: bins of equally "
        "many real jets.",
        ("observable", "real", "gen.", "W1", "floor", "own band", "sim. band", "", "sep.", "floor"),
        _observable_row,
    ),
}
"""Table of a report -> title, text, columns, and how a row is written."""


def tables(report: Report) -> list[Table]:
    """All tables of a report in the order they are shown."""
    shown = [figure_table(report)] if report.figures else []
    for name, (title, text, columns, write) in SHOWN.items():
        if report.tables.get(name):
            shown.append(Table(title, text, columns, [write(row) for row in report.tables[name]]))
    if report.omitted:
        rows = [(entry["name"], entry["reason"]) for entry in report.omitted]
        shown.append(Table("Left out", "Figures that could not be computed, and why.", ("figure", "reason"), rows))
    shown.append(Table("How it was made", "", ("", ""), _flatten(report.heading)))
    return shown


def _flatten(heading: dict[str, Any], prefix: str = "") -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for key, value in heading.items():
        name = f"{prefix}{key.replace('_', ' ')}"
        if isinstance(value, dict):
            rows.extend(_flatten(value, f"{name}: "))
        elif value is not None:
            rows.append((name, str(value)))
    return rows
