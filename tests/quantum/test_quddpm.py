from __future__ import annotations

import statistics

import pytest
import torch

from jet_diffusion.quantum.quddpm import (
    QuDDPM,
    QuDDPMSettings,
    cluster,
    diffuse,
    haar,
    mmd,
    run_cluster,
    train_quddpm,
    wasserstein,
)


def accept(figures):
    """Whether an ensemble of two qubits counts as learnt."""
    return (
        figures["start_mmd"] >= 0.5
        and figures["fidelity"] >= 0.85
        and figures["mmd"] <= 0.02
        and figures["wasserstein"] <= 0.08
    )


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_data_are_the_authors():
    for qubits, scale, fidelity in ((1, 0.08, 0.987), (2, 0.06, 0.979), (2, 0.08, 0.964)):
        data = cluster(4000, qubits, scale, generator())
        assert data[:, 0].abs().square().mean().item() == pytest.approx(fidelity, abs=2e-3)


def test_scrambling_ends_at_haar():
    ends = diffuse(cluster(500, 2, 0.08, generator()), QuDDPMSettings(), generator(1))
    assert len(ends) == 21
    assert mmd(ends[-1], haar(500, 2, generator(2))) < 0.02
    assert mmd(ends[-1], ends[0]) > 0.5


def test_a_step_measures_its_ancillas():
    model, psi = QuDDPM(QuDDPMSettings(qubits=2, ancillas=2, layers=3)), haar(6, 2, generator())
    unitary = model.unitary(model.angles[0])
    assert torch.allclose(unitary @ unitary.conj().T, torch.eye(16) + 0j, atol=1e-5)
    made = model.backward_step(psi, model.angles[0], generator(3))
    assert torch.allclose(made.norm(dim=1), torch.ones(6), atol=1e-5)
    # Every outcome is one of the branches of the whole state.
    whole = torch.cat([psi, torch.zeros(6, 12)], 1) @ unitary.T
    branches = whole.unflatten(1, (4, 4))
    branches = branches / branches.norm(dim=2, keepdim=True)
    assert torch.allclose((branches.conj() * made[:, None]).sum(2).abs().amax(1), torch.ones(6), atol=1e-5)


def test_distances_of_ensembles():
    one, two = haar(50, 2, generator(1)), haar(50, 2, generator(2))
    assert mmd(one, one).abs() < 1e-6
    assert wasserstein(one, one.flip(0)) < 1e-5
    assert wasserstein(one, two) > 0.05
    rho = [torch.einsum("nx,ny->xy", psi, psi.conj()) / 50 for psi in (one, two)]
    assert mmd(one, two).item() == pytest.approx((rho[0] - rho[1]).abs().square().sum().item(), abs=1e-5)


def test_gradients_reach_every_angle_of_a_step():
    model = QuDDPM(QuDDPMSettings(layers=3))
    made = model.backward_step(haar(40, 2, generator()), model.angles[0], generator(1))
    mmd(made, haar(40, 2, generator(2))).backward()
    slopes = model.angles.grad[0]
    # Ry of the last layer on an ancilla turns what is then measured; rx and ry of the data turn what is compared.
    assert (slopes != 0).all()


def test_one_qubit_learns_in_seconds():
    settings = QuDDPMSettings(qubits=1, layers=3, steps=4, iterations=60, learning_rate=0.05)
    data = cluster(100, 1, 0.08, generator())
    model, curve = train_quddpm(data, settings)
    start = haar(200, 1, generator(5))
    assert [row["step"] for row in curve] == [3, 2, 1, 0]
    made = model.sample(start, generator=generator(6))
    assert mmd(made, data) < 0.1 * mmd(start, data)


def test_too_many_qubits_are_refused():
    with pytest.raises(ValueError, match="1 to 4 qubits and at least one ancilla, got 5 and 1"):
        QuDDPM(QuDDPMSettings(qubits=5))


def test_untrained_circuits_are_not_accepted():
    assert not accept(run_cluster(QuDDPMSettings(first_size=0.5), 0.06, train=500, trained=False)[0])


@pytest.mark.slow
def test_two_qubits_reach_what_was_published():
    found = [run_cluster(QuDDPMSettings(seed=seed, first_size=0.5), 0.06, train=500)[0] for seed in range(3)]
    assert all(accept(figures) for figures in found), found
    assert statistics.median(figures["fidelity"] for figures in found) >= 0.90
