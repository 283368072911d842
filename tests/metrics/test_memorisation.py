from __future__ import annotations

import numpy as np
import pytest

from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.metrics.neighbours import SPACES, memorisation
from jet_diffusion.metrics.perturbations import copied_training_jets


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def sets(stand_in, rng):
    """Training, held-out and independent jets."""
    return stand_in.split([400, 400, 400], rng)


@pytest.mark.parametrize("space", SPACES)
def test_independent_jets_are_no_nearer_to_training(sets, rng, space):
    training, held_out, independent = sets
    found = memorisation(independent, training, held_out, space, rng)
    assert found.ratio == pytest.approx(1, abs=4 * found.error)
    assert found.nearer == pytest.approx(0.5, abs=4 * found.nearer_error)
    assert 0.95 < found.ratio < 1.05
    assert (found.size, found.jets) == (400, 400)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("share", [1.0, 0.1])
def test_a_copier_is_caught_even_if_it_copies_one_jet_in_ten(sets, rng, space, share):
    training, held_out, independent = sets
    number = int(400 * share)
    mixed = JetSample.join([copied_training_jets(training, number, rng), independent.take(np.arange(400 - number))])
    found = memorisation(mixed, training, held_out, space, rng)
    assert found.ratio < 0.95
    assert (1 - found.ratio) / found.error > 3


def test_larger_training_sets_do_not_look_like_memory(stand_in, rng):
    training, held_out, independent = stand_in.split([1500, 200, 300], rng)
    found = memorisation(independent, training, held_out, "observables", rng)
    assert found.size == 200
    assert found.ratio == pytest.approx(1, abs=4 * found.error)


def test_an_image_in_both_sets_speaks_for_neither(sets, rng):
    training, _, independent = sets
    found = memorisation(independent, training, training, "pixels", rng)
    assert found.ratio == pytest.approx(1, abs=1e-6)


def test_bad_input_is_refused(sets, rng):
    training, held_out, independent = sets
    with pytest.raises(ValueError, match="no space 'voxels'"):
        memorisation(independent, training, held_out, "voxels", rng)
    with pytest.raises(ValueError, match="needs 100 jets of each kind, got 50"):
        memorisation(independent.take(np.arange(50)), training, held_out, "pixels", rng)
    broken = independent.map(lambda energies: np.where(energies == energies.max(), np.nan, energies))
    for space in SPACES:
        with pytest.raises(ValueError, match="not finite"):
            memorisation(broken, training, held_out, space, rng)
