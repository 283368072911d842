"""Print the baseline of every headline metric (real jets against other real jets) at several sample sizes.

    python -m benchmarks.studies.baselines JETS.hdf5 [--sizes 1000 5000 10000] [--draws 5]

A file with fewer than twice the jets of a size leaves that size out.
"""

from __future__ import annotations

import argparse

import numpy as np

from jet_diffusion.data.load import load_jets
from jet_diffusion.metrics.bands import wasserstein_bands
from jet_diffusion.metrics.headline import HEADLINE
from jet_diffusion.report.tables import number


def main() -> None:
    """Print one row per metric, one column per size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jets")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 5000, 10_000])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    observables = load_jets(arguments.jets, 2 * max(arguments.sizes), rng, progress=True).observables
    sizes = [size for size in arguments.sizes if 2 * size <= len(observables)]
    print(f"{'metric':<28}" + "".join(f"{size:>22}" for size in sizes))
    for metric in HEADLINE.values():
        cells = []
        for size in sizes:
            values = []
            for _ in range(arguments.draws):
                order = rng.permutation(len(observables))
                pair = observables[order[:size]], observables[order[size : 2 * size]]
                values.append(metric.compute(*pair, rng))
            cells.append(number(float(np.mean(values)), float(np.std(values, ddof=1))))
        print(f"{metric.label:<28}" + "".join(f"{cell:>22}" for cell in cells), flush=True)
    inside, together = [], []
    for size in sizes:
        order = rng.permutation(len(observables))
        pair = observables[order[:size]], observables[order[size : 2 * size]]
        bands = wasserstein_bands(*pair, pair[1], rng)
        inside.append(f"{bands.inside.mean():.3f}")
        together.append("yes" if bands.inside_simultaneous.all() else "no")
    print(f"{'inside own 95 % band':<28}" + "".join(f"{cell:>22}" for cell in inside))
    print(f"{'all inside simultaneous':<28}" + "".join(f"{cell:>22}" for cell in together))


if __name__ == "__main__":
    main()
