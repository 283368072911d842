"""The staged reference model of the repository: still what this package would stage, and still making jets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from jet_diffusion.hub import load_pipeline

REFERENCE = Path(__file__).parents[1] / "reference" / "model"


@pytest.fixture(scope="module")
def reference():
    pipeline = load_pipeline(REFERENCE)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_its_source_is_the_packages(reference, tmp_path):
    reference.save_pretrained(tmp_path)
    saved, kept = ({path.relative_to(folder) for path in folder.rglob("*.py")} for folder in (tmp_path, REFERENCE))
    assert saved == kept
    for path in sorted(saved):
        assert (tmp_path / path).read_text() == (REFERENCE / path).read_text(), (
            f"reference/model/{path} is an older version; docs/reference/README.md says how to refresh it"
        )


def test_it_makes_jets_of_the_totals_drawn_for_them(reference):
    output = reference(4, labels="quark", pt=120.0, generator=torch.Generator().manual_seed(0))
    energies = 100 * output.images.sum((1, 2), dtype=np.float64)
    assert (energies > 0).all()
    assert 0.3 < energies.sum() / 4 / 250 < 3
    lit = (output.images > 0).mean((0, 1, 2))
    assert ((lit > 1e-3) & (lit < 0.1)).all()
    assert "simulated" in reference.config.provenance or "stand-in" in reference.config.provenance
