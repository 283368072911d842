"""Quantum models and their controls in one table: `jet-diffusion quantum-report DATA --out FOLDER`.

Every trained row is a run of the ordinary trainer, FOLDER/runs/ROW-SEED, with the same number of iterations. Finished
runs and rows are kept: the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState
from tqdm import tqdm

from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.hub import load_folder, load_pipeline
from jet_diffusion.io import write_text_atomically
from jet_diffusion.observables.hits import Array
from jet_diffusion.quantum.controls import MADE_WITHOUT_MODEL, WienerFilter
from jet_diffusion.quantum.encoding import JetAmplitudeEncoder
from jet_diffusion.quantum.judging import cell_features, class_separation, judge
from jet_diffusion.quantum.quddpm_report import quddpm_tables
from jet_diffusion.quantum.readout import denoising, readout_costs, starts
from jet_diffusion.quantum.report_pages import write_pages
from jet_diffusion.runs import RunFolder, versions
from jet_diffusion.training.quantum_settings import QuantumSettings
from jet_diffusion.training.settings import (
    NoiseSettings,
    OptimizerSettings,
    RepresentationSettings,
    SamplingSettings,
    TrainSettings,
    UNetSettings,
)
from jet_diffusion.training.train import train

STEPS = 50
FLOORS = "floor"


@dataclass(frozen=True)
class Row:
    """A trained model of the table.

    Attributes:
        label: What it is called.
        network: As in `UNetSettings`.
        learning_rate: Peak.
        quantum: As in `QuantumSettings`.
    """

    label: str
    network: str
    learning_rate: float = 3e-3
    quantum: dict[str, Any] = field(default_factory=dict)


def hybrid(bottleneck: str, **quantum: Any) -> dict[str, Any]:
    """Quantum settings of a hybrid UNet."""
    return {"layout": "image", "bottleneck": bottleneck, **quantum}


TRAINED = {
    "filter": Row("A: quantum filter", "quantum_filter", 1e-2),
    "filter_layers": Row("A with 4 entangling layers", "quantum_filter", 1e-2, {"layers": 4}),
    "filter_joint": Row("A, channels jointly (10 qubits)", "quantum_filter", 1e-2, {"channels": "joint"}),
    "cnn": Row("classical CNN of A's size", "quantum_cnn", 1e-2, {"layout": "image"}),
    "pqc": Row("B: circuit", "quantum_hybrid", quantum=hybrid("pqc")),
    "frozen": Row("B: frozen random circuit", "quantum_hybrid", quantum=hybrid("pqc_frozen")),
    "conv": Row("B: convolution", "quantum_hybrid", quantum=hybrid("conv")),
    "none": Row("B: no bottleneck", "quantum_hybrid", quantum=hybrid("none")),
    "pqc_skip": Row("B with skips: circuit", "quantum_hybrid", quantum=hybrid("pqc", skip=True)),
    "none_skip": Row("B with skips: no bottleneck", "quantum_hybrid", quantum=hybrid("none", skip=True)),
    "classical": Row("B: circuit, classical noise re-encoded", "quantum_hybrid",
                     quantum=hybrid("pqc", unravelling="classical")),
}  # fmt: skip
"""Name -> row; every one of them is trained, for every seed."""

LABELS = {
    "noise": "Haar noise",
    "mean": "mean image repeated",
    "shuffle": "cells shuffled between jets",
    "wiener_diagonal": "Wiener filter, diagonal (classical)",
    "wiener_full": "Wiener filter, full (classical)",
    "filter_untrained": "A untrained: analytic start",
    **{name: row.label for name, row in TRAINED.items()},
}
"""Rows of the table, in order."""


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


def report(
    data: str, out: Path, *, iterations: int, seeds: int, jets: int, quddpm: bool = True, progress: bool = True
) -> dict[str, Any]:
    """Train and judge all rows, and write table, pages and pictures.

    Args:
        data: Folder of a converted dataset with training, validation and test split.
        out: Folder of the report.
        iterations: Optimiser steps of every trained row.
        seeds: How many; they change noise, initial weights and order, not the split.
        jets: Generated for each row and seed.
        quddpm: Whether to run model C as well.
        progress: Whether to show a bar.

    Returns:
        What report.json holds.
    """
    out.mkdir(parents=True, exist_ok=True)
    check_same_report(out, {"data": str(data), "iterations": iterations, "jets": jets})
    test_set = JetDataset.load(data, "test")
    sample = load_jets(test_set, JetDataset.load(data, "train"))
    tasks = [(seed, name) for seed in range(seeds) for name in (FLOORS, *LABELS)]
    for seed, name in (bar := tqdm(tasks, disable=not progress, unit="row")):
        bar.set_description(f"{name}, seed {seed}")
        file = out / "rows" / f"{name}-{seed}.json"
        if not file.is_file():
            file.parent.mkdir(exist_ok=True)
            found = make_row(name, seed, data, out, sample, iterations, jets)
            write_text_atomically(file, json.dumps(found))
    first = load_pipeline(out / "runs" / "filter-0")
    first.set_progress_bar_config(disable=True)
    second = load_pipeline(out / "runs" / "pqc-0")
    second.set_progress_bar_config(disable=True)
    content = {
        "heading": {
            "title": "Quantum diffusion of 16x16 jets and its controls",
            "data": Path(data).name,
            "fingerprint": test_set.fingerprint,
            "simulated": test_set.simulated,
            "iterations": iterations,
            "seeds": seeds,
            "generated": jets,
            "test": len(sample.test),
            "train": len(sample.train),
            "steps": STEPS,
            "versions": versions(),
        },
        "rows": [
            collect(out, name, label, seeds) for name, label in [(FLOORS, "floor: training jets"), *LABELS.items()]
        ],
        "real_separation": class_separation(sample.features, sample.test_labels),
        "readout": readout_costs(first, sample.energies, sample.labels),
        "starts": starts({"A": first, "B": second}, sample.test, sample.features, jets),
        "quddpm": quddpm_tables(out / "rows", sample.train, sample.test, seeds, progress) if quddpm else None,
    }
    write_pages(content, out, sample.test)
    return content


def make_row(name: str, seed: int, data: str, out: Path, sample: Jets, iterations: int, jets: int) -> dict[str, Any]:
    """One row for one seed: figures, and a few jets to look at."""
    rng = np.random.default_rng([seed, 7])
    if name == FLOORS:
        made = sample.train[rng.permutation(len(sample.train))[:jets]]
        return {"figures": judge(sample.test, made, sample.features), "jets": shown(made)}
    if name in MADE_WITHOUT_MODEL:
        made = MADE_WITHOUT_MODEL[name](sample.train, jets, rng)
        figures = judge(sample.test, made, sample.features)
        if name == "noise":
            pipeline = load_folder(run_of("filter", seed, data, out, iterations).initial)
            figures.update(denoising(pipeline, sample.energies, sample.labels, seed, network=False))
        return {"figures": figures, "jets": shown(made), "parameters": 0}
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
    pipeline.set_progress_bar_config(disable=True)
    output = pipeline(
        jets, num_inference_steps=STEPS, generator=torch.Generator().manual_seed(seed), batch_size=250, output_type="pt"
    )
    made = pipeline.to_cells(output.images).sum(1).numpy()
    figures = judge(sample.test, made, sample.features)
    figures.update(denoising(pipeline, sample.energies, sample.labels, seed))
    figures["separation"] = class_separation(cell_features(made), output.labels)
    figures["energy_ratio"] = float(made.sum() / len(made) / (sample.test.sum() / len(sample.test)))
    return {"figures": figures, "jets": shown(made), "parameters": parameters, "seconds": seconds_of(run, name)}


def run_of(name: str, seed: int, data: str, out: Path, iterations: int) -> RunFolder:
    """The finished run of a row, trained by the ordinary trainer if it is not there yet."""
    settings = settings_of(name, seed, data, out, iterations)
    run = RunFolder(settings.run_dir)
    if run.begun and iterations in run.checkpoint_steps():
        return run
    AcceleratorState._reset_state(reset_partial_state=True)
    return train(settings)


def settings_of(name: str, seed: int, data: str, out: Path, iterations: int) -> TrainSettings:
    """The trainer's settings of a row; those of configs/quantum-*.yaml but for the row's own."""
    row = TRAINED[name]
    return TrainSettings(
        data=str(data),
        run_dir=str(out / "runs" / f"{name}-{seed}"),
        max_steps=iterations,
        batch_size=64,
        learning_rate=row.learning_rate,
        warmup_steps=20,
        ema_decay=0.99,
        precision="no",
        seed=seed,
        num_workers=0,
        checkpoint_every=iterations,
        validate_every=iterations,
        sample_jets=2,
        log_every=max(1, iterations // 20),
        trackers=[],
        cpu=True,
        unet=UNetSettings(network=row.network),  # type: ignore[arg-type]
        representation=RepresentationSettings(name="JetAmplitudeEncoder"),
        noise=NoiseSettings(beta_schedule="squaredcos_cap_v2"),
        sampling=SamplingSettings(scheduler="quantum", steps=STEPS),
        optimizer=OptimizerSettings(loss="infidelity"),
        quantum=QuantumSettings(**row.quantum),
    )


def seconds_of(run: RunFolder, name: str) -> float | None:
    """Training time by the run's own clock."""
    lines = run.read_metrics("train")
    if name not in TRAINED or not lines or not lines[-1]["jets_per_second"]:
        return None
    return float(lines[-1]["jets"] / lines[-1]["jets_per_second"])


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


def collect(out: Path, name: str, label: str, seeds: int) -> dict[str, Any]:
    """A row over its seeds: each figure's mean and spread (standard deviation), and all values."""
    found = [json.loads((out / "rows" / f"{name}-{seed}.json").read_text()) for seed in range(seeds)]
    figures = {}
    for key in found[0]["figures"]:
        values = [one["figures"][key] for one in found]
        spread = float(np.std(values, ddof=1)) if seeds > 1 else None
        figures[key] = {"mean": float(np.mean(values)), "spread": spread, "values": values}
    return {
        "name": name,
        "label": label,
        "parameters": found[0].get("parameters"),
        "seconds": [one.get("seconds") for one in found],
        "figures": figures,
        "jets": found[0]["jets"],
    }


def check_same_report(out: Path, asked: dict[str, Any]) -> None:
    """Refuse to mix rows of other settings into a report.

    Raises:
        ValueError: Naming what differs.
    """
    file = out / "settings.json"
    if file.is_file() and (found := json.loads(file.read_text())) != asked:
        raise ValueError(f"{out} holds a report with {found}; give the same, or another --out than for {asked}")
    write_text_atomically(file, json.dumps(asked) + "\n")


def main(argv: list[str] | None = None) -> None:
    """Make the report as the command line says."""
    parser = argparse.ArgumentParser(prog="jet-diffusion quantum-report", description=__doc__)
    parser.add_argument("data", help="folder made by `jet-diffusion convert`")
    parser.add_argument("--out", type=Path, required=True, help="folder of the report, its runs and pictures")
    parser.add_argument("--iterations", type=int, default=800, help="optimiser steps of every trained row")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--num-jets", type=int, default=1000, help="jets generated for each row and seed")
    parser.add_argument("--no-quddpm", action="store_true", help="leave out model C, which takes minutes of its own")
    arguments = parser.parse_args(argv)
    if arguments.seeds < 1 or arguments.iterations < 1 or arguments.num_jets < 2:
        raise ValueError("--seeds and --iterations must be at least 1, --num-jets at least 2")
    report(
        arguments.data,
        arguments.out,
        iterations=arguments.iterations,
        seeds=arguments.seeds,
        jets=arguments.num_jets,
        quddpm=not arguments.no_quddpm,
    )
    sys.stdout.write(f"report: {arguments.out / 'report.md'}\n")
