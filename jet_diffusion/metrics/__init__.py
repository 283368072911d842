"""Distances and two-sample tests between sets of jets.

The folders of `evaluate_modules` are metrics for Hugging Face's `evaluate`: `evaluate.load(module_path("jet_fpd"))`.
"""

from __future__ import annotations

from pathlib import Path

from jet_diffusion.errors import UserError

EVALUATE_MODULES = ("jet_w1", "jet_fpd", "jet_kpd", "jet_precision_recall")


def module_path(name: str) -> str:
    """Folder of an `evaluate` module of this package.

    Raises:
        UserError: there is none of that name.
    """
    if name not in EVALUATE_MODULES:
        raise UserError(f"no evaluate module {name!r}; there are {', '.join(EVALUATE_MODULES)}")
    return str(Path(__file__).parent / "evaluate_modules" / name)
