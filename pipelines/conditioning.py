"""Conditioning on class, pT and mass: the embedding the UNet sees, and the training jets' joint distribution.

What a user leaves out is drawn from a table of training jets' (label, pT, mass) that travels with the weights.
This file is self-contained so that it can travel to the Hub.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import logging
from torch import nn

logger = logging.get_logger(__name__)

LABELS = {"gluon": 0, "quark": 1, 0: 0, 1: 1}
"""What names a class, and the label it stands for."""

NEIGHBOURS = 64
"""A missing condition is drawn from this many training jets nearest in the given ones."""


class Conditioner(ModelMixin, ConfigMixin):
    """Embeds (label, pT, mass) for a UNet2DModel with `class_embed_type="identity"`, and draws missing ones.

    Args:
        embedding_dim: Width E of the embedding; four times the UNet's first block.
        num_rows: Training jets in the table.
        log_pt_mean, log_pt_std, log_m0_mean, log_m0_std: Standardisation of log(pT / GeV) and log(mass / GeV).
        num_frequencies: Sine and cosine pairs per continuous condition.
    """

    @register_to_config
    def __init__(
        self,
        embedding_dim: int,
        num_rows: int,
        log_pt_mean: float = 0.0,
        log_pt_std: float = 1.0,
        log_m0_mean: float = 0.0,
        log_m0_std: float = 1.0,
        num_frequencies: int = 6,
    ) -> None:
        super().__init__()
        features = 2 + 2 * (1 + 2 * num_frequencies)
        self.project = nn.Sequential(
            nn.Linear(features, embedding_dim), nn.SiLU(), nn.Linear(embedding_dim, embedding_dim)
        )
        self.dropped = nn.Parameter(torch.zeros(embedding_dim))
        # Integer buffers: half precision of the weights must not round the table.
        self.register_buffer("table_labels", torch.zeros(num_rows, dtype=torch.int32))
        self.register_buffer("table_pt_bits", torch.zeros(num_rows, dtype=torch.int32))
        self.register_buffer("table_m0_bits", torch.zeros(num_rows, dtype=torch.int32))

    @classmethod
    def fit(cls, labels: torch.Tensor, pt: torch.Tensor, m0: torch.Tensor, *, embedding_dim: int) -> Conditioner:
        """A fresh embedder standardised by, and with the table of, training jets.

        Args:
            labels: (N,) 0 gluon, 1 quark.
            pt, m0: (N,) in GeV, positive.
            embedding_dim: Width of the embedding.
        """
        log_pt, log_m0 = pt.double().log(), m0.double().log()
        conditioner = cls(
            embedding_dim=embedding_dim,
            num_rows=len(labels),
            log_pt_mean=log_pt.mean().item(),
            log_pt_std=max(log_pt.std().item(), 1e-6),
            log_m0_mean=log_m0.mean().item(),
            log_m0_std=max(log_m0.std().item(), 1e-6),
        )
        conditioner.table_labels.copy_(labels)
        conditioner.table_pt_bits.copy_(pt.float().contiguous().view(torch.int32))
        conditioner.table_m0_bits.copy_(m0.float().contiguous().view(torch.int32))
        return conditioner

    def forward(
        self,
        labels: torch.Tensor,
        pt: torch.Tensor,
        m0: torch.Tensor,
        dropped: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(N, E) embedding of labels (N,), pT (N,) and mass (N,) in GeV; a learned one where `dropped` (N,)."""
        standardised = torch.stack(self._standardise(pt.float(), m0.float()), 1)  # (N, 2)
        frequencies = 2.0 ** torch.arange(self.config.num_frequencies, device=pt.device) / 2
        waves = (standardised[..., None] * frequencies).flatten(1)
        one_hot = nn.functional.one_hot(labels.long(), 2).float()
        features = torch.cat([one_hot, standardised, waves.sin(), waves.cos()], 1)
        embedding = self.project(features.to(self.dropped.dtype))
        return embedding if dropped is None else torch.where(dropped[:, None], self.dropped, embedding)

    def table(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Labels, pT and mass (GeV) of the training jets, each (num_rows,)."""
        return (
            self.table_labels.long(),
            self.table_pt_bits.view(torch.float32),
            self.table_m0_bits.view(torch.float32),
        )

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
        for place, name, values in ((1, "pt", pt), (2, "m0", m0)):
            if values is None:
                continue
            tensor = torch.as_tensor(values, dtype=torch.float32).cpu()
            if tensor.ndim > 1 or not tensor.isfinite().all() or (tensor <= 0).any():
                raise ValueError(f"{name} must be positive and finite (GeV), one for all or one a jet; got {values}")
            parsed[place] = tensor
        return tuple(parsed)

    def draw(
        self,
        generators: list[torch.Generator],
        labels: torch.Tensor | None = None,
        pt: torch.Tensor | None = None,
        m0: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Labels, pT and mass for one jet a generator; the missing ones from training jets like the given.

        Each jet takes what is missing from one training jet, drawn among all of the given class that are nearest
        in the given pT and mass (standardised logarithms), or among all when neither is given.
        """
        given = (labels, pt, m0)
        self._warn_of_extrapolation(pt, m0)
        if all(values is not None for values in given):
            return labels, pt, m0  # type: ignore[return-value]
        table = [values.cpu() for values in self.table()]
        continuous = torch.stack(self._standardise(table[1], table[2]))
        drawn = [torch.empty(len(generators), dtype=values.dtype) for values in table]
        for jet, generator in enumerate(generators):
            known = [None if values is None else values[jet].cpu() for values in given]
            row = self._draw_row(generator, known, table[0], continuous)
            for out, value, column in zip(drawn, known, table, strict=True):
                out[jet] = column[row] if value is None else value
        return drawn[0], drawn[1], drawn[2]

    def _warn_of_extrapolation(self, pt: torch.Tensor | None, m0: torch.Tensor | None) -> None:
        _, table_pt, table_m0 = self.table()
        for name, values, table in (("pt", pt, table_pt), ("m0", m0, table_m0)):
            low, high = table.min().item(), table.max().item()
            outside = 0 if values is None else int(((values < low) | (values > high)).sum())
            if outside:
                logger.warning(
                    f"{outside} of {len(values)} jets ask for a {name} outside the training jets' {low:.4g} to "  # type: ignore[arg-type]
                    f"{high:.4g} GeV; what comes out there is extrapolation"
                )

    def _draw_row(
        self,
        generator: torch.Generator,
        known: list[torch.Tensor | None],
        table_labels: torch.Tensor,
        continuous: torch.Tensor,
    ) -> torch.Tensor:
        label, pt, m0 = known
        rows = torch.arange(len(table_labels)) if label is None else (table_labels == label).nonzero()[:, 0]
        if not len(rows):
            raise ValueError(f"no training jet has label {int(label)}; nothing to draw its conditions from")  # type: ignore[arg-type]
        if pt is not None or m0 is not None:
            asked = self._standardise(*(torch.tensor(1.0) if v is None else v for v in (pt, m0)))
            distance = sum(
                (axis[rows] - value).square()
                for axis, value, condition in zip(continuous, asked, (pt, m0), strict=True)
                if condition is not None
            )
            rows = rows[torch.as_tensor(distance).topk(min(NEIGHBOURS, len(rows)), largest=False).indices]
        return rows[torch.randint(len(rows), (), generator=generator, device=generator.device).cpu()]

    def _standardise(self, pt: torch.Tensor, m0: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        config = self.config
        return (
            (pt.log() - config.log_pt_mean) / config.log_pt_std,
            (m0.log() - config.log_m0_mean) / config.log_m0_std,
        )
