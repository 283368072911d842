"""Model C in the report: the published toy ensembles beside the authors' numbers, and jets of 4x4 cells."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from jet_diffusion.io import write_text_atomically
from jet_diffusion.observables.hits import Array
from jet_diffusion.quantum.quddpm import (
    QuDDPM,
    QuDDPMSettings,
    cluster,
    diffuse,
    haar,
    judge_ensemble,
    train_quddpm,
)
from jet_diffusion.quantum.report.judging import fidelity_mmd, profile_distance

AUTHORS = {
    "n=1": {"fidelity": 0.993, "mmd": 0.0006},
    "n=2": {"fidelity": 0.944, "mmd": 0.0036},
    "n=2, authors' settings": {"fidelity": 0.944, "mmd": 0.0036},
}
"""Recomputed from the states that the authors publish with their code (arXiv:2310.05866)."""

TOYS = {
    "n=1": (QuDDPMSettings(qubits=1, layers=4), 0.08, 100),
    "n=2": (QuDDPMSettings(first_size=0.5), 0.06, 500),
    "n=2, untrained": (QuDDPMSettings(first_size=0.5, iterations=0), 0.06, 500),
}
"""Name -> settings, scale of the data, training states; run for every seed. n=2 has fewer iterations than published."""

AUTHORS_OWN = (QuDDPMSettings(first_size=0.5, iterations=2000, learning_rate=0.005), 0.06, 100)
"""n=2 as published: data of scale .06, angles from .5 to 4, 2,000 iterations a circuit; one seed, minutes."""

JETS = QuDDPMSettings(qubits=4, ancillas=2, layers=10, batch=200, iterations=200)
TEST = 500


def quddpm_tables(folder: Path, train: Array, test: Array, seeds: int, progress: bool = False) -> dict[str, Any]:
    """All runs of model C; each is kept in `folder` when it is done.

    Args:
        folder: Where finished runs lie.
        train, test: (N, 16, 16) jets.
        seeds: Of the toys.
        progress: Whether to show a bar.
    """
    tasks: list[tuple[str, str, int]] = [("toy", name, seed) for name in TOYS for seed in range(seeds)]
    tasks += [("authors", "n=2, authors' settings", 0), ("jets", "jets of 4x4 cells", 0)]
    rows = []
    for kind, name, seed in tqdm(tasks, disable=not progress, unit="QuDDPM"):
        file = folder / f"quddpm-{kind}-{name.replace(' ', '_').replace(chr(39), '')}-{seed}.json"
        if not file.is_file():
            found = quddpm_jets(train, test) if kind == "jets" else _toy(kind, name, seed)
            write_text_atomically(file, json.dumps({"kind": kind, "name": name, "seed": seed, **found}))
        rows.append(json.loads(file.read_text()))
    return {"rows": rows, "authors": AUTHORS}


def _toy(kind: str, name: str, seed: int) -> dict[str, Any]:
    settings, scale, count = AUTHORS_OWN if kind == "authors" else TOYS[name]
    return toy_run(replace(settings, seed=seed), scale, count)


def toy_run(settings: QuDDPMSettings, scale: float, count: int) -> dict[str, Any]:
    """Train on states near |0...0> and judge on fresh ones, with the fidelity at every step of the way back."""
    generator = torch.Generator().manual_seed(settings.seed + 1000)
    data = cluster(count, settings.qubits, scale, generator)
    model, curve = train_quddpm(data, settings) if settings.iterations else (QuDDPM(settings), [])
    start = haar(TEST, settings.qubits, generator)
    fresh = cluster(TEST, settings.qubits, scale, generator)
    forward = [psi[:, 0].abs().square().mean().item() for psi in diffuse(fresh, settings, generator)]
    psi, backward = start, [start[:, 0].abs().square().mean().item()]
    for step in range(settings.steps - 1, -1, -1):
        with torch.no_grad():
            psi = model.backward_step(psi, model.angles[step], generator)
        backward.append(psi[:, 0].abs().square().mean().item())
    figures = judge_ensemble(psi, fresh, start)
    return {
        "settings": asdict(settings),
        "figures": figures,
        "curve": curve,
        "forward": forward,
        "backward": backward[::-1],
    }


def quddpm_jets(train: Array, test: Array, count: int = 1000) -> dict[str, Any]:
    """The central 8x8 cells summed to 4x4, four qubits: amplitudes as data, judged as images."""

    def centre(cells: Array) -> Array:
        inner = cells[:, 4:12, 4:12].reshape(-1, 4, 2, 4, 2).sum((2, 4))
        return inner / inner.sum((1, 2), keepdims=True)

    small, held_out = centre(train), centre(test)
    psi = torch.from_numpy(small).float().sqrt().flatten(1).to(torch.complex64)
    model, curve = train_quddpm(psi[:1000], JETS)
    generator = torch.Generator().manual_seed(JETS.seed)
    start = haar(count, JETS.qubits, generator)
    made = model.sample(start, generator=generator)
    generated, noise = (state.abs().square().reshape(-1, 4, 4).double().numpy() for state in (made, start))
    mean = np.repeat(small.mean(0)[None], count, axis=0)
    figures = {
        name: {"mmd": fidelity_mmd(held_out, cells), "profile": profile_distance(held_out, cells)}
        for name, cells in (("C", generated), ("noise", noise), ("mean", mean), ("baseline", small[:count]))
    }
    lead = {name: cells.max((1, 2)) for name, cells in (("real", held_out), ("C", generated), ("mean", mean))}
    leading = {name: [float(values.mean()), float(values.std())] for name, values in lead.items()}
    return {"settings": asdict(JETS), "figures": figures, "leading": leading, "curve": curve}
