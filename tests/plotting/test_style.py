"""Pictures in the style of an experiment: its fonts and ticks at our sizes, without its label, and no trace left."""

from __future__ import annotations

import sys

import matplotlib
import pytest

from jet_diffusion.plotting.style import EXPERIMENTS, RC, Figure, experiment_style, styled


@styled()
def draw():
    figure = Figure()
    figure.subplots().set(xlabel="energy [GeV]", ylabel="density")
    return figure


def look(figure):
    axes = figure.axes[0]
    return axes.xaxis.label.get_horizontalalignment(), axes.xaxis.label.get_size(), len(axes.xaxis.get_minorticklocs())


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_figure_has_the_style_of_an_experiment_and_nothing_else_has_it_afterwards(name):
    pytest.importorskip("mplhep", reason="mplhep is not installed (extra style)")
    ours, before = look(draw()), dict(matplotlib.rcParams)
    with experiment_style(name):
        figure = draw()
        with styled():
            assert matplotlib.rcParams["font.sans-serif"][0] == "TeX Gyre Heros"
    place, size, minor_ticks = look(figure)
    assert ours == ("center", RC["axes.labelsize"], 0)
    assert (place, size) == ("right", RC["axes.labelsize"]) and minor_ticks > 0
    assert not figure.texts and not figure.axes[0].texts and not figure.axes[0].artists  # no experiment's label
    assert dict(matplotlib.rcParams) == before and look(draw()) == ours


def test_lengths_keep_their_proportion_to_the_text():
    mplhep = pytest.importorskip("mplhep", reason="mplhep is not installed (extra style)")
    sheet = mplhep.style.CMS
    with experiment_style("cms"), styled():
        scale = matplotlib.rcParams["axes.labelsize"] / sheet["font.size"]  # whose labels have the size of the font
        assert matplotlib.rcParams["xtick.major.size"] == pytest.approx(scale * sheet["xtick.major.size"])
        assert matplotlib.rcParams["axes.linewidth"] == pytest.approx(scale * sheet["axes.linewidth"])


def test_the_style_ends_with_an_error_too():
    pytest.importorskip("mplhep", reason="mplhep is not installed (extra style)")
    ours = look(draw())
    with pytest.raises(ZeroDivisionError), experiment_style("cms"):
        _ = 1 / 0
    assert look(draw()) == ours


def test_an_unknown_style_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="no style 'lhcb'; choose one of cms, atlas"), experiment_style("lhcb"):
        pass


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mplhep", None)
    with pytest.raises(ValueError, match=r"'cms' needs mplhep.*pip install 'jet-diffusion\[style\]'"):
        experiment_style("cms").__enter__()
