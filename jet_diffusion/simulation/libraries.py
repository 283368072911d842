"""Pythia 8 and FastJet, the two GPL libraries of the `simulation` extra: imported here and nowhere else."""

from __future__ import annotations

from importlib.metadata import version
from types import ModuleType

from jet_diffusion import errors

NEEDED = ("awkward", "fastjet", "numba", "pythia8mc")
"""Modules of the extra, named like their distributions."""


def _load(module: str) -> ModuleType:
    return errors.require(module, "simulation", "the simulation")


def load_pythia() -> ModuleType:
    """The event generator Pythia 8 (arXiv:2203.11601, GPL-2.0-or-later)."""
    return _load("pythia8mc")


def load_fastjet() -> ModuleType:
    """The jet finder FastJet (arXiv:1111.6097, GPL-2.0-or-later) in its Scikit-HEP bindings, without its banner."""
    fastjet = _load("fastjet")
    _load("fastjet._swig").ClusterSequence.set_fastjet_banner_stream(None)
    return fastjet


def require() -> None:
    """Raise ValueError with the line that installs it if a library of the extra is missing."""
    for module in NEEDED:
        _load(module)


def versions() -> dict[str, str]:
    """Version of every library that shapes the jets, as they are written into the file."""
    return {name: version(name) for name in (*NEEDED, "numpy")}
