"""Simulated jets per second and core, everything included, against Pythia alone.

    python -m benchmarks.speed.simulation [--num-jets 3000] [--seed 1]

Makes a file of jets in one process, as `jet-diffusion simulate` does, after the machine code is compiled. Then
lets Pythia alone generate as many collisions as those jets took. What counts is CPU time, so that other work on
the machine does not.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from jet_diffusion.simulation import block, generate
from jet_diffusion.simulation.events import GLUON, QUARK, HardScatters
from jet_diffusion.simulation.pileup import PileupPool
from jet_diffusion.simulation.settings import SimulationSettings


def count_collisions(settings: SimulationSettings, folder: Path) -> tuple[float, int]:
    """CPU seconds to make the file, and the hard collisions that took."""
    collisions = 0
    make_batch = block._make_batch

    def counting(
        generator: HardScatters, rng: np.random.Generator, settings: SimulationSettings, pool: PileupPool
    ) -> block.Block:
        nonlocal collisions
        collisions += block.BATCH_EVENTS
        return make_batch(generator, rng, settings, pool)

    block._make_batch = counting
    start = time.process_time()
    generate.simulate(settings, folder / "jets.hdf5", progress=True)
    seconds = time.process_time() - start
    block._make_batch = make_batch
    return seconds, collisions


def pythia_alone(settings: SimulationSettings, collisions: int) -> float:
    """CPU seconds Pythia takes for half the collisions in gluons and half in quarks."""
    start = time.process_time()
    for label in (GLUON, QUARK):
        generator = HardScatters(label, 1, settings)
        for _ in range(collisions // 2):
            generator._pythia.next()
    return time.process_time() - start


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-jets", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    settings = SimulationSettings(arguments.num_jets, arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        warm_up = SimulationSettings(1, arguments.seed)
        generate.simulate(warm_up, Path(folder) / "warm-up.hdf5")
        seconds, collisions = count_collisions(settings, Path(folder))
        size = (Path(folder) / "jets.hdf5").stat().st_size
    alone = pythia_alone(settings, collisions)
    per_jet = size / settings.num_jets
    print(f"jets                     {settings.num_jets} from {collisions} collisions, {per_jet:.0f} B a jet")
    print(f"all of the simulation    {seconds:.1f} s: {settings.num_jets / seconds:.1f} jets/s per core")
    print(f"Pythia alone             {alone:.1f} s: {settings.num_jets / alone:.1f} jets/s per core")
    print(f"ratio                    {seconds / alone:.2f}")


if __name__ == "__main__":
    main()
