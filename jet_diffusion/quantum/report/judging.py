"""Judge jets of 16x16 cells by the observables of the main evaluation and by measures of quantum states.

The cells' energies are put on the crystals at their centres, so that `jet_diffusion.observables.table` can be
computed of them. Results at this resolution must not be mixed with those of full images.
"""

from __future__ import annotations

import numpy as np
import torch

from jet_diffusion.metrics.distances import wasserstein
from jet_diffusion.observables.hits import Array
from jet_diffusion.observables.table import compute_observables
from jet_diffusion.schema import ECAL, IMAGE_SHAPE

OBSERVABLES = (
    "width", "leading_ecal", "ptd", "centroid_eta", "centroid_phi", "major_axis", "minor_axis",
    "ring_0", "ring_1", "ring_2", "ring_3", "ring_4", "tau1", "tau2", "tau3", "tau21", "tau32",
    "flow_path1", "flow_path2", "flow_path3", "flow_cycle2", "flow_cycle3",
)  # fmt: skip
"""Rows of `OBSERVABLES` (jet_diffusion.observables.table) that mean something of cells; `leading_ecal` is the leading
cell."""

BATCH = 256


def cell_features(cells: Array) -> dict[str, Array]:
    """Observables of jets (N, g, g), any unit, whose energies are scaled to 100 GeV: name -> (N,).

    Beside `OBSERVABLES`, `n_eff` is the effective number of cells, 1 / sum z^2 (jets that hold all in one have 1).
    """
    parts = [compute_observables(on_crystals(cells[i : i + BATCH]), OBSERVABLES) for i in range(0, len(cells), BATCH)]
    features = {name: np.concatenate([part[name] for part in parts]) for name in OBSERVABLES}
    features["n_eff"] = features["ptd"] ** -2.0
    return features


def on_crystals(cells: Array) -> Array:
    """Cells (N, g, g) as energies (N, 3, 125, 125), all in ECAL, each on the crystal at its centre; total 100 GeV."""
    grid = cells.shape[-1]
    size = 128 // grid
    centres = np.minimum(np.arange(grid) * size + size // 2, IMAGE_SHAPE[-1] - 1)
    energies = np.zeros((len(cells), *IMAGE_SHAPE), dtype=np.float32)
    fractions = cells / cells.sum((1, 2), keepdims=True)
    energies[:, ECAL, centres[:, None], centres[None, :]] = fractions
    return energies


def fidelity_mmd(real: Array, generated: Array) -> float:
    """Unbiased squared maximum mean discrepancy with the fidelity kernel |<psi|psi'>|^2 of psi = sqrt(fractions).

    Args:
        real, generated: (N, ...) and (M, ...) energies of cells.
    """
    first, second = amplitudes(real), amplitudes(generated)

    def within(sample: torch.Tensor) -> float:
        kernel = (sample @ sample.T).square()
        return float((kernel.sum() - kernel.diagonal().sum()) / (len(sample) * (len(sample) - 1)))

    return within(first) + within(second) - 2 * float((first @ second.T).square().mean())


def amplitudes(cells: Array) -> torch.Tensor:
    """(N, d) double: roots of the cells' shares of a jet's energy."""
    flat = torch.from_numpy(np.asarray(cells, dtype=np.float64)).flatten(1)
    return (flat / flat.sum(1, keepdim=True)).sqrt()


def profile_distance(real: Array, generated: Array) -> float:
    """W1 between the mean energy profiles along eta and along phi, their mean, in cells."""
    means = [(cells / cells.sum((1, 2), keepdims=True)).mean(0) for cells in (real, generated)]
    axes = []
    for axis in (0, 1):
        one, two = (np.cumsum(mean.sum(axis)) for mean in means)
        axes.append(np.abs(one - two).sum())
    return float(np.mean(axes))


def judge(real: Array, generated: Array, real_features: dict[str, Array] | None = None) -> dict[str, float]:
    """All results of generated jets (M, g, g) against real ones (N, g, g).

    Returns:
        `mmd`; `w1_width`, `w1_lead`, `w1_n_eff` and `w1_mean` (over all of `OBSERVABLES`) in standard deviations of
        the real jets; `profile` in cells.
    """
    features = cell_features(real) if real_features is None else real_features
    found = cell_features(generated)
    distance = {
        name: float(wasserstein(values[:, None], found[name][:, None])[0] / values.std())
        for name, values in features.items()
    }
    return {
        "mmd": fidelity_mmd(real, generated),
        "w1_width": distance["width"],
        "w1_lead": distance["leading_ecal"],
        "w1_n_eff": distance["n_eff"],
        "w1_mean": float(np.mean([distance[name] for name in OBSERVABLES])),
        "profile": profile_distance(real, generated),
    }


def class_separation(features: dict[str, Array], labels: Array, name: str = "n_eff") -> float:
    """Mean of gluon jets minus mean of quark jets in one observable, in standard deviations of all jets."""
    values = features[name]
    return float((values[labels == 0].mean() - values[labels == 1].mean()) / values.std())
