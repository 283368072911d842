from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.neighbors import NearestNeighbors

from jet_diffusion.metrics.distances import FeatureScale, Whitening, central_width
from jet_diffusion.metrics.neighbours import nearest_neighbours, precision_recall


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_alike_samples_have_high_precision_and_recall(rng):
    found = precision_recall(*rng.normal(size=(2, 600, 4)))
    assert min(found.precision, found.recall, found.coverage) > 0.9
    assert found.density == pytest.approx(1, abs=0.1)


def test_a_mode_that_is_missing_costs_recall_and_one_too_many_precision(rng):
    both = np.concatenate([rng.normal(size=(300, 3)), rng.normal(size=(300, 3)) + 20])
    one = rng.normal(size=(600, 3))
    missing, added = precision_recall(both, one), precision_recall(one, both)
    assert missing.precision > 0.9 and missing.recall < 0.55
    assert added.recall > 0.9 and added.precision < 0.55
    assert missing.coverage < 0.6


def test_precision_is_the_definition(rng):
    real, generated = rng.normal(size=(40, 2)), 1.5 * rng.normal(size=(30, 2))
    distance = np.linalg.norm(real[:, None] - real, axis=-1)
    radius = np.sort(distance, axis=1)[:, 3]
    inside = np.linalg.norm(real[:, None] - generated, axis=-1) <= radius[:, None]
    found = precision_recall(real, generated, neighbours=3)
    assert found.precision == inside.any(axis=0).mean()
    assert found.density == pytest.approx(inside.sum() / (3 * 30))
    assert found.coverage == inside.any(axis=1).mean()


def test_a_collapsed_generator_is_caught(rng):
    found = precision_recall(rng.normal(size=(200, 3)), np.zeros((200, 3)))
    assert found.recall == 0
    assert found.coverage < 0.2


def test_too_few_jets_for_the_neighbours_are_refused(rng):
    with pytest.raises(ValueError, match="holds 5 jets, at least 6"):
        precision_recall(rng.normal(size=(5, 2)), rng.normal(size=(20, 2)))


@pytest.mark.parametrize("kind", [np.asarray, csr_array])
def test_nearest_neighbours_are_scikit_learns(rng, kind):
    sample, reference = rng.poisson(0.7, (30, 20)) * 1.0, rng.poisson(0.7, (50, 20)) * 1.0
    distances, rows = nearest_neighbours(kind(sample), kind(reference), 4)
    expected, _ = NearestNeighbors(n_neighbors=4, algorithm="brute").fit(reference).kneighbors(sample)
    np.testing.assert_allclose(distances, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(sample[:, None] - reference[rows], axis=-1), expected, atol=1e-6)


def test_one_outlier_does_not_move_the_scale(rng):
    features = rng.normal(size=(5000, 2))
    wild = features.copy()
    wild[0, 0] = 1e5
    np.testing.assert_allclose(FeatureScale.fit(features).scale, FeatureScale.fit(wild).scale, rtol=0.1)
    scale = FeatureScale.fit(wild)
    assert np.abs(scale(wild)).max() == scale.cap
    assert scale.capped(wild) == 1 and scale.capped(features) == 0


def test_whitened_features_have_unit_variance_and_drop_what_repeats(rng):
    features = rng.normal(size=(3000, 3)) * [1, 10, 100]
    features = np.column_stack([features, features.sum(axis=1), np.zeros(3000)])
    white = Whitening.fit(features)(features)
    assert white.shape == (3000, 3)
    np.testing.assert_allclose(np.cov(white.T), np.eye(3), atol=0.05)


def test_a_constant_feature_has_width_one():
    np.testing.assert_array_equal(central_width(np.zeros((10, 1))), [1.0])
