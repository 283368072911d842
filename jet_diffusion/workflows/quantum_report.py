"""Quantum models and their controls in one table: what `jet-diffusion quantum-report` makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.errors import UserError
from jet_diffusion.hub import load_pipeline
from jet_diffusion.io import write_text_atomically
from jet_diffusion.quantum.report.judging import class_separation
from jet_diffusion.quantum.report.pages import write_pages
from jet_diffusion.quantum.report.quddpm import quddpm_tables
from jet_diffusion.quantum.report.readout import readout_costs, starts
from jet_diffusion.runs import versions
from jet_diffusion.workflows.quantum_judging import BASELINE, Jets, load_jets, make_row
from jet_diffusion.workflows.quantum_rows import STEPS, TRAINED

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
    make_rows(data, out, sample, iterations=iterations, seeds=seeds, jets=jets, progress=progress)
    first, second = (load_pipeline(out / "runs" / name) for name in ("filter-0", "pqc-0"))
    for pipeline in (first, second):
        pipeline.set_progress_bar_config(disable=True)
    rows = [(BASELINE, "baseline: training jets"), *LABELS.items()]
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
        "rows": [collect(out, name, label, seeds) for name, label in rows],
        "real_separation": class_separation(sample.features, sample.test_labels),
        "readout": readout_costs(first, sample.energies, sample.labels),
        "starts": starts({"A": first, "B": second}, sample.test, sample.features, jets),
        "quddpm": quddpm_tables(out / "rows", sample.train, sample.test, seeds, progress) if quddpm else None,
    }
    write_pages(content, out, sample.test)
    return content


def make_rows(
    data: str, out: Path, sample: Jets, *, iterations: int, seeds: int, jets: int, progress: bool = True
) -> None:
    """Train and judge the rows that are not there yet, each into a file of its own."""
    tasks = [(seed, name) for seed in range(seeds) for name in (BASELINE, *LABELS)]
    for seed, name in (bar := tqdm(tasks, disable=not progress, unit="row")):
        bar.set_description(f"{name}, seed {seed}")
        file = out / "rows" / f"{name}-{seed}.json"
        if not file.is_file():
            file.parent.mkdir(exist_ok=True)
            found = make_row(name, seed, data, out, sample, iterations, jets)
            write_text_atomically(file, json.dumps(found))


def collect(out: Path, name: str, label: str, seeds: int) -> dict[str, Any]:
    """A row over its seeds: mean and spread (standard deviation) of each result, and all values."""
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
        UserError: Naming what differs.
    """
    file = out / "settings.json"
    if file.is_file() and (found := json.loads(file.read_text())) != asked:
        raise UserError(f"{out} holds a report with {found}; give the same, or another --out than for {asked}")
    write_text_atomically(file, json.dumps(asked) + "\n")
