"""What the detector makes of single particles, against the numbers it is built from."""

import math

import numpy as np
import pytest

pytest.importorskip("numba")

from jet_diffusion.simulation.detector import calorimeter, conversions, particle_flow, tracker
from jet_diffusion.simulation.detector.geometry import ROW_CENTRES, row_of
from jet_diffusion.simulation.detector.kinds import CHARGED_HADRON, ELECTRON, MUON, NEUTRAL_HADRON, PHOTON
from jet_diffusion.simulation.detector.maps import Particles, clear, empty_maps, fill
from jet_diffusion.simulation.detector.propagation import ECAL_FACE

NUMBER = 2000


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def shower(rng, kind, charge, energy, eta=0.3, number=1):
    """Maps of `number` particles of one kind and energy on top of each other, phi at the middle of a column."""
    maps = empty_maps()
    for _ in range(number):
        phi = math.radians(100.5)
        calorimeter.deposit(rng, energy, energy / math.cosh(eta), eta, phi, kind, charge, 0.0, maps.ecal, maps.hcal)
    return maps


def test_photons_are_measured_with_the_test_beams_resolution(rng):
    energies = [shower(rng, PHOTON, 0, 20.0).ecal.sum() for _ in range(200)]
    expected = math.hypot(calorimeter.STOCHASTIC / math.sqrt(20), calorimeter.CONSTANT)
    assert np.mean(energies) == pytest.approx(20, rel=4 * expected / 20)
    assert np.std(energies) / 20 == pytest.approx(expected, rel=0.2)


def test_four_fifths_of_a_centred_photon_lie_in_one_crystal(rng):
    eta = ROW_CENTRES[row_of(0.3)]
    ecal = shower(rng, PHOTON, 0, 50.0, eta, number=50).ecal
    row, column = np.unravel_index(ecal.argmax(), ecal.shape)
    around = ecal[row - 2 : row + 3, column - 2 : column + 3].sum()
    assert (row, column) == (row_of(eta), 100)
    assert 0.74 < ecal.max() / around < 0.86
    assert around / ecal.sum() > 0.95


def test_photons_and_electrons_leave_the_hcal_alone(rng):
    for kind, charge in ((PHOTON, 0), (ELECTRON, -1)):
        maps = shower(rng, kind, charge, 80.0, number=5)
        assert maps.ecal.sum() > 0
        assert maps.hcal.sum() == 0


def test_a_muon_is_a_minimum_ionising_particle(rng):
    maps = shower(rng, MUON, -1, 50.0, number=500)
    assert maps.hcal.sum() / 500 == pytest.approx(calorimeter.MIP_HCAL[0], rel=0.05)
    assert np.count_nonzero(maps.hcal) == 1


def test_hadrons_have_the_response_of_their_energy(rng):
    maps = shower(rng, NEUTRAL_HADRON, 0, 50.0, number=NUMBER)
    interacts, alpha, beta = calorimeter.INTERACTS_IN_ECAL, *calorimeter.ECAL_SHARE
    in_ecal = interacts * alpha / (alpha + beta)
    ecal_response = calorimeter.hadron_response(50.0, calorimeter.ECAL_RESPONSE)
    assert maps.ecal.sum() / NUMBER == pytest.approx(50 * in_ecal * ecal_response, rel=0.06)
    most = calorimeter.hadron_response(50.0, calorimeter.HCAL_RESPONSE) * 50 * (1 - in_ecal)
    assert 0.85 * most < maps.hcal.sum() / NUMBER < most  # what the ECAL took a share of is softer, and seen worse


def test_responses_rise_with_energy_and_stay_in_bounds():
    for parameters in (calorimeter.ECAL_RESPONSE, calorimeter.HCAL_RESPONSE):
        responses = [calorimeter.hadron_response(energy, parameters) for energy in np.geomspace(0.1, 1e4, 50)]
        assert np.all(np.diff(responses) >= 0)
        assert 0 < responses[0] < responses[-1] == parameters[2]


def test_energies_are_never_negative(rng):
    for kind, charge in ((PHOTON, 0), (ELECTRON, 1), (MUON, 1), (CHARGED_HADRON, -1), (NEUTRAL_HADRON, 0)):
        for energy in (0.15, 1.0, 30.0):
            maps = shower(rng, kind, charge, energy, eta=1.2, number=50)
            assert maps.ecal.min() >= 0
            assert maps.hcal.min() >= 0


def test_tracks_are_found_with_the_plateau_s_efficiency_inside_the_acceptance(rng):
    found = [tracker.track_pt(rng, 10.0, 1.0, CHARGED_HADRON, 0.0) for _ in range(NUMBER)]
    tracks = np.array(found)[np.array(found) > 0]
    assert len(tracks) / NUMBER == pytest.approx(tracker.PLATEAU, abs=0.02)
    assert tracks.mean() == pytest.approx(10, rel=0.002)
    assert tracks.std() / 10 == pytest.approx(tracker.PT_RESOLUTION, rel=0.1)


@pytest.mark.parametrize(("pt", "eta", "radius"), [(0.15, 0.0, 0.0), (10.0, 2.6, 0.0), (10.0, 0.0, 0.31)])
def test_no_track_is_found_outside_the_acceptance(rng, pt, eta, radius):
    assert not any(tracker.track_pt(rng, pt, eta, CHARGED_HADRON, radius) for _ in range(100))


def test_soft_displaced_and_electron_tracks_are_rarer(rng):
    def efficiency(*particle):
        return np.mean([tracker.track_pt(rng, *particle) > 0 for _ in range(NUMBER)])

    best = efficiency(5.0, 0.0, CHARGED_HADRON, 0.0)
    assert efficiency(0.3, 0.0, CHARGED_HADRON, 0.0) < 0.6 * best
    assert efficiency(5.0, 0.0, CHARGED_HADRON, 0.1) == pytest.approx(tracker.DISPLACED_FACTOR * best, abs=0.04)
    assert efficiency(5.0, 0.0, ELECTRON, 0.0) == pytest.approx(tracker.ELECTRON_FACTOR * best, abs=0.04)


def test_mismeasured_tracks_fall_as_a_power_of_pt(rng):
    drawn = np.array([tracker.mismeasured_pt(rng, 1.0) for _ in range(200_000)])
    above = [(drawn >= pt).sum() for pt in (10.0, 100.0)]
    assert above[0] == pytest.approx(2e5 * tracker.OUTLIER_FRACTION, rel=0.15)
    assert above[1] == pytest.approx(above[0] * 10**-tracker.OUTLIER_INDEX, rel=0.5)
    assert np.all(drawn[drawn < tracker.OUTLIER_MIN_PT] == 1.0)
    assert len(np.unique(drawn)) == above[0] + 1  # no value comes twice
    assert drawn.max() <= tracker.OUTLIER_MAX_PT


def test_conversions_follow_the_material_and_keep_the_photon_s_energy(rng):
    probabilities = [np.mean([conversions.converts(rng, eta) for _ in range(NUMBER)]) for eta in (0.0, 1.4)]
    assert probabilities[0] == pytest.approx(1 - math.exp(-7 / 9 * conversions.MATERIAL[0]), abs=0.03)
    assert probabilities[1] > 1.8 * probabilities[0]
    particles = one_particle(PHOTON, 0, 20.0, number=500)
    maps = empty_maps()
    fill(rng, particles, 0, 500, 0.0, maps)
    assert maps.ecal.sum() / 500 == pytest.approx(20, rel=0.02)
    assert np.count_nonzero(maps.tracks) > 0
    assert maps.tracks.sum() < 0.3 * 500 * 20


def test_a_leg_bends_less_the_harder_and_the_farther_out_it_is():
    assert conversions.bend_at_ecal(1.0, 0.1) > conversions.bend_at_ecal(2.0, 0.1)
    assert conversions.bend_at_ecal(1.0, 0.1) > conversions.bend_at_ecal(1.0, 0.5)
    assert conversions.bend_at_ecal(1.0, ECAL_FACE[0]) == 0
    assert conversions.bend_at_beam(1.0, 0.0) == 0


def one_particle(kind, charge, pt, eta=0.0, track=0.0, number=1):
    column = np.full(number, 1.0)
    return Particles(
        pt * column,
        eta * column,
        0.0087 * column,
        pt * math.cosh(eta) * column,
        np.full(number, kind, np.int8),
        np.full(number, charge, np.int8),
        track * column,
        column,
    )


def test_a_track_counts_where_it_points_at_the_vertex(rng):
    maps = empty_maps()
    fill(rng, one_particle(CHARGED_HADRON, 1, 1.0, eta=0.5, track=1.1), 0, 1, 0.1, maps)
    row, column = np.argwhere(maps.tracks)[0]
    assert (row, column) == (row_of(0.5), 0)
    assert maps.tracks.sum() == pytest.approx(1.1)
    clear(maps)
    assert not any(image.any() for image in maps)


def test_particle_flow_prefers_the_track_and_drops_what_makes_no_cluster(rng):
    assert particle_flow.candidate_pt(rng, 5.0, 0.0, CHARGED_HADRON, 4.9) == 4.9
    assert particle_flow.candidate_pt(rng, 0.3, 0.0, CHARGED_HADRON, 0.0) == 0  # curls up
    assert particle_flow.candidate_pt(rng, 0.2, 0.0, PHOTON, 0.0) == 0
    assert particle_flow.candidate_pt(rng, 50.0, 0.0, MUON, 0.0) == 0
    photons = [particle_flow.candidate_pt(rng, 10.0, 1.0, PHOTON, 0.0) for _ in range(500)]
    assert np.mean(photons) == pytest.approx(10, rel=0.01)
    hadrons = [particle_flow.candidate_pt(rng, 30.0, 0.0, NEUTRAL_HADRON, 0.0) for _ in range(2000)]
    assert np.mean(hadrons) == pytest.approx(30, rel=0.03)
    assert 0.15 < np.std(hadrons) / 30 < 0.3
