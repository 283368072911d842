"""What the quark/gluon file holds: the layout, names and units every other module refers to.

`energies` means, everywhere in this package, the file's own unit (GeV/100; the tracks channel is pT) as
float32 of shape (N, 3, 125, 125): channel, eta row, phi column. Channels-last exists at the edges only:
the HDF5 file, the decoded dataset row and the pipeline's output.
"""

from __future__ import annotations

import math

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
