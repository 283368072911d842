"""Pictures of jets: calorimeter images on one fixed logarithmic colour scale in GeV, shared by all figures.

A crystal is drawn as a square of whole pixels, so that single hits stay visible; crystals without energy take
the background colour, which is no colour of the scale. Figures are made without pyplot's global state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from jet_diffusion.io import write_atomically
from jet_diffusion.schema import CHANNEL_LABELS, CLASS_NAMES, CRYSTAL_PITCH, GEV_PER_UNIT, NUM_CRYSTALS, check_energies

ENERGY_RANGE_GEV = (1e-2, 1e2)
"""Ends of the colour scale of single jets: the smallest ECAL and HCAL hits, and a hard track."""

MEAN_RANGE_GEV = (1e-4, 1e1)
"""Ends of the colour scale of images averaged over jets."""

BACKGROUND = "#0d0d14"
"""Colour of a crystal without energy."""

COLUMNS = (*CHANNEL_LABELS, "Combined")
"""The panels of a jet; the last sums the channels."""

_DPI = 100
_LEFT, _RIGHT, _TOP, _BOTTOM, _GAP, _BLOCK_GAP, _BLOCK_TITLE, _NOTE = 125, 110, 35, 55, 10, 40, 35, 30  # pixels
_TICKS = (-1, 0, 1)
_HALF_WIDTH = NUM_CRYSTALS / 2 * CRYSTAL_PITCH

_Panels = NDArray[np.float64]
"""(rows, columns, 125, 125) GeV."""


def jet_colours() -> Colormap:
    """Inferno without its darkest quarter, which the background would swallow."""
    return ListedColormap(colormaps["inferno"](np.linspace(0.25, 1.0, 256)), "jet").with_extremes(bad=BACKGROUND)


def plot_jets(
    energies: NDArray[np.float32],
    labels: Sequence[int] | NDArray[np.int64] | None = None,
    titles: Sequence[str] | None = None,
    note: str | None = None,
) -> Figure:
    """Draw jets, one a row: tracks, ECAL, HCAL and their sum.

    Args:
        energies: (n, 3, 125, 125) float32.
        labels: (n,) classes, named at the rows.
        titles: (n,) texts at the rows, under the class.
        note: A line under the figure, such as the marker of simulated jets.

    Raises:
        ValueError: The energies break the schema, there are no jets, or the lengths differ.
    """
    return _draw([_panels(energies)], _row_names(len(energies), labels, titles), ENERGY_RANGE_GEV, note)


def plot_mean_images(sets: Mapping[str, NDArray[np.float32]], note: str | None = None) -> Figure:
    """Draw the mean image of each set of jets, one a row.

    Args:
        sets: Name of a set -> its energies, (n, 3, 125, 125) float32.
        note: A line under the figure.

    Raises:
        ValueError: There are no sets, or a set is empty or breaks the schema.
    """
    names = [f"{name}\n{len(energies)} jets" for name, energies in sets.items()]
    means = [_mean(energies) for energies in sets.values()]
    if not means:
        raise ValueError("there are no sets of jets to draw")
    return _draw([np.concatenate(means)], names, MEAN_RANGE_GEV, note, "mean energy per crystal [GeV]")


def plot_side_by_side(
    real: NDArray[np.float32],
    generated: NDArray[np.float32],
    labels: Sequence[int] | NDArray[np.int64] | None = None,
    names: tuple[str, str] = ("Real", "Generated"),
    note: str | None = None,
) -> Figure:
    """Draw real jets on the left and generated ones on the right, a pair a row.

    Args:
        real: (n, 3, 125, 125) float32.
        generated: The same shape.
        labels: (n,) classes of the rows.
        names: Titles of the left and the right half.
        note: A line under the figure.

    Raises:
        ValueError: The energies break the schema, there are no jets, or the lengths differ.
    """
    if len(real) != len(generated):
        raise ValueError(f"there are {len(real)} jets on the left and {len(generated)} on the right")
    rows = _row_names(len(real), labels, None)
    return _draw([_panels(real), _panels(generated)], rows, ENERGY_RANGE_GEV, note, block_names=names, crystal_pixels=2)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure atomically, in the format of the path's suffix (png, pdf, svg).

    Raises:
        FileNotFoundError: The folder does not exist.
        ValueError: The format is unknown.
    """
    path = Path(path)
    accepted = sorted(figure.canvas.get_supported_filetypes())
    if path.suffix.lstrip(".") not in accepted:
        raise ValueError(f"cannot draw {path}: its suffix must be one of {', '.join(accepted)}")
    write_atomically(path, partial(figure.savefig, dpi=figure.dpi))


def _panels(energies: NDArray[np.float32]) -> _Panels:
    """Channels and their sum, in GeV."""
    check_energies(energies)
    gev = energies.astype(np.float64) * GEV_PER_UNIT
    return np.concatenate([gev, gev.sum(axis=1, keepdims=True)], axis=1)


def _mean(energies: NDArray[np.float32]) -> _Panels:
    check_energies(energies)
    if len(energies) == 0:
        raise ValueError("a set of jets is empty")
    gev = energies.mean(axis=0, dtype=np.float64, keepdims=True) * GEV_PER_UNIT
    return np.concatenate([gev, gev.sum(axis=1, keepdims=True)], axis=1)


def _row_names(
    num_jets: int, labels: Sequence[int] | NDArray[np.int64] | None, titles: Sequence[str] | None
) -> list[str]:
    if num_jets == 0:
        raise ValueError("there are no jets to draw")
    names = [[CLASS_NAMES[label]] for label in labels] if labels is not None else [[] for _ in range(num_jets)]
    if len(names) != num_jets or (titles is not None and len(titles) != num_jets):
        raise ValueError(f"there are {num_jets} jets, but labels or titles of another number")
    for name, title in zip(names, titles or [], strict=False):
        name.append(title)
    return ["\n".join(name) for name in names]


def _draw(
    blocks: list[_Panels],
    row_names: list[str],
    limits: tuple[float, float],
    note: str | None,
    quantity: str = "energy per crystal [GeV]",
    block_names: Sequence[str] = (),
    crystal_pixels: int = 3,
) -> Figure:
    """Draw blocks of panels beside one another, their rows named at the left, on one colour scale."""
    sheet = _Sheet(len(row_names), len(blocks), crystal_pixels, note)
    norm, colours = LogNorm(*limits), jet_colours()
    for block, panels in enumerate(blocks):
        for row, images in enumerate(panels):
            for column, image in enumerate(images):
                axes = sheet.panel(block, row, column)
                shown = axes.imshow(
                    np.ma.masked_less_equal(image, 0),
                    norm=norm,
                    cmap=colours,
                    extent=(-_HALF_WIDTH, _HALF_WIDTH, -_HALF_WIDTH, _HALF_WIDTH),
                    origin="lower",
                    interpolation="nearest",
                )
                if row == 0:
                    axes.set_title(COLUMNS[column], size=13)
    for row, name in enumerate(row_names):
        sheet.name_row(row, name)
    for block, name in enumerate(block_names):
        sheet.name_block(block, name)
    sheet.colour_bar(shown, quantity)
    return sheet.figure


class _Sheet:
    """A figure whose panels have a whole number of pixels for each crystal."""

    def __init__(self, rows: int, blocks: int, crystal_pixels: int, note: str | None) -> None:
        self.rows = rows
        self.side = crystal_pixels * NUM_CRYSTALS
        self.pitch = self.side + _GAP
        self.block_pitch = len(COLUMNS) * self.pitch - _GAP + _BLOCK_GAP
        self.top = _TOP + (_BLOCK_TITLE if blocks > 1 else 0)
        self.width = _LEFT + blocks * self.block_pitch - _BLOCK_GAP + _RIGHT
        self.height = self.top + rows * self.pitch - _GAP + _BOTTOM + (_NOTE if note else 0)
        self.figure = Figure(figsize=(self.width / _DPI, self.height / _DPI), dpi=_DPI)
        if note:
            self.figure.text(12 / self.width, 10 / self.height, note, size=12, style="italic", va="bottom")

    def _axes(self, x: int, y: int, width: int, height: int) -> Axes:
        """Axes by pixels from the upper left corner."""
        w, h = self.width, self.height
        return self.figure.add_axes((x / w, 1 - (y + height) / h, width / w, height / h))

    def panel(self, block: int, row: int, column: int) -> Axes:
        """Empty axes for one image; only those at the left and the bottom carry numbers."""
        left = _LEFT + block * self.block_pitch + column * self.pitch
        axes = self._axes(left, self.top + row * self.pitch, self.side, self.side)
        axes.set_facecolor(BACKGROUND)
        axes.set_xticks(_TICKS)
        axes.set_yticks(_TICKS)
        axes.tick_params(labelsize=9, length=3)
        axes.tick_params(labelbottom=row == self.rows - 1, labelleft=block == 0 and column == 0)
        if row == self.rows - 1:
            axes.set_xlabel(r"$\Delta\phi$", size=11)
        if block == 0 and column == 0:
            axes.set_ylabel(r"$\Delta\eta$", size=11, labelpad=0)
        return axes

    def name_row(self, row: int, name: str) -> None:
        """Write a row's name at its left, upwards."""
        y = self.top + row * self.pitch + self.side / 2
        text = self.figure.text(30 / self.width, 1 - y / self.height, name, size=12, rotation=90)
        text.set(ha="center", va="center", multialignment="center")

    def name_block(self, block: int, name: str) -> None:
        """Write a block's title over its columns."""
        x = _LEFT + block * self.block_pitch + (self.block_pitch - _BLOCK_GAP) / 2
        self.figure.text(x / self.width, 1 - 10 / self.height, name, size=16, ha="center", va="top")

    def colour_bar(self, shown: AxesImage, quantity: str) -> None:
        """Draw the scale at the right, two rows high at most."""
        height = min(self.rows, 2) * self.pitch - _GAP
        axes = self._axes(self.width - _RIGHT + 20, self.top, 18, height)
        bar = self.figure.colorbar(shown, cax=axes, extend="both")
        bar.set_label(quantity, size=11)
        axes.tick_params(labelsize=10)
