from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from matplotlib.figure import Figure

from jet_diffusion.evaluation import write
from jet_diffusion.evaluation.run import evaluate_jets
from jet_diffusion.metrics.closure import RESPONSES
from jet_diffusion.metrics.perturbations import CONTROLS, copied_training_jets
from jet_diffusion.plotting.style import RC
from jet_diffusion.report.model import Report
from jet_diffusion.schema import CLASS_NAMES, ECAL

pytestmark = pytest.mark.integration

SIZE = 450


@pytest.fixture(scope="module")
def parts(stand_in):
    """Twice SIZE real jets, SIZE others, SIZE for training."""
    return stand_in.split([2 * SIZE, SIZE, SIZE], np.random.default_rng(0))


@pytest.fixture(scope="module")
def perfect(parts):
    real, generated, training = parts
    return evaluate_jets(real, generated, training=training, size=SIZE, classifiers=["observables"], tagger=False)


def test_a_perfect_generator_meets_the_goals(perfect):
    missed = [found.name for found in perfect.report.results if found.met is False]
    assert missed == []
    assert perfect.report.notices == []
    both = ("fpd", "fpd_image", "mean_w1", "mean_w1_image", "auc_observables", "auc_image")
    for name in (*both, "sliced_w1", "precision_recall", "density_coverage"):
        found = perfect.report.result(name)
        assert abs(found.value - found.baseline) < 4 * np.hypot(found.error, found.baseline_error), name
        assert found.size == SIZE
    assert perfect.report.heading["real"]["jets"] == 2 * SIZE


def test_the_report_has_every_result_or_says_why_not(perfect):
    there = {found.name for found in perfect.report.results} | {entry["name"] for entry in perfect.report.omitted}
    assert {
        "fpd",
        "kpd",
        "fpd_gluon",
        "mean_w1_quark",
        "w1_inside_band",
        *("_".join(parts) for parts in product(("response", "response_bins"), RESPONSES, CLASS_NAMES)),
        "recall",
        "jetnet_fpd",
        "memorisation_pixels",
        "auc_observables",
    } <= there
    assert {"observables", "perturbations", "closure", "integrity", "roc"} <= set(perfect.report.tables)
    assert len(perfect.report.tables["perturbations"]) == 12  # six of each classifier on observables


@pytest.mark.parametrize("control", ["pixel-shuffled", "wrong class"])
def test_a_wrong_generator_misses_them(parts, control):
    real, generated, _ = parts
    wrong = CONTROLS[control](generated, np.random.default_rng(0))
    report = evaluate_jets(real, wrong, size=SIZE, classifiers=[]).report
    worse = ["fpd_gluon", "fpd_quark", "mean_w1_gluon", "mean_w1_quark"]
    if control != "wrong class":
        worse += ["fpd", "kpd", "mean_w1", "precision_recall"]
        assert report.result("fpd").met is False
    for name in worse:
        found = report.result(name)
        assert found.value - found.baseline > 3 * np.hypot(found.error, found.baseline_error), name
    assert {entry["name"]: entry["reason"] for entry in report.omitted}["memorisation_pixels"].startswith("no training")


def test_a_copier_of_training_jets_is_caught(parts):
    real, _, training = parts
    copies = copied_training_jets(training, SIZE, np.random.default_rng(0))
    report = evaluate_jets(real, copies, training=training, size=SIZE, classifiers=[]).report
    assert report.result("memorisation_pixels").met is report.result("memorisation_observables").met is False


def test_an_empty_channel_is_said_first(parts):
    real, generated, _ = parts

    def without_ecal(energies):
        energies = energies.copy()
        energies[:, ECAL] = 0
        return energies

    report = evaluate_jets(real, generated.map(without_ecal), size=SIZE, classifiers=[]).report
    assert report.notices[0] == f"channel 1 (ECAL) is empty in all {SIZE} generated jets"


def test_impossible_jets_are_counted_and_nothing_is_computed_wrongly(parts, tmp_path):
    real, generated, _ = parts

    def spoil(energies):
        energies = energies.copy()
        energies[0, 0, 5, 5], energies[1, 1, 5, 5] = np.nan, -1
        return energies

    evaluation = evaluate_jets(real, generated.map(spoil), size=SIZE)
    report = evaluation.report
    assert any("not finite" in notice for notice in report.notices)
    assert any("negative" in notice for notice in report.notices)
    counts = {row["fault"]: row["generated"] for row in report.tables["integrity"]}
    assert counts["not_finite"] >= 1 and counts["negative"] >= 1
    reasons = {entry["name"]: entry["reason"] for entry in report.omitted}
    for name in ("fpd", "w1", "recall", "jetnet_kpd", "closure", "auc_observables"):
        assert "not finite" in reasons[name]
    write.write_report(evaluation, tmp_path / "report", pictures=False)


def test_jets_deaf_to_what_they_are_asked_miss_the_goal_of_their_responses(parts):
    real, generated, _ = parts
    deaf = generated.take(np.arange(len(generated)))
    deaf.pt = np.random.default_rng(0).permutation(deaf.pt)
    report = evaluate_jets(real, deaf, size=SIZE, classifiers=[]).report
    bins, mean = (report.result(f"{name}_pt_gluon") for name in ("response_bins", "response"))
    assert bins.met is False
    assert bins.baseline < bins.goal.high
    assert mean.goal.high - 1 > 0.01 and mean.goal.high - 1 == pytest.approx(2.58 * mean.error, rel=0.01)


def test_a_response_of_some_bins_alone_is_none(parts):
    real, generated, _ = parts
    soft = generated.take(np.flatnonzero(generated.pt < np.median(generated.pt)))
    report = evaluate_jets(real, soft, classifiers=[]).report
    with pytest.raises(
        ValueError, match=r"no result 'response_pt_gluon': \d+ real and \d+ generated jets of \d+ to \d+ GeV"
    ):
        report.result("response_pt_gluon")
    assert "closure" in report.tables


def test_too_few_jets_leave_results_out(parts):
    real, generated, _ = parts
    few = evaluate_jets(real.take(np.arange(300)), generated, classifiers=["observables"])
    reasons = {entry["name"]: entry["reason"] for entry in few.report.omitted}
    assert reasons["fpd"] == "needs 200 jets a side, got 150"
    assert reasons["auc_observables"] == "needs 300 jets a side, got 150"
    assert few.report.result("w1_inside_band").size == 150
    with pytest.raises(ValueError, match="needs 200 real and 100 generated jets at least, got 150 and 450"):
        evaluate_jets(real.take(np.arange(150)), generated)


def test_the_same_seed_gives_the_same_numbers(parts):
    real, generated, _ = parts
    first, again = (evaluate_jets(real, generated, size=250, seed=4, classifiers=[]).report for _ in range(2))
    assert first.to_dict() == again.to_dict()


def test_a_picture_is_saved_in_both_formats(tmp_path):
    (tmp_path / "pictures").mkdir()
    write.save_drawing(Figure(figsize=(1, 1)), tmp_path, "empty")
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"empty.png", "empty.pdf"}


@pytest.mark.slow
def test_the_files_of_a_report(perfect, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "FORMATS", ("png",))
    monkeypatch.setitem(RC, "figure.dpi", 50)
    row = {"scheduler": "ddim", "steps": 5, "evaluations": 5, "ms_per_jet": 20.0, "size": 100, "fpd": 0.2}
    rest = (
        "fpd_error",
        "fpd_baseline",
        "mean_w1",
        "mean_w1_error",
        "mean_w1_baseline",
        "auc",
        "auc_error",
        "auc_baseline",
    )
    perfect.report.tables["sweep"] = [{**row, **dict.fromkeys((*rest, "auc_baseline_error"), 0.5)}]
    write.write_report(perfect, tmp_path / "new" / "report")
    written = {path.relative_to(tmp_path / "new" / "report").as_posix() for path in (tmp_path / "new").rglob("*.*")}
    assert {"report.json", "report.md", "report.html", "pictures/roc.png", "pictures/sweep.png"} <= written
    assert "pictures/observables_8.png" in written
    loaded = Report.load(tmp_path / "new" / "report")
    assert {f"{entry['file']}.png" for entry in loaded.pictures} <= written
    assert loaded.result("fpd") == perfect.report.result("fpd")
