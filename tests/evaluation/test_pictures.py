from __future__ import annotations

import numpy as np

from jet_diffusion.evaluation.images import radial_profile
from jet_diffusion.evaluation.write import pairs_of_like_jets
from jet_diffusion.observables.hits import CRYSTAL_CENTRES


def test_a_generated_jet_is_shown_beside_the_real_one_of_like_conditions(stand_in):
    real, generated = stand_in.split([300, 50], np.random.default_rng(0))
    ours, theirs = pairs_of_like_jets(real, generated, [0, 1], number=3)
    np.testing.assert_array_equal(ours.labels, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(theirs.labels, ours.labels)
    distances = np.abs(ours.pt - theirs.pt) / real.pt.std() + np.abs(ours.m0 - theirs.m0) / real.m0.std()
    usual = np.abs(np.subtract.outer(real.pt, theirs.pt)) / real.pt.std()
    assert (distances < np.median(usual)).all()
    same, _ = pairs_of_like_jets(generated, generated, [1], number=3)
    np.testing.assert_array_equal(same.pt, generated.pt[generated.labels == 1][:3])


def test_a_radial_profile_is_the_mean_over_the_crystals_of_a_ring(stand_in):
    jets = stand_in.take(np.arange(20))
    edges = np.linspace(0, 1.1, 5)
    mean, error = radial_profile(jets, edges)
    radius = np.hypot(CRYSTAL_CENTRES[:, None], CRYSTAL_CENTRES)
    ring = (radius >= edges[1]) & (radius < edges[2])
    each = 100 * jets.energies().astype(np.float64)[:, :, ring].mean(axis=2)
    np.testing.assert_allclose(mean[:, 1], each.mean(axis=0))
    np.testing.assert_allclose(error[:, 1], each.std(axis=0) / np.sqrt(20))
