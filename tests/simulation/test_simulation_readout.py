"""Which energies are written: thresholds, clusters, cones, the crop and its seed."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("numba")

from jet_diffusion.schema import ECAL, HCAL, TRACKS
from jet_diffusion.simulation import images
from jet_diffusion.simulation.detector import readout
from jet_diffusion.simulation.detector.geometry import BARREL_ROWS, COSH_ETA, HB_TOWER_ROWS
from jet_diffusion.simulation.detector.readout import read_ecal, read_hcal
from jet_diffusion.simulation.images import crop, find_seed

CENTRE = 140, 180
"""A crystal in the middle of the barrel."""


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def crystals(**energies):
    ecal = np.zeros((280, 360))
    for place, energy in energies.items():
        row, column = map(int, place.split("_")[1:])
        ecal[row, column] = energy
    return ecal


def no_towers():
    return np.zeros((56, 72))


def read(rng, ecal, towers=None, tracks=None):
    tracks = np.zeros((280, 360)) if tracks is None else tracks
    return read_ecal(rng, tracks, ecal, no_towers() if towers is None else towers, CENTRE[1], 62)


def in_barrel(out):
    return np.count_nonzero(out[slice(*BARREL_ROWS)])


def test_an_empty_hcal_has_next_to_no_towers(rng):
    out = read_hcal(rng, no_towers(), no_towers(), no_towers())
    assert np.count_nonzero(out) < 20
    assert out.min() == 0


def test_towers_of_the_barrel_are_read_above_the_threshold_and_none_of_the_endcap(rng):
    out = read_hcal(rng, np.full((56, 72), 5.0), no_towers(), no_towers())
    barrel = out[slice(*HB_TOWER_ROWS)]
    assert barrel.mean() == pytest.approx(5, rel=0.01)
    assert barrel.std() == pytest.approx(readout.TOWER_NOISE, rel=0.1)
    assert out.sum() == pytest.approx(barrel.sum())


def test_out_of_time_energy_makes_soft_towers(rng):
    late = np.full((56, 72), 2 * readout.TOWER_THRESHOLD)
    out = read_hcal(rng, no_towers(), late, no_towers())
    seen = out[out > 0]
    assert len(seen) > 1000
    assert np.median(seen) < readout.TOWER_THRESHOLD
    assert seen.min() >= readout.MIN_STORED * 25


def test_a_cluster_keeps_the_crystals_around_it(rng):
    out = read(rng, crystals(a_140_180=5.0))
    assert out[140, 180] == pytest.approx(5, abs=0.3)
    around = out[138:143, 178:183]
    assert 6 < np.count_nonzero(around) < 20  # noise above zero: about half of them
    assert in_barrel(out) == np.count_nonzero(around)


def test_clusters_are_sought_along_phi_and_not_along_eta(rng):
    energies = {"a_140_180": 5.0, "b_141_190": 0.6, "c_140_199": 0.6, "d_150_180": 0.6}
    out = read(rng, crystals(**energies))
    assert out[141, 190] > 0.3
    beside = np.count_nonzero(out[139:144, 188:193])
    assert beside > 4
    assert np.count_nonzero(out[138:143, 197:202]) <= 1  # past the end of the road
    assert np.count_nonzero(out[148:153, 178:183]) <= 1  # beside it


def test_hits_about_a_photon_are_kept_and_those_about_a_hadron_are_not(rng):
    ecal = crystals(a_140_180=20.0)
    ecal[110:170:4, 150:211:4] += 0.3
    ecal[140, 180] = 20.0
    towers = no_towers()
    about_photon = in_barrel(read(rng, ecal, towers) > 0.1)
    towers[28, 36] = 30.0
    about_hadron = in_barrel(read(rng, ecal, towers) > 0.1)
    assert about_photon > 150
    assert about_hadron < 0.3 * about_photon


def test_the_cone_ends_at_its_radius(rng):
    ecal = np.full((280, 360), 0.3)
    ecal[140, 180] = 20.0
    out = read(rng, ecal)
    row, column = np.indices(out.shape)
    distance = np.hypot((row - 140) * 0.0174, (column - 180) * math.pi / 180)
    wanted = np.abs(column - 180) <= 62
    wanted &= np.abs(row - 140) < 80
    assert (out[wanted & (distance < 0.58)] > 0).mean() > 0.98
    assert (out[wanted & (distance > 0.62)] > 0).mean() < 0.1


def test_an_electron_needs_its_track(rng):
    ecal = crystals(a_140_180=6.0)
    ecal[110:170:8, 150:211:8] = 0.3
    tracks = np.zeros((280, 360))
    without = in_barrel(read(rng, ecal, tracks=tracks))
    tracks[140, 183] = 6.0
    assert in_barrel(read(rng, ecal, tracks=tracks)) > 2 * without


def test_endcap_cells_are_blocks_of_four_equal_crystals(rng):
    out = read(rng, np.full((280, 360), 0.5))
    endcap = out[225:279, 118:242].reshape(27, 2, 62, 2)
    assert np.count_nonzero(endcap) > 0
    assert np.all(endcap == endcap[:, :1, :, :1])
    assert np.all(out[:55, 118:242][::-1][1:] >= 0)


def test_an_endcap_cluster_keeps_its_energy(rng):
    ecal = np.zeros((280, 360))
    ecal[240, 180] = 5 * COSH_ETA[240]
    out = read(rng, ecal)
    assert out[239:241, 180:182] == pytest.approx(5 * COSH_ETA[240] / 4, rel=0.05)


@given(st.integers(*HB_TOWER_ROWS).filter(lambda row: row < HB_TOWER_ROWS[1]), st.integers(0, 71))
def test_the_crop_is_centred_on_its_tower_and_goes_around_phi(row, column):
    tracks, ecal, towers = np.zeros((280, 360)), np.zeros((280, 360)), no_towers()
    towers[row, column] = 25.0
    ecal[5 * row + 2, 5 * column + 2] = 7.0
    ecal[5 * row + 2, (5 * column + 2 + 62) % 360] = 3.0
    energies = crop(np.random.default_rng(1), tracks, ecal, towers, row, column)
    assert energies.dtype == np.float32
    assert energies[ECAL, 62, 62] == np.float32(0.07)
    assert energies[ECAL, 62, 124] == np.float32(0.03)
    assert np.all(energies[HCAL, 60:65, 60:65] == np.float32(0.01))
    assert np.count_nonzero(energies[HCAL]) == 25
    assert not energies[TRACKS].any()


def test_the_seed_is_the_hardest_tower_near_the_axis():
    towers = no_towers()
    towers[30, 0], towers[28, 70], towers[40, 0] = 5.0, 9.0, 50.0
    assert find_seed(towers, 0.0, 0.02) == (28, 70)
    towers[:] = 0
    assert find_seed(towers, 0.01, 0.02) == (28, 0)


def test_spurious_energies_are_as_rare_as_their_rate(rng):
    found = 0
    for _ in range(5_000):
        energies = np.zeros((3, 125, 125), np.float32)
        images._add_spurious(rng, energies, HCAL, 5, (0.1, 100.0, 50.0, 1000.0))
        found += energies.max() * 2500 >= 100
        assert np.count_nonzero(energies) in {0, 25}
        assert energies.max() * 2500 < 1001
    assert found / 5_000 == pytest.approx(0.1, rel=0.15)
