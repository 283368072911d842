from __future__ import annotations

import numpy as np
import pytest

from jet_diffusion.observables.hits import CRYSTAL_CENTRES, TOWER_CENTRES, Hits, divide
from jet_diffusion.schema import CRYSTAL_PITCH, ECAL, HCAL, TRACKS


def one_hit(channel, row, column, energy=0.5):
    energies = np.zeros((1, 3, 125, 125), np.float32)
    energies[0, channel, row, column] = energy
    return energies


def test_sums_of_hits_are_sums_of_the_image(jets):
    hits = Hits(jets.energies)
    np.testing.assert_allclose(hits.channel_energy, 100 * jets.energies.sum(axis=(2, 3), dtype=np.float64))
    np.testing.assert_array_equal(hits.channel_hits, np.count_nonzero(jets.energies, axis=(2, 3)))
    blocks = jets.energies.reshape(-1, 3, 25, 5, 25, 5).sum(axis=(3, 5), dtype=np.float64)
    np.testing.assert_allclose(hits.tower_energy, 100 * blocks.reshape(-1, 3, 625), rtol=1e-6)


def test_a_hit_lies_where_its_crystal_does():
    particles = Hits(one_hit(ECAL, 62 + 7, 62 - 3)).particles
    assert particles.energy.tolist() == [50.0]
    assert particles.eta == pytest.approx([7 * CRYSTAL_PITCH])
    assert particles.phi == pytest.approx([-3 * CRYSTAL_PITCH])


def test_an_hcal_tower_is_one_particle_at_its_centre():
    energies = np.zeros((1, 3, 125, 125), np.float32)
    energies[0, HCAL, 60:65, 65:70] = 0.01
    particles = Hits(energies).particles
    assert len(particles.energy) == 1
    assert particles.energy == pytest.approx([25.0])
    assert (particles.eta, particles.phi) == (pytest.approx([0.0]), pytest.approx([5 * CRYSTAL_PITCH]))


def test_crystals_and_towers_have_one_centre():
    assert CRYSTAL_CENTRES[62] == 0
    np.testing.assert_allclose(CRYSTAL_CENTRES.reshape(25, 5).mean(axis=1), TOWER_CENTRES, atol=1e-12)


def test_minus_zero_is_no_hit_and_nan_is_one():
    assert Hits(one_hit(TRACKS, 1, 1, -0.0)).channel_hits.sum() == 0
    assert Hits(one_hit(TRACKS, 1, 1, np.nan)).channel_hits.sum() == 1


@pytest.mark.parametrize(
    ("energies", "message"),
    [
        (np.zeros((2, 125, 125, 3), np.float32), "channels-last"),
        (np.zeros((3, 125, 125), np.float32), "shape"),
        (np.zeros((1, 3, 125, 125), np.int64), "floating-point"),
    ],
)
def test_other_arrays_are_refused(energies, message):
    with pytest.raises(ValueError, match=message):
        Hits(energies)


def test_division_by_nothing_is_zero():
    np.testing.assert_array_equal(divide(np.array([1.0, 2.0]), np.array([0.0, 4.0])), [0.0, 0.5])
