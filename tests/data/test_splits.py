"""Splits are seeded, stratified and complete; duplicates are counted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jet_diffusion.data.splits import assign_splits, count_duplicates

LABELS = st.lists(st.integers(0, 1), min_size=60, max_size=300).map(np.array)


@given(labels=LABELS, seed=st.integers(0, 2**32))
def test_each_class_is_split_by_the_same_shares(labels, seed):
    fractions = (0.7, 0.2, 0.1)
    splits = assign_splits(labels, fractions, seed)
    for label in np.unique(labels):
        counts = np.bincount(splits[labels == label], minlength=3)
        assert counts.sum() == (labels == label).sum()
        assert np.abs(counts - np.array(fractions) * counts.sum()).max() <= 1
    assert np.array_equal(splits, assign_splits(labels, fractions, seed))


def test_seeds_draw_different_splits():
    labels = np.arange(1000) % 2
    draws = [assign_splits(labels, (0.5, 0.25, 0.25), seed) for seed in (1, 2)]
    assert 0.2 < np.mean(draws[0] == draws[1]) < 0.6


def test_a_split_may_be_left_out():
    assert set(assign_splits(np.arange(10) % 2, (0.8, 0.2, 0), 0)) == {0, 1}


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.8, 0.3, -0.1), (0.8, 0.1, 0.2), (np.nan, 0.5, 0.5)])
def test_bad_shares_are_refused(fractions):
    with pytest.raises(ValueError, match="3 shares of train, validation, test"):
        assign_splits(np.arange(10) % 2, fractions, 0)


def test_too_few_jets_are_refused():
    with pytest.raises(ValueError, match="4 jets are too few to give validation a share"):
        assign_splits(np.arange(4) % 2, (0.8, 0.1, 0.1), 0)


def test_duplicates_are_counted_within_and_across_splits():
    hashes = [np.array(split, np.uint64) for split in ([1, 2, 2, 3], [4, 3], [3, 5, 1])]
    assert count_duplicates(hashes) == {"jets": 4, "jets_across_splits": 5}
    assert count_duplicates(hashes[:1]) == {"jets": 1, "jets_across_splits": 0}
