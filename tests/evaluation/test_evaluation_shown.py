from __future__ import annotations

import numpy as np
import pytest

from jet_diffusion import evaluate_jets
from jet_diffusion.evaluation import show, write
from jet_diffusion.pipelines.jet_output import JetImagePipelineOutput

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def evaluation(stand_in):
    real, other = stand_in.split([220, 110], np.random.default_rng(0))
    output = JetImagePipelineOutput(np.moveaxis(other.energies(), 1, -1), other.labels, other.pt, other.m0, 0.0)
    found = evaluate_jets(real, output, classifiers=[])
    found.report.notices.append("a <notice>")
    return found


def test_the_table_holds_every_result(evaluation):
    table = evaluation.table()
    assert list(table.index) == [result.name for result in evaluation.report.results]
    for column, attribute in (("value", "value"), ("baseline", "baseline"), ("error", "error"), ("jets", "size")):
        expected = np.array([getattr(result, attribute) for result in evaluation.report.results], float)
        np.testing.assert_array_equal(table[column].to_numpy(float), expected)


def test_a_prompt_gets_one_line(evaluation):
    assert repr(evaluation).startswith(f"<JetEvaluation: {len(evaluation.report.results)} results of 110 generated and")
    assert "220 real jets" in repr(evaluation)


def test_a_notebook_gets_notices_results_and_what_is_left_out(evaluation):
    html = evaluation._repr_html_()
    assert "<b>a &lt;notice&gt;</b>" in html
    assert html.count("<tr") == len(evaluation.report.results) + 1
    assert "Left out: " in html and "memorisation" in html


def test_pictures_are_drawn_by_their_name(evaluation):
    assert len(evaluation.plot().axes) == 12
    spectra = evaluation.plot("hit_spectra")
    assert spectra.axes[0].get_title() == "Tracks" and spectra._repr_png_().startswith(b"\x89PNG")


def test_an_unknown_picture_is_answered_with_those_there_are(evaluation, monkeypatch):
    monkeypatch.setattr(show, "drawings", lambda _: iter([(name, "", "", None) for name in ("jets", "hit_spectra")]))
    with pytest.raises(ValueError, match="there is no picture 'roc'; this evaluation has jets, hit_spectra"):
        evaluation.plot("roc")


def test_the_page_holds_its_pictures_however_often_it_is_made(evaluation, tmp_path, monkeypatch):
    picture = ("hit_spectra", "Energies of single hits (wide)", "Jets", evaluation.plot("hit_spectra"))
    monkeypatch.setattr(write, "drawings", lambda _: iter([picture]))  # all of them take a minute
    page = evaluation.to_html()
    assert page.count("data:image/png;base64") == 1
    assert evaluation.to_html(tmp_path / "page.html") is None
    assert (tmp_path / "page.html").read_text() == page
    assert evaluation.report.pictures == []
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        evaluation.to_html(tmp_path / "nowhere" / "page.html")
