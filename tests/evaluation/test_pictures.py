from __future__ import annotations

import numpy as np
import pytest

from jet_diffusion.evaluation import write
from jet_diffusion.evaluation.images import hit_spectra, radial_profile
from jet_diffusion.evaluation.result import Evaluation
from jet_diffusion.evaluation.write import pairs_of_like_jets
from jet_diffusion.observables.hits import CRYSTAL_CENTRES
from jet_diffusion.report.model import Report

pytestmark = pytest.mark.integration


def test_a_generated_jet_is_shown_beside_the_real_one_of_like_conditions(stand_in):
    real, generated = stand_in.split([300, 50], np.random.default_rng(0))
    ours, theirs = pairs_of_like_jets(real, generated, [0, 1], number=3)
    np.testing.assert_array_equal(ours.labels, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(theirs.labels, ours.labels)
    distances = np.abs(ours.pt - theirs.pt) / real.pt.std() + np.abs(ours.m0 - theirs.m0) / real.m0.std()
    usual = np.abs(np.subtract.outer(real.pt, theirs.pt)) / real.pt.std()
    assert (distances < np.median(usual)).all()
    same, _ = pairs_of_like_jets(generated, generated, [1], number=3)
    np.testing.assert_array_equal(same.pt, generated.pt[generated.labels == 1][:3])


def test_a_radial_profile_is_the_mean_over_the_crystals_of_a_ring(stand_in):
    jets = stand_in.take(np.arange(20))
    edges = np.linspace(0, 1.1, 5)
    mean, error = radial_profile(jets, edges)
    radius = np.hypot(CRYSTAL_CENTRES[:, None], CRYSTAL_CENTRES)
    ring = (radius >= edges[1]) & (radius < edges[2])
    each = 100 * jets.energies().astype(np.float64)[:, :, ring].mean(axis=2)
    np.testing.assert_allclose(mean[:, 1], each.mean(axis=0))
    np.testing.assert_allclose(error[:, 1], each.std(axis=0) / np.sqrt(20))


@pytest.mark.parametrize(("style", "font"), [("cms", b"TeXGyreHeros"), (None, b"DejaVuSans")])
def test_the_pictures_of_a_report_have_the_style_asked_for(stand_in, tmp_path, monkeypatch, style, font):
    if style:
        pytest.importorskip("mplhep", reason="mplhep is not installed (extra style)")

    def one_drawing(evaluation):
        yield "hit_spectra", "Energies of single hits", "Jets", hit_spectra(evaluation)

    monkeypatch.setattr(write, "drawings", one_drawing)
    real, second, generated = stand_in.split([30, 30, 30], np.random.default_rng(0))
    evaluation = Evaluation(Report({"size": 30, "seed": 0}), real, second, generated)
    write.write_report(evaluation, tmp_path, formats=("png", "pdf"), style=style)
    pdf = (tmp_path / "pictures" / "hit_spectra.pdf").read_bytes()
    assert {name for name in (b"TeXGyreHeros", b"DejaVuSans") if name in pdf} == {font}
