from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

from jet_diffusion.quantum.channels import (
    depolarize,
    kraus,
    kraus_operators,
    scramble,
    scramble_angles,
    trajectory,
)
from jet_diffusion.quantum.simulator import (
    apply_layer,
    basis_bits,
    cz_ring,
    kronecker,
    ring_pairs,
    run_circuit,
    rx,
    ry,
    rz,
    walsh_functions,
)

PAULI = {"X": [[0, 1], [1, 0]], "Y": [[0, -1j], [1j, 0]], "Z": [[1, 0], [0, -1]]}


def random_states(count, qubits, seed=0, dtype=torch.complex64):
    psi = torch.randn(count, 2**qubits, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return psi / psi.norm(dim=1, keepdim=True)


def dense_circuit(angles):
    """The ansatz as one matrix, by numpy's Kronecker products: nothing of the simulator is in it."""
    layers, qubits, _ = angles.shape
    total = np.eye(2**qubits, dtype=complex)
    for layer in range(layers):
        gate = np.ones((1, 1))
        for turn, phase in angles[layer]:
            c, s = np.cos(turn / 2), np.sin(turn / 2)
            one = np.diag([np.exp(-0.5j * phase), np.exp(0.5j * phase)]) @ np.array([[c, -s], [s, c]])
            gate = np.kron(gate, one)
        total = gate @ total
        for first, second in ring_pairs(qubits):
            for index in range(2**qubits):
                bits = f"{index:0{qubits}b}"
                if bits[first] == bits[second] == "1":
                    total[index] *= -1
    return total


@hypothesis.given(qubits=st.integers(1, 6), layers=st.integers(1, 3), seed=st.integers(0, 10**6))
def test_circuits_are_those_of_dense_matrices(qubits, layers, seed):
    generator = torch.Generator().manual_seed(seed)
    angles = 6 * torch.randn(layers, qubits, 2, generator=generator, dtype=torch.float64)
    psi = random_states(3, qubits, seed, torch.complex128)
    expected = psi.numpy() @ dense_circuit(angles.numpy()).T
    assert np.allclose(run_circuit(psi, angles, cz_ring(qubits)).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("qubits", [2, 5, 8])
def test_each_state_may_have_its_own_angles(qubits):
    psi, angles = random_states(4, qubits), torch.randn(4, qubits, 2, generator=torch.Generator().manual_seed(1))
    together = apply_layer(psi, angles, cz_ring(qubits))
    apart = torch.cat([apply_layer(psi[i : i + 1], angles[i], cz_ring(qubits)) for i in range(4)])
    assert torch.allclose(together, apart, atol=1e-6)
    assert torch.allclose(together.norm(dim=1), torch.ones(4), atol=1e-5)


def test_gates_are_exponentials_of_paulis():
    angle = torch.tensor(0.7, dtype=torch.float64)
    for gate, name in ((rx, "X"), (ry, "Y"), (rz, "Z")):
        pauli = torch.tensor(PAULI[name], dtype=torch.complex128)
        assert torch.allclose(gate(angle), torch.linalg.matrix_exp(-0.5j * angle * pauli), atol=1e-12)


def test_kronecker_puts_the_first_qubit_outermost():
    gates = torch.randn(3, 2, 2, dtype=torch.complex128)
    expected = torch.kron(torch.kron(gates[0], gates[1]), gates[2])
    assert torch.allclose(kronecker(gates), expected)


def test_walsh_functions_are_orthogonal_and_complete():
    walsh, subsets = walsh_functions(4, 4)
    assert len(subsets) == 16
    assert torch.equal(walsh @ walsh.T, 16 * torch.eye(16))
    assert len(walsh_functions(8, 3)[1]) == 93


def test_states_of_another_size_are_refused():
    with pytest.raises(ValueError, match="2 gates act on states of 4 amplitudes, got 8"):
        apply_layer(random_states(1, 3), torch.zeros(2, 2))


def densities(count, qubits):
    psi = random_states(count * 2, qubits, 3).unflatten(0, (count, 2))
    return torch.einsum("nkx,nky->nxy", psi, psi.conj()) / 2


@hypothesis.given(channel=st.sampled_from(["depolarizing", "dephasing", "amplitude_damping"]), strength=st.floats(0, 1))
def test_channels_are_completely_positive_and_keep_the_trace(channel, strength):
    operators = kraus_operators(channel, strength)
    assert torch.allclose(torch.einsum("kij,kil->jl", operators.conj(), operators), torch.eye(2) + 0j, atol=1e-6)
    rho = kraus(densities(3, 3), channel, strength)
    assert torch.allclose(torch.einsum("nii->n", rho).real, torch.ones(3), atol=1e-6)
    assert torch.linalg.eigvalsh(rho).min() >= -1e-7
    choi = sum(torch.outer(k.flatten(), k.flatten().conj()) for k in operators)
    assert torch.linalg.eigvalsh(choi).min() >= -1e-6


def test_dephasing_never_noises_probabilities():
    rho = densities(2, 4)
    before = torch.einsum("nii->ni", rho).real.clone()
    coherence = rho[0, 0, 5].abs()
    for _ in range(40):
        rho = kraus(rho, "dephasing", 0.2)
    assert torch.allclose(torch.einsum("nii->ni", rho).real, before, atol=1e-6)
    assert rho[0, 0, 5].abs() < 1e-4 * coherence


def test_amplitude_damping_ends_in_one_cell():
    rho = densities(2, 4)
    for _ in range(40):
        rho = kraus(rho, "amplitude_damping", 0.2)
    assert (rho[:, 0, 0].real > 0.999).all()
    assert (torch.einsum("nij,nji->n", rho, rho).real > 0.998).all()


def test_depolarising_ends_maximally_mixed():
    local = whole = densities(2, 4)
    for _ in range(40):
        local = kraus(local, "depolarizing", 0.2)
        whole = depolarize(whole, torch.tensor([0.2, 0.2]))
    for rho in (local, whole):
        assert torch.allclose(torch.einsum("nij,nji->n", rho, rho).real, torch.full((2,), 1 / 16), atol=1e-3)


@pytest.mark.parametrize("channel", ["depolarizing", "dephasing", "amplitude_damping"])
def test_trajectories_average_to_the_channel(channel):
    psi, count = random_states(1, 3), 8000
    strength = 0.45
    made = trajectory(psi.expand(count, -1), channel, torch.full((count,), strength), torch.Generator().manual_seed(0))
    assert torch.allclose(made.norm(dim=1), torch.ones(count), atol=1e-5)
    average = torch.einsum("nx,ny->xy", made, made.conj()) / count
    rho = torch.einsum("nx,ny->nxy", psi, psi.conj())
    exact = depolarize(rho, torch.tensor([strength])) if channel == "depolarizing" else kraus(rho, channel, strength)
    assert torch.linalg.eigvalsh(average - exact[0]).abs().sum() / 2 < 0.03


def test_channels_refuse_what_they_cannot_do():
    with pytest.raises(ValueError, match=r"strength lies in \[0, 1\], got 1.5"):
        kraus_operators("dephasing", 1.5)
    with pytest.raises(ValueError, match="no Kraus operators of 'scramble'"):
        kraus_operators("scramble", 0.5)
    with pytest.raises(ValueError, match="at most 6 qubits"):
        kraus(torch.eye(128, dtype=torch.complex64)[None] / 128, "dephasing", 0.1)
    with pytest.raises(ValueError, match="no trajectories of 'scramble'"):
        trajectory(random_states(1, 2), "scramble", torch.ones(1))


def test_scrambling_is_unitary_and_forgets_the_state():
    generator = torch.Generator().manual_seed(0)
    psi = torch.zeros(2000, 4, dtype=torch.complex64)
    psi[:, 0] = 1
    for size in torch.linspace(1, 4, 20).tolist():
        psi = scramble(psi, *scramble_angles(len(psi), 2, size, generator))
    assert torch.allclose(psi.norm(dim=1), torch.ones(len(psi)), atol=1e-5)
    # Haar: the mean fidelity with any state is 1/d, its mean square 2 / (d (d + 1)).
    fidelity = psi[:, 0].abs().square()
    assert abs(fidelity.mean() - 0.25) < 0.02
    assert abs(fidelity.square().mean() - 0.1) < 0.02


def test_a_scrambling_step_is_its_gates():
    angles, coupling = torch.randn(1, 2, 3, dtype=torch.float64), torch.tensor(0.6, dtype=torch.float64)
    psi = random_states(1, 2, dtype=torch.complex128)
    gates = [rz(a[2]) @ ry(a[1]) @ rz(a[0]) for a in angles[0]]
    z = torch.tensor(PAULI["Z"], dtype=torch.complex128)
    turn = torch.linalg.matrix_exp(-0.5j * coupling / (2 * 2**0.5) * torch.kron(z, z))
    expected = turn @ torch.kron(*gates) @ psi[0]
    assert torch.allclose(scramble(psi, angles, coupling)[0], expected, atol=1e-7)


def test_bits_begin_with_the_first_qubit():
    assert basis_bits(3)[4].tolist() == [1, 0, 0]
