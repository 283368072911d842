"""Compare simulated files of different seeds with each other, and parts of one file with each other.

    python -m benchmarks.studies.seeds FILE.hdf5 FILE.hdf5 ... [--size 10000]

Cuts each file into parts of `--size` jets, without the rest, and compares all pairs of parts: differences of two means
in standard errors, FPD, and the AUC of a classifier on observables. If all jets are independent, the differences have
a root mean square of 1, for parts of one file and of two.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np

from jet_diffusion.data.load import load_jets
from jet_diffusion.metrics.headline import HEADLINE
from jet_diffusion.observables.hits import Array
from jet_diffusion.observables.table import OBSERVABLES

MEANS = ("hits_tracks", "image_mass")
DISTANCES = ("fpd", "auc_observables")


def pull(first: Array, second: Array) -> float:
    """Difference of the means of (N,) and (M,) independent values, in standard errors."""
    error = np.sqrt(first.var() / len(first) + second.var() / len(second))
    return float((first.mean() - second.mean()) / error)


def compare(first: Array, second: Array, rng: np.random.Generator) -> list[float]:
    """Compute the pulls of `MEANS` and the `DISTANCES` between observables (N, K) of two parts."""
    columns = [list(OBSERVABLES).index(name) for name in MEANS]
    pulls = [pull(first[:, column], second[:, column]) for column in columns]
    return pulls + [HEADLINE[name].compute(first, second, rng) for name in DISTANCES]


def summary(rows: list[list[float]]) -> list[str]:
    """Format root mean squares of the pulls, means and standard deviations of the distances."""
    pulls, distances = np.split(np.array(rows), [len(MEANS)], axis=1)
    cells = [f"{value:.2f}" for value in np.sqrt((pulls**2).mean(axis=0))]
    means, spreads = distances.mean(axis=0), distances.std(axis=0)
    return cells + [f"{mean:.4f} ± {spread:.4f}" for mean, spread in zip(means, spreads, strict=True)]


def main() -> None:
    """Print one row for each pair, then what pairs of one file and of two files have on average."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--size", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    parts = []
    for file in arguments.files:
        observables = load_jets(file, None, rng, progress=True).observables
        for number in range(len(observables) // arguments.size):
            part = observables[number * arguments.size :][: arguments.size]
            parts.append((file, f"{Path(file).stem} {number}", part))
    found: dict[str, list[list[float]]] = {"one file": [], "two files": []}
    print(f"{'parts':<28}" + "".join(f"{name:>18}" for name in (*MEANS, *DISTANCES)))
    for (file, name, first), (other, second_name, second) in combinations(parts, 2):
        row = compare(first, second, rng)
        found["one file" if file == other else "two files"].append(row)
        print(f"{f'{name}, {second_name}':<28}" + "".join(f"{value:>18.4f}" for value in row), flush=True)
    for kind, rows in found.items():
        if rows:
            print(f"{f'{kind}, {len(rows)} pairs':<28}" + "".join(f"{cell:>18}" for cell in summary(rows)))


if __name__ == "__main__":
    main()
