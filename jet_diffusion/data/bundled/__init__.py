"""A small simulated stand-in of the quark/gluon file, for the demo and the tests."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def sample_path() -> Path:
    """Path of the bundled sample: 2,048 simulated stand-in jets in the schema of the real file."""
    return Path(str(files(__name__) / "quark_gluon_sample.hdf5"))
