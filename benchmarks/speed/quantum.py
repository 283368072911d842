"""Speed of the state-vector simulator beside PennyLane's default.qubit: `python -m benchmarks.speed.quantum`.

The same circuit (layers of ry and rz, a ring of controlled-Z), batch and gradients, in one process and in turns; needs
the extra `quantum`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from jet_diffusion.quantum.simulator import cz_ring, ring_pairs, run_circuit


def own(qubits: int, layers: int) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Probabilities by our simulator."""
    sign = cz_ring(qubits)
    return lambda psi, angles: run_circuit(psi, angles, sign).abs().square()


def pennylane(qubits: int, layers: int) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Probabilities by default.qubit, broadcast over the batch, backpropagation by torch."""
    import pennylane as qml

    @qml.qnode(qml.device("default.qubit", wires=qubits), interface="torch", diff_method="backprop")
    def circuit(psi: torch.Tensor, angles: torch.Tensor) -> object:
        qml.StatePrep(psi, wires=range(qubits))
        for layer in range(layers):
            for qubit in range(qubits):
                qml.RY(angles[layer, qubit, 0], wires=qubit)
                qml.RZ(angles[layer, qubit, 1], wires=qubit)
            for pair in ring_pairs(qubits):
                qml.CZ(wires=pair)
        return qml.probs(wires=range(qubits))

    return circuit


def main() -> None:
    """Print milliseconds of forward and backward pass, medians, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--qubits", type=int, default=8)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    psi = torch.randn(arguments.batch, 2**arguments.qubits, dtype=torch.complex64, generator=generator)
    psi = psi / psi.norm(dim=1, keepdim=True)
    start = torch.randn(arguments.layers, arguments.qubits, 2, generator=generator)
    weights = torch.linspace(-1, 1, 2**arguments.qubits)
    circuits = {name: make(arguments.qubits, arguments.layers) for name, make in (("own", own), ("peer", pennylane))}
    wall: dict[str, list[float]] = {name: [] for name in circuits}
    processor: dict[str, list[float]] = {name: [] for name in circuits}
    gradients = {}
    for repeat in range(arguments.repeats + 2):
        for name, circuit in circuits.items():
            angles = start.clone().requires_grad_()
            begun = time.perf_counter(), time.process_time()
            (circuit(psi, angles).to(torch.float32) @ weights).mean().backward()
            if repeat >= 2:
                wall[name].append(time.perf_counter() - begun[0])
                processor[name].append(time.process_time() - begun[1])
            gradients[name] = angles.grad
    apart = (gradients["own"] - gradients["peer"]).abs().max().item()
    print(f"{arguments.qubits} qubits, {arguments.layers} layers, batch {arguments.batch}, forward and backward")
    for name, label in (("own", "own simulator"), ("peer", "PennyLane default.qubit")):
        both = [1000 * statistics.median(times[name]) for times in (processor, wall)]
        print(f"{label:<24} {both[0]:8.1f} ms of processor time, {both[1]:8.1f} ms of wall time")
    ratio = statistics.median(processor["peer"]) / statistics.median(processor["own"])
    print(f"ratio {ratio:.1f} in processor time; gradients apart by at most {apart:.1e}")


if __name__ == "__main__":
    main()
