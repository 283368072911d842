"""The reference model of the repository: it makes jets, and what is staged of it loads without this package."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from strangers import run_stranger

from jet_diffusion.hub import load_pipeline

pytestmark = pytest.mark.integration

REFERENCE = Path(__file__).parents[1] / "reference" / "model"


@pytest.fixture(scope="module")
def reference():
    pipeline = load_pipeline(REFERENCE)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_it_is_saved_in_the_form_of_this_version(caplog):
    load_pipeline(REFERENCE)
    assert "earlier version" not in caplog.text
    assert not list(REFERENCE.rglob("*.py"))


@pytest.mark.integration
def test_it_is_staged_with_the_sources_that_a_stranger_needs(reference, tmp_path):
    reference.save_pretrained(tmp_path / "staged")
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    found = run_stranger(tmp_path / "staged", tmp_path, environment)
    ours = reference(3, labels=1, num_inference_steps=4, generator=torch.Generator().manual_seed(0)).images
    assert np.array_equal(found["first"], ours)


def test_it_makes_jets_of_the_energies_drawn_for_them(reference):
    output = reference(4, labels="quark", pt=120.0, generator=torch.Generator().manual_seed(0))
    energies = 100 * output.images.sum((1, 2), dtype=np.float64)
    assert (energies > 0).all()
    assert 0.3 < energies.sum() / 4 / 250 < 3
    lit = (output.images > 0).mean((0, 1, 2))
    assert ((lit > 1e-3) & (lit < 0.1)).all()
    assert "simulated" in reference.config.provenance or "stand-in" in reference.config.provenance
