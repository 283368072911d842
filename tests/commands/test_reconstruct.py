from __future__ import annotations

import numpy as np
import pytest
import torch
from models import small_pipeline

from jet_diffusion import cli
from jet_diffusion.data.bundled import sample_path
from jet_diffusion.report.model import Report
from jet_diffusion.sampling.impute import ImputedEnergy, impute_hcal
from jet_diffusion.schema import HCAL
from jet_diffusion.workflows.reconstruct import DENOISED, PIXEL_BAYES, reconstruct_at, score_rows

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def pipeline(converted_folder):
    return small_pipeline(converted_folder, perturb=False)


@pytest.fixture(scope="module")
def few(stand_in):
    return stand_in.take(np.arange(4))


def test_little_noise_leaves_jets_as_they_were(pipeline, few):
    found = reconstruct_at(pipeline, few, 5, steps=10, seed=0)
    assert list(found) == ["denoised", "noisy input", "pixel by pixel", "blank"]
    originals = few.energies()
    rows = {(row["candidate"], row["score"]): row["mean"] for row in score_rows(originals, found, emd_jets=2)}
    assert rows[DENOISED, "energy_ratio"] == pytest.approx(1, abs=0.05)
    assert rows[DENOISED, "pixel_error"] < 0.2 * rows["blank", "pixel_error"]
    assert rows["blank", "energy_ratio"] == 0
    assert rows[DENOISED, "emd"] < rows["blank", "emd"]


def test_more_noise_reconstructs_worse(pipeline, few):
    errors = []
    for timestep in (50, 700):
        found = reconstruct_at(pipeline, few, timestep, steps=10, seed=0)
        rows = list(score_rows(few.energies(), {PIXEL_BAYES: found[PIXEL_BAYES]}, emd_jets=1))
        errors.append(rows[0]["mean"])
    assert errors[0] < errors[1]


@pytest.fixture(scope="module", params=[[], ["--unet.conditioning=rings", "--representation.ring_edges=[.1,.3]"]])
def imputing(request, converted_folder):
    return small_pipeline(converted_folder, *request.param, perturb=False)


def test_imputation_keeps_what_is_given(imputing, few, monkeypatch):
    pipeline, made, asked = imputing, [], []
    call = type(pipeline).__call__

    def spy(self, *args, **kwargs):
        asked.append(kwargs["ring_sums"])
        made.append(call(self, *args, **kwargs))
        return made[-1]

    monkeypatch.setattr(type(pipeline), "__call__", spy)
    found = impute_hcal(pipeline, few, 2, steps=3, seed=0)
    truth = few.energies()
    for output in made:
        images = output.images.movedim(-1, 1).numpy()
        np.testing.assert_allclose(images[:, :HCAL], truth[:, :HCAL], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.truth, 100 * truth[:, HCAL].sum(axis=(1, 2)), rtol=1e-5)
    assert found.draws.shape == (2, 4) and not np.allclose(*found.draws)
    if pipeline.conditioner.num_ring_sums:
        known = pipeline.representation.ring_sums(few_energies := torch.from_numpy(truth))
        in_hcal = torch.arange(18) // 3 % 3 == HCAL
        assert asked[0].isnan().equal(in_hcal.expand(len(few_energies), -1))
        assert torch.equal(asked[0][:, ~in_hcal], known[:, ~in_hcal])


def test_imputation_is_scored_beside_ignorance():
    rng = np.random.default_rng(0)
    truth = rng.gamma(4, 10, 200)
    sharp, ignorant = ImputedEnergy(truth, truth + rng.normal(size=(20, 200))).rows()
    assert sharp["crps"] < 0.2 * ignorant["crps"]
    assert ignorant["coverage_68"] == pytest.approx(ignorant["nominal_68"], abs=0.05)
    assert ignorant["draws"] == 199


def test_too_few_jets_or_draws_are_refused(pipeline, few):
    with pytest.raises(ValueError, match="2 draws and 3 jets at least, got 1 and 4"):
        impute_hcal(pipeline, few, 1, steps=2, seed=0)


@pytest.mark.slow
def test_the_command_writes_curves_and_pictures(pipeline, tmp_path):
    model, out = tmp_path / "model", tmp_path / "report"
    pipeline.save_pretrained(model)
    options = ["--num-jets", "4", "--timesteps", "100", "600", "--draws", "2"]
    cli.run("reconstruct", [str(model), str(sample_path()), "--out", str(out), *options])
    report = Report.load(out)
    assert report.heading["steps"] == pipeline.config.default_steps
    assert {row["timestep"] for row in report.tables["reconstruction"]} == {100, 600}
    assert len(report.tables["imputation"]) == 2
    names = {path.name for path in (out / "pictures").iterdir()}
    assert {"curves.png", "denoised_100.png", "noisy_600.pdf", "imputation.png"} <= names
    page = (out / "report.html").read_text()
    assert "Reconstruction" in page and "CRPS" in page
    with pytest.raises(ValueError, match="timesteps must be 0 to 999"):
        cli.run(
            "reconstruct", [str(model), str(sample_path()), "--out", str(tmp_path / "other"), "--timesteps", "1000"]
        )
