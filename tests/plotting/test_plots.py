"""Pictures of jets: one colour scale, zeros on the background, every hit a square of several pixels."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from jet_diffusion.plotting.jets import (
    BACKGROUND,
    ENERGY_RANGE_GEV,
    HIT_PIXELS,
    MEAN_RANGE_GEV,
    enlarge_hits,
    jet_colours,
    plot_jets,
    plot_mean_images,
    plot_side_by_side,
    save_figure,
)


@pytest.fixture
def spot():
    """One jet with one ECAL hit of 1 GeV in the middle."""
    energies = np.zeros((1, 3, 125, 125), np.float32)
    energies[0, 1, 62, 62] = 0.01
    return energies


def render(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def panels(figure):
    return [axes for axes in figure.axes if axes.images]


def values(axes):
    """(125, 125) values of a panel: what stands at the centre of each crystal's square."""
    return axes.images[0].get_array().filled(0)[1::3, 1::3]


def inside(figure, axes):
    """Pixels of one panel, without its frame."""
    left, bottom, right, top = (round(edge) for edge in axes.bbox.extents)
    picture = render(figure)
    return picture[len(picture) - top + 2 : len(picture) - bottom - 2, left + 2 : right - 2]


def test_a_hit_is_a_square_of_its_colour_on_the_background(spot):
    figure = plot_jets(spot)
    background = np.rint(np.array(to_rgb(BACKGROUND)) * 255)
    for axes, hits in zip(panels(figure), (0, 1, 0, 1), strict=True):
        picture = inside(figure, axes)
        drawn = (picture != background).any(axis=-1)
        assert drawn.sum() == HIT_PIXELS**2 * hits
        if hits:
            rows, columns = np.nonzero(drawn)
            assert np.ptp(rows) == np.ptp(columns) == HIT_PIXELS - 1
            share = np.log(1 / ENERGY_RANGE_GEV[0]) / np.log(ENERGY_RANGE_GEV[1] / ENERGY_RANGE_GEV[0])
            colour = np.array(jet_colours()(share)[:3]) * 255
            assert np.abs(picture[drawn] - colour).max() < 3  # the scale has 256 steps


def test_no_colour_of_the_scale_is_the_background():
    distance = np.abs(jet_colours()(np.arange(256))[:, :3] - np.array(to_rgb(BACKGROUND))).max(axis=1)
    assert distance.min() > 0.2


def test_all_figures_share_one_scale(jets):
    few, many = jets.energies[:2], jets.energies[2:4] * 1000
    for figure in (plot_jets(few), plot_jets(many), plot_side_by_side(few, many)):
        assert {(axes.images[0].norm.vmin, axes.images[0].norm.vmax) for axes in panels(figure)} == {ENERGY_RANGE_GEV}
    means = plot_mean_images({"few": few, "many": many})
    assert {(axes.images[0].norm.vmin, axes.images[0].norm.vmax) for axes in panels(means)} == {MEAN_RANGE_GEV}


def test_panels_are_channels_and_their_sum_in_gev(jets):
    figure = plot_jets(jets.energies[:2], jets.labels[:2], ["first", "second"], note="a toy")
    images = [values(axes) for axes in panels(figure)]
    for jet in range(2):
        wanted = jets.energies[jet].astype(np.float64) * 100
        assert np.allclose(images[4 * jet : 4 * jet + 3], wanted)
        assert np.allclose(images[4 * jet + 3], wanted.sum(axis=0))
    texts = [text.get_text() for text in figure.texts]
    names = ["gluon", "quark"]
    assert texts == [
        "a toy",
        f"{names[jets.labels[0]]}\nfirst",
        f"{names[jets.labels[1]]}\nsecond",
    ]
    titles = [axes.get_title() for axes in panels(figure)]
    assert titles == ["Tracks", "ECAL", "HCAL", "Combined", "", "", "", ""]


def test_the_middle_crystal_is_the_origin_and_rows_are_eta(spot):
    spot[0, 0, 100, 20] = 1
    axes = panels(plot_jets(spot))[0]
    row, column = np.argwhere(values(axes))[0]
    left, right, bottom, top = axes.images[0].get_extent()
    assert np.isclose(bottom + (row + 0.5) * (top - bottom) / 125, (100 - 62) * np.pi / 180)
    assert np.isclose(left + (column + 0.5) * (right - left) / 125, (20 - 62) * np.pi / 180)
    assert axes.images[0].origin == "lower"


def test_the_more_energetic_hit_is_on_top():
    image = np.zeros((4, 5))
    image[1, 1], image[1, 2] = 1.0, 2.0
    drawn = enlarge_hits(image)
    assert drawn.shape == (12, 15)
    assert (drawn[2:7, 5:10] == 2).all()
    assert (drawn[2:7, 2:5] == 1).all()
    assert (drawn > 0).sum() == 5 * 8


def test_mean_images_average_over_jets(jets):
    figure = plot_mean_images({"all": jets.energies})
    assert np.allclose(
        values(panels(figure)[2]),
        jets.energies[:, 2].mean(axis=0, dtype=np.float64) * 100,
    )
    assert figure.texts[0].get_text() == "all\n64 jets"


def test_sides_are_drawn_in_pairs(jets):
    figure = plot_side_by_side(jets.energies[:2], jets.energies[2:4], jets.labels[:2])
    combined = [axes for axes in panels(figure) if axes.get_title() == "Combined"]
    by_place = sorted(combined, key=lambda axes: (-axes.get_position().y0, axes.get_position().x0))
    wanted = jets.energies.astype(np.float64).sum(axis=1) * 100
    for axes, jet in zip(by_place, (0, 2, 1, 3), strict=True):
        assert np.allclose(values(axes), wanted[jet])
    assert {"Real", "Generated"} <= {text.get_text() for text in figure.texts}


def test_what_cannot_be_drawn_is_refused(jets):
    with pytest.raises(ValueError, match="there are no jets to draw"):
        plot_jets(jets.energies[:0])
    with pytest.raises(ValueError, match="there are 64 jets, but labels or titles of another number"):
        plot_jets(jets.energies, jets.labels[:5])
    with pytest.raises(ValueError, match="there are 64 jets, but labels or titles"):
        plot_jets(jets.energies, titles=["one"])
    with pytest.raises(ValueError, match="energies must be float32"):
        plot_jets(jets.energies.astype(np.float64))
    with pytest.raises(ValueError, match="no sets of jets"):
        plot_mean_images({})
    with pytest.raises(ValueError, match="a set of jets is empty"):
        plot_mean_images({"none": jets.energies[:0]})
    with pytest.raises(ValueError, match="64 jets on the left and 3 on the right"):
        plot_side_by_side(jets.energies, jets.energies[:3])


def test_figures_are_saved_whole_or_not_at_all(tmp_path, spot, monkeypatch):
    figure = plot_jets(spot)
    for name, start in (("jet.png", b"\x89PNG"), ("jet.pdf", b"%PDF")):
        save_figure(figure, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)
    with pytest.raises(ValueError, match=r"suffix must be one of .*png"):
        save_figure(figure, tmp_path / "jet.txt")

    def fail(path, **_):
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(OSError, match="no space left"):
        save_figure(figure, tmp_path / "other.png")
    assert {path.name for path in tmp_path.iterdir()} == {"jet.png", "jet.pdf"}
