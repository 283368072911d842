from __future__ import annotations

import evaluate
import numpy as np
import pytest

from jet_diffusion.metrics import EVALUATE_MODULES, module_path
from jet_diffusion.metrics.distances import FeatureScale, frechet_distance, wasserstein


@pytest.fixture(scope="module")
def halves(stand_in):
    return stand_in.observables[:300], stand_in.observables[300:600]


@pytest.mark.parametrize("name", EVALUATE_MODULES)
def test_modules_load_by_path_offline_and_describe_themselves(name, halves):
    module = evaluate.load(module_path(name))
    assert module.description and "arxiv" in module.reference_urls[0].lower() and module.citation.startswith("@")
    assert set(module.features) == {"predictions", "references"}
    found = module.compute(predictions=halves[1], references=halves[0])
    assert all(np.isfinite(value).all() for value in found.values())


def test_figures_are_the_packages(halves):
    real, generated = halves
    scale = FeatureScale.fit(real)
    fpd = evaluate.load(module_path("jet_fpd")).compute(predictions=generated, references=real)["fpd"]
    assert fpd == pytest.approx(frechet_distance(scale(real), scale(generated)))
    w1 = evaluate.load(module_path("jet_w1")).compute(predictions=generated, references=real)
    np.testing.assert_allclose(w1["w1"], wasserstein(real, generated))


def test_batches_may_be_added_one_by_one(halves):
    module, whole = evaluate.load(module_path("jet_kpd")), evaluate.load(module_path("jet_kpd"))
    for rows in np.array_split(np.arange(300), 3):
        module.add_batch(predictions=halves[1][rows], references=halves[0][rows])
    expected = whole.compute(predictions=halves[1], references=halves[0])
    assert module.compute()["kpd"] == pytest.approx(expected["kpd"])


def test_other_names_are_refused():
    with pytest.raises(ValueError, match="no evaluate module 'fid'"):
        module_path("fid")
