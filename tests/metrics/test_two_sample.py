from __future__ import annotations

import numpy as np
import pytest

from jet_diffusion.metrics.classifiers import CLASSIFIERS, ImageClassifier, ObservableClassifier, VoxelClassifier
from jet_diffusion.metrics.networks import TOWER_VOXELS, filled_towers, tower_images, tower_inputs
from jet_diffusion.metrics.perturbations import PERTURBATIONS, perturb
from jet_diffusion.metrics.two_sample import POWER, has_power, thirds, two_sample_test
from jet_diffusion.schema import HCAL


@pytest.fixture(scope="module")
def halves(stand_in):
    return stand_in.split([400, 400], np.random.default_rng(0))


def test_thirds_are_disjoint_and_balanced():
    parts = thirds(300, np.random.default_rng(0))
    assert sorted(np.concatenate(parts)) == list(range(600))
    assert all((part >= 300).sum() == 100 for part in parts)


def test_real_halves_look_alike_and_scaled_jets_do_not(halves):
    real, second = halves
    alike = two_sample_test(ObservableClassifier(), real, second)
    scaled = two_sample_test(ObservableClassifier(), real, second.map(lambda energies: energies * np.float32(1.5)))
    assert alike.auc == pytest.approx(0.5, abs=0.05)
    assert scaled.auc > 0.8
    assert len(alike.aucs) == 5 and alike.error > 0
    assert alike.true_positive_rate[0] >= 0 and alike.true_positive_rate[-1] == 1


def test_a_seed_repeats_itself(halves):
    first, again = (two_sample_test(ObservableClassifier(), *halves, seeds=2, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.aucs, again.aucs)


@pytest.mark.integration
@pytest.mark.parametrize(
    "classifier", [VoxelClassifier(steps=250), ImageClassifier(steps=60)], ids=["voxels", "resnet"]
)
def test_neural_classifiers_see_hcal_without_towers(halves, classifier):
    def into_one_crystal(energies):
        changed = energies.copy()
        changed[:, HCAL] = 0
        changed[:, HCAL, 2::5, 2::5] = 25 * energies[:, HCAL, 2::5, 2::5]
        return changed

    real, second = (half.take(np.arange(300)) for half in halves)
    found = two_sample_test(classifier, real, second.map(into_one_crystal), seeds=1)
    assert found.auc > 0.9
    assert np.isnan(found.error)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_perturbations_do_what_they_say(halves, name):
    before = halves[1].take(np.arange(50))
    after = perturb(name, before, seed=0)
    ratio = after.observable("energy") / before.observable("energy")
    kept = after.voxels.nnz / before.voxels.nnz
    expected = {
        "energies x1.03": (1.03, 1e-5, 1.0),
        "10 % smeared": (1.0, 0.05, 1.0),
        "5 % of hits dropped": (0.95, 0.05, 0.95),
        "HCAL shared wrongly": (1.0, 1e-5, 1.0),
    }
    mean, spread, hits = expected[name]
    assert ratio.mean() == pytest.approx(mean, abs=0.01) and ratio.std() < spread
    assert kept == pytest.approx(hits, abs=0.01)
    towers = after.energies()[:, HCAL].reshape(-1, 25, 5, 25, 5)
    even = np.ptp(towers, axis=(2, 4)).max() < 1e-9
    assert even == (name != "HCAL shared wrongly")
    assert perturb(name, before, seed=0).fingerprint == after.fingerprint


def test_a_classifier_has_power_if_it_finds_one_sample(halves):
    weak = two_sample_test(ObservableClassifier(), *halves, seeds=1)
    strong = two_sample_test(ObservableClassifier(), halves[0], perturb("HCAL shared wrongly", halves[1], 0), seeds=1)
    assert strong.auc > POWER
    assert not has_power([weak]) and has_power([weak, strong])


def test_tower_inputs_hold_every_voxel_once(halves):
    sample = halves[0].take(np.arange(5))
    inputs = tower_inputs(sample)
    assert inputs.nnz == sample.voxels.nnz
    images, towers = tower_images(inputs), filled_towers(inputs)
    assert images.shape == (5, TOWER_VOXELS, 25, 25)
    filled = images.permute(0, 2, 3, 1).reshape(5, 625, TOWER_VOXELS)[towers.jet, towers.tower]
    assert (filled == towers.values).all()
    assert len(towers.jet) == int((images != 0).any(dim=1).sum())
    energy = sample.energies()[2, 1, 60:65, 60:65]
    np.testing.assert_allclose(images[2, 25:50, 12, 12], np.log1p(energy / 1e-3).ravel(), rtol=1e-5)


def test_samples_of_other_sizes_are_refused(halves):
    real, second = halves
    with pytest.raises(ValueError, match="one size, got 400 and 300"):
        two_sample_test(ObservableClassifier(), real, second.take(np.arange(300)))
    with pytest.raises(ValueError, match="needs 300 jets of each kind, got 200"):
        two_sample_test(ObservableClassifier(), *(half.take(np.arange(200)) for half in halves))


def test_the_table_describes_its_classifiers():
    assert all(CLASSIFIERS[name]().name == name and CLASSIFIERS[name]().description for name in CLASSIFIERS)
