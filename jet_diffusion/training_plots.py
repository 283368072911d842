"""Pictures of a training run: how the loss fell and how sampled energy and occupancy came to agree."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from jet_diffusion.schema import CHANNEL_LABELS, CHANNELS

COLOURS = ("#0072b2", "#e69f00", "#009e73")


def plot_history(metrics: list[dict[str, Any]]) -> Figure:
    """Loss against jets seen and, where jets were sampled, generated over real energy and occupancy.

    Args:
        metrics: Lines of a run's metrics.jsonl.
    """
    samples = [line for line in metrics if line["kind"] == "sample"]
    panels = 3 if samples else 1
    figure = Figure(figsize=(5.2 * panels, 3.8), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
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
    """Loss as a share of the marginal denoiser's where there is one, else the plain loss."""
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
