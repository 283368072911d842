"""No metric may be fooled: each headline metric must put every control below an independent real sample."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from jet_diffusion.metrics.bands import PooledPair
from jet_diffusion.metrics.estimates import SIGNIFICANT, estimate
from jet_diffusion.metrics.headline import HEADLINE
from jet_diffusion.metrics.perturbations import CONTROLS
from jet_diffusion.observables.table import OBSERVABLES

SIZE = 512


@pytest.fixture(scope="module")
def samples(stand_in):
    """Control -> (real jets, wrong jets) to compare; "wrong class" within one class."""
    halves = stand_in.take(np.arange(2 * SIZE)), stand_in.take(np.arange(2 * SIZE, 4 * SIZE))
    found = {name: (halves[0], control(halves[1], np.random.default_rng(1))) for name, control in CONTROLS.items()}
    swapped = CONTROLS["wrong class"](stand_in, np.random.default_rng(1))
    found["wrong class"] = stand_in.of_class(0), swapped.of_class(0)
    found["independent"] = halves
    return found


def size_of(pair):
    return min(SIZE, len(pair[0]) // 2, len(pair[1]))


@pytest.mark.integration
@pytest.mark.parametrize("metric", HEADLINE)
def test_every_headline_metric_sees_every_control(samples, metric):
    significance = {}
    for control, pair in samples.items():
        real, other = (sample.observables for sample in pair)
        rng = np.random.default_rng(2)
        draws = 5 if metric.startswith("auc") else 10  # it trains a classifier in each
        found = estimate(HEADLINE[metric].compute, real, other, rng, size=size_of(pair), draws=draws)
        significance[control] = found.significance
    assert abs(significance.pop("independent")) < SIGNIFICANT
    declared = HEADLINE[metric].blind_to
    blind = [control for control, value in significance.items() if value < SIGNIFICANT and control not in declared]
    assert not blind, f"{metric} is blind to {blind}: {significance}"


@pytest.fixture(scope="module")
def shuffled(samples):
    """Control -> W1 of each observable, and W1 of the same jets shuffled into two samples."""
    found = {}
    for control, (real, other) in samples.items():
        size = min(len(real), len(other))
        pair = PooledPair(real.observables[:size], other.observables[:size])
        found[control] = pair.distance, pair.shuffle(np.random.default_rng(3), 1000)
    return found


def seen(distance, shuffles):
    """Whether all shuffles are less apart: a permutation test at 0.1 %, as strict as three standard errors."""
    return distance > shuffles.max(axis=0)


@pytest.mark.integration
@pytest.mark.parametrize("control", CONTROLS)
def test_an_observable_sees_what_it_does_not_declare_itself_blind_to(shuffled, control):
    rows = zip(OBSERVABLES.values(), seen(*shuffled[control]), strict=True)
    assert not [row.name for row, is_seen in rows if control not in row.blind_to and not is_seen]


@pytest.mark.integration
def test_no_observable_sees_an_independent_sample(shuffled):
    assert seen(*shuffled["independent"]).sum() <= 1


@pytest.mark.integration
def test_declared_blindness_is_real(shuffled):
    significance = {}
    for control, (distance, shuffles) in shuffled.items():
        for index, row in enumerate(OBSERVABLES.values()):
            if control in row.blind_to:
                spread = shuffles[:, index].std() or 1.0
                significance[row.name, control] = (distance[index] - shuffles[:, index].mean()) / spread
    assert not {key: round(float(z), 1) for key, z in significance.items() if z > 3 * SIGNIFICANT}


def test_no_observable_is_blind_to_a_blank_or_mean_image():
    assert all(row.blind_to <= set(CONTROLS) - {"blank", "mean image"} for row in OBSERVABLES.values())


def test_controls_leave_alone_what_they_should(stand_in):
    real, rng = stand_in.take(np.arange(64)), np.random.default_rng(0)
    made = {name: control(real, rng) for name, control in CONTROLS.items()}
    assert all(len(sample) == 64 for sample in made.values())
    assert made["blank"].voxels.nnz == 0
    shuffled = made["pixel-shuffled"]
    for name in ("energy", "hits_tracks", "ptd_ecal"):
        np.testing.assert_allclose(shuffled.observable(name), real.observable(name), rtol=1e-6)
    np.testing.assert_allclose(made["energy-scaled"].observable("width"), real.observable("width"), rtol=1e-6)
    np.testing.assert_array_equal(made["wrong class"].labels, 1 - real.labels)
    assert len(np.unique(made["mean image"].observable("energy"))) == 2
    mean = real.of_class(1).observable("energy").mean()
    assert made["mean image"].of_class(1).observable("energy")[0] == pytest.approx(mean, rel=1e-4)
    for energies, blurred in zip(real.batches(), made["blurred"].batches(), strict=True):
        spread = binary_dilation(energies > 0, np.ones((1, 1, 3, 3)))
        np.testing.assert_array_equal(blurred > 0, spread)
        inner = energies[:, :, 1:-1, 1:-1].sum(dtype=np.float64), energies.sum(dtype=np.float64)
        assert inner[0] <= blurred.sum(dtype=np.float64) * (1 + 1e-6) <= inner[1] * (1 + 2e-6)
