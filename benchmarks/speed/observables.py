"""Jets per second of the whole table of observables, beside the same work on dense images.

    python -m benchmarks.speed.observables [--jets 2000] [--rounds 3]

The peer computes with numpy on whole images what needs no clustering: energies, hits, widths, pTD, leading
crystals, rings and centroids, about half of the table's rows. Both run in this process, in turns; the ratio of the CPU
times is what to look at, for the machine may be busy.
"""

from __future__ import annotations

import argparse
import time
from itertools import pairwise

import numpy as np

from jet_diffusion.data.bundled import sample_path
from jet_diffusion.data.hdf5 import QuarkGluonFile
from jet_diffusion.observables.hits import CRYSTAL_CENTRES
from jet_diffusion.observables.substructure import RING_EDGES
from jet_diffusion.observables.table import BATCH_SIZE, OBSERVABLES, compute_observables
from jet_diffusion.schema import GEV_PER_UNIT

ETA, PHI = np.meshgrid(CRYSTAL_CENTRES, CRYSTAL_CENTRES, indexing="ij")
RADIUS = np.hypot(ETA, PHI)


def dense_observables(energies: np.ndarray) -> np.ndarray:
    """The straightforward way, batch by batch: (N, 24)."""
    rows = []
    for start in range(0, len(energies), BATCH_SIZE):
        images = energies[start : start + BATCH_SIZE] * np.float32(GEV_PER_UNIT)
        totals = images.sum(axis=(2, 3))
        image = images.sum(axis=1)
        total = image.sum(axis=(1, 2))
        weights = image / total[:, None, None]
        eta, phi = ((weights * place).sum(axis=(1, 2)) for place in (ETA, PHI))
        distance = np.hypot(ETA - eta[:, None, None], PHI - phi[:, None, None])
        edges = (0, *RING_EDGES, np.inf)
        rings = [(weights * ((low <= RADIUS) & (high > RADIUS))).sum(axis=(1, 2)) for low, high in pairwise(edges)]
        columns = [
            total,
            *totals.T,
            *np.count_nonzero(images, axis=(2, 3)).T,
            *(images.max(axis=(2, 3)) / totals).T,
            *(np.sqrt((images**2).sum(axis=(2, 3))) / totals).T,
            *((images * distance[:, None]).sum(axis=(2, 3)) / totals).T,
            (weights * distance).sum(axis=(1, 2)),
            eta,
            phi,
            *rings,
        ]
        rows.append(np.stack(columns, axis=1))
    return np.concatenate(rows)


def main() -> None:
    """Time both and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jets", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with QuarkGluonFile(sample_path()) as file:
        energies = np.ascontiguousarray(file.energies(0, min(arguments.jets, file.num_jets)))
    ways = {"table": compute_observables, "dense": dense_observables}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, function in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            function(energies)
            seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    best = {name: np.min(found, axis=0) for name, found in seconds.items()}
    for name, (wall, cpu) in best.items():
        print(f"{name:<6} {len(energies) / wall:8.0f} jets/s wall   {len(energies) / cpu:8.0f} jets/s CPU")
    columns = dense_observables(energies[:1]).shape[1]
    ratio = best["dense"][1] / best["table"][1]
    print(f"ratio  {ratio:8.1f} for {len(OBSERVABLES)} observables against {columns}")
    print(f"       {ratio * len(OBSERVABLES) / columns:8.1f} per observable")


if __name__ == "__main__":
    main()
