"""No metric may be fooled: each headline metric must put every control below an independent real sample."""

from __future__ import annotations

import numpy as np
import pytest

from jet_diffusion.metrics.bands import wasserstein_bands
from jet_diffusion.metrics.controls import CONTROLS
from jet_diffusion.metrics.estimates import SIGNIFICANT, estimate
from jet_diffusion.metrics.headline import HEADLINE
from jet_diffusion.observables import OBSERVABLES

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
        draws = 5 if metric == "auc_observables" else 10  # it trains a classifier in each
        found = estimate(HEADLINE[metric].compute, real, other, rng, size=size_of(pair), draws=draws)
        significance[control] = found.significance
    assert abs(significance.pop("independent")) < SIGNIFICANT
    blind = [control for control, value in significance.items() if value < SIGNIFICANT]
    assert not blind, f"{metric} is blind to {blind}: {significance}"


@pytest.fixture(scope="module")
def w1_significance(samples):
    """Control -> how many standard errors each observable's W1 lies above its floor."""
    found = {}
    for control, pair in samples.items():
        rng = np.random.default_rng(3)
        size = size_of(pair)
        reference, second = pair[0].split([size, size], rng)
        other = pair[1].take(np.arange(size))
        bands = wasserstein_bands(reference.observables, second.observables, other.observables, rng, replicas=100)
        found[control] = (bands.value - bands.floor) / np.hypot(bands.error, bands.floor_error)
    return found


@pytest.mark.integration
@pytest.mark.parametrize("control", CONTROLS)
def test_an_observable_sees_what_it_does_not_declare_itself_blind_to(w1_significance, control):
    rows = zip(OBSERVABLES.values(), w1_significance[control], strict=True)
    undeclared = {row.name: round(z, 1) for row, z in rows if control not in row.blind_to and not z > SIGNIFICANT}
    assert not undeclared


@pytest.mark.integration
def test_declared_blindness_is_real(w1_significance):
    seen = {
        (row.name, control): round(w1_significance[control][index], 1)
        for index, row in enumerate(OBSERVABLES.values())
        for control in row.blind_to
        if w1_significance[control][index] > 3 * SIGNIFICANT
    }
    assert not seen


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
    assert (made["blurred"].observable("hits_ecal") > 3 * real.observable("hits_ecal")).all()
