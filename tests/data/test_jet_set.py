from __future__ import annotations

import numpy as np
import pytest

from jet_diffusion.data.dataset import content_hashes
from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.data.load import load_jets
from jet_diffusion.observables.hits import Hits
from jet_diffusion.observables.table import OBSERVABLES, compute_observables


@pytest.fixture
def sample(jets):
    return JetSample.from_batches([jets.energies[:30], jets.energies[30:]], jets.labels, jets.pt, jets.m0, source="a")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_energies_come_back_as_they_went_in(sample, jets):
    np.testing.assert_array_equal(sample.energies(), jets.energies)
    np.testing.assert_array_equal(np.concatenate(list(sample.batches())), jets.energies)


def test_observables_are_the_tables(sample, jets):
    expected = compute_observables(jets.energies)
    for column, name in enumerate(OBSERVABLES):
        np.testing.assert_array_equal(sample.observables[:, column], expected[name])
        np.testing.assert_array_equal(sample.observable(name), expected[name])


def test_taking_jets_takes_all_that_belongs_to_them(sample):
    _ = sample.observables
    rows = np.array([5, 3, 60])
    taken = sample.take(rows)
    np.testing.assert_array_equal(taken.energies(), sample.energies(rows))
    np.testing.assert_array_equal(taken.observables, sample.observables[rows])
    np.testing.assert_array_equal(taken.pt, sample.pt[rows])
    assert set(sample.of_class(1).labels) == {1}


def test_parts_of_a_split_are_disjoint(sample, rng):
    first, second = sample.split([20, 30], rng)
    assert (len(first), len(second)) == (20, 30)
    assert not set(first.pt.tolist()) & set(second.pt.tolist())
    with pytest.raises(ValueError, match="65 jets asked of a, which holds 64"):
        sample.split([40, 25], rng)


def test_changed_energies_get_new_observables(sample):
    _ = sample.observables
    doubled = sample.map(lambda energies: 2 * energies)
    np.testing.assert_allclose(doubled.observable("energy"), 2 * sample.observable("energy"))


def test_the_fingerprint_knows_every_part(sample):
    seen = {sample.fingerprint, sample.with_labels(1 - sample.labels).fingerprint}
    seen |= {sample.map(lambda energies: 2 * energies).fingerprint, sample.take(np.arange(63)).fingerprint}
    assert len(seen) == 4
    assert sample.take(np.arange(64)).fingerprint == sample.fingerprint


def test_parts_of_different_length_are_refused(jets):
    with pytest.raises(ValueError, match="64 jets, but 63 labels"):
        JetSample.from_batches([jets.energies], jets.labels[1:], jets.pt, jets.m0)


def test_a_file_and_a_dataset_are_read_alike(converted_folder, jets, write_file, rng):
    held = load_jets(converted_folder, None, rng, split="test")
    assert len(held) == 40 and held.content_hash is not None and held.simulated
    path = write_file(jets)
    drawn = load_jets(path, 20, rng)
    rows = [int(np.flatnonzero(jets.pt == pt)[0]) for pt in drawn.pt]
    assert len(set(rows)) == 20 and rows == sorted(rows)
    np.testing.assert_array_equal(drawn.energies(), jets.energies[rows])
    np.testing.assert_array_equal(drawn.content_hash, content_hashes(jets.energies[rows]))
    assert len(load_jets(path, 1000, rng)) == 64


def test_impossible_energies_are_refused_of_real_jets_and_read_of_generated_ones(jets, write_file, rng):
    jets.energies[3, 0, 5, 5] = -1
    path = write_file(jets)
    with pytest.raises(ValueError, match=r"1 jet with an energy below 0 of 64 \(first: 3\)"):
        load_jets(path, None, rng)
    assert load_jets(path, None, rng, generated=True).voxels.data.min() == -1


def test_tower_energies_are_those_of_the_images(stand_in):
    sample = stand_in.take(np.arange(20))
    expected = Hits(sample.energies()).tower_energy.reshape(20, -1)
    np.testing.assert_allclose(sample.tower_energies.toarray(), expected, rtol=1e-6)
