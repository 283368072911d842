"""Judge a row of the comparison against real jets that went through the same reduction."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.metrics.estimates import estimate
from jet_diffusion.metrics.headline import HEADLINE
from jet_diffusion.metrics.neighbours import memorisation
from jet_diffusion.metrics.pairs import peak_signal_to_noise, structural_similarity
from jet_diffusion.observables.hits import Array
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.pipelines.random_numbers import RandomNumbers
from jet_diffusion.schema import CHANNELS

PAIRS = 64
"""Jets compared one to one, unpaired as they are."""

LEAST_FOR_AUC = 200
"""Jets a side below which the classifier learns nothing, so that its AUC of .5 would praise the worst generator."""

DISTANCES = ("fpd", "fpd_image", "mean_w1", "mean_w1_image", "auc_observables", "auc_image")


@dataclass(frozen=True)
class Candidate:
    """Jets of one row of the comparison.

    Attributes:
        name: in the table.
        jets: the jets.
        cost: parameters, training_jets, training_seconds, jets_per_second, ms_per_jet, evaluations.
        reducer: whose representation real jets go through before they are compared; None for none.
        reduce_jets: whether the candidate's jets go through it too, being at full resolution.
        excerpt: whether they are some of another candidate's through the same reducer, which a picture shows already.
    """

    name: str
    jets: JetSample
    cost: dict[str, Any]
    reducer: JetImagePipeline | None = None
    reduce_jets: bool = False
    excerpt: bool = False


def reduce_sample(jets: JetSample, pipeline: JetImagePipeline | None) -> JetSample:
    """Encode and decode jets by a model's representation."""
    if pipeline is None:
        return jets
    representation = pipeline.representation
    first = 0

    def through(energies: Array) -> Array:
        nonlocal first
        random, first = RandomNumbers.of_seed(0, first, len(energies)), first + len(energies)
        return np.asarray(representation.decode(representation.encode(torch.from_numpy(energies)), random).numpy())

    return jets.map(through)


class _Reduced:
    """Real jets through each reduction, computed once."""

    def __init__(self, jets: JetSample) -> None:
        self.jets = jets
        self.through = cache(lambda pipeline: reduce_sample(jets, pipeline))


_REDUCED: dict[int, _Reduced] = {}


def reduced_once(jets: JetSample, pipeline: JetImagePipeline | None) -> JetSample:
    """Do as `reduce_sample` and remember the result, which several rows share."""
    return _REDUCED.setdefault(id(jets), _Reduced(jets)).through(pipeline)


def judge(candidate: Candidate, real: JetSample, training: JetSample, *, draws: int, seed: int) -> dict[str, Any]:
    """Compute every metric of a row; those that cannot be computed are left out.

    Args:
        candidate: the row's jets.
        real: held-out jets at full resolution, at least twice as many.
        training: as many training jets, for memorisation.
        draws: draws of each distance.
        seed: of the draws.
    """
    real, training = (reduced_once(jets, candidate.reducer) for jets in (real, training))
    made = reduce_sample(candidate.jets, candidate.reducer) if candidate.reduce_jets else candidate.jets
    size = min(len(made), len(real) // 2)
    reducer = candidate.reducer
    row: dict[str, Any] = {
        "name": candidate.name,
        "size": size,
        "reduction": None if reducer is None else type(reducer.representation).__name__,
        "grid": None if reducer is None else reducer.representation.grid[0],
        **candidate.cost,
    }
    for quantity, name in (("energy", "energy"), ("hits", "occupancy")):
        for channel in CHANNELS:
            means = [sample.observable(f"{quantity}_{channel}").mean() for sample in (made, real)]
            row[f"{name}_{channel}"] = float(means[0] / means[1])
    finite = bool(np.isfinite(made.observables).all())
    for name in DISTANCES if finite else ():
        if name.startswith("auc") and size < LEAST_FOR_AUC:
            continue
        rng = np.random.default_rng(seed)
        found = estimate(HEADLINE[name].compute, real.observables, made.observables, rng, size=size, draws=draws)
        row |= {name: found.value, f"{name}_error": found.error, f"{name}_baseline": found.baseline}
    if finite and row["fpd_baseline"]:
        row["fpd_over_baseline"] = row["fpd"] / row["fpd_baseline"]
    try:
        found_memory = memorisation(made, training, real, "observables", np.random.default_rng(seed))
        row |= {"memorisation": found_memory.ratio, "memorisation_error": found_memory.error}
    except ValueError as error:
        row["memorisation_omitted"] = str(error)
    number = min(PAIRS, size)
    pairs = real.energies(slice(0, number)), made.energies(slice(0, number))
    row |= {"ssim": float(structural_similarity(*pairs).mean()), "psnr": float(peak_signal_to_noise(*pairs).mean())}
    return row
