"""What the quark/gluon file holds: the layout, names and units every other module refers to.

`energies` means, everywhere in this package, the file's own unit (GeV/100; the tracks channel is pT) as
float32 of shape (N, 3, 125, 125): channel, eta row, phi column. Channels-last exists at the edges only:
the HDF5 file, the decoded dataset row and the pipeline's output.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from jet_diffusion.errors import UserError

CHANNELS = ("tracks", "ecal", "hcal")
"""The three calorimeter channels, in the order of the file's last axis."""

TRACKS, ECAL, HCAL = range(3)

CHANNEL_LABELS = ("Tracks", "ECAL", "HCAL")
"""The channels' names in figures and tables."""

CLASS_NAMES = ("gluon", "quark")
"""Names of the labels: y = 0 is a gluon jet, y = 1 a quark jet."""

NUM_CRYSTALS = 125
"""Crystals along each side of an image."""

CRYSTALS_PER_TOWER = 5
"""Crystals along each side of one HCAL tower; HCAL energy is spread evenly over the 5x5 block."""

NUM_TOWERS = NUM_CRYSTALS // CRYSTALS_PER_TOWER
"""HCAL towers along each side of an image."""

IMAGE_SHAPE = (len(CHANNELS), NUM_CRYSTALS, NUM_CRYSTALS)
"""Shape of one jet's energies."""

CRYSTAL_PITCH = math.pi / 180
"""Width of a crystal in eta and in phi (radians), 0.01745; 360 crystals go around the barrel."""

GEV_PER_UNIT = 100.0
"""GeV in one unit of `energies`. Observables and plots multiply by it; nothing else does."""

PIXELS_SHAPE = (NUM_CRYSTALS, NUM_CRYSTALS, len(CHANNELS))
"""One jet at the channels-last edges: eta row, phi column, channel."""

_INFINITY_BITS = np.uint32(0x7F800000)
_MINUS_ZERO_BITS = np.uint32(0x80000000)


CRYSTAL_TO_TOWER = np.add.outer(
    np.arange(NUM_CRYSTALS) // CRYSTALS_PER_TOWER * NUM_TOWERS, np.arange(NUM_CRYSTALS) // CRYSTALS_PER_TOWER
).ravel()
"""(15625,) int64: the tower, row * 25 + column, of each crystal, row * 125 + column."""


def check_energies(
    energies: NDArray[np.floating], origin: str = "", first_jet: int = 0, *, physical: bool = True
) -> None:
    """Refuse what is no batch of jet images: a wrong shape or type, or values that no jet has.

    Args:
        energies: Should be (N, 3, 125, 125) in GeV/100.
        origin: Opens the message: where the energies come from.
        first_jet: Number of the first jet in that origin.
        physical: Whether they must be float32, finite and not negative; -0.0 passes. An evaluation takes floats of any
            precision and value, because it counts impossible values instead of refusing them.

    Raises:
        UserError: Says what was seen; for a value, names its jet, channel and place.
    """
    right_type = energies.dtype == np.float32 if physical else np.issubdtype(energies.dtype, np.floating)
    if energies.shape[1:] != IMAGE_SHAPE or not right_type:
        accepted = "float32" if physical else "floating-point numbers"
        hint = "; transpose channels-last images with (0, 3, 1, 2)" if energies.shape[1:] == PIXELS_SHAPE else ""
        seen = f"{energies.dtype} of shape {energies.shape}"
        raise UserError(f"{origin}energies must be {accepted} of shape (N, 3, 125, 125), not {seen}{hint}")
    if not physical:
        return
    bits = energies.view(np.uint32)
    # Without its sign bit a float orders as its bits do, so one pass over the bits clears a good slice.
    if bits.size == 0 or bits.max() < _INFINITY_BITS:
        return
    bad = (bits >= _INFINITY_BITS) & (bits != _MINUS_ZERO_BITS)
    if not bad.any():
        return
    jet, channel, row, column = np.argwhere(bad)[0]
    raise UserError(
        f"{origin}jet {first_jet + jet}, channel {CHANNELS[channel]}, row {row}, column {column} holds "
        f"{energies[jet, channel, row, column]}; energies must be finite and not negative"
    )


def hcal_is_constant_in_towers(energies: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Tell which jets' HCAL values are the same, bit for bit, within every 5x5 tower.

    Args:
        energies: (N, 3, 125, 125) float32.

    Returns:
        (N,) bool.
    """
    bits = np.ascontiguousarray(energies[:, HCAL]).view(np.uint32)
    blocks = bits.reshape(-1, NUM_TOWERS, CRYSTALS_PER_TOWER, NUM_TOWERS, CRYSTALS_PER_TOWER)
    constant: NDArray[np.bool_] = (blocks == blocks[:, :, :1, :, :1]).all(axis=(1, 2, 3, 4))
    return constant
