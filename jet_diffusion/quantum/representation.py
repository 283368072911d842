"""Stands for the file of this name that ships with a published model, beside what imports it relatively."""

from __future__ import annotations

from jet_diffusion.pipelines.representation import Representation

__all__ = ["Representation"]
