from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_jets import same_bits

from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.observables.table import compute_observables
from jet_diffusion.schema import CHANNELS, GEV_PER_UNIT, HCAL, NUM_CRYSTALS, NUM_TOWERS

ENERGIES = st.floats(2.0**-30, 2.0**10, width=32)


@st.composite
def images(draw):
    """A few jets with hits anywhere, their HCAL energy even in each tower or not."""
    number, even = draw(st.integers(1, 3)), draw(st.booleans())
    energies = np.zeros((number, len(CHANNELS), NUM_CRYSTALS, NUM_CRYSTALS), np.float32)
    fine, side = st.integers(0, NUM_CRYSTALS - 1), NUM_TOWERS if even else NUM_CRYSTALS
    coarse = st.integers(0, side - 1)
    jets = st.integers(0, number - 1)
    for jet, channel, row, column, energy in draw(st.lists(st.tuples(jets, st.integers(0, 1), fine, fine, ENERGIES))):
        energies[jet, channel, row, column] = energy
    hcal = np.zeros((number, side, side), np.float32)
    for jet, row, column, energy in draw(st.lists(st.tuples(jets, coarse, coarse, ENERGIES))):
        hcal[jet, row, column] = energy
    width = NUM_CRYSTALS // side
    energies[:, HCAL] = hcal.repeat(width, axis=1).repeat(width, axis=2)
    return energies, even


def sample_of(energies):
    conditions = np.arange(len(energies), dtype=np.float32)
    return JetSample.from_batches([energies], np.zeros(len(energies), np.int64), conditions, conditions)


@pytest.fixture
def sample(jets):
    return JetSample.from_batches([jets.energies], jets.labels, jets.pt, jets.m0, simulated="not CMS data")


@given(images())
def test_jets_come_back_from_their_points_bit_for_bit(made):
    energies, even = made
    sample = sample_of(energies)
    points, mask, left_out = sample.to_point_clouds(towers=even)
    back = JetSample.from_point_clouds(points, mask, sample.labels, sample.pt, sample.m0, towers=even)
    assert same_bits(back.energies(), energies)
    assert back.fingerprint == sample.fingerprint
    assert not left_out.any()


@pytest.mark.parametrize("towers", [True, False])
def test_real_jets_come_back_from_their_points(sample, towers):
    points, mask, _ = sample.to_point_clouds(towers=towers)
    back = JetSample.from_point_clouds(points, mask, sample.labels, sample.pt, sample.m0, towers=towers)
    assert back.fingerprint == sample.fingerprint


def test_points_have_the_order_mask_and_sums_of_jetnet(sample, jets):
    points, mask, _ = sample.to_point_clouds()
    energy, channel = points[..., 2], points[..., 3]
    assert points.shape == (64, mask.sum(axis=1).max(), 4)
    assert (np.diff(energy, axis=1) <= 0).all()
    assert (np.diff(mask.astype(int), axis=1) <= 0).all()
    assert not points[~mask].any() and (energy[mask] > 0).all()
    expected = compute_observables(jets.energies)
    np.testing.assert_allclose(energy.sum(axis=1), expected["energy"], rtol=1e-6)
    tracks = (channel == 0) & mask
    np.testing.assert_allclose((energy * tracks).sum(axis=1), jets.energies[:, 0].sum(axis=(1, 2)) * GEV_PER_UNIT, 1e-5)


def test_eta_is_the_row_and_phi_the_column():
    energies = np.zeros((1, 3, 125, 125), np.float32)
    energies[0, 1, 62 + 10, 62 - 20] = 0.5
    (((eta, phi, energy, channel),),) = sample_of(energies).to_point_clouds().points
    assert (eta, phi) == pytest.approx((10 * np.pi / 180, -20 * np.pi / 180))
    assert (energy, channel) == (50, 1)


def test_the_most_energetic_points_are_kept_and_the_rest_counted(sample):
    every = sample.to_point_clouds()
    few = sample.to_point_clouds(30)
    np.testing.assert_array_equal(few.points, every.points[:, :30])
    np.testing.assert_array_equal(few.left_out, every.mask[:, 30:].sum(axis=1))
    wide = sample.to_point_clouds(every.points.shape[1] + 5)
    assert not wide.points[:, -5:].any() and not wide.mask[:, -5:].any()


def test_points_of_another_generator_fill_the_crystals_they_lie_in():
    pitch = np.pi / 180
    points = np.array(
        [[[0.4 * pitch, 0, 30, 1], [-0.4 * pitch, 0.3 * pitch, 20, 1], [9 * pitch, 0, 99, 0]]], np.float32
    )
    jet = JetSample.from_point_clouds(points, np.array([[True, True, False]]), [0], [1.0], [1.0]).energies()[0]
    assert jet[1, 62, 62] == np.float32(0.5) and np.count_nonzero(jet) == 1


def test_an_uneven_tower_is_no_point(jets):
    jets.energies[7, HCAL, 3, 3] += 1
    with pytest.raises(ValueError, match=r"jet 7 has HCAL towers whose 25 crystals differ.*towers=False"):
        sample_of(jets.energies).to_point_clouds()


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ((2.0, 0, 1, 0), r"point 0 of jet 0 lies outside the image: eta 2"),
        ((np.nan, 0, 1, 0), r"lies outside the image: eta nan"),
        ((0, 0, 1, 0.5), r"has no channel 0, 1 or 2: .*channel 0.5"),
    ],
)
def test_what_is_no_point_of_an_image_is_refused(point, message):
    with pytest.raises(ValueError, match=message):
        JetSample.from_point_clouds(np.array([[point]], float), np.array([[True]]), [0], [1.0], [1.0])


def test_wrong_shapes_are_refused(sample):
    with pytest.raises(ValueError, match=r"max_points must be at least 1.*not 0"):
        sample.to_point_clouds(0)
    points, mask, _ = sample.to_point_clouds(5)
    for wrong in (mask.astype(float), mask[:, 1:]):
        with pytest.raises(ValueError, match=r"the shape \(N, P, 4\) and their mask \(N, P\) and the type bool"):
            JetSample.from_point_clouds(points, wrong, sample.labels, sample.pt, sample.m0)


def test_no_jets_are_no_points():
    empty = JetSample.from_batches([], [], [], [])
    assert empty.to_point_clouds().points.shape == (0, 0, 4)
    assert sample_of(np.zeros((2, 3, 125, 125), np.float32)).to_point_clouds().points.shape == (2, 0, 4)


def test_awkward_arrays_hold_the_points(sample):
    ak = pytest.importorskip("awkward")
    array = sample.to_awkward()
    points, mask, _ = sample.to_point_clouds()
    np.testing.assert_array_equal(ak.num(array.hits), mask.sum(axis=1))
    for column, name in enumerate(["eta", "phi", "energy", "channel"]):
        np.testing.assert_array_equal(ak.flatten(array.hits[name]), points[mask][:, column])
    np.testing.assert_array_equal(array.pt, sample.pt)
    assert ak.parameters(array)["simulated"] == "not CMS data"


def test_root_files_hold_the_points(sample, tmp_path):
    uproot = pytest.importorskip("uproot")
    path = tmp_path / "jets.root"
    sample.to_root(path)
    with uproot.open(path) as file:
        assert file["jets"].title == file["simulated"] == "not CMS data"
        branches = file["jets"].arrays()
    expected = sample.to_awkward()
    assert branches["label"].tolist() == expected["label"].tolist()
    assert branches["hits_energy"].tolist() == expected["hits"]["energy"].tolist()
    with pytest.raises(FileExistsError, match=r"jets\.root exists already"):
        sample.to_root(path)
    with pytest.raises(ValueError, match=r"ends in \.root, and .*jets\.txt does not"):
        sample.to_root(tmp_path / "jets.txt")
    assert [entry.name for entry in tmp_path.iterdir()] == ["jets.root"]


def test_histograms_count_every_jet_once(sample):
    pytest.importorskip("hist")
    filled = sample.to_hist("pt", bins=10, limits=(80, 90))
    for name, label in (("gluon", 0), ("quark", 1)):
        expected, _ = np.histogram(sample.pt[sample.labels == label], np.linspace(80, 90, 11))
        np.testing.assert_array_equal(filled[name, :].values(), expected)
    assert filled.sum(flow=True) == len(sample)
    unlabelled = replace(sample, labels=np.full(len(sample), -1)).to_hist("energy")
    assert unlabelled.sum() == 0 and unlabelled.sum(flow=True) == len(sample)
    with pytest.raises(ValueError, match="no quantity 'speed'; there are pt, m0, "):
        sample.to_hist("speed")


@pytest.mark.parametrize("missing", ["awkward", "uproot", "hist"])
def test_a_missing_library_is_named_with_its_extra(sample, missing, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, missing, None)
    exports = {
        "awkward": sample.to_awkward,
        "uproot": lambda: sample.to_root(tmp_path / "jets.root"),
        "hist": lambda: sample.to_hist("pt"),
    }
    with pytest.raises(ValueError, match=rf"needs {missing}, which is not installed: run .*jet-diffusion\[root\]"):
        exports[missing]()
