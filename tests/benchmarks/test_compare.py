from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
STUDIES = ROOT / "benchmarks" / "studies"


@pytest.fixture
def compare(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.studies import compare

    return compare


def rows_file(tmp_path, *rows):
    path = tmp_path / "rows.yaml"
    path.write_text(yaml.safe_dump(list(rows)))
    return path


@pytest.mark.parametrize("file", ["compare.yaml", "compare_cpu.yaml"])
def test_the_rows_that_ship_are_complete(compare, file):
    rows = compare.read_rows(STUDIES / file)
    for row in rows:
        assert row.config is None or (ROOT / row.config).is_file()
        assert row.peer is None or (ROOT / "benchmarks" / "peers" / f"{row.peer}.py").is_file()
    assert {"deepfalcon_cnn", "deepfalcon_unet"} <= {Path(row.config).stem for row in rows if row.config}
    assert {row.control for row in rows if row.control} == set(compare.CONTROLS)
    assert len({row.seconds for row in rows if row.seconds}) == 1  # our training time is the same for all


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"name": "a"}, "needs one of run, config"),
        ({"name": "a", "run": "x", "peer": "y"}, "needs one of"),
        ({"name": "a", "jets_of": "b"}, "refers to b"),
        ({"name": "a", "control": "cat pictures"}, "no control 'cat pictures'"),
    ],
)
def test_rows_that_make_no_sense_are_refused(compare, tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        compare.read_rows(rows_file(tmp_path, row))


def test_the_verdict_names_the_winner_and_who_misleads(compare):
    from benchmarks.studies.comparison_files import row_cells, winners

    channels = {f"{kind}_{channel}": 1.0 for kind in ("energy", "occupancy") for channel in ("tracks", "ecal", "hcal")}
    base = {"reduction": None, "grid": None, "psnr": 1.0, "size": 9, **channels}
    figures = {"mean_w1": 0.1, "fpd_over_baseline": 2.0, "auc_observables": 0.6, "ssim": 0.5}
    errors = {f"{name}_{kind}": 0.1 for name in ("mean_w1", "auc_observables") for kind in ("error", "baseline")}
    good = {**base, **figures, **errors, "name": "good", "parameters": 5}
    bad = {**good, "name": "bad", "mean_w1": 3.0, "fpd_over_baseline": 90.0, "auc_observables": 1.0, "ssim": 0.1}
    blank = {**base, "name": "blank image", "mean_w1": 0.01, "ssim": 0.9}
    few, fewer = ({**good, "name": f"{size} jets", "size": size, "auc_observables": None} for size in (4, 3))
    other = {**few, "name": "another", "fpd_over_baseline": 1.0}
    assert winners([good, bad, blank, few, fewer, other]) == [
        "Best on 9 full-resolution images: good (FPD, mean W1, AUC). By SSIM it would be: blank image.",
        "Best on 4 full-resolution images: another (FPD); 4 jets (mean W1).",
    ]
    assert row_cells(bad)[:3] == ["bad", "125x125", "5"]


def test_as_many_jets_of_another_row_as_are_asked_for(compare, converted_folder, tmp_path):
    comparison = compare.Comparison(str(converted_folder), tmp_path, size=10, seed=0)
    real = comparison.candidate(compare.RowSettings("real", control="independent real jets"))
    some = comparison.candidate(compare.RowSettings("some of them", jets_of="real", size=3))
    assert len(real.jets) == 10
    assert (some.jets.voxels != real.jets.take([0, 1, 2]).voxels).nnz == 0
    assert len(comparison.candidate(compare.RowSettings("blank", control="blank image", size=4)).jets) == 4
    for wrong in (
        compare.RowSettings("more", jets_of="real", size=11),
        compare.RowSettings("none", jets_of="real", size=0),
    ):
        with pytest.raises(ValueError, match=f"row '{wrong.name}' asks for {wrong.size} jets, of which there are 10"):
            comparison.candidate(wrong)


def test_the_picture_shows_all_but_excerpts(compare, converted_folder, tmp_path):
    from benchmarks.studies.comparison_files import panel

    comparison = compare.Comparison(str(converted_folder), tmp_path, size=10, seed=0)
    rows = [
        compare.RowSettings("others", control="independent real jets"),
        compare.RowSettings("some of them", jets_of="others", size=3),
        compare.RowSettings("all of them", jets_of="others", size=10),
        compare.RowSettings("blank", control="blank image"),
        compare.RowSettings("as blank", control="blank image"),
    ]
    figure = panel([comparison.candidate(row) for row in rows], comparison.real)
    labels = [axis.get_ylabel() for axis in figure.axes]
    assert [label for label in labels if label and "energy" not in label] == [
        "real",
        "others",
        "all of them",
        "blank",
        "as blank",
    ]


@pytest.mark.slow
def test_a_table_is_made_and_gone_on_with(converted_folder, tmp_path):
    small = ["--max_jets=100", "--cpu=true", "--sample_jets=2", "--validation_jets=8", "--num_workers=0"]
    cnn = {"config": "configs/deepfalcon_cnn.yaml", "seconds": 0.2, "steps": 3}
    rows = rows_file(
        tmp_path,
        {"name": "real", "control": "independent real jets"},
        {"name": "cnn", "options": small, **cnn},
        {"name": "its rival", "options": [*small, "--seed=1"], **cnn},
        {"name": "blank at 32", "control": "blank image", "reduced_by": "cnn"},
        {"name": "recipe", "peer": "unconditional", "steps": 2,
         "options": ["--widths", "8", "16", "--steps=1", "--batch-size=2"]},
    )  # fmt: skip
    command = [sys.executable, "-m", "benchmarks.studies.compare", str(converted_folder), str(tmp_path / "out")]
    for _ in range(2):
        again = [*command, f"--rows={rows}", "--size=10", "--draws=2"]
        done = subprocess.run(again, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stderr
    found = {row["name"]: row for row in json.loads((tmp_path / "out" / "compare.json").read_text())["rows"]}
    assert found["real"]["energy_ecal"] == pytest.approx(1, abs=0.5)
    assert found["cnn"]["parameters"] == 27_139
    assert found["cnn"]["evaluations"] == 3
    assert found["blank at 32"]["occupancy_hcal"] == 0
    assert found["blank at 32"]["grid"] == 32
    assert found["recipe"]["jets_per_second"] > 0
    table = (tmp_path / "out" / "compare.md").read_text()
    assert all(f"\n| {name} |" in table for name in found)
    assert "By SSIM it would be" in table
    assert (tmp_path / "out" / "compare.html").is_file()
    assert (tmp_path / "out" / "compare.png").is_file()
