from __future__ import annotations

import json
import math

import numpy as np
import pytest

from jet_diffusion.report.model import Goal, MetricResult, Report
from jet_diffusion.report.render import to_html, to_markdown, write_texts
from jet_diffusion.report.tables import number, tables, verdict


def result(name="fpd", **changes):
    values = {"value": 0.02, "error": 0.001, "baseline": 0.016, "baseline_error": 0.002, "size": 1000, **changes}
    return MetricResult(name, name.upper(), "distances", **values)


@pytest.fixture
def report():
    report = Report({"title": "A <test>", "command": "jet-diffusion evaluate", "seed": 3, "real": {"jets": 7}})
    report.notices.append("5 of the 9 real jets were used in training")
    report.add(result(goal=Goal(high=0.5, of="excess")), result("auc_voxels", has_power=False, goal=Goal(high=0.55)))
    report.add(result("kpd", value=math.nan, error=None, baseline=None, baseline_error=None, note="a|b"))
    report.omit("memorisation", "no training jets given")
    report.tables["integrity"] = [{"fault": "not_finite", "real": np.int64(0), "generated": 2, "of": 9}]
    return report


def test_a_report_comes_back_as_it_was_saved(report, tmp_path):
    report.save(tmp_path)
    loaded = Report.load(tmp_path)
    assert loaded.result("fpd") == report.result("fpd")
    assert math.isnan(loaded.result("kpd").value)
    assert loaded.to_dict() == report.to_dict()
    assert loaded.notices == report.notices and loaded.heading["real"] == {"jets": 7}


def test_json_is_strict_and_says_what_was_met(report, tmp_path):
    content = json.loads(report.save(tmp_path).read_text(), parse_constant=pytest.fail)
    assert content["schema_version"] == 2
    assert [row["met"] for row in content["results"]] == [True, None, None]
    assert content["results"][2]["value"] is None


@pytest.mark.parametrize(
    ("changes", "met"),
    [
        ({"goal": None}, None),
        ({"goal": Goal(high=0.02)}, True),
        ({"goal": Goal(high=0.019)}, False),
        ({"goal": Goal(low=0.01, high=0.015)}, False),
        ({"goal": Goal(high=0.5, of="excess"), "value": 0.024}, True),
        ({"goal": Goal(high=0.5, of="excess"), "value": 0.025}, False),
        ({"goal": Goal(high=0.5, of="excess"), "baseline": -1.0}, None),
        ({"goal": Goal(high=0.5), "has_power": False}, None),
    ],
)
def test_goals(changes, met):
    assert result(**changes).met is met
    assert verdict(result(**changes)) == (
        "no power" if changes.get("has_power") is False else {True: "met", False: "missed", None: ""}[met]
    )


def test_names_are_unique_and_absence_has_its_reason(report):
    with pytest.raises(ValueError, match="holds 'fpd' already"):
        report.add(result())
    with pytest.raises(ValueError, match="no result 'memorisation': no training jets given"):
        report.result("memorisation")


def test_a_report_of_the_first_version_is_read_with_todays_names(report, tmp_path):
    old = report.to_dict()
    old["figures"] = [
        {**row, "floor": row["baseline"], "floor_error": row["baseline_error"], "counts": row["has_power"]}
        for row in old.pop("results")
    ]
    for row in old["figures"]:
        del row["baseline"], row["baseline_error"], row["has_power"]
    old["schema_version"] = 1
    old["tables"]["ladder"] = [{"classifier": "voxels", "sample": "real halves", "auc": 0.5}]
    old["tables"]["observables"] = [{"name": "energy", "w1_floor": 1.0, "w1_floor_error": 0.1}]
    (tmp_path / "report.json").write_text(json.dumps(old))
    loaded = Report.load(tmp_path)
    assert [result.name for result in loaded.results] == [result.name for result in report.results]
    assert loaded.result("fpd") == report.result("fpd")
    assert loaded.result("auc_voxels").has_power is False
    assert loaded.tables["perturbations"] == old["tables"]["ladder"] and "ladder" not in loaded.tables
    assert loaded.tables["observables"] == [{"name": "energy", "w1_baseline": 1.0, "w1_baseline_error": 0.1}]


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is no report"), ("{}", "version None"), ("[]", "version None"), ('{"schema_version": 3}', "1 to 2")],
)
def test_other_files_are_no_reports(tmp_path, content, message):
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        Report.load(tmp_path)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.01385, 0.00072, "0.0138 ± 0.0007"),
        (0.5046, 0.0173, "0.505 ± 0.017"),
        (238.21, 1.43, "238.2 ± 1.4"),
        (-1.12e-4, 7.8e-5, "(-112 ± 78)e-6"),
        (0.25, None, "0.25"),
        (1234.5, None, "1234"),
        (math.nan, None, "-"),
        (None, None, "-"),
    ],
)
def test_numbers_have_the_digits_their_errors_allow(value, error, text):
    assert number(value, error) == text


def test_notices_come_first_and_every_table_is_there(report):
    markdown = to_markdown(report)
    assert markdown.startswith("> **5 of the 9 real jets were used in training**")
    assert "a\\|b" in markdown
    for table in tables(report):
        assert f"## {table.title}" in markdown
        assert all(len(row) == len(table.columns) for row in table.rows)


def test_the_page_holds_everything_and_needs_nothing(report, tmp_path):
    (tmp_path / "one.png").write_bytes(b"\x89PNG fake")
    report.pictures.append({"file": "one", "caption": "A picture (wide)", "section": "Jets"})
    write_texts(report, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "A &lt;test&gt;" in page and "<test>" not in page
    assert page.index("5 of the 9") < page.index("<h1>")
    assert "data:image/png;base64,iVBORyBmYWtl" in page and 'class="wide"' in page
    assert "http" not in page
    assert {path.name for path in tmp_path.iterdir()} == {"one.png", "report.json", "report.md", "report.html"}


def test_a_missing_picture_is_an_error(report, tmp_path):
    report.pictures.append({"file": "none", "caption": "", "section": ""})
    with pytest.raises(FileNotFoundError):
        to_html(report, tmp_path)
