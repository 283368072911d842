"""Pictures of a training run and of noising and denoising."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray

from jet_diffusion.plotting.jets import BACKGROUND, jet_colours
from jet_diffusion.schema import CHANNEL_LABELS, CHANNELS, GEV_PER_UNIT

STRIP_RANGE_GEV = (1e-5, 1e2)
"""Colour scale of strips: below the smallest real hit lies room for what is no hit yet."""

COLOURS = ("#0072b2", "#e69f00", "#009e73")


def plot_history(metrics: list[dict[str, Any]]) -> Figure:
    """Loss against jets seen and, where jets were sampled, generated over real energy and occupancy.

    Args:
        metrics: Lines of a run's metrics.jsonl.
    """
    samples = [line for line in metrics if line["kind"] == "sample"]
    panels = 3 if samples else 1
    figure = Figure(figsize=(5.2 * panels, 3.8), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False, sharex=True)[0]
    axes[0].xaxis.set_major_formatter(EngFormatter(sep=""))  # 50k
    _draw_loss(axes[0], metrics)
    for axis, quantity in zip(axes[1:], ("energy", "occupancy"), strict=False):
        for channel, label, colour in zip(CHANNELS, CHANNEL_LABELS, COLOURS, strict=True):
            rows = [
                (line["jets"], row)
                for line in samples
                for row in line["table"]
                if (row["quantity"], row["channel"]) == (quantity, channel) and row["real"]
            ]
            axis.errorbar(
                [jets for jets, _ in rows],
                [row["ratio"] for _, row in rows],
                yerr=[row["generated_error"] / row["real"] for _, row in rows],
                marker="o",
                markersize=4,
                capsize=2,
                color=colour,
                label=label,
            )
        axis.axhline(1, color="0.5", linewidth=1)
        axis.set(xlabel="jets seen", ylabel=f"{quantity}, generated / real")
        axis.legend()
    return figure


def _draw_loss(axis: Any, metrics: list[dict[str, Any]]) -> None:
    """Draw the loss, divided by that of the one-pixel denoiser where that is known."""
    key = "loss_ratio" if any("loss_ratio" in line for line in metrics) else "loss"
    for kind, style in (("train", {"color": "0.6", "linewidth": 1}), ("validation", {"color": COLOURS[0]})):
        lines = [line for line in metrics if line["kind"] == kind and key in line]
        axis.plot([line["jets"] for line in lines], [line[key] for line in lines], label=kind, **style)
    if key == "loss_ratio":
        axis.axhline(1, color="0.5", linestyle=":", linewidth=1)
        axis.set(ylabel="loss / loss of the one-pixel denoiser")
    else:
        axis.set(ylabel="loss", yscale="log")
    axis.set(xlabel="jets seen")
    axis.legend()


def plot_strip(energies: NDArray[np.float32], titles: Sequence[str], name: str) -> Figure:
    """One jet at successive noise levels: a row for each channel and one for their sum, a column for each level.

    Args:
        energies: (levels, 3, 125, 125) in GeV/100.
        titles: One a level.
        name: Title of the figure.
    """
    gev = energies.astype(np.float64) * GEV_PER_UNIT
    panels = np.concatenate([gev, gev.sum(1, keepdims=True)], 1)
    levels, rows = len(panels), panels.shape[1]
    figure = Figure(figsize=(1.45 * levels + 1.3, 1.45 * rows + 0.6), dpi=120, layout="constrained")
    axes = figure.subplots(rows, levels, squeeze=False)
    norm, colours = LogNorm(*STRIP_RANGE_GEV), jet_colours()
    for level in range(levels):
        axes[0, level].set_title(titles[level], size=9)
        for row in range(rows):
            image = np.ma.masked_less_equal(panels[level, row], 0)
            shown = axes[row, level].imshow(image, norm=norm, cmap=colours, origin="lower", interpolation="nearest")
            axes[row, level].set(xticks=[], yticks=[], facecolor=BACKGROUND)
            if level == 0:
                axes[row, 0].set_ylabel((*CHANNEL_LABELS, "Combined")[row])
    figure.colorbar(shown, ax=axes, shrink=0.7, pad=0.01, label="energy per crystal [GeV]", extend="both")
    figure.suptitle(name, size=11)
    return figure
