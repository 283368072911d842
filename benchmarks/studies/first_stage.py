"""Judge a learned first stage: its draws of class, pT, mass and ring sums against those of held-out jets.

    python -m benchmarks.studies.first_stage DATA REAL.hdf5 [--size 6000] [--seed 0] [--ring-edges 0.1 0.2 0.4 0.7]

The first stage is trained on the training split of DATA. The table has the AUC of boosted trees that tell draws from
held-out jets (.5 is perfect), the same for other training jets in their place, mean W1 in central widths, and the
memorisation ratio: distance to the nearest training jet over that to the nearest of as many held-out jets.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.data.hdf5 import QuarkGluonFile
from jet_diffusion.metrics.distances import Whitening, central_width, wasserstein
from jet_diffusion.metrics.neighbours import nearest_neighbours
from jet_diffusion.observables.hits import Array
from jet_diffusion.pipelines.first_stage import Conditions
from jet_diffusion.pipelines.random_numbers import RandomNumbers
from jet_diffusion.pipelines.tower_representations import TowerPatches
from jet_diffusion.training.build import energy_batches
from jet_diffusion.training.first_stage import fit_first_stage
from jet_diffusion.training.fit import fit_representation

SEEDS = 3


def main() -> None:
    """Train a first stage and print how its draws compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("real")
    parser.add_argument("--size", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ring-edges", type=float, nargs="*", default=[0.1, 0.2, 0.4, 0.7])
    options = parser.parse_args()
    training = JetDataset.load(options.data, "train")
    representation = fit_representation(
        TowerPatches, energy_batches(training, 2000), ring_edges=tuple(options.ring_edges)
    )
    seen = conditions(training, representation)
    with QuarkGluonFile(options.real) as file:
        held_out = conditions(file, representation, stop=2 * options.size)
    begun = time.process_time()
    stage = fit_first_stage(seen, options.seed, progress=True)
    trained = time.process_time() - begun
    begun = time.process_time()
    drawn = stage.draw(RandomNumbers.of_seed(options.seed, 0, options.size))
    print(f"trained in {trained:.0f} s of CPU; {1e3 * (time.process_time() - begun) / options.size:.2f} ms a draw")
    with torch.no_grad():
        loss = stage.negative_log_likelihood(held_out).sum(1).mean().item()
    print(f"negative log-likelihood of held-out jets {loss:.3f} nats")
    judge(*(columns(part) for part in (seen, held_out, drawn)), size=options.size)


def conditions(
    jets: JetDataset | QuarkGluonFile, representation: TowerPatches, stop: int | None = None, batch: int = 256
) -> Conditions:
    """Class, pT, mass and ring sums of jets, or the first `stop` of them."""
    count = len(jets.labels) if stop is None else min(stop, len(jets.labels))
    parts = []
    for first in range(0, count, batch):
        rows = slice(first, min(first + batch, count))
        energies = jets.energies(rows) if isinstance(jets, JetDataset) else jets.energies(rows.start, rows.stop)
        parts.append(representation.ring_sums(torch.from_numpy(np.ascontiguousarray(energies))))
    labels, pt, m0 = (torch.as_tensor(np.array(column[:count])) for column in (jets.labels, jets.pt, jets.m0))
    return Conditions(labels.long(), pt.float(), m0.float(), torch.cat(parts))


def columns(jets: Conditions) -> Array:
    """(N, 3 + 2 rings) the numbers of jets."""
    return torch.cat([torch.stack([jets.labels.float(), jets.pt, jets.m0], 1), jets.ring_sums], 1).double().numpy()


def judge(seen: Array, held_out: Array, drawn: Array, size: int) -> None:
    """Print the table."""
    rng = np.random.default_rng(0)
    real, other = held_out[:size], held_out[size:]
    train = seen[rng.permutation(len(seen))[: min(size, len(seen))]]
    rings = (seen.shape[1] - 3) // 2
    for name, part in (("all", slice(None)), ("hit counts", slice(3, 3 + rings)), ("energies", slice(3 + rings, None))):
        found = [auc(real[:, part], jets[:, part]) for jets in (drawn, train, other)]
        cells = "   ".join(f"{mean:.3f} +- {error:.3f}" for mean, error in found)
        print(f"AUC, {name:<12} draws, training jets, other held-out jets:   {cells}")
    width = central_width(real)
    for name, jets in (("draws", drawn), ("training jets", train), ("other held-out jets", other)):
        print(f"mean W1 in central widths, {name:<20}{np.mean(wasserstein(real, jets)[1:] / width[1:]):.4f}")
    whitening = Whitening.fit(np.log1p(real))
    near = {}
    for name, jets in (("draws", drawn), ("other held-out jets", other)):
        points = whitening(np.log1p(jets))
        to_seen = nearest_neighbours(points, whitening(np.log1p(train)), 1)[0]
        to_real = nearest_neighbours(points, whitening(np.log1p(real[: len(train)])), 1)[0]
        near[name] = float(np.mean(to_seen) / np.mean(to_real))
    print("memorisation ratio, " + ", ".join(f"{name} {ratio:.3f}" for name, ratio in near.items()))


def auc(real: Array, other: Array) -> tuple[float, float]:
    """AUC of boosted trees, trained on two thirds and tested on the rest: mean and spread over seeds."""
    features = np.concatenate([real, other])
    labels = np.repeat([0, 1], [len(real), len(other)])
    found = []
    for seed in range(SEEDS):
        order = np.random.default_rng(seed).permutation(len(features))
        train, test = np.split(order, [2 * len(order) // 3])
        trees = HistGradientBoostingClassifier(learning_rate=0.05, max_iter=200, early_stopping=True, random_state=seed)
        trees.fit(features[train], labels[train])
        found.append(roc_auc_score(labels[test], trees.predict_proba(features[test])[:, 1]))
    return float(np.mean(found)), float(np.std(found, ddof=1))


if __name__ == "__main__":
    main()
