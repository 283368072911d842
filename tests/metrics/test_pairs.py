from __future__ import annotations

import numpy as np
import pytest

from jet_diffusion.metrics.pairs import (
    EMD_RADIUS,
    PAIR_SCORES,
    centroid_shift,
    crps,
    energy_movers_distance,
    energy_ratio,
    interval_coverage,
    peak_signal_to_noise,
    pixel_error,
    structural_similarity,
)
from jet_diffusion.schema import CRYSTAL_PITCH


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def two_towers(first, second, energies=(0.5, 0.5)):
    image = np.zeros((1, 3, 125, 125), np.float32)
    for (row, column), energy in zip((first, second), energies, strict=True):
        image[0, 1, 5 * row + 2, 5 * column + 2] += energy
    return image


def test_an_image_is_like_itself(jets):
    best = {"pixel_error": 0, "energy_ratio": 1, "centroid_shift": 0, "emd": 0, "ssim": 1, "psnr": np.inf}
    for name, (_, _, score) in PAIR_SCORES.items():
        np.testing.assert_allclose(score(jets.energies[:4], jets.energies[:4]), best[name], atol=1e-9, err_msg=name)


def test_blank_images_have_known_scores(jets):
    original = jets.energies[:4]
    blank = np.zeros_like(original)
    np.testing.assert_allclose(energy_ratio(original, blank), 0)
    total = 100 * original.sum(axis=(1, 2, 3), dtype=np.float64)
    np.testing.assert_allclose(energy_movers_distance(original, blank), total, rtol=1e-6)
    np.testing.assert_allclose(
        pixel_error(original, blank), 100 * np.sqrt((original.astype(np.float64) ** 2).mean(axis=(1, 2, 3)))
    )
    assert (structural_similarity(original, blank) > 0.8).all()  # why it is no headline
    assert (peak_signal_to_noise(original, blank) > 30).all()


def test_moving_energy_costs_the_way_it_goes():
    original = two_towers((12, 12), (12, 16))
    moved = two_towers((12, 12), (15, 16))
    way = 3 * 5 * CRYSTAL_PITCH
    assert energy_movers_distance(original, moved)[0] == pytest.approx(50 * way / EMD_RADIUS, rel=1e-6)
    assert centroid_shift(original, moved)[0] == pytest.approx(way / 2)
    brighter = two_towers((12, 12), (12, 16), (0.5, 0.7))
    assert energy_movers_distance(original, brighter)[0] == pytest.approx(20, rel=1e-5)


def test_the_cheapest_plan_is_found():
    original = two_towers((5, 5), (5, 6))
    crossed = two_towers((5, 6), (5, 7))
    # Moving one tower by two or both by one costs the same; either way the shared tower is used.
    expected = 50 * 2 * 5 * CRYSTAL_PITCH / EMD_RADIUS
    assert energy_movers_distance(original, crossed)[0] == pytest.approx(expected, rel=1e-6)


def test_emd_is_symmetric_and_obeys_the_triangle(jets):
    a, b, c = (jets.energies[[row]] for row in range(3))
    ab, bc, ac = (energy_movers_distance(*pair)[0] for pair in ((a, b), (b, c), (a, c)))
    assert ab == pytest.approx(energy_movers_distance(b, a)[0], rel=1e-6)
    assert ac <= ab + bc


def test_scores_get_worse_with_noise(jets, rng):
    original = jets.energies[:8]
    levels = [original * (1 + level * rng.normal(size=original.shape)).astype(np.float32) for level in (0.05, 0.5)]
    for name in ("pixel_error", "ssim", "psnr"):
        little, much = (PAIR_SCORES[name][2](original, noisy).mean() for noisy in levels)
        assert (much > little) == (name == "pixel_error")


def test_crps_of_one_gaussian_is_the_formula(rng):
    draws = rng.normal(size=(4000, 1))
    # For y = 0 and N(0, 1): sqrt(2/pi) - 1/sqrt(pi)
    assert crps(draws, np.zeros(1))[0] == pytest.approx(np.sqrt(2 / np.pi) - 1 / np.sqrt(np.pi), abs=0.02)


def test_crps_is_the_sum_over_pairs(rng):
    draws, truth = rng.normal(size=(5, 3)), rng.normal(size=3)
    pairs = np.abs(draws[:, None] - draws).sum(axis=(0, 1)) / (5 * 4)
    np.testing.assert_allclose(crps(draws, truth), np.abs(draws - truth).mean(axis=0) - pairs / 2)


def test_crps_prefers_the_right_width(rng):
    truth = rng.normal(size=2000)
    scores = {width: crps(width * rng.normal(size=(30, 2000)), truth).mean() for width in (0.2, 1.0, 3.0)}
    assert min(scores, key=scores.get) == 1.0


@pytest.mark.parametrize("level", [0.5, 0.68, 0.9])
def test_coverage_of_a_calibrated_ensemble_is_nominal(rng, level):
    found, nominal = interval_coverage(rng.normal(size=(24, 5000)), rng.normal(size=5000), level)
    assert nominal == pytest.approx(level, abs=0.05)
    assert found == pytest.approx(nominal, abs=0.03)


def test_narrow_ensembles_cover_too_little(rng):
    found, nominal = interval_coverage(0.3 * rng.normal(size=(24, 1000)), rng.normal(size=1000), 0.9)
    assert found < nominal - 0.2


def test_ties_count_half():
    assert interval_coverage(np.zeros((10, 4)), np.zeros(4), 0.68)[0] == 0.5


def test_bad_ensembles_are_refused():
    with pytest.raises(ValueError, match="draws must have shape"):
        crps(np.zeros((1, 3)), np.zeros(3))
    with pytest.raises(ValueError, match="level must lie"):
        interval_coverage(np.zeros((5, 3)), np.zeros(3), 1.0)
