"""ClassConditioner: models of 16x16 states know the class alone; pT, mass and energies are drawn with it."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from torch import nn

from jet_diffusion.pipelines.conditioner import Conditioner


class ClassConditioner(Conditioner):
    """Embeds the class as +1 (quark) or -1 (gluon), or a learned number where it is hidden.

    pT, mass and energies are drawn by the first stage, and the state is scaled to them.

    Args:
        settings: Standardisations, as in `Conditioner`; the embedding is always one number.
    """

    @register_to_config
    def __init__(
        self,
        embedding_dim: int = 1,
        log_pt_mean: float = 0.0,
        log_pt_std: float = 1.0,
        log_m0_mean: float = 0.0,
        log_m0_std: float = 1.0,
        num_frequencies: int = 0,
        log_ring_sums_mean: tuple[float, ...] = (),
        log_ring_sums_std: tuple[float, ...] = (),
    ) -> None:
        super().__init__(
            embedding_dim=embedding_dim,
            log_pt_mean=log_pt_mean,
            log_pt_std=log_pt_std,
            log_m0_mean=log_m0_mean,
            log_m0_std=log_m0_std,
            num_frequencies=num_frequencies,
            log_ring_sums_mean=log_ring_sums_mean,
            log_ring_sums_std=log_ring_sums_std,
        )
        self.project = nn.Sequential()  # the class is its own embedding

    def forward(
        self,
        labels: torch.Tensor,
        pt: torch.Tensor,
        m0: torch.Tensor,
        ring_sums: Any = None,
        dropped: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(N, 1) sign of each class; pT, mass and ring sums are carried, not seen."""
        sign = 2 * labels.to(self.dropped)[:, None] - 1
        return sign if dropped is None else torch.where(dropped[:, None], self.dropped, sign)
