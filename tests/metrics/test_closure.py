from __future__ import annotations

import numpy as np
import pytest

from jet_diffusion.metrics.closure import condition_closure


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def halves(stand_in, rng):
    return stand_in.split([1024, 1024], rng)


def closures_of(real, generated, rng):
    """(condition, class) -> closure."""
    return {(one.condition, one.jet_class): one for one in condition_closure(real, generated, rng)}


def bins_of(real, generated, rng):
    return [one for closure in condition_closure(real, generated, rng) for one in closure.bins]


def test_real_jets_close(halves, rng):
    closures = condition_closure(*halves, rng)
    found = [one for closure in closures for one in closure.bins]
    assert len(found) == 20 and not any(closure.left_out for closure in closures)
    pulls = np.array([[one.median_pull, one.width_pull] for one in found])
    assert np.abs(pulls).max() < 4
    assert (np.abs(pulls) < 2).mean() > 0.8
    assert all(one.real_median > 1.2 for one in found if one.condition == "pt")


def test_bins_cover_all_jets_of_a_class(halves, rng):
    found = bins_of(*halves, rng)
    for condition in ("pt", "m0"):
        chosen = [one for one in found if one.condition == condition and one.jet_class == "quark"]
        assert sum(one.generated_jets for one in chosen) == (halves[1].labels == 1).sum()
        assert sum(one.real_jets for one in chosen) == (halves[0].labels == 1).sum()


def test_a_generator_deaf_to_pt_does_not_close(halves, rng):
    real, generated = halves
    generated.pt = rng.permutation(generated.pt)
    found = bins_of(real, generated, rng)
    pulls = [one.median_pull for one in found if one.condition == "pt"]
    assert max(map(abs, pulls)) > 5


def test_a_shifted_response_shows_in_every_bin(halves, rng):
    real, generated = halves
    found = bins_of(real, generated.map(lambda energies: energies * np.float32(1.3)), rng)
    assert all(one.median_pull > 2 for one in found if one.condition == "pt")


def response(real, generated, rng, condition="pt", jet_class="gluon"):
    return closures_of(real, generated, rng)[condition, jet_class].response()


def test_the_response_of_jets_of_more_energy_is_that_much_larger(halves, rng):
    real, generated = halves
    more = generated.map(lambda energies: energies * np.float32(1.25))
    plain, larger = (closures_of(real, jets, rng) for jets in (generated, more))
    assert len(plain) == 4
    for key, closure in plain.items():
        response = closure.response()
        assert abs(response.ratio - 1) < 4 * response.error < 0.2
        assert larger[key].response().ratio == pytest.approx(1.25 * response.ratio, rel=1e-5)
        assert response.jets == (generated.labels == (closure.jet_class == "quark")).sum()


def test_errors_are_those_of_many_splits(stand_in, rng):
    found = [response(*stand_in.split([1024, 1024], rng), rng) for _ in range(12)]
    spread = np.std([one.ratio for one in found])
    assert 0.5 < spread / np.mean([one.error for one in found]) < 1.7
    assert 0.4 < np.mean([one.square_pull for one in found]) < 1.8
    assert np.mean([abs(one.square_pull - 1) < 3 * one.square_pull_error for one in found]) > 0.8


def test_a_mean_response_that_hides_bins_shows_in_their_pulls(halves, rng):
    real, generated = halves
    plain = response(real, generated, rng)
    generated.pt = rng.permutation(generated.pt)
    deaf = response(real, generated, rng)
    assert abs(deaf.ratio - 1) < 0.1
    assert plain.square_pull < 3
    assert deaf.square_pull > 10


def test_no_response_over_real_jets_that_do_not_respond(halves, rng):
    real, generated = halves
    blank = real.map(lambda energies: energies * np.float32(0))
    with pytest.raises(ValueError, match="not positive in 5 of 5 bins"):
        response(blank, generated, rng)
    with pytest.raises(ValueError, match="0 jets, 50 needed"):
        response(real, generated.of_class(1), rng)


def test_classes_and_bins_without_jets_are_named(halves, rng):
    real, generated = halves
    quarks = generated.of_class(1)
    assert {one.jet_class for one in bins_of(real, quarks, rng)} == {"quark"}
    left_out = {key: one.left_out for key, one in closures_of(real, quarks, rng).items() if one.left_out}
    assert left_out == {(condition, "gluon"): ("0 jets, 50 needed",) for condition in ("pt", "m0")}
    soft = generated.take(np.flatnonzero(generated.pt < np.median(generated.pt)))
    left_out = {key: one.left_out for key, one in closures_of(real, soft, rng).items() if one.left_out}
    assert left_out.keys() >= {("pt", "gluon"), ("pt", "quark")}
    assert all("generated jets of" in reason for reasons in left_out.values() for reason in reasons)


def test_few_jets_make_fewer_bins(halves, rng):
    few = [half.take(np.arange(260)) for half in halves]
    found = bins_of(*few, rng)
    assert 4 <= len(found) < 12
    assert found[0].row()["median_pull"] == found[0].median_pull
