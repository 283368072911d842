"""The slab: how the values of hits are distributed, before and given a noisy pixel, and its fit to training jets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch

SHRINKAGE = 20
"""Hits' worth of the group's moments that the moments of each position are mixed with."""


@dataclass(frozen=True)
class SlabPosterior:
    """Mixture of K Gaussians that the value of a hit has given x_t.

    Attributes:
        log_odds: (N, C, H, W) log-odds of a hit against a zero, at even odds before.
        shares, values: (K, N, C, H, W) weight and mean of each component.
        variances: (K, N, C, H or 1, W or 1).
    """

    log_odds: torch.Tensor
    shares: torch.Tensor
    values: torch.Tensor
    variances: torch.Tensor

    @cached_property
    def value(self) -> torch.Tensor:
        """(N, C, H, W) mean."""
        return (self.shares * self.values).sum(0)

    @property
    def variance(self) -> torch.Tensor:
        """(N, C, H, W)."""
        return (self.shares * (self.variances + (self.values - self.value).square())).sum(0)

    def energy(self, offset: torch.Tensor, slope: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean of the energy exp(offset + slope x), log-normal in each component, and its covariance with x."""
        energies = self.shares * (offset + slope * self.values + slope.square() * self.variances / 2).exp()
        from_mean = self.values + slope * self.variances - self.value
        return energies.sum(0), (energies * from_mean).sum(0)


class Hits(NamedTuple):
    """The hits of many jets in model space.

    Attributes:
        places: (n,) index of each hit's pixel in a flattened (C, H, W).
        values: (n,) x, float64.
        group: (C,) group of each channel.
        shape: (C, H, W).
    """

    places: torch.Tensor
    values: torch.Tensor
    group: torch.Tensor
    shape: tuple[int, ...]

    @property
    def groups(self) -> torch.Tensor:
        """(n,) group of each hit."""
        return self.group[self.places // math.prod(self.shape[1:])]

    def sums(self, weights: torch.Tensor) -> torch.Tensor:
        """(C, H, W) sums of weights (n,) over the hits of each pixel."""
        return torch.bincount(self.places, weights, minlength=math.prod(self.shape)).view(self.shape)

    def by_group(self, weights: torch.Tensor) -> torch.Tensor:
        """(groups,) sums of weights (n,) over the hits of each group."""
        return torch.bincount(self.groups, weights, minlength=int(self.group.max()) + 1)

    def mixture_weights(
        self, weights: torch.Tensor, means: torch.Tensor, widths: torch.Tensor, iterations: int = 30
    ) -> torch.Tensor:
        """(K, C, H, W) weights at each pixel of its group's mixture, by expectation maximisation.

        Each pixel's are those of its own hits and SHRINKAGE more with the group's weights.

        Args:
            weights, means, widths: (groups, K) mixture of each group, in x.
            iterations: Of expectation maximisation, from the group's weights on.
        """
        prior = weights[self.group].T[:, :, None, None].expand(-1, *self.shape).flatten(1)  # (K, C H W)
        counts = self.sums(torch.ones_like(self.values)).flatten()
        log_density = -((self.values - means.T[:, self.groups]) / widths.T[:, self.groups]).square() / 2
        density = (log_density - widths.log().T[:, self.groups]).exp().clamp(min=1e-300)
        by_pixel = prior
        for _ in range(iterations):
            share = by_pixel[:, self.places] * density
            share /= share.sum(0)
            sums = torch.stack([self.sums(component).flatten() for component in share])
            by_pixel = (sums + SHRINKAGE * prior) / (counts + SHRINKAGE)
        return by_pixel.view(-1, *self.shape)

    def moments(self, by_position: bool) -> torch.Tensor:
        """(2, C, H, W) mean and standard deviation of the hits at each pixel, or of its whole group.

        Each pixel's are those of its own hits and SHRINKAGE more with the group's moments.
        """
        ones = torch.ones_like(self.values)
        number = self.by_group(ones)
        mean = self.by_group(self.values) / number
        variance = self.by_group((self.values - mean[self.groups]).square()) / number
        mean, variance = (moment[self.group, None, None].expand(self.shape) for moment in (mean, variance))
        if not by_position:
            return torch.stack([mean, variance.sqrt()])
        counts = self.sums(ones)
        place = (self.sums(self.values) + SHRINKAGE * mean) / (counts + SHRINKAGE)
        squares = self.sums((self.values - place.flatten()[self.places]).square())
        return torch.stack([place, ((squares + SHRINKAGE * variance) / (counts + SHRINKAGE)).sqrt()])


def fit_mixture(
    values: torch.Tensor, components: int, iterations: int = 100
) -> tuple[list[float], list[float], list[float]]:
    """Weights, means and standard deviations of a one-dimensional Gaussian mixture, by expectation maximisation.

    Starts from equal slices of the sorted values, so the result is reproducible.

    Raises:
        ValueError: If there are fewer than ten values a component.
    """
    if values.numel() < 10 * components:
        raise ValueError(f"{values.numel()} hits are too few for a slab of {components} components")
    ordered = values.double().flatten().sort().values
    ordered = ordered[:: max(1, len(ordered) // 100_000)]
    slices = ordered.tensor_split(components)
    weights = torch.full((components, 1), 1 / components, dtype=torch.float64)
    means = torch.stack([part.mean() for part in slices])[:, None]
    floor = 1e-2 * ordered.std().item()
    stds = torch.stack([part.std() for part in slices])[:, None].clamp(min=floor)
    for _ in range(iterations if components > 1 else 0):
        log_density = weights.log() - (ordered - means).square() / (2 * stds**2) - stds.log()
        share = (log_density - log_density.logsumexp(0)).exp()
        total = share.sum(1, keepdim=True)
        weights, means = total / len(ordered), (share * ordered).sum(1, keepdim=True) / total
        stds = ((share * (ordered - means).square()).sum(1, keepdim=True) / total).sqrt().clamp(min=floor)
    flat = [weights.flatten().tolist(), means.flatten().tolist(), stds.flatten().tolist()]
    if not all(math.isfinite(value) for row in flat for value in row):
        raise ValueError("the slab's mixture did not converge; choose fewer components")
    return flat[0], flat[1], flat[2]
