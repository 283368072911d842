from __future__ import annotations

import numpy as np
import pytest

from jet_diffusion.metrics.closure import condition_closure, response_ratios


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def halves(stand_in, rng):
    return stand_in.split([1024, 1024], rng)


def test_real_jets_close(halves, rng):
    found, omitted = condition_closure(*halves, rng)
    assert len(found) == 20 and not omitted
    pulls = np.array([[one.median_pull, one.width_pull] for one in found])
    assert np.abs(pulls).max() < 4
    assert (np.abs(pulls) < 2).mean() > 0.8
    assert all(one.real_median > 1.2 for one in found if one.condition == "pt")


def test_bins_cover_all_jets_of_a_class(halves, rng):
    found, _ = condition_closure(*halves, rng)
    for condition in ("pt", "m0"):
        chosen = [one for one in found if one.condition == condition and one.jet_class == "quark"]
        assert sum(one.generated_jets for one in chosen) == (halves[1].labels == 1).sum()
        assert sum(one.real_jets for one in chosen) == (halves[0].labels == 1).sum()


def test_a_generator_deaf_to_pt_does_not_close(halves, rng):
    real, generated = halves
    generated.pt = rng.permutation(generated.pt)
    found, _ = condition_closure(real, generated, rng)
    pulls = [one.median_pull for one in found if one.condition == "pt"]
    assert max(map(abs, pulls)) > 5


def test_a_shifted_response_shows_in_every_bin(halves, rng):
    real, generated = halves
    found, _ = condition_closure(real, generated.map(lambda energies: energies * np.float32(1.3)), rng)
    assert all(one.median_pull > 2 for one in found if one.condition == "pt")


def test_the_response_of_jets_of_more_energy_is_that_much_larger(halves, rng):
    real, generated = halves
    plain, scaled = (
        {(one.condition, one.jet_class): one for one in response_ratios(condition_closure(real, jets, rng)[0])}
        for jets in (generated, generated.map(lambda energies: energies * np.float32(1.25)))
    )
    assert len(plain) == 4
    for key, one in plain.items():
        assert abs(one.ratio - 1) < 4 * one.error < 0.2
        assert scaled[key].ratio == pytest.approx(1.25 * one.ratio, rel=1e-5)
        assert one.jets == (generated.labels == (key[1] == "quark")).sum()


def test_the_error_of_a_response_is_its_spread(stand_in, rng):
    """Over many splits of the same jets, which are a little less alike than independent ones."""
    splits = [stand_in.split([1024, 1024], rng) for _ in range(12)]
    found = [response_ratios(condition_closure(*halves, rng)[0])[0] for halves in splits]
    spread = np.std([one.ratio for one in found])
    assert 0.5 < spread / np.mean([one.error for one in found]) < 1.7


def test_no_ratio_to_real_jets_that_do_not_respond(halves, rng):
    real, generated = halves
    blank = real.map(lambda energies: energies * np.float32(0))
    assert response_ratios(condition_closure(blank, generated, rng)[0]) == []


def test_classes_without_jets_are_named(halves, rng):
    real, generated = halves
    found, omitted = condition_closure(real, generated.of_class(1), rng)
    assert {one.jet_class for one in found} == {"quark"}
    assert omitted == ["pt, gluon: 0 jets, 50 needed", "m0, gluon: 0 jets, 50 needed"]


def test_few_jets_make_fewer_bins(halves, rng):
    few = [half.take(np.arange(260)) for half in halves]
    found, _ = condition_closure(*few, rng)
    assert 4 <= len(found) < 12
    assert found[0].row()["median_pull"] == found[0].median_pull
