"""Value maps: how the energies of hits are spread over x, each a rising map of the logarithm of energy.

The logarithm comes as a line that is 0 at the lower and 1 at the upper quantile of a channel group's training hits; a
value map sends [0, inf) onto itself, 0 to 0 and 1 to 1. This file is self-contained so that it can travel to the Hub.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar

import torch

QUANTILES = 16
"""Equal shares of a group's hits that the quantile map spreads evenly."""


class ValueMap:
    """Base class of value maps.

    Args:
        log_ranges: Per group, by how much the line rises in log E from 0 to 1.
        knots: What `QuantileMap` was fitted to; of no other map.

    Raises:
        ValueError: If there are knots that the map has no use for.
    """

    name: ClassVar[str]

    def __init__(self, log_ranges: Sequence[float], knots: Sequence[Sequence[Sequence[float]]]) -> None:
        if knots:
            raise ValueError(f"knots are those of value_map {QuantileMap.name}, not of {self.name}")

    def spread(self, line: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
        """Values of line (n,), the hits being of group (n,)."""
        raise NotImplementedError

    def line(self, values: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
        """Undo `spread`."""
        raise NotImplementedError


class LogMap(ValueMap):
    """The line itself."""

    name = "log"

    def spread(self, line: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
        """Values of line (n,), the hits being of group (n,)."""
        return line

    def line(self, values: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
        """Undo `spread`."""
        return values


class FourthRootMap(ValueMap):
    """Linear in the fourth root of energy."""

    name = "fourth_root"

    def __init__(self, log_ranges: Sequence[float], knots: Sequence[Sequence[Sequence[float]]]) -> None:
        super().__init__(log_ranges, knots)
        self.growth = torch.tensor(log_ranges, dtype=torch.float64) / 4

    def spread(self, line: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
        """Values of line (n,), the hits being of group (n,)."""
        growth = self.growth.to(line)[group]
        return (growth * line).expm1() / growth.expm1()

    def line(self, values: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
        """Undo `spread`."""
        growth = self.growth.to(values)[group]
        return (values * growth.expm1()).log1p() / growth


class QuantileMap(ValueMap):
    """Hits evenly spread up to the upper quantile, and a log tail without end above it.

    Its knots are, per group, pairs of line and value, both rising from 0 to 1 without a repetition; it is linear
    between them. Without knots, before it is fitted, it maps nothing.

    Raises:
        ValueError: If the knots are not of as many groups as the ranges, do not lead from (0, 0) to (1, 1) or do not
            rise.
    """

    name = "quantile"

    def __init__(self, log_ranges: Sequence[float], knots: Sequence[Sequence[Sequence[float]]]) -> None:
        if knots and len(knots) != len(log_ranges):
            raise ValueError(f"knots must be those of {len(log_ranges)} groups, got {len(knots)}")
        for pairs in knots:
            if [list(pair) for pair in (pairs[0], pairs[-1])] != [[0, 0], [1, 1]]:
                raise ValueError(f"knots must lead from (0, 0) to (1, 1), got {pairs}")
            if not all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(pairs)):
                raise ValueError(f"knots must rise, got {pairs}")
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
        """Linear from one row of the knots to the other; the last piece goes on for ever.

        Raises:
            ValueError: Without knots.
        """
        if not self.knots:
            raise ValueError("value_map quantile has no knots yet; fit the representation to training jets")
        out = torch.empty_like(given)
        for g, knots in enumerate(self.knots):
            own = group == g
            x, y = knots.to(given)[[before, after]].unbind()
            piece = torch.searchsorted(x[1:-1].contiguous(), given[own], right=True)
            slope = y.diff() / x.diff()
            out[own] = y[piece] + (given[own] - x[piece]) * slope[piece]
        return out


VALUE_MAPS: dict[str, type[ValueMap]] = {kind.name: kind for kind in (LogMap, FourthRootMap, QuantileMap)}
"""Value maps by name."""


def value_map(name: str, log_ranges: Sequence[float], knots: Sequence[Sequence[Sequence[float]]]) -> ValueMap:
    """The value map of a name.

    Raises:
        ValueError: If there is none of that name, or the knots are wrong.
    """
    if name not in VALUE_MAPS:
        raise ValueError(f"value_map must be one of {tuple(VALUE_MAPS)}, got {name!r}")
    return VALUE_MAPS[name](log_ranges, knots)
