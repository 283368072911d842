"""Colours and style that all pictures of a report share, and the style sheets of experiments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from io import BytesIO
from typing import Any

import matplotlib.figure
from matplotlib import rc_context
from matplotlib.font_manager import font_scalings

from jet_diffusion.errors import UserError, require

REAL, GENERATED, FAINT = "#333333", "#d55e00", "#b8b8b8"
CLASS_COLOURS = {"gluon": "#0072b2", "quark": "#cc3311"}
LINE_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
RATIO_LIMITS = (0.5, 1.5)

RC: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "savefig.dpi": 150,
    "figure.dpi": 150,
}
"""Settings of matplotlib."""


class Figure(matplotlib.figure.Figure):
    """A figure that draws itself in a notebook, also where pyplot was never imported."""

    def _repr_png_(self) -> bytes:
        picture = BytesIO()
        self.savefig(picture, format="png", dpi=self.dpi)
        return picture.getvalue()


EXPERIMENTS = {"cms": "CMS", "atlas": "ATLAS"}
"""Name of a style -> its sheet in `mplhep.style`."""

_LENGTHS = (
    "axes.linewidth",
    "axes.labelpad",
    "lines.linewidth",
    "lines.markersize",
    *(f"{axis}tick.{kind}.{length}" for axis in "xy" for kind in ("major", "minor") for length in ("size", "pad")),
)
"""Settings in points. Those of an experiment suit one large histogram a page and are scaled to our figures."""

_KEPT = {
    **{f"{axis}tick.labelsize": "medium" for axis in "xy"},
    "axes.autolimit_mode": "data",
    "axes.xmargin": 0.05,
    **RC,
}
"""What no experiment changes: sizes of text, and limits that leave room around the outermost points."""

_settings: ContextVar[dict[Any, Any]] = ContextVar("settings", default=RC)


def style_settings(experiment: str | None) -> dict[Any, Any]:
    """Settings of matplotlib for pictures in the style of an experiment, at the sizes of the reports.

    Fonts, ticks, frames and the places of axis labels are those of the experiment. Text has the size that our figures
    are laid out for, and lengths keep their proportion to it. No label of the experiment is drawn.

    Args:
        experiment: A name from `EXPERIMENTS`, or None for the reports' own style.

    Raises:
        UserError: There is no such style, or mplhep is not installed.
    """
    if experiment is None:
        return RC
    if experiment not in EXPERIMENTS:
        raise UserError(f"there is no style {experiment!r}; choose one of {', '.join(EXPERIMENTS)}")
    mplhep = require("mplhep", "style", f"the style {experiment!r}")
    sheet = getattr(mplhep.style, EXPERIMENTS[experiment])
    scale = RC["axes.labelsize"] / (sheet["font.size"] * font_scalings[sheet["axes.labelsize"]])
    lengths = {name: scale * sheet[name] for name in _LENGTHS if name in sheet}
    return {**sheet, **lengths, **_KEPT}


@contextmanager
def experiment_style(experiment: str | None) -> Iterator[None]:
    """Give what is drawn and saved inside the style of an experiment; see `style_settings`."""
    token = _settings.set(style_settings(experiment))
    try:
        yield
    finally:
        _settings.reset(token)


@contextmanager
def styled() -> Iterator[None]:
    """Decorate a function that makes a figure, or enclose its saving: the figure gets the style of the report."""
    with rc_context(_settings.get()):
        yield
