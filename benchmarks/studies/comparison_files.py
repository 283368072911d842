"""The comparison as files: compare.json, compare.md, compare.html and the panel compare.png."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from benchmarks.studies.comparison import Candidate, reduce_sample, reduced_once
from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.io import write_text_atomically
from jet_diffusion.plotting.jets import BACKGROUND, ENERGY_RANGE_GEV, enlarge_hits, jet_colours, save_figure
from jet_diffusion.report.render import markdown_text
from jet_diffusion.schema import CHANNELS, GEV_PER_UNIT

PANEL_JETS = 6
CHANNEL_NAMES = " / ".join(CHANNELS)

HEADER = (
    "row",
    "judged on",
    "parameters",
    "jets seen",
    "training s",
    "training jets/s",
    "ms a jet",
    "evaluations",
    f"energy, ratio to real ({CHANNEL_NAMES})",
    f"occupancy, ratio to real ({CHANNEL_NAMES})",
    "mean W1 (baseline)",
    "FPD / baseline",
    "AUC (baseline)",
    "memorisation",
    "SSIM",
    "PSNR dB",
    "jets",
)

CAPTION = (
    "Each row is judged against real jets put through the same reduction. W1, FPD and AUC: lower is better; the "
    "baseline is what real jets against other real jets give (AUC .5). Memorisation: 1 is none. SSIM and PSNR compare "
    "jet i with an unrelated jet i, as the notebooks do: they show that a blank image does well in them."
)


def write_comparison(
    rows: Sequence[dict[str, Any]], candidates: dict[str, Candidate], real: JetSample, out: Path
) -> None:
    """Write all four files; called after every row, so that a long comparison can be looked at."""
    verdict = winners(rows)
    cells = [row_cells(row) for row in rows]
    divider = "|".join([" --- "] * len(HEADER))
    lines = [f"| {' | '.join(map(markdown_text, line))} |" for line in cells]
    markdown = [f"| {' | '.join(HEADER)} |", f"|{divider}|", *lines]
    text = "\n".join([*markdown, "", CAPTION, "", *verdict, ""])
    write_text_atomically(out / "compare.md", text)
    write_text_atomically(out / "compare.json", json.dumps({"rows": rows, "verdict": verdict}, indent=2) + "\n")
    write_text_atomically(out / "compare.html", page(cells, verdict))
    save_figure(panel([candidates[row["name"]] for row in rows], real), out / "compare.png")


def row_cells(row: dict[str, Any]) -> list[str]:
    """One row of the table as text."""
    return [
        row["name"],
        f"{row['grid']}x{row['grid']} ({row['reduction']})" if row["grid"] else "125x125",
        number(row.get("parameters"), ",.0f"),
        number(row.get("training_jets"), ",.0f"),
        number(row.get("training_seconds"), ",.0f"),
        number(row.get("jets_per_second"), ".3g"),
        number(row.get("ms_per_jet"), ".3g"),
        number(row.get("evaluations"), ".0f"),
        " / ".join(number(row[f"energy_{channel}"], ".3g") for channel in CHANNELS),
        " / ".join(number(row[f"occupancy_{channel}"], ".3g") for channel in CHANNELS),
        with_baseline(row, "mean_w1"),
        number(row.get("fpd_over_baseline"), ".3g"),
        with_baseline(row, "auc_observables"),
        with_error(row, "memorisation"),
        number(row["ssim"], ".3f"),
        number(row["psnr"], ".1f"),
        str(row["size"]),
    ]


def number(value: float | None, form: str) -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None or math.isnan(value) else format(value, form)


def with_error(row: dict[str, Any], name: str) -> str:
    """Value and error."""
    if row.get(name) is None:
        return "-"
    return f"{row[name]:.3g} ± {row[f'{name}_error']:.1g}"


def with_baseline(row: dict[str, Any], name: str) -> str:
    """Value, error and baseline."""
    if row.get(name) is None:
        return "-"
    return f"{with_error(row, name)} ({row[f'{name}_baseline']:.2g})"


def winners(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Who wins among two or more judged on as many of the same images; by SSIM too, where controls take part.

    Controls are the rows without parameters.
    """
    lines = []
    for grid, size in dict.fromkeys((row["reduction"], row["size"]) for row in rows):
        group = [row for row in rows if (row["reduction"], row["size"]) == (grid, size)]
        competing = [row for row in group if row.get("parameters") and row.get("mean_w1") is not None]
        if len(competing) < 2:
            continue
        best = {
            label: min(competing, key=lambda row, key=key: row.get(key) or math.inf)["name"]  # type: ignore[misc]
            for label, key in (("FPD", "fpd_over_baseline"), ("mean W1", "mean_w1"), ("AUC", "auc_observables"))
            if any(row.get(key) is not None for row in competing)
        }
        names = dict.fromkeys(best.values())
        by = "; ".join(f"{name} ({', '.join(k for k, v in best.items() if v == name)})" for name in names)
        where = f"images of {grid}" if grid else "full-resolution images"
        line = f"Best on {size} {where}: {by}."
        if any(not row.get("parameters") for row in group):
            line += f" By SSIM it would be: {max(group, key=lambda row: row['ssim'])['name']}."
        lines.append(line)
    return lines


def page(cells: Sequence[Sequence[str]], verdict: Sequence[str]) -> str:
    """The table as one HTML page, the panel beside it."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in HEADER)
    body = "\n".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in cells)
    style = "body{font-family:sans-serif;margin:2em}td,th{border:1px solid #ccc;padding:.3em .5em;font-size:.85em}"
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in [*verdict, CAPTION])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Comparison of generators</title><style>{style}'
        f"table{{border-collapse:collapse}}img{{max-width:100%}}</style><h1>Comparison of generators of jets</h1>"
        f'{lines}<table><tr>{head}</tr>\n{body}</table><img src="compare.png" alt="jets of each row"></html>\n'
    )


def panel(candidates: Sequence[Candidate], real: JetSample) -> Figure:
    """A row of jets for each candidate but excerpts, all channels summed, real ones on top, on one colour scale."""
    rows: dict[str, np.ndarray] = {"real": real.energies(slice(0, PANEL_JETS))}
    for candidate in candidates:
        if candidate.excerpt:
            continue
        jets = candidate.jets.take(np.arange(min(PANEL_JETS, len(candidate.jets))))
        reducer = candidate.reducer
        if reducer is not None and f"real, {reducer.representation.grid[0]}" not in rows:
            rows[f"real, {reducer.representation.grid[0]}"] = reduced_once(real, reducer).energies(slice(0, PANEL_JETS))
        rows[candidate.name] = (reduce_sample(jets, reducer) if candidate.reduce_jets else jets).energies()
    figure = Figure(figsize=(1.9 * PANEL_JETS + 3, 1.9 * len(rows)), layout="constrained", dpi=90)
    axes = figure.subplots(len(rows), PANEL_JETS, squeeze=False)
    for line, (name, energies) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for axis in line:
            axis.set(xticks=[], yticks=[], facecolor=BACKGROUND)
        for axis, image in zip(line, energies.sum(axis=1) * GEV_PER_UNIT, strict=False):
            masked = np.ma.masked_less_equal(enlarge_hits(image), 0)
            norm = LogNorm(*ENERGY_RANGE_GEV)
            shown = axis.imshow(masked, norm=norm, cmap=jet_colours(), origin="lower", interpolation="nearest")
    figure.colorbar(shown, ax=axes, shrink=0.3, label="energy per crystal, all channels [GeV]", extend="both")
    return figure
