"""Fit how distances to real jets fall with the number of training jets seen, and how many jets a target needs.

    python -m benchmarks.studies.jets_seen JUDGED ... [--target fpd=0.0036] [--out jets_seen.png]

JUDGED are files of `benchmarks/studies/judge.py --out`, of training runs, or tables of `benchmarks/studies/ablate.py`
(ablations.json, all of whose rows count). The excess over the baseline (real against real) is fitted by a power of the
jets seen: excess = scale (jets / 10,000)^-power. The fit is least squares of the logarithms with each distance's error,
which is that of the draws of jets. What another training seed would give is in the errors of the fit only as far as
rows scatter about it. A target is an excess over the baseline. That of W1 depends on the number of jets judged, for a
difference adds less to a larger baseline.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.studies.judged import read_judged
from jet_diffusion.observables.hits import Array
from jet_diffusion.plotting.jets import save_figure
from jet_diffusion.plotting.style import LINE_COLOURS, styled

DISTANCES = {"fpd": "FPD", "mean_w1": "mean W1"}
UNIT = 10_000
"""Jets seen at which the scale of the fit is given."""


@dataclass(frozen=True)
class Excess:
    """A distance's excess over its baseline, of several models.

    Attributes:
        jets: (n,) training jets seen.
        value, error: (n,) excess and its standard error, both by draws of jets.
    """

    jets: Array
    value: Array
    error: Array

    @classmethod
    def of(cls, rows: list[dict[str, Any]], name: str) -> Excess:
        """That of rows that were judged alike.

        Raises:
            ValueError: if a row lies at its baseline, where no power of the jets can be fitted, or fewer than three
                numbers of jets were seen.
        """
        jets, value, error = (
            np.array([row[key] for row in rows], float) for key in ("training_jets", name, f"{name}_error")
        )
        value = value - np.array([row[f"{name}_baseline"] for row in rows])
        if (value <= 0).any():
            at = ", ".join(f"{int(count):,}" for count in jets[value <= 0])
            raise ValueError(f"{name} is not above its baseline after {at} jets; judge with more jets")
        if len(set(jets)) < 3:
            raise ValueError(f"a fit needs three numbers of jets seen, got {sorted({int(count) for count in jets})}")
        return cls(jets, value, error)


@dataclass(frozen=True)
class PowerLaw:
    """scale (jets / UNIT)^-power.

    Attributes:
        log_scale, power: the fit.
        covariance: (2, 2) of both.
        chi2_per_freedom: of the fit with the given errors.
    """

    log_scale: float
    power: float
    covariance: Array
    chi2_per_freedom: float

    @classmethod
    def fit(cls, excess: Excess) -> PowerLaw:
        """Weighted least squares of the logarithms."""
        design = np.stack([np.ones(len(excess.jets)), -np.log(excess.jets / UNIT)], 1)
        weight = (excess.value / excess.error)[:, None]
        scaled, log_excess = design * weight, np.log(excess.value) * weight[:, 0]
        covariance = np.linalg.inv(scaled.T @ scaled)
        parameters = covariance @ scaled.T @ log_excess
        chi2 = float(np.square(log_excess - scaled @ parameters).sum() / max(1, len(log_excess) - 2))
        return cls(float(parameters[0]), float(parameters[1]), covariance * max(1.0, chi2), chi2)

    def __str__(self) -> str:
        scale_error, power_error = np.sqrt(np.diag(self.covariance))
        return (
            f"excess {np.exp(self.log_scale):.3g} (within a factor of {np.exp(scale_error):.2f}) at {UNIT:,} jets, "
            f"power {self.power:.2f} ± {power_error:.2f}, chi2 a degree of freedom {self.chi2_per_freedom:.1f}"
        )

    def __call__(self, jets: Array) -> tuple[Array, Array]:
        """The excess after so many jets, and the factor by which one standard error multiplies or divides it."""
        log_jets = np.log(np.asarray(jets) / UNIT)
        along = np.stack([np.ones_like(log_jets), -log_jets])
        variance = np.einsum("i...,ij,j...->...", along, self.covariance, along)
        return np.exp(self.log_scale - self.power * log_jets), np.exp(np.sqrt(variance))

    def jets_for(self, target: float) -> tuple[float, float, float]:
        """Jets after which the excess is the target, and where the fit's band of one standard error reaches it."""
        jets = np.geomspace(UNIT / 100, UNIT * 1e12, 20_001)
        value, factor = self(jets)
        centre, least, most = (
            float(jets[np.argmax(line <= target)]) if (line <= target).any() else np.inf
            for line in (value, value / factor, value * factor)
        )
        return centre, least, most


def read_rows(paths: list[Path]) -> list[dict[str, Any]]:
    """Rows of the files.

    Raises:
        ValueError: if a row does not say how many jets its model has seen, or rows were judged by different numbers of
            jets.
    """
    rows: list[dict[str, Any]] = []
    for path in paths:
        found = read_judged(path)
        found = [found] if "size" in found else list(found.values())
        if any(not row.get(f"{name}_error", 0) > 0 for row in found for name in DISTANCES):
            raise ValueError(f"{path} has no {' or '.join(DISTANCES)} with its error; some of its jets are not finite")
        if any("training_jets" not in row for row in found):
            raise ValueError(
                f"{path} does not say how many jets were seen; judge a training run, not a pipeline folder"
            )
        rows += found
    if len({row["size"] for row in rows}) > 1:
        raise ValueError(f"rows must be judged by the same number of jets, got {sorted({row['size'] for row in rows})}")
    return sorted(rows, key=lambda row: float(row["training_jets"]))


@styled()
def draw(excesses: dict[str, Excess], laws: dict[str, PowerLaw]) -> Figure:
    """Excess against jets seen, with the fits and their bands of one standard error."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot(
        xlabel="training jets seen", ylabel="excess over the baseline", xscale="log", yscale="log"
    )
    for (name, law), colour in zip(laws.items(), LINE_COLOURS, strict=False):
        excess = excesses[name]
        label = f"{DISTANCES[name]}: power {law.power:.2f} ± {law.covariance[1, 1] ** 0.5:.2f}"
        axes.errorbar(excess.jets, excess.value, excess.error, fmt="o", markersize=4, color=colour, label=label)
        jets = np.geomspace(excess.jets.min() / 1.5, excess.jets.max() * 10, 200)
        value, factor = law(jets)
        axes.plot(jets, value, color=colour)
        axes.fill_between(jets, value / factor, value * factor, color=colour, alpha=0.2, linewidth=0)
    axes.legend()
    return figure


def named_excess(text: str) -> tuple[str, float]:
    """NAME=EXCESS of the command line."""
    name, _, excess = text.partition("=")
    if name not in DISTANCES or not float(excess) > 0:
        raise ValueError(text)
    return name, float(excess)


def main(argv: list[str] | None = None) -> None:
    """Fit, print and draw as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("judged", nargs="+", type=Path)
    named = f"an excess over the baseline of {' or '.join(DISTANCES)}"
    parser.add_argument("--target", nargs="+", default=[], type=named_excess, metavar="NAME=EXCESS", help=named)
    parser.add_argument("--out", type=Path, help="picture to draw (png, pdf, svg)")
    options = parser.parse_args(argv)
    targets = dict(options.target)
    rows = read_rows(options.judged)
    excesses = {name: Excess.of(rows, name) for name in DISTANCES}
    laws = {name: PowerLaw.fit(excess) for name, excess in excesses.items()}
    lines = ["| jets seen | " + " | ".join(f"{title} (excess)" for title in DISTANCES.values()) + " |"]
    lines.append("| --- |" + " --- |" * len(DISTANCES))
    for number, row in enumerate(rows):
        cells = [
            f"{row[name]:.3f} ± {excess.error[number]:.3f} ({excess.value[number]:.3f})"
            for name, excess in excesses.items()
        ]
        lines.append(f"| {row['training_jets']:,} | " + " | ".join(cells) + " |")
    for name, law in laws.items():
        lines.append(f"\n{DISTANCES[name]}: {law}")
        if name in targets:
            centre, least, most = law.jets_for(targets[name])
            lines.append(f"excess {targets[name]} after {centre:.2g} jets ({least:.2g} to {most:.2g})")
    sys.stdout.write("\n".join(lines) + "\n")
    if options.out:
        save_figure(draw(excesses, laws), options.out)


if __name__ == "__main__":
    main()
