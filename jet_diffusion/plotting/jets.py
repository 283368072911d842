"""Pictures of jets: calorimeter images on one logarithmic colour scale in GeV that all figures share.

Single hits stay visible when a page shrinks the picture: each is a square of `HIT_PIXELS`, wider than its crystal, and
where squares overlap the more energetic hit is on top. Crystals without energy take the background colour, which is no
colour of the scale. Figures are made without pyplot's global state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import matplotlib.figure
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap, LogNorm
from matplotlib.image import AxesImage
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from jet_diffusion.errors import UserError
from jet_diffusion.io import write_atomically
from jet_diffusion.plotting.style import Figure
from jet_diffusion.schema import CHANNEL_LABELS, CLASS_NAMES, CRYSTAL_PITCH, GEV_PER_UNIT, NUM_CRYSTALS, check_energies

ENERGY_RANGE_GEV = (1e-2, 1e2)
"""Ends of the colour scale of single jets: the smallest ECAL and HCAL hits, and a hard track."""

MEAN_RANGE_GEV = (1e-4, 1e1)
"""Ends of the colour scale of images averaged over jets."""

BACKGROUND = "#0d0d14"
"""Colour of a crystal without energy."""

PANELS = (*CHANNEL_LABELS, "Combined")
"""The panels of a jet; the last sums the channels."""

CRYSTAL_PIXELS = 3
"""Width of a crystal on the canvas."""

HIT_PIXELS = 5
"""Width of a hit on the canvas, which is some 1,800 pixels wide: three pixels of a screen on a page of 1,100."""

_DPI = 100
_SIDE = CRYSTAL_PIXELS * NUM_CRYSTALS
_LEFT, _RIGHT, _TOP, _BOTTOM, _GAP, _BLOCK_GAP, _BLOCK_TITLE, _NOTE = 125, 110, 35, 55, 10, 40, 35, 30  # pixels
_ROW_GAP = 40
_TICKS = (-1, 0, 1)
_HALF_WIDTH = NUM_CRYSTALS / 2 * CRYSTAL_PITCH

_Panels = NDArray[np.float64]
"""(rows, panels, 375, 375) GeV: every crystal as 3x3 pixels."""


def jet_colours() -> Colormap:
    """Colours of energies: matplotlib's inferno without its darkest quarter, which looks like the background."""
    return ListedColormap(colormaps["inferno"](np.linspace(0.25, 1.0, 256)), "jet").with_extremes(bad=BACKGROUND)


def plot_jets(
    energies: NDArray[np.float32],
    labels: Sequence[int] | NDArray[np.int64] | None = None,
    titles: Sequence[str] | None = None,
    note: str | None = None,
    columns: int = len(PANELS),
) -> Figure:
    """Draw jets, one a row: tracks, ECAL, HCAL and their sum.

    Args:
        energies: (n, 3, 125, 125) float32.
        labels: (n,) classes, named at the rows.
        titles: (n,) texts at the rows, under the class.
        note: A line under the figure, such as the marker of simulated jets.
        columns: Panels in a line, 4 or 2.

    Raises:
        UserError: The energies break the schema, there are no jets, or the lengths differ.
    """
    sheet = _Sheet(_row_names(len(energies), labels, titles), note, columns=columns)
    return sheet.draw([_panels(energies)], LogNorm(*ENERGY_RANGE_GEV), "energy per crystal [GeV]")


def plot_mean_images(sets: Mapping[str, NDArray[np.float32]], note: str | None = None) -> Figure:
    """Draw the mean image of each set of jets, one a row.

    Args:
        sets: Name of a set -> its energies, (n, 3, 125, 125) float32.
        note: A line under the figure.

    Raises:
        UserError: There are no sets, or a set is empty or breaks the schema.
    """
    names = [f"{name}\n{len(energies)} jets" for name, energies in sets.items()]
    means = [_mean(energies) for energies in sets.values()]
    if not means:
        raise UserError("there are no sets of jets to draw")
    return _Sheet(names, note).draw([np.concatenate(means)], LogNorm(*MEAN_RANGE_GEV), "mean energy per crystal [GeV]")


def plot_side_by_side(
    real: NDArray[np.float32],
    generated: NDArray[np.float32],
    labels: Sequence[int] | NDArray[np.int64] | None = None,
    names: tuple[str, str] = ("Real", "Generated"),
    note: str | None = None,
    titles: Sequence[str] | None = None,
) -> Figure:
    """Draw real jets on the left and generated ones on the right, a pair a row, each in two lines of two panels.

    Args:
        real: (n, 3, 125, 125) float32.
        generated: The same shape.
        labels: (n,) classes of the rows.
        names: Titles of the left and the right half.
        note: A line under the figure.
        titles: (n,) texts at the rows, under the class.

    Raises:
        UserError: The energies break the schema, there are no jets, or the lengths differ.
    """
    if len(real) != len(generated):
        raise UserError(f"there are {len(real)} jets on the left and {len(generated)} on the right")
    sheet = _Sheet(_row_names(len(real), labels, titles), note, names, columns=2)
    return sheet.draw([_panels(real), _panels(generated)], LogNorm(*ENERGY_RANGE_GEV), "energy per crystal [GeV]")


def save_figure(figure: matplotlib.figure.Figure, path: str | Path) -> None:
    """Write a figure atomically, in the format of the path's suffix (png, pdf, svg).

    Raises:
        FileNotFoundError: The folder does not exist.
        UserError: The format is unknown.
    """
    path = Path(path)
    accepted = sorted(figure.canvas.get_supported_filetypes())
    if path.suffix.lstrip(".") not in accepted:
        raise UserError(f"cannot draw {path}: its suffix must be one of {', '.join(accepted)}")
    write_atomically(path, partial(figure.savefig, dpi=figure.dpi))


def enlarge_hits(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Draw each crystal as `CRYSTAL_PIXELS` and each hit as `HIT_PIXELS` wide squares, the most energetic on top.

    Args:
        images: (..., H, W), not negative.

    Returns:
        (..., 3 H, 3 W): the centre of each square holds the crystal's own value.
    """
    widened = HIT_PIXELS - CRYSTAL_PIXELS + 1
    return maximum_filter(_pixels(images), size=(*[1] * (images.ndim - 2), widened, widened))


def _pixels(images: NDArray[np.float64]) -> NDArray[np.float64]:
    return images.repeat(CRYSTAL_PIXELS, axis=-2).repeat(CRYSTAL_PIXELS, axis=-1)


def with_sum(energies: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n, 4, 125, 125) channels and their sum, in GeV."""
    gev = energies.astype(np.float64) * GEV_PER_UNIT
    return np.concatenate([gev, gev.sum(axis=1, keepdims=True)], axis=1)


def _panels(energies: NDArray[np.float32]) -> _Panels:
    """Single jets, their hits enlarged."""
    check_energies(energies)
    return enlarge_hits(with_sum(energies))


def _mean(energies: NDArray[np.float32]) -> _Panels:
    check_energies(energies)
    if len(energies) == 0:
        raise UserError("a set of jets is empty")
    return _pixels(with_sum(energies.mean(axis=0, dtype=np.float64, keepdims=True)))


def _row_names(
    num_jets: int, labels: Sequence[int] | NDArray[np.int64] | None, titles: Sequence[str] | None
) -> list[str]:
    if num_jets == 0:
        raise UserError("there are no jets to draw")
    names = [[CLASS_NAMES[label]] for label in labels] if labels is not None else [[] for _ in range(num_jets)]
    if len(names) != num_jets or (titles is not None and len(titles) != num_jets):
        raise UserError(f"there are {num_jets} jets, but labels or titles of another number")
    for name, title in zip(names, titles or [], strict=False):
        name.append(title)
    return ["\n".join(name) for name in names]


class _Sheet:
    """A figure whose panels have a whole number of pixels for each crystal.

    Args:
        rows: Names of the rows.
        note: A line under the figure.
        blocks: Names of the left and the right half.
        columns: Panels of a jet in a line.
    """

    def __init__(
        self, rows: list[str], note: str | None, blocks: Sequence[str] = (), *, columns: int = len(PANELS)
    ) -> None:
        self.rows, self.blocks, self.columns = rows, blocks, columns
        self.lines = len(PANELS) // self.columns
        self.pitch = _SIDE + _GAP
        self.line_pitch = _SIDE + (_GAP if self.lines == 1 else _TOP)
        self.row_pitch = self.lines * self.line_pitch + (_ROW_GAP if self.lines > 1 else 0)
        self.block_pitch = self.columns * self.pitch - _GAP + _BLOCK_GAP
        self.top = _TOP + (_BLOCK_TITLE if blocks else 0)
        self.width = _LEFT + max(1, len(blocks)) * self.block_pitch - _BLOCK_GAP + _RIGHT
        row_height = (self.lines - 1) * self.line_pitch + _SIDE
        self.height = self.top + (len(rows) - 1) * self.row_pitch + row_height + _BOTTOM + (_NOTE if note else 0)
        self.figure = Figure(figsize=(self.width / _DPI, self.height / _DPI), dpi=_DPI)
        if note:
            self.figure.text(12 / self.width, 10 / self.height, note, size=12, style="italic", va="bottom")

    def draw(self, blocks: list[_Panels], norm: LogNorm, quantity: str) -> Figure:
        """Draw the panels of all blocks on one colour scale, and the names of rows, blocks and scale."""
        colours = jet_colours()
        for block, panels in enumerate(blocks):
            for row, number in np.ndindex(panels.shape[:2]):
                shown = self._panel(block, row, number).imshow(
                    np.ma.masked_less_equal(panels[row, number], 0),
                    norm=norm,
                    cmap=colours,
                    extent=(-_HALF_WIDTH, _HALF_WIDTH, -_HALF_WIDTH, _HALF_WIDTH),
                    origin="lower",
                    interpolation="nearest",
                )
        for row, name in enumerate(self.rows):
            y = self.top + row * self.row_pitch + (self.lines * self.line_pitch - _GAP) / 2
            text = self.figure.text(36 / self.width, 1 - y / self.height, name, size=12, rotation=90)
            text.set(ha="center", va="center", multialignment="center")
        for block, name in enumerate(self.blocks):
            x = _LEFT + block * self.block_pitch + (self.block_pitch - _BLOCK_GAP) / 2
            self.figure.text(x / self.width, 1 - 10 / self.height, name, size=16, ha="center", va="top")
        self._colour_bar(shown, quantity)
        return self.figure

    def _axes(self, x: int, y: int, width: int, height: int) -> Axes:
        """Axes by pixels from the upper left corner."""
        w, h = self.width, self.height
        return self.figure.add_axes((x / w, 1 - (y + height) / h, width / w, height / h))

    def _panel(self, block: int, row: int, number: int) -> Axes:
        """Empty axes for one image; only those at the left and the bottom carry numbers."""
        line, column = divmod(number, self.columns)
        left = _LEFT + block * self.block_pitch + column * self.pitch
        axes = self._axes(left, self.top + row * self.row_pitch + line * self.line_pitch, _SIDE, _SIDE)
        at_left, at_bottom = block == column == 0, (row, line) == (len(self.rows) - 1, self.lines - 1)
        axes.set(facecolor=BACKGROUND, xticks=_TICKS, yticks=_TICKS)
        axes.tick_params(labelsize=9, length=3, labelbottom=at_bottom, labelleft=at_left)
        if at_bottom:
            axes.set_xlabel(r"$\Delta\phi$", size=11)
        if at_left:
            axes.set_ylabel(r"$\Delta\eta$", size=11, labelpad=0)
        if row == 0 or self.lines > 1:
            axes.set_title(PANELS[number], size=13)
        return axes

    def _colour_bar(self, shown: AxesImage, quantity: str) -> None:
        """Draw the scale at the right, two lines high at most."""
        height = min(len(self.rows) * self.lines, 2) * self.line_pitch - _GAP
        axes = self._axes(self.width - _RIGHT + 20, self.top, 18, height)
        bar = self.figure.colorbar(shown, cax=axes, extend="both")
        bar.set_label(quantity, size=11)
        axes.tick_params(labelsize=10)
