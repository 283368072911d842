"""Print how clearly each headline metric sees each control (a plainly wrong sample).

    python -m benchmarks.studies.admissibility [JETS.hdf5] [--size 512]

Cells are the excess over the baseline (real against real) in standard errors; below 3 a metric would be fooled. The
column "independent" holds a third real sample and should stay within 3. The default jets are the bundled sample.
"""

from __future__ import annotations

import argparse

import numpy as np

from jet_diffusion.data.bundled import sample_path
from jet_diffusion.data.load import load_jets
from jet_diffusion.metrics.estimates import estimate
from jet_diffusion.metrics.headline import HEADLINE
from jet_diffusion.metrics.perturbations import CONTROLS


def main() -> None:
    """Print one row per metric, one column per control."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jets", nargs="?", default=str(sample_path()))
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    jets = load_jets(arguments.jets, 6 * arguments.size, rng, progress=True)
    real, other = jets.split([len(jets) // 2, len(jets) // 2], rng)
    pairs = {"independent": (real, other)}
    pairs |= {name: (real, control(other, rng)) for name, control in CONTROLS.items()}
    pairs["wrong class"] = jets.of_class(0), CONTROLS["wrong class"](jets, rng).of_class(0)
    print(f"{'metric':<28}" + "".join(f"{name:>16}" for name in pairs))
    for metric in HEADLINE.values():
        cells = []
        for first, second in pairs.values():
            size = min(arguments.size, len(first) // 2, len(second))
            draws = 5 if metric.name.startswith("auc") else 10
            found = estimate(metric.compute, first.observables, second.observables, rng, size=size, draws=draws)
            cells.append(f"{found.significance:.1f}")
        print(f"{metric.label:<28}" + "".join(f"{cell:>16}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
