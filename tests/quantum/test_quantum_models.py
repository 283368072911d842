"""The networks: what the circuits do, where gradients go, and what the controls stand for."""

from __future__ import annotations

import pytest
import torch

from jet_diffusion.quantum.controls import WienerFilter
from jet_diffusion.quantum.encoding import JetAmplitudeEncoder
from jet_diffusion.quantum.filter_denoiser import QuantumFilterDenoiser, chebyshev_terms
from jet_diffusion.quantum.hybrid_unet import BOTTLENECKS, AmplitudeCNN, HybridUNet2DModel
from jet_diffusion.quantum.simulator import basis_bits
from jet_diffusion.quantum.state_denoiser import StateDenoiser
from jet_diffusion.quantum.states import fidelity

SCHEDULE = {"num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"}


@pytest.fixture
def x_0(jets):
    return JetAmplitudeEncoder().encode(torch.from_numpy(jets.energies))


@pytest.fixture
def denoiser():
    return StateDenoiser(SCHEDULE)


def noisy(denoiser, x_0, step=500):
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
    timesteps = torch.full((len(x_0),), step)
    return denoiser.add_noise(x_0, noise, timesteps), timesteps


def networks():
    yield "filter", lambda: QuantumFilterDenoiser(8, SCHEDULE, layers=2)
    yield "cnn", AmplitudeCNN
    for bottleneck in BOTTLENECKS:
        for skip in (False, True):
            yield f"{bottleneck}-{skip}", lambda b=bottleneck, s=skip: HybridUNet2DModel(bottleneck=b, skip=s)


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in networks()])
def test_the_loss_reaches_every_parameter(make, x_0, denoiser):
    """Above all the circuits' angles: a circuit re-wrapped as a constant would fail here.

    The last layer's rz alone turn phases that the read-out does not see. In double precision, for in single their
    rounding errors pass for gradients.
    """
    torch.manual_seed(0)
    network = make().double()
    x_0 = x_0.double()
    if isinstance(network, QuantumFilterDenoiser):
        network.initialise(x_0.square().sum(1).flatten(1).mean(0).expand(2, -1) / 256)
    x_t, timesteps = noisy(denoiser, x_0)
    timesteps[::2] = 200
    sign = torch.ones(len(x_0), 1, dtype=torch.float64)
    loss = (1 - fidelity(denoiser(network, x_t, timesteps, sign).x0, x_0)).mean()
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        dead = parameter.grad.abs() < 1e-15
        if name == "angles":
            assert dead[-1, :, 1].all()
            dead[-1, :, 1] = False
        assert not dead.any(), f"{int(dead.sum())} of {dead.numel()} entries of {name} get no gradient"


@pytest.mark.parametrize("bottleneck", BOTTLENECKS)
def test_what_leaves_the_bottleneck_turns_with_what_enters(bottleneck):
    """Not its length alone, which a circuit without input would pass on."""
    torch.manual_seed(0)
    entering = torch.nn.functional.normalize(torch.rand(2, 256), dim=1)
    leaving = HybridUNet2DModel(bottleneck=bottleneck).bottleneck(entering.view(2, 16, 4, 4)).flatten(1)
    assert torch.nn.functional.cosine_similarity(*leaving, dim=0) < 0.999


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in networks()])
def test_predictions_are_states_of_the_noisy_input_and_the_class(make, x_0, denoiser, tmp_path):
    torch.manual_seed(0)
    network = make().eval()
    x_t, timesteps = noisy(denoiser, x_0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        quark, gluon = (network(x_t, timesteps, sign * torch.ones(len(x_0), 1)).sample for sign in (1, -1))
        other = network(x_t.flip(0), timesteps, torch.ones(len(x_0), 1)).sample
    assert torch.allclose(quark.flatten(1).norm(dim=1), torch.full((len(x_0),), 16.0), rtol=1e-4)
    assert (quark[:, 1] == 0).all()
    assert (quark[:, 0] >= 0).all()
    assert not torch.allclose(quark, gluon, atol=1e-4)
    assert torch.allclose(other.flip(0), quark, atol=1e-4)
    assert not torch.allclose(other, quark, atol=1e-3)
    network.save_pretrained(tmp_path)
    again = type(network).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(again(x_t, timesteps, torch.ones(len(x_0), 1)).sample, quark)


def test_budgets():
    def count(network):
        return sum(parameter.numel() for parameter in network.parameters())

    assert count(QuantumFilterDenoiser(8, SCHEDULE)) == 595
    assert count(AmplitudeCNN()) == pytest.approx(595, rel=0.05)
    sizes = {bottleneck: count(HybridUNet2DModel(bottleneck=bottleneck)) for bottleneck in BOTTLENECKS}
    assert sizes["pqc"] - sizes["none"] == 128
    assert sizes["pqc_frozen"] == sizes["none"]
    assert sizes["conv"] == pytest.approx(sizes["pqc"], rel=0.01)


def test_a_frozen_circuit_stays_and_travels(tmp_path):
    frozen = HybridUNet2DModel(bottleneck="pqc_frozen")
    assert "angles" not in dict(frozen.named_parameters())
    frozen.save_pretrained(tmp_path)
    assert torch.equal(HybridUNet2DModel.from_pretrained(tmp_path).angles, frozen.angles)


def test_the_filter_is_a_gain_and_a_probability(x_0, denoiser):
    network = QuantumFilterDenoiser(8, SCHEDULE)
    torch.nn.init.normal_(network.coefficients, std=0.2)
    x_t, timesteps = noisy(denoiser, x_0)
    output = network(x_t, timesteps)
    theta = network.ancilla_angles(timesteps) @ network.walsh
    gain = torch.cos(theta).abs().reshape(-1, 16, 16)
    magnitude = x_t.square().sum(1).sqrt() * gain
    expected = magnitude * (16 / magnitude.flatten(1).norm(dim=1)).view(-1, 1, 1)
    assert torch.allclose(output.sample[:, 0], expected, atol=1e-4)
    success = (magnitude / 16).square().sum((1, 2))
    assert torch.allclose(output.success_probability, success, atol=1e-5)
    assert ((success > 0) & (success <= 1)).all()


def test_the_analytic_start_knows_the_mean_image(x_0, denoiser):
    network = QuantumFilterDenoiser(8, SCHEDULE)
    images = (x_0[:, 0].square() / 256).flatten(1).mean(0).expand(2, -1)
    network.initialise(images)
    x_t, timesteps = noisy(denoiser, x_0)
    plain = torch.cat([x_t.norm(dim=1, keepdim=True), torch.zeros_like(x_t[:, :1])], 1)
    better = fidelity(network(x_t, timesteps).sample, x_0).mean()
    assert better > fidelity(plain, x_0).mean() + 0.1
    assert torch.allclose(network.class_coefficients, torch.zeros_like(network.class_coefficients), atol=1e-6)


def test_chebyshev_terms_are_their_polynomials():
    nodes = torch.linspace(-1, 1, 7, dtype=torch.float64)
    expected = torch.stack([torch.ones(7), nodes, 2 * nodes**2 - 1, 4 * nodes**3 - 3 * nodes], 1)
    assert torch.allclose(chebyshev_terms(nodes, 4), expected, atol=1e-9)


def test_the_full_wiener_filter_beats_its_diagonal(x_0, denoiser):
    states = (x_0[:, 0] / 16).flatten(1)
    x_t, timesteps = noisy(denoiser, x_0, 700)
    errors = {}
    for diagonal in (True, False):
        network = WienerFilter(states, SCHEDULE, diagonal)
        estimate = network(x_t, timesteps).sample
        errors[diagonal] = (estimate - x_0).square().mean()
    assert errors[False] < errors[True] < (x_t - x_0).square().mean()


@pytest.mark.slow
def test_gradients_vanish_in_random_circuits_of_more_qubits():
    """The barren plateau: the reason why the filter starts near what is known, and not at random."""
    from jet_diffusion.quantum.simulator import cz_ring, run_circuit

    variances = []
    for qubits in (2, 4, 6):
        slopes = []
        for seed in range(200):
            generator = torch.Generator().manual_seed(seed)
            angles = (2 * torch.pi * torch.rand(2 * qubits, qubits, 2, generator=generator)).requires_grad_()
            psi = torch.zeros(1, 2**qubits, dtype=torch.complex64)
            psi[0, 0] = 1
            run_circuit(psi, angles, cz_ring(qubits))[0, 0].abs().square().backward()
            slopes.append(angles.grad[qubits, 0, 0].item())
        variances.append(torch.tensor(slopes).var().item())
    assert variances[0] > 4 * variances[1] > 16 * variances[2]


def test_networks_refuse_what_is_no_whole_number_of_qubits():
    with pytest.raises(ValueError, match="no whole qubits"):
        HybridUNet2DModel(sample_size=12)
    with pytest.raises(ValueError, match="bottleneck must be one of"):
        HybridUNet2DModel(bottleneck="magic")
    with pytest.raises(ValueError, match="unravelling must be one of"):
        StateDenoiser(SCHEDULE, unravelling="trajectory")
    assert basis_bits(2).shape == (4, 2)
