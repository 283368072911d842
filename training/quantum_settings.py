"""Settings of quantum diffusion, which apply when the representation is JetAmplitudeEncoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass
class QuantumSettings:
    """States, noise and circuits (docs/quantum.md).

    Attributes:
        grid: Cells along each side of the jet.
        layout: folded (qubits count the distance from the jet's axis) or image (cells as they lie).
        channels: sum of the three, or joint, in two more qubits.
        unravelling: haar_mix, or classical noise that is re-encoded as a state at every step.
        eta: Fresh noise of each sampling step, 0 to 1.
        order: quantum_filter: largest sets of qubits that have an angle.
        layers: Entangling layers of the circuit; quantum_filter has them before the filter, quantum_hybrid in the
            bottleneck.
        bottleneck: quantum_hybrid: pqc, pqc_frozen, conv or none.
        skip: quantum_hybrid: skip connections around the bottleneck.
        width: Channels of quantum_hybrid or quantum_cnn; 0 for 16 and 9.
    """

    grid: int = 16
    layout: Literal["folded", "image"] = "folded"
    channels: Literal["sum", "joint"] = "sum"
    unravelling: Literal["haar_mix", "classical"] = "haar_mix"
    eta: float = 0.0
    order: int = 3
    layers: int = 0
    bottleneck: Literal["pqc", "pqc_frozen", "conv", "none"] = "pqc"
    skip: bool = False
    width: int = 0
