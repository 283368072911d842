"""The first stage: draws the class, pT and mass of a jet, and the hit count and energy of each of its rings.

The numbers are drawn one after another, each given all before it. The image is made in the second stage, by diffusion,
to agree with them. Simulations of calorimeter showers learn the energies of their layers in the same way
(CaloChallenge, arXiv:2410.21611).
This file needs `random_numbers.py` beside it; to the Hub they travel as one file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import logging
from torch import nn

from .random_numbers import RandomNumbers  # noqa: TID251

logger = logging.get_logger(__name__)

SCORE_LIMIT, SCORE_KNOTS = 4.0, 257
"""Normal scores at which the quantiles of each number are kept: evenly spaced from -4 to 4."""

FAR = 20.0
"""A normal score beyond all others."""

CANDIDATES = 64
"""Jets drawn and weighted for each one asked for, where a number is given but not one that comes before it."""


class Conditions(NamedTuple):
    """Conditions of N jets.

    Attributes:
        labels: (N,) int64, 0 gluon, 1 quark.
        pt, m0: (N,) GeV.
        ring_sums: (N, 2 rings) hit counts of the rings of tracks, ECAL and HCAL, then their energies in GeV; (N, 0) for
            a model without.
    """

    labels: torch.Tensor
    pt: torch.Tensor
    m0: torch.Tensor
    ring_sums: torch.Tensor


class FirstStage(ModelMixin, ConfigMixin):
    r"""An autoregressive model of log pT, log mass, and hit count and log energy per hit of each ring, given the class.

    Each number x is put on the scale of a standard normal distribution by its own quantiles in the training jets,
    z = Phi^{-1}(F(x)). A small network of its own reads the class and the z of all numbers before it, and gives a
    mixture of Gaussians of z:

        p(x_j | x_<j) = sum_k w_k N(z_j; m_k, s_k^2)             of a continuous number, as a density of z
        p(n_j | x_<j) = sum_k w_k [Phi((z(n + 1) - m_k) / s_k) - Phi((z(n) - m_k) / s_k)]       of a number of hits n

    A ring without hits has no energy, and its energy is left out of the likelihood. The weights hold quantiles of
    single numbers, and no jet.

    Args:
        num_rings: Rings of all channels together; 0 for a model without ring sums.
        quark_fraction: Probability of a quark jet where the class is not given.
        hidden: Width of each network's two hidden layers.
        components: Gaussians of each mixture.
        dropout: Dropout of the hidden layers in training.
    """

    @register_to_config
    def __init__(
        self,
        num_rings: int,
        quark_fraction: float = 0.5,
        hidden: int = 96,
        components: int = 6,
        dropout: float = 0.15,
    ) -> None:
        super().__init__()
        count = 2 + 2 * num_rings
        self.register_buffer("quantiles", torch.linspace(0, 1, SCORE_KNOTS).repeat(count, 1))
        # The class comes first among the inputs, so that number j sees j + 1 of them.
        mask = torch.ones(count, count + 1).tril()[:, :, None]
        self.register_buffer("sees", mask, persistent=False)
        self.first, self.second = _Layers(count, count + 1, hidden), _Layers(count, hidden, hidden)
        self.last = _Layers(count, hidden, 3 * components)
        self.drop = nn.Dropout(dropout)
        with torch.no_grad():
            self.last.weight.mul_(0.1)
            self.last.bias[:, 0, components : 2 * components] = torch.linspace(-1.5, 1.5, components)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> FirstStage:
        """Move to a device, but stay in float32: hit counts must not be rounded, and a draw costs next to nothing."""
        return super()._apply(lambda tensor: fn(tensor).to(tensor.dtype), recurse)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> FirstStage:
        """Load as diffusers does, in float32."""
        return super().from_pretrained(*args, **{k: v for k, v in kwargs.items() if k not in ("dtype", "torch_dtype")})

    def set_quantiles(self, jets: Conditions, generator: torch.Generator) -> None:
        """Take over the quantiles of each number in the training jets.

        Args:
            jets: The training jets.
            generator: Spreads whole numbers evenly over the unit interval above each.
        """
        levels = torch.special.ndtr(torch.linspace(-SCORE_LIMIT, SCORE_LIMIT, SCORE_KNOTS, dtype=torch.float64))
        levels[0], levels[-1] = 0, 1
        self.__dict__.pop("limits_on_host", None)
        for number, (row, values) in enumerate(zip(self.quantiles, self.as_values(jets).double().T, strict=True)):
            known = values[values.isfinite()]
            if is_count(number):
                known = known + torch.rand(len(known), generator=generator, dtype=torch.float64)
            if not len(known):  # no jet has a hit in this ring
                continue
            ordered = known.sort().values
            place = levels * (len(ordered) - 1)
            below = place.long().clamp(max=max(0, len(ordered) - 2))
            above = (below + 1).clamp(max=len(ordered) - 1)
            row.copy_(torch.lerp(ordered[below], ordered[above], place - below))

    def as_values(self, jets: Conditions) -> torch.Tensor:
        """(N, numbers) log pT, log mass and, for each ring, hit count and log energy per hit; NaN without hits."""
        hits, energies = jets.ring_sums.chunk(2, 1)
        per_hit = (energies / hits.clamp(min=1)).log().where(hits > 0, torch.nan)
        rings = torch.stack([hits, per_hit], 2).flatten(1)
        return torch.cat([jets.pt.log()[:, None], jets.m0.log()[:, None], rings], 1)

    def negative_log_likelihood(self, jets: Conditions) -> torch.Tensor:
        """(N, numbers) in nats, each number given all before it; zero for the energy of a ring without hits."""
        values = self.as_values(jets)
        halves = torch.tensor([0.5 * is_count(number) for number in range(values.shape[1])]).to(values)
        scores = self._scores(values + halves)
        inputs = torch.cat([2.0 * jets.labels[:, None] - 1, scores.nan_to_num(0.0)], 1)
        mixtures = self._mixtures(inputs, slice(None))
        result = torch.empty_like(values)
        for columns in (slice(0, 2), slice(2, None, 2), slice(3, None, 2)):  # jet, hit counts, energies
            of_columns = tuple(part[:, columns] for part in mixtures)
            result[:, columns] = self._log_probability(values[:, columns], scores[:, columns], of_columns, columns)
        return -result.where(values.isfinite(), 0.0)

    @torch.no_grad()
    def draw(
        self,
        random: RandomNumbers,
        labels: torch.Tensor | None = None,
        pt: torch.Tensor | None = None,
        m0: torch.Tensor | None = None,
        ring_sums: torch.Tensor | None = None,
    ) -> Conditions:
        """The conditions of N jets: those given as they are, the others drawn jointly, given them.

        Args:
            random: Of the jets, on the device of the conditions; a jet's depend on its own numbers alone.
            labels, pt, m0: (N,) given conditions, on the CPU.
            ring_sums: (N, 2 rings) given ring sums, on the CPU; NaN for one that is not.

        Raises:
            ValueError: If a class is asked for that no training jet had.
        """
        count, rings, device = len(random), self.config.num_rings, random.seeds.device
        only = {0: 0, 1: 1}.get(self.config.quark_fraction)
        if labels is not None and only is not None and (labels != only).any():
            raise ValueError(f"no training jet has label {1 - only}; nothing to draw its conditions from")
        self._warn_of_extrapolation(pt, m0)
        # In float64: the last digits hang on the number of jets drawn together, and must not reach the result.
        given = torch.full((count, 3 + 2 * rings), torch.nan, dtype=torch.float64)
        for place, column in enumerate((labels, pt, m0)):
            if column is not None:
                given[:, place] = column
        if ring_sums is not None:
            given[:, 3:] = ring_sums
        known = given.isfinite()
        in_order = torch.cat([known[:, :3], torch.stack(known[:, 3:].chunk(2, 1), 2).flatten(1)], 1)
        # A number that is given tells of those before it that are not: draw many, and choose one by its likelihood.
        candidates = CANDIDATES if (in_order[:, 1:] & ~in_order[:, :-1]).any() else 1
        given = given.to(device) if known.any() else torch.full_like(given, torch.nan, device=device)
        if not known.all():
            given = self._draw_missing(random, given, candidates)
        labels, pt, m0 = given[:, :3].T
        return Conditions(labels.long(), pt.float(), m0.float(), given[:, 3:].float())

    def limits(self) -> torch.Tensor:
        """(2, 2) lowest and highest pT, and mass, of the training jets in GeV."""
        return torch.stack([self.quantiles[:2, 0], self.quantiles[:2, -1]], 1).exp()

    @cached_property
    def limits_on_host(self) -> list[list[float]]:
        """Those limits as numbers, copied once: each copy waits for the device."""
        return self.limits().tolist()

    def _warn_of_extrapolation(self, pt: torch.Tensor | None, m0: torch.Tensor | None) -> None:
        for name, values, (low, high) in zip(("pt", "m0"), (pt, m0), self.limits_on_host, strict=True):
            outside = 0 if values is None else int(((values < low * 0.9999) | (values > high * 1.0001)).sum())
            if values is not None and outside:
                logger.warning(
                    f"{outside} of {len(values)} jets ask for a {name} outside the training jets' {low:.4g} to "
                    f"{high:.4g} GeV; what comes out there is extrapolation"
                )

    def _draw_missing(self, random: RandomNumbers, given: torch.Tensor, candidates: int) -> torch.Tensor:
        """(N, 3 + 2 rings) class, pT, mass and ring sums, what is NaN in those given drawn."""
        numbers = 2 * len(self.quantiles) + 3
        uniform = random.uniform("first", candidates * numbers).view(len(random), candidates, numbers)
        drawn, log_likelihood = self._draw_in_order(uniform.flatten(0, 1), given.repeat_interleave(candidates, 0))
        share = log_likelihood.view(-1, candidates).softmax(1).cumsum(1).contiguous()
        chosen = torch.searchsorted(share, uniform[:, :1, -1].contiguous()).clamp(max=candidates - 1)
        return drawn.view(len(random), candidates, -1).take_along_dim(chosen[:, :, None], 1)[:, 0]

    def _draw_in_order(self, uniform: torch.Tensor, given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Numbers like those given (N, 3 + 2 rings), drawn one after another, and (N,) the log-likelihood of given."""
        values, quark = self.as_values(_as_conditions(given)), self.config.quark_fraction
        labels = torch.where(given[:, 0].isnan(), (uniform[:, 0] < quark).to(given), given[:, 0])
        log_weight = torch.where(labels == 1, quark, 1 - quark).log().where(given[:, 0].isfinite(), 0.0)
        inputs = values.new_zeros(len(values), 1 + values.shape[1])
        inputs[:, 0] = 2.0 * labels - 1
        for j in range(values.shape[1]):
            column = slice(j, j + 1)
            log_weights, means, widths = self._mixtures(inputs, column)
            chosen = (log_weights[:, 0].exp().cumsum(1) < uniform[:, 2 * j + 1, None]).sum(1, keepdim=True)
            chosen = chosen.clamp(max=means.shape[2] - 1)
            mean, width = (part[:, 0].gather(1, chosen)[:, 0] for part in (means, widths))
            score = mean + width * torch.special.ndtri(uniform[:, 2 * j + 2].clamp(1e-7, 1 - 1e-7))
            new = self._values(score, j)
            new = new.floor() if is_count(j) else new
            is_given = values[:, j].isfinite()
            values[:, j] = torch.where(is_given, values[:, j], new)
            if j >= 3 and not is_count(j):  # a ring without hits has no energy
                empty = values[:, j - 1] == 0
                values[:, j] = values[:, j].where(~empty, torch.nan)
                is_given = is_given & ~empty
            at = self._scores(values[:, column] + 0.5 * is_count(j), column)
            told = self._log_probability(values[:, column], at, (log_weights, means, widths), column)[:, 0]
            log_weight = log_weight + told.where(is_given, 0.0)
            inputs[:, j + 1] = at[:, 0].nan_to_num(0.0)
        return self._all_numbers(labels, values, given), log_weight

    def _all_numbers(self, labels: torch.Tensor, values: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        """Drawn values; what was given, to the bit. Beyond the training jets' pT the energies grow with it."""
        pt, m0 = values[:, 0].exp(), values[:, 1].exp()
        hits, per_hit = values[:, 2::2], values[:, 3::2]
        low, high = self.limits()[0]
        energies = torch.where(hits > 0, hits * per_hit.exp(), 0.0) * (pt / pt.clamp(low, high))[:, None]
        drawn = torch.cat([torch.stack([labels, pt, m0], 1), hits, energies], 1)
        return given.where(given.isfinite(), drawn)

    def _scores(self, values: torch.Tensor, columns: slice = slice(None)) -> torch.Tensor:
        """(N, n) normal scores of values (N, n), those of numbers `columns`; NaN stays NaN."""
        knots = self.quantiles[columns].to(values.dtype).contiguous()
        x = values.T.contiguous()
        above = torch.searchsorted(knots, x).clamp(1, SCORE_KNOTS - 1)
        left, right = knots.gather(1, above - 1), knots.gather(1, above)
        part = ((x - left) / (right - left).clamp(min=1e-9)).clamp(0, 1)
        return ((above - 1 + part) * (2 * SCORE_LIMIT / (SCORE_KNOTS - 1)) - SCORE_LIMIT).T

    def _values(self, scores: torch.Tensor, column: int) -> torch.Tensor:
        """(N,) values of a number with normal scores (N,); beyond the last scores the extremes of the training jets."""
        place = (scores.clamp(-SCORE_LIMIT, SCORE_LIMIT) + SCORE_LIMIT) * ((SCORE_KNOTS - 1) / (2 * SCORE_LIMIT))
        below = place.long().clamp(max=SCORE_KNOTS - 2)
        knots = self.quantiles[column].to(scores.dtype)
        return torch.lerp(knots[below], knots[below + 1], place - below)

    def _mixtures(self, inputs: torch.Tensor, columns: slice) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Log-weights, means and widths, each (N, n, components), of the mixtures of numbers `columns`.

        Args:
            inputs: (N, 1 + numbers) class as -1 or 1, then normal scores; those from a number on are not read for it.
            columns: The numbers.
        """
        hidden = self.first(inputs[None] * self.sees[columns].transpose(1, 2).to(inputs.dtype), columns)
        hidden = self.drop(nn.functional.silu(hidden))
        hidden = self.drop(nn.functional.silu(self.second(hidden, columns)))
        log_weights, means, log_widths = self.last(hidden, columns).transpose(0, 1).chunk(3, 2)
        return log_weights.log_softmax(2), means, log_widths.clamp(-4, 3).exp()

    def _log_probability(
        self, values: torch.Tensor, scores: torch.Tensor, mixtures: tuple[torch.Tensor, ...], columns: slice
    ) -> torch.Tensor:
        """(N, n) log-density of scores (N, n), or log-probability of the whole numbers that values (N, n) are.

        Args:
            values, scores, mixtures: Of the numbers `columns`.
            columns: All hit counts, or none.
        """
        log_weights, means, widths = mixtures
        values, at = values.nan_to_num(0.0), scores.nan_to_num(0.0)
        if is_count(columns.start):
            # The mass between the score and that of the next whole number; the extremes have all that is beyond.
            knots = self.quantiles[columns]
            low, high = (self._scores(values + step, columns) for step in (0, 1))
            low = low.where(values > knots[:, 0], -FAR)[:, :, None]
            high = high.where(values + 1 < knots[:, -1], FAR)[:, :, None]
            log_density = _log_mass((low - means) / widths, (high - means) / widths)
        else:
            pull = (at[:, :, None] - means) / widths
            log_density = -pull.square() / 2 - widths.log() - math.log(2 * math.pi) / 2
        return (log_weights + log_density).logsumexp(2)


def is_count(number: int) -> bool:
    """Whether number `number` of a jet's is a hit count."""
    return number >= 2 and number % 2 == 0


def _as_conditions(numbers: torch.Tensor) -> Conditions:
    return Conditions(numbers[:, 0], numbers[:, 1], numbers[:, 2], numbers[:, 3:])


class _Layers(nn.Module):
    """One linear layer for each of several numbers."""

    def __init__(self, count: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(count, inputs, outputs) / math.sqrt(inputs))
        self.bias = nn.Parameter(torch.zeros(count, 1, outputs))

    def forward(self, x: torch.Tensor, columns: slice) -> torch.Tensor:
        """(n, N, outputs) of inputs (n, N, inputs), for the numbers `columns`."""
        return torch.baddbmm(self.bias[columns].to(x.dtype), x, self.weight[columns].to(x.dtype))


def _log_mass(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Logarithm of Phi(high) - Phi(low), of the tail in which both are small, so that it is exact."""
    mirrored = low + high > 0
    low, high = torch.where(mirrored, -high, low), torch.where(mirrored, -low, high)
    log_high, log_low = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    return log_high + torch.log1p(-(log_low - log_high).clamp(max=-1e-6).exp())
