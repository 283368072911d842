"""A report as titled tables of text: what its Markdown file and its HTML page both show."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jet_diffusion.report.model import MetricResult, Report

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
"""Groups of results in the order they are shown; others follow."""


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
    """Format a number with the digits its error allows, or with three digits; a dash for none."""
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


def verdict(result: MetricResult) -> str:
    """Say in a word or two whether a result meets its goal."""
    if not result.has_power:
        return "no power"
    return {True: "met", False: "missed", None: ""}[result.met]


def result_table(report: Report) -> Table:
    """Tabulate all results, group by group."""
    groups = [*GROUP_TITLES, *(r.group for r in report.results if r.group not in GROUP_TITLES)]
    rows = [
        (
            _with_unit(result.label, result.unit),
            number(result.value, result.error),
            number(result.baseline, result.baseline_error),
            str(result.size),
            result.goal.text if result.goal else "",
            verdict(result),
            result.note,
        )
        for result in sorted(report.results, key=lambda result: groups.index(result.group))
    ]
    text = "Baseline: the same metric for real jets against other real jets, in samples of the same size."
    return Table("Results", text, ("metric", "generated", "baseline", "jets", "goal", "", "note"), rows)


Cell = str | tuple[str, str] | Callable[[Row], str]
"""How a cell follows from a row: the value of a key, a value with its error, or a function of the row."""


@dataclass(frozen=True)
class Layout:
    """How a table of a report is shown.

    Attributes:
        title: heading.
        text: what the columns mean.
        columns: (name, cell) of each column.
    """

    title: str
    text: str
    columns: tuple[tuple[str, Cell], ...]

    def table(self, rows: Sequence[Row]) -> Table:
        """The rows as text."""
        cells = [tuple(_cell(row, cell) for _, cell in self.columns) for row in rows]
        return Table(self.title, self.text, tuple(name for name, _ in self.columns), cells)


def _cell(row: Row, cell: Cell) -> str:
    if callable(cell):
        return cell(row)
    if isinstance(cell, tuple):
        return number(row[cell[0]], row[cell[1]])
    value = row[cell]
    return str(value) if isinstance(value, str | int) else number(value)


def _with_unit(name: str, unit: str) -> str:
    return f"{name} [{unit}]" if unit else name


def _band_verdict(row: Row) -> str:
    return "inside" if row["inside_band"] else ("outside" if row["inside_simultaneous"] else "outside both")


def _coverage(level: int) -> Callable[[Row], str]:
    return lambda row: f"{number(row[f'coverage_{level}'])} ({number(row[f'nominal_{level}'])})"


LAYOUTS = {
    "perturbations": Layout(
        "Known perturbations",
        "The same classifier, trained for as long, on real jets with known faults. It has power if it reaches an AUC "
        "of .9 on one of them; real halves should give .5.",
        (
            ("classifier", "classifier"),
            ("sample", "sample"),
            ("AUC", ("auc", "error")),
            ("seeds", "seeds"),
            ("jets", "size"),
        ),
    ),
    "closure": Layout(
        "Condition closure",
        "Response: image pT or mass over what was asked for. It is not 1 for real jets either. Pull: generated minus "
        "real, in standard errors.",
        (
            ("bin", lambda row: f"{row['condition']} {row['low']:.0f}-{row['high']:.0f} GeV"),
            ("class", "jet_class"),
            ("jets real / gen.", lambda row: f"{row['real_jets']} / {row['generated_jets']}"),
            ("median real", ("real_median", "real_median_error")),
            ("median gen.", ("generated_median", "generated_median_error")),
            ("pull", "median_pull"),
            ("width real", ("real_width", "real_width_error")),
            ("width gen.", ("generated_width", "generated_width_error")),
            ("pull", "width_pull"),
        ),
    ),
    "tagger": Layout(
        "Quark/gluon tagger",
        "An image classifier trained on real or on generated jets and tested on the same real jets.",
        (
            ("trained on", "trained_on"),
            ("AUC", ("auc", "auc_error")),
            ("accuracy", "accuracy"),
            ("gluons right", "gluon"),
            ("quarks right", "quark"),
            ("trained on jets", "train_jets"),
            ("tested on", "test_jets"),
            ("seeds", "seeds"),
        ),
    ),
    "sweep": Layout(
        "Speed against quality",
        "One row per scheduler and number of steps.",
        (
            ("scheduler", "scheduler"),
            ("steps", "steps"),
            ("evaluations", "evaluations"),
            ("ms a jet", "ms_per_jet"),
            ("FPD", ("fpd", "fpd_error")),
            ("baseline", "fpd_baseline"),
            ("mean W1", ("mean_w1", "mean_w1_error")),
            ("baseline", "mean_w1_baseline"),
            ("AUC", ("auc", "auc_error")),
            ("real halves", ("auc_baseline", "auc_baseline_error")),
            ("jets", "size"),
        ),
    ),
    "imputation": Layout(
        "HCAL from tracks and ECAL",
        "Energy of the HCAL drawn for given tracks and ECAL. CRPS in GeV: smaller is better. Coverage of the central "
        "intervals, in brackets that of a calibrated ensemble.",
        (
            ("draws", "draws_from"),
            ("CRPS", ("crps", "crps_error")),
            ("68 % interval", _coverage(68)),
            ("90 % interval", _coverage(90)),
            ("draws a jet", "draws"),
            ("jets", "jets"),
        ),
    ),
    "reconstruction": Layout(
        "Reconstruction",
        "Scores of each image against the very jet it was made from, noised to timestep t*.",
        (
            ("t*", "timestep"),
            ("score", lambda row: _with_unit(row["score"].replace("_", " "), row["unit"])),
            ("image", "candidate"),
            ("mean", ("mean", "error")),
            ("jets", "jets"),
        ),
    ),
    "integrity": Layout(
        "Integrity",
        "Jets with impossible content. They are counted and never dropped.",
        (
            ("fault", lambda row: row["fault"].replace("_", " ")),
            ("real", "real"),
            ("generated", "generated"),
            ("of jets", "of"),
        ),
    ),
    "observables": Layout(
        "Observables",
        "W1 in the observable's unit. Own band: the W1 of a perfect generator lies below it in 95 % of all cases (real "
        "and generated jets shuffled into two samples). Simultaneous band: all of them do. Separation: in bins of "
        "equally many real jets.",
        (
            ("observable", lambda row: _with_unit(row["name"], row["unit"])),
            ("real", "real_mean"),
            ("gen.", "generated_mean"),
            ("W1", ("w1", "w1_error")),
            ("baseline", ("w1_baseline", "w1_baseline_error")),
            ("own band", "band"),
            ("sim. band", "simultaneous_band"),
            ("", _band_verdict),
            ("sep.", "separation"),
            ("baseline", "separation_baseline"),
        ),
    ),
}
"""Table of a report -> how it is shown, in order."""


def tables(report: Report) -> list[Table]:
    """Return all tables of a report in the order they are shown."""
    shown = [result_table(report)] if report.results else []
    shown += [layout.table(report.tables[name]) for name, layout in LAYOUTS.items() if report.tables.get(name)]
    if report.omitted:
        rows = [(entry["name"], entry["reason"]) for entry in report.omitted]
        shown.append(Table("Left out", "What could not be computed, and why.", ("metric", "reason"), rows))
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
