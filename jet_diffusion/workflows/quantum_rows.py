"""The trained rows of the quantum report: what each is, and its run of the ordinary trainer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate.state import AcceleratorState

from jet_diffusion.runs import RunFolder
from jet_diffusion.training.settings import (
    NoiseSettings,
    OptimizerSettings,
    QuantumSettings,
    RepresentationSettings,
    SamplingSettings,
    TrainSettings,
    UNetSettings,
)
from jet_diffusion.training.train import train

STEPS = 50


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
