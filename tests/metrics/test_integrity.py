from __future__ import annotations

import numpy as np
import pytest

from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.data.leakage import find_training_hashes, read_hashes, refuse_training_jets
from jet_diffusion.metrics.integrity import check_units, condition_mismatch, count_faults


@pytest.fixture
def sample(stand_in):
    return stand_in.take(np.arange(100))


def broken(sample, change):
    energies = sample.energies()
    change(energies)
    return JetSample.from_batches([energies], sample.labels, sample.pt, sample.m0, source="generated")


def test_real_jets_have_no_faults(sample):
    assert set(count_faults(sample).values()) == {0}


@pytest.mark.parametrize(
    ("fault", "number", "change"),
    [
        ("not_finite", 2, lambda energies: energies[[3, 7], 0, 5].fill(np.nan)),
        ("not_finite", 1, lambda energies: energies.__setitem__((4, 1, 2, 2), np.inf)),
        ("negative", 3, lambda energies: energies.__setitem__((slice(0, 3), 1, 2, 2), -0.1)),
        ("empty", 5, lambda energies: energies[:5].fill(0)),
        ("uneven_towers", 1, lambda energies: energies.__setitem__((9, 2, 60, 60), 0.5)),
        ("repeated", 10, lambda energies: energies.__setitem__(slice(0, 11), energies[20])),
    ],
)
def test_every_fault_is_counted(sample, fault, number, change):
    def apply(energies):
        if fault == "not_finite" and number == 2:
            energies[[3, 7], 0, 5] = np.nan
        else:
            change(energies)

    faults = count_faults(broken(sample, apply))
    assert faults[fault] == (number + 1 if fault == "repeated" else number)


@pytest.mark.parametrize("factor", [100, 1e5, 0.01])
def test_other_units_are_refused(sample, factor):
    other = sample.map(lambda energies: energies * np.float32(factor))
    with pytest.raises(ValueError, match="as if in another unit"):
        check_units(sample, other)
    with pytest.raises(ValueError, match="energies must be in GeV/100 and pt in GeV"):
        check_units(other, sample)


def test_a_bad_generator_is_not_mistaken_for_another_unit(sample):
    check_units(sample, sample)
    check_units(sample, sample.map(np.zeros_like))
    check_units(sample, sample.map(lambda energies: energies * np.array([100, 1, 1], np.float32)[:, None, None]))


def test_other_conditions_are_named(stand_in):
    assert condition_mismatch(*stand_in.split([1000, 1000], np.random.default_rng(0))) == []
    quarks = stand_in.of_class(1)
    assert "labels" in condition_mismatch(stand_in, quarks)


def test_jets_trained_on_are_refused_with_their_number(stand_in, tmp_path):
    real = stand_in.take(np.arange(100))
    hashes = np.sort(stand_in.content_hash[60:500])
    with pytest.raises(ValueError, match=r"40 of the 100 real jets .* were used in training"):
        refuse_training_jets(real, hashes, allowed=False)
    assert "40 of the 100" in refuse_training_jets(real, hashes, allowed=True)
    assert refuse_training_jets(real, hashes[:0], allowed=False) is None
    assert "not known" in refuse_training_jets(real, None, allowed=False)


def test_hashes_travel_with_the_model(stand_in, tmp_path):
    assert find_training_hashes(tmp_path) is None
    np.save(tmp_path / "training_jets.npy", stand_in.content_hash)
    np.testing.assert_array_equal(find_training_hashes(tmp_path), stand_in.content_hash)
    assert find_training_hashes("nobody/nothing") is None


@pytest.mark.parametrize("content", [np.arange(3), np.zeros((2, 2), np.uint64), np.array([None, 1], object)])
def test_files_that_hold_no_hashes_are_refused(tmp_path, content):
    path = tmp_path / "hashes.npy"
    np.save(path, content, allow_pickle=True)
    with pytest.raises(ValueError, match="hashes"):
        read_hashes(path)
