"""The parameterised circuit as a Qiskit circuit, for those who want to run it elsewhere (extra `quantum`)."""

from __future__ import annotations

from typing import Any

import torch

from jet_diffusion.errors import UserError, require
from jet_diffusion.quantum.simulator import ring_pairs


def export_qiskit(depth: int, qubits: int, name: str = "theta") -> tuple[Any, Any]:
    """The ansatz of model B: `depth` layers of ry and rz on each qubit, then controlled-Z around a ring.

    Args:
        depth: Layers.
        qubits: n. Qiskit's qubit 0 is our qubit 0; its index counts that one as the least significant bit.
        name: Of the parameters.

    Returns:
        The QuantumCircuit, and its ParameterVector of depth * n * 2 angles: layer by layer, qubit by qubit, ry then rz.

    Raises:
        UserError: If there is no layer or no qubit, or Qiskit is not installed.
    """
    if depth < 1 or qubits < 1:
        raise UserError(f"depth and qubits must be at least 1, got {depth} and {qubits}")
    qiskit = require("qiskit.circuit", "quantum", "the export")
    parameters, circuit = qiskit.ParameterVector(name, depth * qubits * 2), qiskit.QuantumCircuit(qubits)
    for layer in range(depth):
        for qubit in range(qubits):
            first = (layer * qubits + qubit) * 2
            circuit.ry(parameters[first], qubit)
            circuit.rz(parameters[first + 1], qubit)
        for pair in ring_pairs(qubits):
            circuit.cz(*pair)
    return circuit, parameters


def qiskit_values(angles: torch.Tensor) -> list[float]:
    """Trained angles (L, n, 2) in the order of the exported parameters."""
    values: list[float] = angles.detach().double().flatten().tolist()
    return values
