from __future__ import annotations

import hypothesis
import hypothesis.extra.numpy as npst
import hypothesis.strategies as st
import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.stats import wasserstein_distance

from jet_diffusion.metrics.distances import (
    frechet_distance,
    kernel_distance,
    reference_bins,
    separation_power,
    sliced_wasserstein,
    wasserstein,
)
from jet_diffusion.metrics.estimates import estimate
from jet_diffusion.metrics.headline import HEADLINE

VALUES = st.floats(-100, 100, width=32)
SAMPLES = npst.arrays(np.float64, st.tuples(st.integers(3, 12), st.just(2)), elements=VALUES)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@hypothesis.given(SAMPLES, SAMPLES)
def test_w1_is_scipys_and_a_distance(first, second):
    expected = [wasserstein_distance(a, b) for a, b in zip(first.T, second.T, strict=True)]
    np.testing.assert_allclose(wasserstein(first, second), expected, atol=1e-9)
    np.testing.assert_allclose(wasserstein(first, second), wasserstein(second, first), atol=1e-9)
    np.testing.assert_array_equal(wasserstein(first, first), 0)


@hypothesis.given(SAMPLES, st.floats(-5, 5), st.floats(0.1, 10))
def test_w1_moves_and_scales_with_the_feature(sample, shift, scale):
    np.testing.assert_allclose(wasserstein(sample, sample + shift), abs(shift), atol=1e-9)
    np.testing.assert_allclose(
        wasserstein(sample * scale, (sample + shift) * scale), abs(shift) * scale, rtol=1e-6, atol=1e-9
    )


def test_frechet_distance_is_the_formula(rng):
    first, second = rng.normal(size=(50, 4)) @ rng.normal(size=(4, 4)), rng.normal(size=(60, 4)) + 0.3
    shift = first.mean(axis=0) - second.mean(axis=0)
    a, b = np.cov(first.T), np.cov(second.T)
    expected = shift @ shift + np.trace(a + b - 2 * np.real(sqrtm(a @ b)))
    assert frechet_distance(first, second) == pytest.approx(expected)


@hypothesis.given(SAMPLES, SAMPLES)
def test_frechet_distance_is_symmetric_and_not_negative(first, second):
    one, other = frechet_distance(first, second), frechet_distance(second, first)
    scale = 1 + np.abs(first).max() ** 2 + np.abs(second).max() ** 2
    assert one >= -1e-9 * scale
    assert one == pytest.approx(other, abs=1e-6 * scale)


def test_frechet_distance_of_a_constant_sample_is_finite(rng):
    assert frechet_distance(rng.normal(size=(50, 3)), np.zeros((50, 3))) == pytest.approx(3, rel=0.3)


def test_kernel_distance_is_the_sum_over_pairs(rng):
    first, second = rng.normal(size=(20, 3)), rng.normal(size=(15, 3)) + 0.5
    kernel = lambda a, b: (a @ b.T / 3 + 1) ** 4  # noqa: E731
    within = [(kernel(s, s).sum() - np.trace(kernel(s, s))) / (len(s) * (len(s) - 1)) for s in (first, second)]
    assert kernel_distance(first, second) == pytest.approx(sum(within) - 2 * kernel(first, second).mean())


def test_kernel_distance_is_unbiased(rng):
    values = [kernel_distance(*rng.normal(size=(2, 40, 3))) for _ in range(200)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(200)
    assert min(values) < 0


def test_sliced_w1_sees_a_correlation_that_w1_does_not(rng):
    plain = rng.normal(size=(2000, 2))
    correlated = plain @ np.linalg.cholesky([[1, 0.9], [0.9, 1]]).T
    other = rng.normal(size=(2000, 2))
    assert wasserstein(plain, correlated).max() < 0.1
    floor = sliced_wasserstein(plain, other, np.random.default_rng(1))
    assert sliced_wasserstein(plain, correlated, np.random.default_rng(1)) > 3 * floor


def test_separation_power_runs_from_alike_to_disjoint(rng):
    values = rng.normal(size=2000)
    assert separation_power(values, values) == 0
    assert separation_power(values, values + 100) > 0.95
    assert 0 < separation_power(values, rng.normal(size=2000)) < 0.05


def test_bins_hold_equally_many_real_jets(rng):
    values = rng.exponential(size=1000)
    counts = np.histogram(values, reference_bins(values))[0]
    assert len(counts) == 50 and counts.min() >= 19 and counts.max() <= 21
    assert len(reference_bins(np.repeat([0.0, 1.0], 500))) <= 5


@pytest.mark.parametrize("metric", [wasserstein, frechet_distance, kernel_distance])
def test_bad_features_are_refused(metric, rng):
    good = rng.normal(size=(30, 3))
    for bad, message in (
        (good[:, :2], "features"),
        (good[0], "shape"),
        (np.where(good == good[0, 0], np.nan, good), "1 of 30 generated jets .* not finite"),
        (good[:0], "holds 0 jets"),
    ):
        with pytest.raises(ValueError, match=message):
            metric(good, bad)


def test_an_estimate_has_its_baseline_and_tells_alike_from_unlike(rng):
    real, alike = rng.normal(size=(2000, 5)), rng.normal(size=(1000, 5))
    metric = HEADLINE["fpd"].compute
    null = estimate(metric, real, alike, rng, size=1000)
    wrong = estimate(metric, real, alike * 1.3, rng, size=1000)
    assert null.value == pytest.approx(null.baseline, abs=5 * null.excess_error)
    assert abs(null.significance) < 3 < wrong.significance
    assert (wrong.size, wrong.draws) == (1000, 5)
    with pytest.raises(ValueError, match="needs 2000 real and 1000 generated"):
        estimate(metric, real[:1500], alike, rng, size=1000)
