"""The simulator against PennyLane and Qiskit, where they are installed (extra quantum)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jet_diffusion.quantum.filter_denoiser import QuantumFilterDenoiser
from jet_diffusion.quantum.simulator import cz_ring, ring_pairs, run_circuit
from jet_diffusion.quantum.states import to_images, to_states

SCHEDULE = {"num_train_timesteps": 100, "beta_schedule": "squaredcos_cap_v2"}


@pytest.fixture(scope="module")
def qml():
    return pytest.importorskip("pennylane", reason="PennyLane is not installed (extra quantum)")


@pytest.fixture(scope="module")
def qiskit():
    return pytest.importorskip("qiskit", reason="Qiskit is not installed (extra quantum)")


def random_states(count, qubits, dtype=torch.complex64):
    psi = torch.randn(count, 2**qubits, dtype=dtype, generator=torch.Generator().manual_seed(qubits))
    return psi / psi.norm(dim=1, keepdim=True)


def pennylane_probabilities(qml, qubits, layers):
    @qml.qnode(qml.device("default.qubit", wires=qubits), interface="torch", diff_method="backprop")
    def circuit(psi, angles):
        qml.StatePrep(psi, wires=range(qubits))
        for layer in range(layers):
            for qubit in range(qubits):
                qml.RY(angles[layer, qubit, 0], wires=qubit)
                qml.RZ(angles[layer, qubit, 1], wires=qubit)
            for pair in ring_pairs(qubits):
                qml.CZ(wires=pair)
        return qml.probs(wires=range(qubits))

    return circuit


@pytest.mark.parametrize("qubits", [2, 4, 8, 9])
def test_probabilities_and_gradients_are_pennylane_s(qml, qubits):
    psi, layers = random_states(3, qubits), 3
    weights = torch.linspace(-1, 1, 2**qubits)
    found = {}
    for name in ("own", "peer"):
        angles = torch.randn(layers, qubits, 2, generator=torch.Generator().manual_seed(1)).requires_grad_()
        if name == "own":
            probabilities = run_circuit(psi, angles, cz_ring(qubits)).abs().square()
        else:
            probabilities = pennylane_probabilities(qml, qubits, layers)(psi, angles)
        (probabilities.to(torch.float32) @ weights).mean().backward()
        found[name] = probabilities.detach(), angles.grad
    assert torch.allclose(found["own"][0].double(), found["peer"][0].double(), rtol=0, atol=1e-5)
    assert torch.allclose(found["own"][1].double(), found["peer"][1].double(), rtol=0, atol=1e-5)


def test_the_filter_is_the_circuit_of_its_gates(qml):
    qubits = 4
    model = QuantumFilterDenoiser(qubits, SCHEDULE, order=2)
    torch.nn.init.normal_(model.coefficients, std=0.3, generator=torch.Generator().manual_seed(0))
    torch.nn.init.normal_(model.class_coefficients, std=0.3, generator=torch.Generator().manual_seed(1))
    from jet_diffusion.quantum.simulator import walsh_functions

    _, subsets = walsh_functions(qubits, 2)
    sample, step, sign = to_images(random_states(1, qubits)), torch.tensor([40]), torch.tensor([[1.0]])
    angles = model.ancilla_angles(step, sign)[0].detach().double()

    @qml.qnode(qml.device("default.qubit", wires=qubits + 1))
    def circuit():
        qml.StatePrep(to_states(sample)[0].numpy().astype(complex), wires=range(qubits), normalize=True)
        for angle, subset in zip(angles.tolist(), subsets, strict=True):
            # PauliRot turns by half its angle.
            qml.PauliRot(2 * angle, "Z" * len(subset) + "Y", wires=[*subset, qubits])
        return qml.state()

    kept = np.asarray(circuit()).reshape(-1, 2)[:, 0]
    output = model(sample, step, sign)
    success = float((np.abs(kept) ** 2).sum())
    assert output.success_probability.item() == pytest.approx(success, abs=1e-6)
    expected = np.abs(kept) / success**0.5
    assert np.allclose(to_states(output.sample)[0].real.detach().numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(("depth", "qubits"), [(1, 1), (2, 2), (3, 4)])
def test_the_exported_circuit_is_ours(qiskit, depth, qubits):
    from qiskit.quantum_info import Operator

    from jet_diffusion.quantum.qiskit_export import export_qiskit, qiskit_values

    circuit, parameters = export_qiskit(depth, qubits)
    assert len(parameters) == depth * qubits * 2
    assert circuit.count_ops()["ry"] == circuit.count_ops()["rz"] == depth * qubits
    angles = torch.randn(depth, qubits, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bound = circuit.assign_parameters({parameters: qiskit_values(angles)})
    # Qiskit counts the first qubit as the least significant bit.
    unitary = Operator(bound.reverse_bits()).data
    own = run_circuit(torch.eye(2**qubits, dtype=torch.complex128), angles, cz_ring(qubits)).T.numpy()
    assert np.abs(unitary - own).max() <= 1e-10
