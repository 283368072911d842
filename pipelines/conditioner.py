"""Conditioning on class, pT, mass and ring sums: the embedding that the UNet sees.

This file is self-contained so that it can travel to the Hub.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

LABELS = {"gluon": 0, "quark": 1, 0: 0, 1: 1}
"""What names a class, and the label it stands for."""


class Conditioner(ModelMixin, ConfigMixin):
    """Embeds (label, pT, mass) for a UNet2DModel with `class_embed_type="identity"`.

    Args:
        embedding_dim: Width E of the embedding; four times the UNet's first block.
        log_pt_mean, log_pt_std, log_m0_mean, log_m0_std: Standardisation of log(pT / GeV) and log(mass / GeV).
        num_frequencies: Sine and cosine pairs per continuous condition.
        log_ring_sums_mean, log_ring_sums_std: Standardisation of log(1 + ring sum), one each; empty for a model
            without.
    """

    @register_to_config
    def __init__(
        self,
        embedding_dim: int,
        log_pt_mean: float = 0.0,
        log_pt_std: float = 1.0,
        log_m0_mean: float = 0.0,
        log_m0_std: float = 1.0,
        num_frequencies: int = 6,
        log_ring_sums_mean: tuple[float, ...] = (),
        log_ring_sums_std: tuple[float, ...] = (),
    ) -> None:
        super().__init__()
        features = 2 + (2 + len(log_ring_sums_mean)) * (1 + 2 * num_frequencies)
        self.project = nn.Sequential(
            nn.Linear(features, embedding_dim), nn.SiLU(), nn.Linear(embedding_dim, embedding_dim)
        )
        self.dropped = nn.Parameter(torch.zeros(embedding_dim))

    def forward(
        self,
        labels: torch.Tensor,
        pt: torch.Tensor,
        m0: torch.Tensor,
        ring_sums: torch.Tensor | None = None,
        dropped: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(N, E) embedding of labels (N,), pT and mass (N,) in GeV, ring sums; a learned one where `dropped`."""
        standardised = self._standardise(pt.float(), m0.float(), ring_sums)
        frequencies = 2.0 ** torch.arange(self.config.num_frequencies, device=pt.device) / 2
        waves = (standardised[..., None] * frequencies).flatten(1)
        one_hot = nn.functional.one_hot(labels.long(), 2).float()
        features = torch.cat([one_hot, standardised, waves.sin(), waves.cos()], 1)
        embedding = self.project(features.to(self.dropped.dtype))
        return embedding if dropped is None else torch.where(dropped[:, None], self.dropped, embedding)

    @property
    def num_ring_sums(self) -> int:
        """Hit counts and energies of rings that the model is conditioned on; 0 if on none."""
        return len(self.config.log_ring_sums_mean)

    @staticmethod
    def parse(labels: Any, pt: Any, m0: Any) -> tuple[torch.Tensor | None, ...]:
        """Labels, pT and mass as tensors of no or one dimension; None stays None.

        Raises:
            ValueError: For a label that is none, a pT or mass that is not positive and finite, or nested lists.
        """
        parsed: list[torch.Tensor | None] = [None, None, None]
        if labels is not None:
            named = np.array(labels.tolist() if isinstance(labels, torch.Tensor) else labels, dtype=object)
            if named.ndim > 1 or any(value not in LABELS for value in named.flatten().tolist()):
                raise ValueError(f"labels must be 0 or 'gluon', 1 or 'quark', one for all or one a jet; got {labels}")
            numbers = [LABELS[value] for value in named.flatten().tolist()]
            parsed[0] = torch.tensor(numbers, dtype=torch.int64).reshape(named.shape)
        for slot, name, values in ((1, "pt", pt), (2, "m0", m0)):
            if values is None:
                continue
            tensor = torch.as_tensor(values, dtype=torch.float32).cpu()
            if tensor.ndim > 1 or not tensor.isfinite().all() or (tensor <= 0).any():
                raise ValueError(f"{name} must be positive and finite (GeV), one for all or one a jet; got {values}")
            parsed[slot] = tensor
        return tuple(parsed)

    def _standardise(self, pt: torch.Tensor, m0: torch.Tensor, ring_sums: torch.Tensor | None = None) -> torch.Tensor:
        """(N, 2 + num_ring_sums) standardised logarithms."""
        config = self.config
        columns = [
            (pt.log() - config.log_pt_mean) / config.log_pt_std,
            (m0.log() - config.log_m0_mean) / config.log_m0_std,
        ]
        if ring_sums is not None:
            fitted = zip(ring_sums.unbind(1), config.log_ring_sums_mean, config.log_ring_sums_std, strict=True)
            columns += [(values.log1p() - mean) / std for values, mean, std in fitted]
        return torch.stack(columns, 1)
