"""Diffusion models of quark/gluon calorimeter jet images.

The names below are loaded when they are first used, so that `import jet_diffusion` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jet_diffusion.data.dataset import JetDataset
    from jet_diffusion.data.hdf5 import QuarkGluonFile
    from jet_diffusion.data.jet_set import JetSample
    from jet_diffusion.data.load import load_jets
    from jet_diffusion.data.views.show import show_jets
    from jet_diffusion.evaluation.run import evaluate_jets
    from jet_diffusion.hub import load_pipeline

__version__ = "0.1.0"

__all__ = [
    "JetDataset",
    "JetSample",
    "QuarkGluonFile",
    "__version__",
    "evaluate_jets",
    "load_jets",
    "load_pipeline",
    "show_jets",
]

_HOMES = {
    "JetDataset": "jet_diffusion.data.dataset",
    "JetSample": "jet_diffusion.data.jet_set",
    "QuarkGluonFile": "jet_diffusion.data.hdf5",
    "evaluate_jets": "jet_diffusion.evaluation.run",
    "load_jets": "jet_diffusion.data.load",
    "load_pipeline": "jet_diffusion.hub",
    "show_jets": "jet_diffusion.data.views.show",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
