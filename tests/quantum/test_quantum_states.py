"""Encoding, scheduler and the way from noise to states."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from jet_diffusion.quantum.encoding import JetAmplitudeEncoder
from jet_diffusion.quantum.scheduler import QuantumChannelScheduler
from jet_diffusion.quantum.states import fidelity, haar_states, mix, to_images, to_states, unit_norm

COSINE = {"beta_schedule": "squaredcos_cap_v2"}
ENCODERS = [(layout, channels) for layout in ("folded", "image") for channels in ("sum", "joint")]


def noise_like(x, seed=0):
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def energies(jets):
    return torch.from_numpy(jets.energies)


@pytest.mark.parametrize(("layout", "channels"), ENCODERS)
def test_states_give_their_cells_back(energies, layout, channels):
    encoder = JetAmplitudeEncoder.fit([energies], layout=layout, channels=channels)
    psi, totals = encoder.encode_states(energies)
    assert psi.shape == (len(energies), 256 if channels == "sum" else 1024)
    assert torch.allclose(psi.abs().square().sum(1), torch.ones(len(psi)), atol=1e-5)
    cells, found = encoder.pool(energies), encoder.decode_states(psi, totals)
    if channels == "sum":
        cells, found = cells.sum(1), found.sum(1)
    assert (found - cells).abs().max() <= 1e-5 * cells.max()
    x = encoder.encode(energies)
    assert x.shape[1:] == encoder.shape
    assert torch.allclose(to_states(x), psi, atol=1e-6)
    spread = encoder.spread(encoder.decode_states(psi, totals))
    assert torch.allclose(encoder.pool(spread).sum((1, 2, 3)), totals, rtol=1e-4)


@pytest.mark.parametrize(("layout", "channels"), ENCODERS)
@pytest.mark.parametrize("grid", [4, 16])
def test_the_order_of_the_qubits_is_undone_exactly(layout, channels, grid):
    encoder = JetAmplitudeEncoder(grid=grid, layout=layout, channels=channels)
    image = torch.arange(2 * encoder.side**2).reshape(2, encoder.side, encoder.side)
    assert torch.equal(encoder.rearrange(encoder.arrange(image)), image)


def test_folded_rows_count_the_distance_from_the_axis():
    order = JetAmplitudeEncoder().order()
    sign, magnitude = torch.arange(16) // 8, torch.arange(16) % 8
    distance = (2 * order - 15).abs()  # in half cells
    assert torch.equal(distance, 2 * magnitude + 1)
    assert torch.equal(order >= 8, sign == 0)


def test_class_and_channels_share_the_energy(energies):
    encoder = JetAmplitudeEncoder.fit([energies])
    share = energies.sum((2, 3)) / energies.sum((1, 2, 3))[:, None]
    assert encoder.config.channel_share == pytest.approx(share.mean(0).tolist(), rel=1e-4)
    totals = encoder.ring_sums(energies)
    assert torch.allclose(totals[:, 3:], 100 * energies.sum((2, 3)), rtol=1e-5)


def test_jets_without_a_state_are_refused(energies):
    encoder = JetAmplitudeEncoder()
    energies[3] = 0
    with pytest.raises(ValueError, match="of 64 jets 1 are empty"):
        encoder.encode(energies)
    energies[3] = float("nan")
    with pytest.raises(ValueError, match="no finite energies"):
        encoder.encode(energies)
    with pytest.raises(ValueError, match="grid must be a power of two from 2 to 64, got 12"):
        JetAmplitudeEncoder(grid=12)
    with pytest.raises(ValueError, match="layout is one of"):
        JetAmplitudeEncoder(layout="spiral")


@hypothesis.settings(max_examples=12)
@hypothesis.given(qubits=st.integers(1, 9), seed=st.integers(0, 10**6))
def test_images_and_states_are_the_same(qubits, seed):
    psi = torch.randn(3, 2**qubits, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))
    psi = psi / psi.norm(dim=1, keepdim=True)
    assert torch.allclose(to_states(to_images(psi)), psi, atol=1e-6)
    assert torch.allclose(to_states(7 * to_images(psi)), psi, atol=1e-6)
    assert torch.allclose(fidelity(to_images(psi), to_images(1j * psi)), torch.ones(3), atol=1e-5)


def test_blank_images_are_no_states():
    with pytest.raises(ValueError, match="1 of 2 images are blank"):
        unit_norm(torch.stack([torch.zeros(2, 4, 4), torch.ones(2, 4, 4)]))


def test_the_haar_mix_averages_to_the_depolarising_channel():
    count, scheduler = 20_000, QuantumChannelScheduler(**COSINE)
    psi = torch.zeros(1, 16, dtype=torch.complex64)
    psi[0, [1, 6]] = 0.5**0.5
    x_0 = to_images(psi).expand(count, -1, -1, -1)
    rho = torch.einsum("nx,ny->nxy", psi, psi.conj())
    for step in (300, 600, 900):
        states = to_states(scheduler.add_noise(x_0, noise_like(x_0), torch.full((count,), step)))
        average = torch.einsum("nx,ny->xy", states, states.conj()) / count
        distance = torch.linalg.eigvalsh(average - scheduler.density(rho, step)[0]).abs().sum() / 2
        assert distance <= 0.03


def test_dephasing_and_damping_have_no_way_back():
    x = to_images(torch.ones(1, 16, dtype=torch.complex64))
    for channel, reason in (("dephasing", "noises nothing"), ("amplitude_damping", "one cell"), ("scramble", "QuDDPM")):
        scheduler = QuantumChannelScheduler(channel=channel, unravelling="trajectory")
        noisy = scheduler.add_noise(x, noise_like(x), torch.tensor([500]), torch.Generator().manual_seed(0))
        assert torch.allclose(to_states(noisy).norm(dim=1), torch.ones(1), atol=1e-5)
        with pytest.raises(NotImplementedError, match=reason):
            scheduler.step(x, 500, x)
    with pytest.raises(ValueError, match="haar_mix unravels the depolarizing channel"):
        QuantumChannelScheduler(channel="dephasing")
    with pytest.raises(ValueError, match="no pure states"):
        QuantumChannelScheduler(unravelling="none").add_noise(x, x, torch.tensor([5]))


def test_exact_channels_end_where_they_must():
    rho = torch.full((1, 16, 16), 1 / 16, dtype=torch.complex64)
    ends = {
        "depolarizing": torch.eye(16) / 16,
        "dephasing": torch.eye(16) / 16,
        "amplitude_damping": torch.eye(16)[:1].T * torch.eye(16)[:1],
    }
    for channel, end in ends.items():
        scheduler = QuantumChannelScheduler(channel=channel, unravelling="none", **COSINE)
        assert torch.allclose(scheduler.density(rho, 999)[0].real, end, atol=1e-3)


@pytest.mark.parametrize("unravelling", ["haar_mix", "classical"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_an_oracle_is_led_to_its_jet(energies, unravelling, eta):
    x_0 = JetAmplitudeEncoder().encode(energies[:16])
    scheduler = QuantumChannelScheduler(unravelling=unravelling, eta=eta, **COSINE)
    scheduler.set_timesteps(50)
    x = scheduler.prior(noise_like(x_0))
    generator = torch.Generator().manual_seed(3)
    for step in scheduler.timesteps:
        assert torch.allclose(scheduler.scale_model_input(x, step).flatten(1).norm(dim=1), torch.full((16,), 16.0))
        x = scheduler.step(x_0, step, x, generator=generator).prev_sample
    assert (fidelity(x, x_0) >= 0.999).all()


def test_without_fresh_noise_its_steps_are_ddim_s_in_direction(energies):
    x_0 = JetAmplitudeEncoder().encode(energies[:4])
    ours = QuantumChannelScheduler(**COSINE, prediction_type="sample")
    theirs = DDIMScheduler.from_config(ours.config, clip_sample=False, timestep_spacing="trailing")
    ours.set_timesteps(10)
    theirs.set_timesteps(10)
    x = ours.prior(noise_like(x_0))
    assert torch.equal(ours.timesteps, theirs.timesteps)
    step = ours.timesteps[4]
    first, second = (s.step(x_0, step, x, return_dict=False)[0] for s in (ours, theirs))
    assert torch.allclose(unit_norm(second), first, atol=1e-4)


def test_starts(energies):
    x = noise_like(JetAmplitudeEncoder().encode(energies[:4]).expand(4, -1, -1, -1))
    haar = QuantumChannelScheduler().prior(x)
    assert torch.equal(haar, haar_states(x))
    many = noise_like(torch.empty(4000, 2, 2, 2))
    mixed = to_states(QuantumChannelScheduler(start="mixed").prior(many)).abs().square()
    assert torch.allclose(mixed.amax(1), torch.ones(4000), atol=1e-5)
    assert torch.allclose(mixed.mean(0), torch.full((4,), 0.25), atol=0.03)
    scheduler = QuantumChannelScheduler(start="state")
    chosen = scheduler.prior(x, torch.ones(2, 16, 16))
    assert fidelity(chosen, torch.ones_like(chosen)).min() > 0.9999
    with pytest.raises(ValueError, match="needs chosen state"):
        scheduler.prior(x)
    with pytest.raises(ValueError, match="takes no chosen state"):
        QuantumChannelScheduler().prior(x, torch.ones(2, 16, 16))


@pytest.mark.parametrize("settings", [{}, {"eta": 0.5, "start": "mixed"}, {"unravelling": "classical"}])
def test_the_scheduler_saves_itself(tmp_path, settings):
    scheduler = QuantumChannelScheduler(num_train_timesteps=50, **settings)
    scheduler.save_pretrained(tmp_path)
    again = QuantumChannelScheduler.from_pretrained(tmp_path)
    assert {key: value for key, value in again.config.items() if key[0] != "_"} == {
        key: value for key, value in scheduler.config.items() if key[0] != "_"
    }
    assert torch.equal(again.alphas_cumprod, scheduler.alphas_cumprod)


def test_bad_timesteps_are_refused():
    scheduler = QuantumChannelScheduler(num_train_timesteps=50)
    scheduler.set_timesteps(timesteps=[49, 20, 0])
    assert scheduler.timesteps.tolist() == [49, 20, 0]
    for wrong in ({"num_inference_steps": 51}, {"num_inference_steps": 0}, {"timesteps": [3, 9]}, {"timesteps": [50]}):
        with pytest.raises(ValueError, match="must"):
            scheduler.set_timesteps(**wrong)


def test_classical_noise_stays_real(energies):
    x_0 = JetAmplitudeEncoder().encode(energies[:8])
    half = torch.full((8, 1, 1, 1), 0.5**0.5)
    noisy = mix(x_0, noise_like(x_0), half, half, "classical")
    assert (noisy[:, 1] == 0).all()
    assert np.isclose((noisy[:, 0] - half[:, 0] * x_0[:, 0]).std().item(), 0.5**0.5, atol=0.02)
