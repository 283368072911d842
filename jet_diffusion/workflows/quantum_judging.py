"""Each row of the quantum report for one seed: generate jets and judge them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.hub import load_folder, load_pipeline
from jet_diffusion.observables.hits import Array
from jet_diffusion.quantum.controls import MADE_WITHOUT_MODEL, WienerFilter
from jet_diffusion.quantum.encoding import JetAmplitudeEncoder
from jet_diffusion.quantum.report.judging import cell_features, class_separation, judge
from jet_diffusion.quantum.report.readout import denoising
from jet_diffusion.sampling.batches import sample_jets
from jet_diffusion.workflows.quantum_rows import STEPS, TRAINED, run_of, seconds_of

BASELINE = "baseline"
"""The row of training jets in place of generated ones."""


@dataclass
class Jets:
    """The jets all rows are judged with.

    Attributes:
        train, test: (N, 16, 16) cells, channels summed, GeV/100.
        test_labels: (N,) classes.
        energies: (n, 3, 125, 125) of the test jets that are denoised.
        labels: Their classes.
        features: Of the test cells.
    """

    train: Array
    test: Array
    test_labels: Array
    energies: torch.Tensor
    labels: torch.Tensor
    features: dict[str, Array]


def make_row(name: str, seed: int, data: str, out: Path, sample: Jets, iterations: int, jets: int) -> dict[str, Any]:
    """One row for one seed: results, and a few jets to look at."""
    rng = np.random.default_rng([seed, 7])
    if name == BASELINE:
        made = sample.train[rng.permutation(len(sample.train))[:jets]]
        return {"figures": judge(sample.test, made, sample.features), "jets": shown(made)}
    if name in MADE_WITHOUT_MODEL:
        made = MADE_WITHOUT_MODEL[name](sample.train, jets, rng)
        figures = judge(sample.test, made, sample.features)
        if name == "noise":
            pipeline = load_folder(run_of("filter", seed, data, out, iterations).initial)
            figures.update(denoising(pipeline, sample.energies, sample.labels, seed, network=False))
        return {"figures": figures, "jets": shown(made), "parameters": 0}
    return trained_row(name, seed, data, out, sample, iterations, jets)


def trained_row(name: str, seed: int, data: str, out: Path, sample: Jets, iterations: int, jets: int) -> dict[str, Any]:
    """The row of a trained model, of a Wiener filter in its place, or of a model before training."""
    base = name if name in TRAINED else "filter"
    run = run_of(base, seed, data, out, iterations)
    pipeline = load_pipeline(run.path) if name in TRAINED else load_folder(run.initial)
    parameters = sum(parameter.numel() for parameter in pipeline.unet.parameters() if parameter.requires_grad)
    if name.startswith("wiener"):
        pipeline.unet = WienerFilter(
            encoded(pipeline.representation, sample.train),
            dict(pipeline.denoiser.config.noise_schedule),
            name == "wiener_diagonal",
        )
        parameters = 0
    made = sample_jets(pipeline, jets, seed=seed, steps=STEPS, batch_size=250)
    cells = pipeline.to_cells(made.energies.movedim(1, -1)).sum(1).numpy()
    figures = judge(sample.test, cells, sample.features)
    figures.update(denoising(pipeline, sample.energies, sample.labels, seed))
    figures["separation"] = class_separation(cell_features(cells), made.labels.numpy())
    figures["energy_ratio"] = float(cells.sum() / len(cells) / (sample.test.sum() / len(sample.test)))
    return {"figures": figures, "jets": shown(cells), "parameters": parameters, "seconds": seconds_of(run, name)}


def load_jets(test: JetDataset, training: JetDataset, denoised: int = 1000) -> Jets:
    """Pool both splits; the first test jets are denoised."""
    encoder = JetAmplitudeEncoder(layout="image")

    def cells(jets: JetDataset) -> Iterator[Array]:
        for start in range(0, len(jets), 256):
            energies = torch.from_numpy(jets.energies(slice(start, min(start + 256, len(jets)))))
            yield encoder.pool(energies).sum(1).numpy()

    pooled = np.concatenate(list(cells(test)))
    count = min(denoised, len(test))
    energies = torch.from_numpy(test.energies(slice(0, count)))
    labels = torch.tensor(test.labels[:count])
    return Jets(np.concatenate(list(cells(training))), pooled, test.labels, energies, labels, cell_features(pooled))


def encoded(encoder: JetAmplitudeEncoder, cells: Array) -> torch.Tensor:
    """(N, 2^n) real amplitudes of cells (N, g, g), in the encoder's order."""
    shares = torch.from_numpy(cells / cells.sum((1, 2), keepdims=True)).float()
    return encoder.arrange(shares).sqrt().flatten(1)


def shown(cells: Array, count: int = 6) -> list[Any]:
    """A few jets as lists, shares of their energy."""
    few = cells[:count] / cells[:count].sum((1, 2), keepdims=True)
    listed: list[Any] = few.round(6).tolist()
    return listed
