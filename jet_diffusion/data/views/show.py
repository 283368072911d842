"""Jets as a notebook and a prompt show them: a line of text, or pictures of the first jets."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from jet_diffusion.errors import UserError
from jet_diffusion.observables.hits import Array
from jet_diffusion.plotting.jets import plot_jets
from jet_diffusion.plotting.style import Figure
from jet_diffusion.schema import CLASS_NAMES, PIXELS_SHAPE

if TYPE_CHECKING:
    from jet_diffusion.data.jet_set import JetSample

JETS_SHOWN = 2
"""Jets that a set shows of itself in a notebook."""


def show_jets(jets: JetSample | Any, num_jets: int = 4) -> Figure:
    """Draw the first jets, one a row: tracks, ECAL, HCAL and their sum.

    Args:
        jets: a set of jets, or what a pipeline returned.
        num_jets: how many at most.

    Returns:
        The figure; a notebook draws it, and `figure.savefig("jets.png")` writes it.

    Raises:
        UserError: there are no jets, or some energy is negative or not finite.
    """
    if num_jets < 1:
        raise UserError(f"num_jets must be at least 1, not {num_jets}")
    rows = slice(0, num_jets)
    labels, pt, m0 = (np.asarray(column)[rows] for column in (jets.labels, jets.pt, jets.m0))
    titles = [f"pT {p:.0f}, m {m:.0f} GeV" for p, m in zip(pt, m0, strict=True)]
    return plot_jets(
        energies_of(jets, rows),
        labels if (labels >= 0).all() else None,
        titles if np.isfinite([pt, m0]).all() else None,
        getattr(jets, "simulated", None),
    )


def energies_of(jets: JetSample | Any, rows: slice = slice(None)) -> Array:
    """The `energies` (n, 3, 125, 125) of some jets of a set, or of what a pipeline returned.

    Raises:
        UserError: if a pipeline returned pictures instead of energies.
    """
    if not hasattr(jets, "images"):
        energies: Array = jets.energies(rows)
        return energies
    if isinstance(jets.images, list):
        raise UserError('the pipeline returned pictures; call it with output_type="np", so that it returns energies')
    images = np.asarray(jets.images[rows])
    if images.shape[1:] != PIXELS_SHAPE:
        raise UserError(f"images must have the shape (N, 125, 125, 3), not {images.shape}")
    return np.moveaxis(images, -1, 1)


def describe(jets: JetSample) -> str:
    """Number, classes, ranges of pT and mass, and source of jets, in one line."""
    counts = {name: int((jets.labels == label).sum()) for label, name in enumerate(CLASS_NAMES)}
    parts = [f"{len(jets):,} jets"]
    if any(counts.values()):
        parts[0] += " (" + ", ".join(f"{count:,} {name}" for name, count in counts.items()) + ")"
    for name, values in (("pT", jets.pt), ("mass", jets.m0)):
        if len(jets) and np.isfinite(values).all():
            parts.append(f"{name} {values.min():.0f} to {values.max():.0f} GeV")
    if jets.source:
        parts.append(f"from {jets.source}")
    if jets.simulated:
        parts.append(jets.simulated)
    return "; ".join(parts)


def to_html(jets: JetSample) -> str:
    """The description and the first jets, as HTML that holds its picture."""
    text = f"<p>{escape(describe(jets))}</p>"
    if len(jets) == 0:
        return text
    try:
        picture = show_jets(jets, JETS_SHOWN)._repr_png_()
    except UserError as error:  # impossible energies of a generator: the set can be looked at, its jets cannot be drawn
        return f"{text}<p>{escape(str(error))}</p>"
    data = base64.b64encode(picture).decode("ascii")
    return f'{text}<img alt="the first jets" style="max-width: 100%" src="data:image/png;base64,{data}">'
