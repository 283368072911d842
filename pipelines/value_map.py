"""Value maps: how the energies of hits are spread over x, each a rising map of the logarithm of energy.

The logarithm comes as a line that is 0 at the lower and 1 at the upper quantile of a channel group's training hits; a
value map sends [0, inf) onto itself, 0 to 0 and 1 to 1. This file is self-contained so that it can travel to the Hub.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

QUANTILES = 16
"""Equal shares of a group's hits that the quantile map spreads evenly."""


class LogMap:
    """The line itself."""

    def spread(self, line: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
        """Values of line (n,), the hits being of group (n,)."""
        return line

    def line(self, values: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
        """Undo `spread`."""
        return values


class FourthRootMap:
    """Linear in the fourth root of energy.

    Args:
        log_ranges: Per group, by how much the line rises in log E from 0 to 1.
    """

    def __init__(self, log_ranges: Sequence[float]) -> None:
        self.growth = torch.tensor(log_ranges, dtype=torch.float64) / 4

    def spread(self, line: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
        """Values of line (n,), the hits being of group (n,)."""
        growth = self.growth.to(line)[group]
        return (growth * line).expm1() / growth.expm1()

    def line(self, values: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
        """Undo `spread`."""
        growth = self.growth.to(values)[group]
        return (values * growth.expm1()).log1p() / growth


class QuantileMap:
    """Hits evenly spread up to the upper quantile, and a log tail without end above it.

    Args:
        knots: Per group, pairs of line and value, both rising from 0 to 1 without a repetition; linear between them.
    """

    def __init__(self, knots: Sequence[Sequence[Sequence[float]]]) -> None:
        self.knots = [torch.tensor([*pairs, [2.0, 2.0]], dtype=torch.float64).T for pairs in knots]

    @classmethod
    def fit(cls, lines: Sequence[torch.Tensor]) -> list[list[list[float]]]:
        """Knots at the quantiles of the lines (n,) of each group's hits; of quantiles that coincide the last."""
        knots = []
        for line in lines:
            inside = line[(line > 0) & (line < 1)].sort().values
            at = [inside[len(inside) * share // QUANTILES].item() for share in range(1, QUANTILES) if len(inside)]
            pairs = [[place, share / QUANTILES] for share, place in enumerate(at, 1)]
            rising = [pair for pair, after in itertools.pairwise([*pairs, [1.0, 1.0]]) if pair[0] < after[0]]
            knots.append([[0.0, 0.0], *rising, [1.0, 1.0]])
        return knots

    def spread(self, line: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
        """Values of line (n,), the hits being of group (n,)."""
        return self._between(line, group, 0, 1)

    def line(self, values: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
        """Undo `spread`."""
        return self._between(values, group, 1, 0)

    def _between(self, given: torch.Tensor, group: torch.Tensor, before: int, after: int) -> torch.Tensor:
        """Linear from one row of the knots to the other; the last piece goes on for ever."""
        out = torch.empty_like(given)
        for g, knots in enumerate(self.knots):
            own = group == g
            x, y = knots.to(given)[before], knots.to(given)[after]
            piece = torch.searchsorted(x[1:-1].contiguous(), given[own], right=True)
            slope = y.diff() / x.diff()
            out[own] = y[piece] + (given[own] - x[piece]) * slope[piece]
        return out


VALUE_MAPS = ("log", "fourth_root", "quantile")
"""Names of the value maps."""
