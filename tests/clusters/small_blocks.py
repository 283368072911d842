"""Preloaded by Dask's workers in the tests: simulated blocks of a few jets."""

from __future__ import annotations

from jet_diffusion.simulation import block

FEW = 10
"""Jets of a block."""

block.JETS_PER_BLOCK = FEW
