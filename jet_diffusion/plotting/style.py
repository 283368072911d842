"""Colours and style that all pictures of a report share."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import matplotlib.figure
from matplotlib import rc_context

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


def styled() -> Any:
    """Decorate a function that makes a figure, so that the figure has the style of the reports."""
    return rc_context(RC)
