from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from jet_diffusion.metrics.bands import PooledPair, wasserstein_bands

SIZE, OBSERVABLES = 300, 12


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def draw(rng, number=SIZE):
    """Correlated features of different widths."""
    mix = np.eye(OBSERVABLES) + 0.5
    return rng.normal(size=(number, OBSERVABLES)) @ mix * np.arange(1, OBSERVABLES + 1)


def test_a_perfect_generator_lies_in_the_simultaneous_band_nearly_always(rng):
    found = [wasserstein_bands(draw(rng), draw(rng), draw(rng), rng, replicas=60) for _ in range(40)]
    own = np.mean([bands.inside.mean() for bands in found])
    together = np.mean([bands.inside_simultaneous.all() for bands in found])
    left_alone = np.mean([bands.inside.all() for bands in found])
    assert 0.9 < own < 0.99
    assert together > 0.82
    assert left_alone < together


def test_a_single_wrong_observable_leaves_both_bands(rng):
    generated = draw(rng)
    generated[:, 4] += 5.0  # 0.45 standard deviations
    bands = wasserstein_bands(draw(rng), draw(rng), generated, rng, replicas=100)
    assert not bands.inside_simultaneous[4] and not bands.inside[4]
    assert bands.inside_simultaneous.sum() >= OBSERVABLES - 2
    assert bands.mean > bands.mean_baseline


@pytest.mark.parametrize("tail", [np.inf, 1.0], ids=["normal", "one jet a thousand times the usual"])
def test_bands_hold_a_perfect_generator_whatever_the_tails(rng, tail):
    def jets():
        features = draw(rng)
        return features if np.isinf(tail) else features + (rng.pareto(tail, size=(SIZE, 1)))

    found = [wasserstein_bands(jets(), jets(), jets(), rng, replicas=100) for _ in range(60)]
    assert np.mean([bands.inside_simultaneous.all() for bands in found]) > 0.87
    assert np.mean([bands.inside.mean() >= bands.least_inside for bands in found]) > 0.87
    assert np.mean([bands.baseline_inside for bands in found]) > 0.9


def test_a_pooled_pair_measures_w1(rng):
    first, second = draw(rng, 40).round(), draw(rng, 40)
    pair = PooledPair(first, second)
    expected = [wasserstein_distance(*columns) for columns in zip(first.T, second.T, strict=True)]
    np.testing.assert_allclose(pair.distance, expected)
    assert (PooledPair(first, first).distance == 0).all()
    assert pair.bootstrap(rng, 30).mean() > pair.shuffle(rng, 30).mean() * 0.5


def test_errors_shrink_with_the_number_of_jets(rng):
    few = wasserstein_bands(draw(rng, 100), draw(rng, 100), draw(rng, 100) + 5, rng, replicas=100)
    many = wasserstein_bands(draw(rng, 1600), draw(rng, 1600), draw(rng, 1600) + 5, rng, replicas=100)
    assert np.median(few.error / many.error) == pytest.approx(4, rel=0.5)
    assert few.size == 100


def test_samples_must_be_of_one_size(rng):
    with pytest.raises(ValueError, match="one size, got 300, 200 and 300"):
        wasserstein_bands(draw(rng), draw(rng, 200), draw(rng), rng)
