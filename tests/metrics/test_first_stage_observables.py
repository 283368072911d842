"""The image-only metrics do not see the observables that the first stage of a model fixes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from jet_diffusion.metrics.classifiers import CLASSIFIERS
from jet_diffusion.metrics.headline import HEADLINE
from jet_diffusion.observables.table import IMAGE_ONLY, OBSERVABLES

SIZE = 450


def with_wrong_first_stage(sample, rng):
    """Jets whose first-stage observables are a fifth too large and those of other jets; the others stay."""
    observables = sample.observables.copy()
    fixed = [row.first_stage for row in OBSERVABLES.values()]
    observables[:, fixed] = 1.2 * rng.permutation(observables[:, fixed])
    return replace(sample, _observables=observables)


@pytest.mark.parametrize(
    ("every", "image"), [("fpd", "fpd_image"), ("mean_w1", "mean_w1_image"), ("auc_observables", "auc_image")]
)
def test_a_wrong_first_stage_moves_the_metric_of_all_observables_alone(stand_in, every, image):
    real, right = stand_in.split([SIZE, SIZE], np.random.default_rng(0))
    wrong = with_wrong_first_stage(right, np.random.default_rng(1))

    def value(name, sample):
        return HEADLINE[name].compute(real.observables, sample.observables, np.random.default_rng(2))

    assert value(image, wrong) == value(image, right)
    assert value(every, wrong) > 1.2 * value(every, right)


def test_the_image_only_classifier_does_not_see_a_wrong_first_stage(stand_in):
    right = stand_in.take(np.arange(50))
    wrong = with_wrong_first_stage(right, np.random.default_rng(1))
    inputs = [CLASSIFIERS["image"]().prepare(sample) for sample in (right, wrong)]
    np.testing.assert_array_equal(*inputs)
    assert inputs[0].shape == (50, len(IMAGE_ONLY))
