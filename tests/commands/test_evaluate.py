from __future__ import annotations

import sys

import h5py
import numpy as np
import pytest
from models import small_pipeline

from jet_diffusion import cli
from jet_diffusion.data.bundled import sample_path
from jet_diffusion.data.load import load_jets
from jet_diffusion.report.model import Report
from jet_diffusion.sampling.sample import sample_like
from jet_diffusion.sampling.sweep import parse_steps
from jet_diffusion.workflows.evaluate import split_conditions

SAMPLE = str(sample_path())


@pytest.fixture(scope="module")
def pipeline(converted_folder):
    return small_pipeline(converted_folder)


@pytest.fixture(scope="module")
def model(pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "pipeline"
    pipeline.save_pretrained(folder)
    return folder


def test_jets_are_sampled_for_the_conditions_of_others(pipeline, stand_in):
    asked = stand_in.take(np.arange(5))
    whole = sample_like(pipeline, asked, steps=2, seed=3, batch_size=2, source="model")
    np.testing.assert_array_equal(whole.jets.labels, asked.labels)
    np.testing.assert_allclose(whole.jets.pt, asked.pt, rtol=1e-6)
    assert whole.evaluations == 2 and whole.ms_per_jet > 0
    assert whole.settings["num_inference_steps"] == 2 and "cpu" in whole.settings["device"]
    again = sample_like(pipeline, asked, steps=2, seed=3, batch_size=2)
    np.testing.assert_array_equal(again.jets.energies(), whole.jets.energies())


def test_conditions_come_from_jets_that_are_not_compared_with(stand_in):
    rng = np.random.default_rng(0)
    asked, compared = split_conditions(stand_in.take(np.arange(90)), 30, rng)
    assert (len(asked), len(compared)) == (30, 60)
    assert not set(asked.pt) & set(compared.pt)
    asked, compared = split_conditions(stand_in.take(np.arange(60)), 30, rng)
    assert (len(asked), len(compared)) == (30, 60)


@pytest.mark.parametrize("text", ["5,10", "steps=", "steps=5,x", "steps=0", "jets=5"])
def test_other_sweeps_are_refused(text):
    assert parse_steps("steps=5,10") == [5, 10]
    with pytest.raises(ValueError, match="--sweep takes"):
        parse_steps(text)


@pytest.mark.integration
def test_a_file_is_evaluated(tmp_path, capsys):
    out = tmp_path / "report"
    cli.main(
        [
            "evaluate",
            SAMPLE,
            SAMPLE,
            "--size",
            "200",
            "--out",
            str(out),
            "--classifiers",
            "--training",
            SAMPLE,
            "--no-pictures",
        ]
    )
    printed = capsys.readouterr().out
    assert "FPD" in printed and str(out / "report.html") in printed
    report = Report.load(out)
    assert report.notices[0].startswith("it is not known which jets")
    assert report.notices[1].startswith("the real jets are simulated")
    assert report.heading["command"].startswith("jet-diffusion evaluate ")
    assert report.heading["seed"] == 0 and len(report.heading["real"]["fingerprint"]) == 32
    assert report.heading["sampling"]["simulation_seed"] == 1
    assert "simulated" not in report.heading["sampling"]
    assert report.result("memorisation_pixels").size == 200
    with pytest.raises(SystemExit) as stopped:
        cli.main(["evaluate", SAMPLE, SAMPLE, "--out", str(out)])
    assert stopped.value.code == 2
    assert "holds a report already" in capsys.readouterr().err


@pytest.mark.integration
def test_a_model_is_sampled_and_swept(model, tmp_path):
    out = tmp_path / "report"
    options = ["--steps", "2", "--no-pictures", "--sweep", "steps=1,2", "--sweep-size", "300", "--classifiers"]
    cli.run("evaluate", [str(model), SAMPLE, "--out", str(out), "--size", "300", "--batch-size", "100", *options])
    report = Report.load(out)
    assert report.result("evaluations").value == 2
    assert report.result("ms_per_jet").goal is None  # the goal is for a GPU
    own = "DPMSolverMultistepScheduler (sde-dpmsolver++)"
    assert [(row["scheduler"], row["steps"]) for row in report.tables["sweep"]] == [(own, 1), (own, 2)]
    assert report.heading["sampling"]["num_inference_steps"] == 2
    assert all(row["auc_baseline"] < 0.6 < row["auc"] for row in report.tables["sweep"])
    assert report.result("fpd").met is False


@pytest.mark.integration
def test_training_jets_are_refused_unless_allowed(model, tmp_path):
    hashes = tmp_path / "hashes.npy"
    held = load_jets(SAMPLE, None, np.random.default_rng(0)).content_hash
    np.save(hashes, np.sort(held[:1000]))
    arguments = [SAMPLE, SAMPLE, "--size", "150", "--no-pictures", "--classifiers", "--training-hashes", str(hashes)]
    with pytest.raises(ValueError, match=r"of the 300 real jets of .* were used in training"):
        cli.run("evaluate", [*arguments, "--out", str(tmp_path / "refused")])
    assert not (tmp_path / "refused").exists()
    cli.run("evaluate", [*arguments, "--out", str(tmp_path / "allowed"), "--allow-training-jets"])
    first = (tmp_path / "allowed" / "report.md").read_text().splitlines()[0]
    assert "were used in training" in first


@pytest.mark.integration
def test_jets_in_gev_are_refused(tmp_path, jets, write_file):
    path = write_file(jets)
    with h5py.File(path, "r+") as file:
        file["X_jets"][:] = 100 * file["X_jets"][:]
    with pytest.raises(ValueError, match=r"needs 200 real and 100 generated|another unit"):
        cli.run("evaluate", [str(path), SAMPLE, "--size", "100", "--out", str(tmp_path / "report")])


def test_a_sweep_needs_a_model(tmp_path):
    with pytest.raises(ValueError, match="needs a model to sample"):
        cli.run("evaluate", [SAMPLE, SAMPLE, "--sweep", "steps=5", "--out", str(tmp_path / "report")])


def test_a_style_without_its_library_is_refused_before_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mplhep", None)
    with pytest.raises(ValueError, match="'atlas' needs mplhep, which is not installed"):
        cli.run("evaluate", [SAMPLE, "not there", "--style", "atlas", "--out", str(tmp_path / "report")])
    assert not (tmp_path / "report").exists()
