"""Encoded jets kept in memory, where a representation is so coarse that all of them fit."""

from __future__ import annotations

import numpy as np
import torch

from jet_diffusion.dataset import JetDataset
from jet_diffusion.pipelines.representation import Representation

MEMORY_BYTES = 2**26
"""Splits whose encoded jets take no more than this are kept."""


class EncodedJets:
    """Encodes jets of a split, each once where all fit into memory.

    Args:
        jets: The split.
        representation: Encodes energies.
    """

    def __init__(self, jets: JetDataset, representation: Representation) -> None:
        self.jets, self.representation = jets, representation
        self.fits = 4 * int(np.prod(representation.shape)) * len(jets) <= MEMORY_BYTES
        self._kept: dict[int, torch.Tensor] = {}

    def __call__(self, rows: np.ndarray) -> torch.Tensor:
        """(N, C, H, W) the jets of these rows in model space."""
        if not self.fits:
            return self._encode(rows)
        new = np.array([row for row in dict.fromkeys(rows.tolist()) if row not in self._kept], dtype=np.int64)
        if len(new):
            self._kept.update(zip(new.tolist(), self._encode(new).unbind(0), strict=True))
        return torch.stack([self._kept[row] for row in rows.tolist()])

    def _encode(self, rows: np.ndarray) -> torch.Tensor:
        return self.representation.encode(torch.from_numpy(self.jets.energies(rows)))
