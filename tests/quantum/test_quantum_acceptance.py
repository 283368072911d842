"""Model A's figures on the bundled sample, and the report: minutes, on one core."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from jet_diffusion import cli
from jet_diffusion.data.bundled import sample_path
from jet_diffusion.data.convert import convert
from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.hub import load_folder, load_pipeline
from jet_diffusion.quantum.controls import MADE_WITHOUT_MODEL
from jet_diffusion.quantum.report.judging import cell_features, fidelity_mmd, judge, on_crystals, profile_distance
from jet_diffusion.quantum.report.readout import denoising, readout_costs
from jet_diffusion.workflows.quantum_judging import load_jets
from jet_diffusion.workflows.quantum_report import LABELS, report
from jet_diffusion.workflows.quantum_rows import run_of


@pytest.fixture
def cells(jets):
    return load_jets_of(jets)


def load_jets_of(jets):
    from jet_diffusion.quantum.encoding import JetAmplitudeEncoder

    return JetAmplitudeEncoder(layout="image").pool(torch.from_numpy(jets.energies)).sum(1).numpy()


def test_cells_stand_where_they_were(cells, jets):
    from jet_diffusion.observables.table import compute_observables

    energies = on_crystals(cells)
    assert energies.sum((1, 2, 3)) == pytest.approx(1, rel=1e-4)
    coarse, fine = (compute_observables(images, ["width", "centroid_eta"]) for images in (energies, jets.energies))
    assert np.corrcoef(coarse["width"], fine["width"])[0, 1] > 0.95
    assert np.corrcoef(coarse["centroid_eta"], fine["centroid_eta"])[0, 1] > 0.9


def test_figures_tell_controls_from_jets(cells):
    rng = np.random.default_rng(0)
    half, rest = cells[:32], cells[32:]
    real = judge(half, rest)
    for name, make in MADE_WITHOUT_MODEL.items():
        found = judge(half, make(rest, 32, rng))
        assert found["w1_n_eff"] > real["w1_n_eff"], name
    assert fidelity_mmd(half, half.copy()) < 0.01
    assert profile_distance(half, half) == 0
    half[:, -1] = 0  # nothing to push over the edge
    assert profile_distance(half, np.roll(half, 1, axis=1)) == pytest.approx(0.5, abs=1e-5)
    assert cell_features(half)["n_eff"].min() >= 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("converted") / "jets"
    convert(sample_path(), out, fractions=(0.5, 0.05, 0.45))
    return out


@pytest.mark.slow
def test_model_a_reaches_its_figures(folder, tmp_path):
    AcceleratorState._reset_state(reset_partial_state=True)
    run = run_of("filter", 0, str(folder), tmp_path, 800)
    jets = load_jets(JetDataset.load(folder, "test"), JetDataset.load(folder, "train"))
    trained, untrained = load_pipeline(run.path), load_folder(run.initial)
    assert sum(parameter.numel() for parameter in trained.unet.parameters()) <= 600
    known = denoising(trained, jets.energies, jets.labels, 0, network=False)
    found = denoising(trained, jets.energies, jets.labels, 0)
    assert found["F500"] >= 0.76
    assert found["F500"] >= known["F500"] + 0.10
    figures = []
    for pipeline in (trained, untrained):
        pipeline.set_progress_bar_config(disable=True)
        made = pipeline(1000, generator=torch.Generator().manual_seed(1), batch_size=250, output_type="pt")
        figures.append(judge(jets.test, pipeline.to_cells(made.images).sum(1).numpy(), jets.features))
    mean = MADE_WITHOUT_MODEL["mean"](jets.train, 1000, np.random.default_rng(0))
    assert figures[0]["mmd"] <= min(0.03, 0.15 * fidelity_mmd(jets.test, mean))
    assert figures[0]["profile"] <= 1.0
    assert figures[0]["mmd"] < figures[1]["mmd"]
    assert figures[0]["profile"] < figures[1]["profile"]
    costs = readout_costs(trained, jets.energies[:200], jets.labels[:200])
    success = list(costs["success"].values())
    assert success[0] > success[2] > success[4]  # the noisier, the rarer
    assert 0 < success[-1] < 0.1 < success[0] <= 1
    assert 0.9 < costs["shots"]["1000"] < costs["shots"]["100000"] < 1


@pytest.mark.slow
def test_the_report_has_every_row_and_goes_on(folder, tmp_path):
    out = tmp_path / "report"
    AcceleratorState._reset_state(reset_partial_state=True)
    content = report(str(folder), out, iterations=3, seeds=2, jets=40, quddpm=False, progress=False)
    assert [row["name"] for row in content["rows"]] == ["baseline", *LABELS]
    for row in content["rows"]:
        assert all(len(figure["values"]) == 2 for figure in row["figures"].values())
    again = report(str(folder), out, iterations=3, seeds=2, jets=40, quddpm=False, progress=False)
    assert again["rows"] == content["rows"] == json.loads((out / "report.json").read_text())["rows"]
    text = (out / "report.md").read_text()
    assert all(label in text for label in LABELS.values())
    assert "Simulated jets, not collision data" in text
    assert (out / "jets.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="give the same, or another --out"):
        cli.run("quantum-report", [str(folder), "--out", str(out), "--iterations=4", "--no-quddpm"])
