"""Conditioning on class, pT, mass and ring sums: the embedding the UNet sees, and the first stage of sampling.

Conditions that a user leaves out are sampled jointly from a table of training jets that travels with the weights. A
model may also be conditioned on ring sums, the hit count and energy of each ring of each channel. The first stage draws
them from jets like those wanted, and the image is then drawn given them, as the best calorimeter simulations do
(CaloChallenge, arXiv:2410.21611).
This file needs `denoiser.py` beside it; to the Hub they travel as one file.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import logging
from torch import nn

from .denoiser import ExactBuffers  # noqa: TID251 - on the Hub the two are one file

logger = logging.get_logger(__name__)

LABELS = {"gluon": 0, "quark": 1, 0: 0, 1: 1}
"""What names a class, and the label it stands for."""

NEIGHBOURS = 64
"""A missing condition is drawn from this many training jets nearest in the given ones."""


class Conditions(NamedTuple):
    """Conditions of N jets.

    Attributes:
        labels: (N,) 0 gluon, 1 quark.
        pt, m0: (N,) GeV.
        ring_sums: (N, 2 rings) hit counts of the rings of tracks, ECAL and HCAL, then their energies in GeV; (N, 0) for
            a model without.
    """

    labels: torch.Tensor
    pt: torch.Tensor
    m0: torch.Tensor
    ring_sums: torch.Tensor


class Conditioner(ExactBuffers, ModelMixin, ConfigMixin):
    """Embeds (label, pT, mass) for a UNet2DModel with `class_embed_type="identity"`, and draws missing ones.

    Args:
        embedding_dim: Width E of the embedding; four times the UNet's first block.
        num_rows: Training jets in the table.
        log_pt_mean, log_pt_std, log_m0_mean, log_m0_std: Standardisation of log(pT / GeV) and log(mass / GeV).
        num_frequencies: Sine and cosine pairs per continuous condition.
        log_ring_sums_mean, log_ring_sums_std: Standardisation of log(1 + ring sum), one each; empty for a model
            without.
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
        log_ring_sums_mean: tuple[float, ...] = (),
        log_ring_sums_std: tuple[float, ...] = (),
    ) -> None:
        super().__init__()
        features = 2 + (2 + len(log_ring_sums_mean)) * (1 + 2 * num_frequencies)
        self.project = nn.Sequential(
            nn.Linear(features, embedding_dim), nn.SiLU(), nn.Linear(embedding_dim, embedding_dim)
        )
        self.dropped = nn.Parameter(torch.zeros(embedding_dim))
        self.register_buffer("table_labels", torch.zeros(num_rows, dtype=torch.int32))
        self.register_buffer("table_pt", torch.zeros(num_rows, dtype=torch.float32))
        self.register_buffer("table_m0", torch.zeros(num_rows, dtype=torch.float32))
        if log_ring_sums_mean:
            shape = (num_rows, len(log_ring_sums_mean))
            self.register_buffer("table_ring_sums", torch.zeros(shape, dtype=torch.float32))

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

    def table(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Labels, pT and mass (GeV) of the training jets, each (num_rows,)."""
        return self.table_labels.long(), self.table_pt, self.table_m0

    @property
    def num_ring_sums(self) -> int:
        """Hit counts and energies of rings that the model is conditioned on; 0 if on none."""
        return len(self.config.log_ring_sums_mean)

    def ring_sums_table(self) -> torch.Tensor:
        """(num_rows, num_ring_sums) ring sums of the training jets."""
        return self.table_ring_sums if self.num_ring_sums else torch.zeros(self.config.num_rows, 0)

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

    def draw(
        self,
        generators: list[torch.Generator],
        labels: torch.Tensor | None = None,
        pt: torch.Tensor | None = None,
        m0: torch.Tensor | None = None,
        ring_sums: torch.Tensor | None = None,
    ) -> Conditions:
        """The conditions of one jet a generator; the missing ones from training jets like the given.

        Each jet takes what is missing from one training jet, drawn among all of the given class that are nearest
        in what else is given (standardised logarithms), or among all when nothing is. Missing energies of
        rings are scaled by the given pT over that training jet's.

        Args:
            generators: One a jet.
            labels, pt, m0: (N,) given conditions.
            ring_sums: (N, 2 rings) given ring sums; NaN for one that is not.
        """
        self._warn_of_extrapolation(pt, m0)
        count, device = len(generators), torch.device("cpu")
        unknown = torch.full((count,), float("nan"))
        given = torch.stack([unknown if values is None else values.cpu().float() for values in (pt, m0)], 1)
        if ring_sums is None:
            ring_sums = torch.full((count, self.num_ring_sums), float("nan"))
        given = torch.cat([given, ring_sums.cpu().float()], 1)
        if labels is not None and not given.isnan().any():
            return Conditions(labels, given[:, 0], given[:, 1], given[:, 2:])
        table_labels, table_pt, table_m0 = (column.to(device) for column in self.table())
        table = torch.cat([table_pt[:, None], table_m0[:, None], self.ring_sums_table().to(device)], 1)
        standardised = self._standardise(table[:, 0], table[:, 1], table[:, 2:])
        wanted = self._standardise(given[:, 0], given[:, 1], given[:, 2:])
        drawn_labels, drawn = torch.empty(count, dtype=torch.int64), given.clone()
        for jet, generator in enumerate(generators):
            label = None if labels is None else labels[jet].cpu()
            row = self._draw_row(generator, label, wanted[jet], table_labels, standardised)
            drawn_labels[jet] = table_labels[row] if label is None else label
            missing = given[jet].isnan()
            similar = table[row].clone()
            similar[2 + self.num_ring_sums // 2 :] *= (given[jet, 0] / table[row, 0]).nan_to_num(1.0)
            drawn[jet, missing] = similar[missing]
        return Conditions(drawn_labels, drawn[:, 0], drawn[:, 1], drawn[:, 2:])

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

    @staticmethod
    def _draw_row(
        generator: torch.Generator,
        label: torch.Tensor | None,
        wanted: torch.Tensor,
        table_labels: torch.Tensor,
        standardised: torch.Tensor,
    ) -> torch.Tensor:
        rows = torch.arange(len(table_labels)) if label is None else (table_labels == label).nonzero()[:, 0]
        if not len(rows):
            raise ValueError(f"no training jet has label {int(label)}; nothing to draw its conditions from")  # type: ignore[arg-type]
        known = ~wanted.isnan()
        if known.any():
            distance = (standardised[rows][:, known] - wanted[known]).square().sum(1)
            rows = rows[distance.topk(min(NEIGHBOURS, len(rows)), largest=False).indices]
        return rows[torch.randint(len(rows), (), generator=generator, device=generator.device).cpu()]

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
