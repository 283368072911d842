"""Collisions from Pythia, and the jets found in them."""

import math

import numpy as np
import pytest

pytest.importorskip("numba")
pytest.importorskip("pythia8mc")
pytest.importorskip("fastjet")

from jet_diffusion.simulation.detector.kinds import CHARGED_HADRON, ELECTRON, MUON, NEUTRAL_HADRON, PHOTON
from jet_diffusion.simulation.detector.particle_flow import reconstruct
from jet_diffusion.simulation.events import (
    ANY,
    GLUON,
    GLUON_ID,
    LIGHT_FLAVOURS,
    MAX_PARTON_ETA,
    QUARK,
    HardScatters,
    classify,
)
from jet_diffusion.simulation.jets import MATCHING_RADIUS, MAX_ETA, _leading_matched, find_jets
from jet_diffusion.simulation.pileup import draw_overlay, empty_pool
from jet_diffusion.simulation.settings import SimulationSettings

SETTINGS = SimulationSettings(num_jets=1, seed=1)


@pytest.fixture(scope="module", params=[GLUON, QUARK, ANY])
def label(request):
    return request.param


@pytest.fixture(scope="module")
def events(label):
    return HardScatters(label, 11, SETTINGS).batch(30)


def test_particles_are_told_apart_by_their_ids():
    identity = np.array([22, 11, -11, 13, 211, -211, 2212, -2212, 130, 2112, 310, -3112, 3112])
    kind, charge = classify(identity)
    kinds = [PHOTON, ELECTRON, ELECTRON, MUON, *[CHARGED_HADRON] * 4, *[NEUTRAL_HADRON] * 3, *[CHARGED_HADRON] * 2]
    assert kind.tolist() == kinds
    assert charge.tolist() == [0, -1, 1, -1, 1, -1, 1, -1, 0, 0, 0, 1, -1]


def test_scatters_end_in_the_partons_asked_for(events, label):
    identity = np.abs(events.partons[..., 2])
    allowed = {GLUON: {GLUON_ID}, QUARK: set(LIGHT_FLAVOURS), ANY: {GLUON_ID, *LIGHT_FLAVOURS}}[label]
    assert set(identity.ravel().astype(int)) <= allowed
    assert np.abs(events.partons[..., 0]).max() <= MAX_PARTON_ETA


def test_the_partons_are_back_to_back(events):
    turned = (events.partons[:, 0, 1] - events.partons[:, 1, 1]) % (2 * math.pi)
    assert np.abs(turned - math.pi).max() < 0.5


def test_final_particles_are_physical(events):
    assert len(events) == 30
    assert events.offsets[0] == 0
    assert events.offsets[-1] == len(events.kind) == len(events.momentum)
    assert np.all(np.diff(events.offsets) > 50)
    momentum = np.linalg.norm(events.momentum[:, :3], axis=1)
    assert np.all(events.momentum[:, 3] >= momentum * (1 - 1e-9))
    assert np.all(events.charge[events.kind == PHOTON] == 0)
    assert np.all(np.abs(events.charge[events.kind == CHARGED_HADRON]) == 1)
    assert events.radius.min() >= 0
    assert events.radius.max() > 0.001


def test_the_same_seed_makes_the_same_collisions_and_another_does_not(events, label):
    again, other = (HardScatters(label, seed, SETTINGS).batch(30) for seed in (11, 12))
    np.testing.assert_array_equal(events.momentum, again.momentum)
    assert len(other.momentum) != len(events.momentum)


def test_jets_are_matched_hard_and_central(events):
    rng = np.random.default_rng(2)
    particles = reconstruct(rng, events)
    jets = find_jets(events, particles, empty_pool(), draw_overlay(rng, 0, 0.0, len(events)), 60.0)
    assert 10 < len(jets.event) <= len(events)
    assert np.all(np.diff(jets.event) > 0)
    assert np.all(jets.pt > 60)
    assert np.all(np.abs(jets.eta) < MAX_ETA)
    assert np.all((jets.mass > 0) & (jets.mass < jets.pt))
    for event, eta, phi, parton in zip(jets.event, jets.eta, jets.phi, jets.parton, strict=True):
        distances = [
            math.hypot(eta - p[0], (phi - p[1] + math.pi) % (2 * math.pi) - math.pi) for p in events.partons[event]
        ]
        nearest = int(np.argmin(distances))
        assert distances[nearest] < MATCHING_RADIUS
        assert events.partons[event, nearest, 2] == parton


PARTONS = np.array([[0.0, 0.1, 21.0], [0.2, 3.1, 2.0]])


def test_the_harder_of_two_matched_jets_is_taken():
    jets = np.array([[150.0, 20.0, 1.8, -1.0], [120.0, 15.0, 0.3, 3.2], [100.0, 10.0, 0.1, 0.0]])
    assert _leading_matched(jets, PARTONS) == (120.0, 15.0, 0.3, 3.2, 2.0)


def test_an_event_needs_two_jets_of_their_own():
    one = np.array([[120.0, 15.0, 0.3, -3.1]])  # across the end of phi
    assert _leading_matched(one, PARTONS) is None
    assert _leading_matched(np.zeros((0, 4)), PARTONS) is None
    near = np.array([[0.0, 0.1, 21.0], [0.1, 0.2, 21.0]])
    assert _leading_matched(np.array([[120.0, 15.0, 0.0, 0.1]]), near) is None
