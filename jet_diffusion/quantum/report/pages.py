"""Write the quantum report: report.json, report.md and the pictures."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from jet_diffusion.io import write_text_atomically
from jet_diffusion.observables.hits import Array
from jet_diffusion.plotting.jets import jet_colours, save_figure
from jet_diffusion.plotting.style import LINE_COLOURS, styled
from jet_diffusion.quantum.report.readout import TIMESTEPS
from jet_diffusion.report.render import render_markdown
from jet_diffusion.report.tables import Table, number

COLUMNS = {
    "F500": "F500",
    "F900": "F900",
    "mmd": "MMD",
    "w1_width": "W1 width",
    "w1_lead": "W1 lead",
    "w1_n_eff": "W1 cells",
    "w1_mean": "W1 mean",
    "profile": "profile",
    "separation": "class",
}
"""Columns of the main table: key -> heading."""

LEGEND = """F500, F900: mean fidelity of the predicted with the clean state, held-out jets noised to t = 500 and 900 of
1000. MMD: unbiased, squared, fidelity kernel. W1 of width, leading cell, effective number of cells, and the mean over
22 observables, in standard deviations of real jets. Profile: W1 of the mean profiles, in cells. Class: gluon less quark
jets' mean effective number of cells, in standard deviations. The joint row's fidelities are those of states of 10
qubits. Errors: standard deviation over seeds, which change noise, initial weights and the order of jets, but not the
split."""

SMALLEST_SHARE = 1e-4

LABEL_WIDTH = 32
"""Characters of a row's name in a picture before it breaks."""


def write_pages(content: dict[str, Any], folder: Path, real: Array) -> None:
    """Write the report of `jet_diffusion.workflows.quantum_report.report` with its pictures.

    Args:
        content: What report.json holds.
        folder: Where to.
        real: (N, g, g) test jets, for the pictures.
    """
    write_text_atomically(folder / "report.json", json.dumps(content, indent=1) + "\n")
    write_text_atomically(folder / "report.md", to_markdown(content))
    save_figure(draw_jets(content["rows"], real), folder / "jets.png")
    save_figure(draw_denoising(content["rows"]), folder / "denoising.png")
    if content["quddpm"]:
        save_figure(draw_quddpm(content["quddpm"]), folder / "quddpm.png")


def to_markdown(content: dict[str, Any]) -> str:
    """The whole report as Markdown; text from files is escaped."""
    tables = [main_table(content), readout_table(content["readout"]), starts_table(content["starts"])]
    pictures = [("Jets", "jets.png"), ("Denoising", "denoising.png")]
    if content["quddpm"]:
        tables += quddpm_tables(content["quddpm"])
        pictures.insert(0, ("QuDDPM", "quddpm.png"))
    written = render_markdown("quantum.md.j2", heading=content["heading"], tables=tables, pictures=pictures)
    return written.rstrip() + "\n"


def main_table(content: dict[str, Any]) -> Table:
    """All rows, with spreads."""
    rows = []
    for row in content["rows"]:
        figures = row["figures"]
        cells = [number(figures[key]["mean"], figures[key]["spread"]) if key in figures else "" for key in COLUMNS]
        if row["name"] == "baseline":
            cells[-1] = number(content["real_separation"])
        parameters = "" if row["parameters"] is None else f"{row['parameters']:,}"
        rows.append((row["label"], parameters, *cells))
    return Table("Models", LEGEND, ("row", "parameters", *COLUMNS.values()), rows)


def readout_table(readout: dict[str, Any]) -> Table:
    """Success probability of A by timestep; fidelity of states read with so many shots."""
    success = [(f"A's ancilla in 0 at t = {step}", f"{value:.3g}") for step, value in readout["success"].items()]
    shots = [(f"fidelity after {int(n):,} shots", f"{value:.4f}") for n, value in readout["shots"].items()]
    return Table("Readout", "", ("quantity", "value"), [*success, *shots])


def starts_table(rows: list[dict[str, Any]]) -> Table:
    """Metrics by model and start."""
    keys = ("mmd", "w1_width", "w1_lead", "w1_n_eff", "profile")
    cells = [(row["model"], row["start"], *(number(row["figures"][key]) for key in keys)) for row in rows]
    return Table("Other starts", "", ("model", "start", *(COLUMNS[key] for key in keys)), cells)


def quddpm_tables(quddpm: dict[str, Any]) -> list[Table]:
    """Toys beside the authors' numbers, then jets."""
    rows = []
    for row in quddpm["rows"]:
        figures = row["figures"]
        if row["kind"] == "jets":
            continue
        authors = quddpm["authors"].get(row["name"], {})
        rows.append(
            (
                f"{row['name']}, seed {row['seed']}",
                f"{figures['fidelity']:.3f}" + (f" (authors {authors['fidelity']:.3f})" if authors else ""),
                f"{figures['data_fidelity']:.3f}",
                f"{figures['start_fidelity']:.2f}",
                f"{figures['mmd']:.4f}" + (f" (authors {authors['mmd']:.4f})" if authors else ""),
                f"{figures['start_mmd']:.2f}",
                f"{figures['wasserstein']:.3f}",
            )
        )
    columns = ("ensemble", "F0", "data", "noise", "MMD", "start", "Wasserstein")
    tables = [Table("QuDDPM", "", columns, rows)]
    for row in quddpm["rows"]:
        if row["kind"] == "jets":
            text = "Jets, central cells as 4x4, four qubits and two ancillas."
            cells = [(name, number(f["mmd"]), number(f["profile"])) for name, f in row["figures"].items()]
            tables.append(Table("QuDDPM of jets", text, ("row", "MMD", "profile"), cells))
    return tables


@styled()
def draw_jets(rows: list[dict[str, Any]], real: Array) -> Figure:
    """A line of jets for each row, real ones first; shares of energy on one logarithmic scale."""
    lines = [("test jets", (real[:6] / real[:6].sum((1, 2), keepdims=True)).tolist())]
    lines += [(row["label"], row["jets"]) for row in rows if row["name"] != "baseline"]
    figure = Figure(figsize=(9.2, 0.95 * len(lines)), layout="constrained")
    panels = figure.subplots(len(lines), 6, squeeze=False)
    norm, colours = LogNorm(SMALLEST_SHARE, 1), jet_colours()
    for line, (label, jets) in zip(panels, lines, strict=True):
        for axes, jet in zip(line, jets, strict=True):
            shown = axes.imshow(np.ma.masked_less(jet, SMALLEST_SHARE), norm=norm, cmap=colours, origin="lower")
            axes.set_facecolor(colours(np.ma.masked))
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(
            fill(label, LABEL_WIDTH, break_on_hyphens=False), rotation=0, ha="right", va="center", fontsize=7
        )
    figure.colorbar(shown, ax=panels, label="share of the jet's energy", shrink=0.3)
    return figure


@styled()
def draw_denoising(rows: list[dict[str, Any]]) -> Figure:
    """Fidelity of the prediction against the timestep."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    known = [row for row in rows if f"F{TIMESTEPS[0]}" in row["figures"]]
    for index, row in enumerate(known):
        values = [row["figures"][f"F{step}"]["mean"] for step in TIMESTEPS]
        style = ("-", "--", ":")[index // len(LINE_COLOURS)]
        axes.plot(TIMESTEPS, values, style, color=LINE_COLOURS[index % len(LINE_COLOURS)], label=row["label"])
    axes.set(xlabel="timestep of 1000", ylabel="mean fidelity with the clean state", ylim=(0, 1))
    figure.legend(loc="outside right upper", fontsize=7)
    return figure


@styled()
def draw_quddpm(quddpm: dict[str, Any]) -> Figure:
    """Fidelity with |0...0> along the way back, beside the forward process's and the authors' end."""
    rows = [row for row in quddpm["rows"] if row["kind"] in ("toy", "authors") and row["seed"] == 0]
    figure = Figure(figsize=(3.1 * len(rows), 3.2), layout="constrained")
    for axes, row in zip(figure.subplots(1, len(rows), sharey=True, squeeze=False)[0], rows, strict=True):
        axes.plot(row["forward"], color=LINE_COLOURS[0], label="forward, fresh data")
        axes.plot(row["backward"], color=LINE_COLOURS[1], label="backward, generated")
        if row["name"] in quddpm["authors"]:
            value = quddpm["authors"][row["name"]]["fidelity"]
            axes.axhline(value, color="#333333", ls=":", label=f"authors, at step 0: {value:.3f}")
        axes.set(title=row["name"], xlabel="step", ylim=(0, 1.02))
        axes.legend(fontsize=7, loc="lower left")
    figure.axes[0].set_ylabel("mean fidelity with |0...0>")
    return figure
