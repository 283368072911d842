"""The slab: how the values of hits are distributed, before and given a noisy pixel, and its fit to training jets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from .crystal_refiner import crystal_sides  # noqa: TID251 - on the Hub the two are one file

SHRINKAGE, NEIGHBOUR_SHRINKAGE = 20, 200
"""Hits' worth of the whole group that those of a neighbourhood are mixed with, and of it that a pixel's are."""

SHRINKAGE_JETS, NEIGHBOUR_JETS = 100, 2000
"""The same for the probability of a hit, in jets' worth."""

UNDERFLOW = -80.0
"""Logarithm of a share that counts as none: on CPUs exp is ten times slower where its result is no normal number."""


CACHED_NUMBERS = 50_000
"""Pixels whose mixtures are worked out at a time on a CPU."""


@dataclass(frozen=True)
class SlabPosterior:
    """Mixture of K Gaussians that the value of a hit has given x_t.

    Log-odds and value carry a gradient, the components none.

    Attributes:
        log_odds: (N, C, H, W) log-odds of a hit against a zero, at even odds before.
        value: (N, C, H, W) mean.
        shares, values: (K, N, C, H, W) weight and mean of each component.
        variances: (K, N, C, H or 1, W or 1).
    """

    log_odds: torch.Tensor
    value: torch.Tensor
    shares: torch.Tensor
    values: torch.Tensor
    variances: torch.Tensor

    @property
    def variance(self) -> torch.Tensor:
        """(N, C, H, W)."""
        return (self.shares * (self.variances + (self.values - self.value).square())).sum(0)

    def of_jets(self, rows: torch.Tensor) -> SlabPosterior:
        """That of some jets, of index rows (n,)."""
        components = (tensor[:, rows] for tensor in (self.shares, self.values, self.variances))
        return SlabPosterior(self.log_odds[rows], self.value[rows], *components)


def tilted_mixture(
    log_weights: torch.Tensor,
    log_scales: torch.Tensor,
    means: torch.Tensor,
    variances: torch.Tensor,
    natural: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    """A mixture of K Gaussians times exp(b x), which is another one.

    Logarithm, mean and variance are the generating function of the mixture's moments and its derivatives by b, so the
    gradient needs none of the components.

    Args:
        log_weights: (K, C, H or 1, W or 1).
        log_scales: (K, N, C, H or 1, W or 1) added to them, the sum of weights being any.
        means, variances: (K, N, C, H or 1, W or 1).
        natural: (N, C, H, W) b.

    Returns:
        The logarithm of the mixture's integral and its mean, each (N, C, H, W), and the weights and means of its
        components, each (K, N, C, H, W).
    """
    b = natural.detach()
    log_total, mean, variance = torch.empty_like(b), torch.empty_like(b), torch.empty_like(b)
    shares, values = (b.new_empty(len(means), *b.shape) for _ in range(2))
    # So many jets' numbers stay in a processor's cache; a GPU would rather have all at once.
    size = max(1, CACHED_NUMBERS * len(b) // max(1, b.numel()) if b.device.type == "cpu" else len(b))
    for first in range(0, len(b), size):
        jets = slice(first, first + size)
        share, value, spread = shares[:, jets], values[:, jets], variances[:, jets]
        torch.addcmul(means[:, jets], b[jets], spread, out=value)
        torch.addcmul(log_scales[:, jets], b[jets], means[:, jets] + value, value=0.5, out=share)
        share.add_(log_weights[:, None])
        highest = share.amax(0)
        share.sub_(highest).clamp_(min=UNDERFLOW).exp_()
        total = share.sum(0)
        share.div_(total)
        log_total[jets] = highest.add_(total.log_())
        mean[jets] = (share * value).sum(0)
        if natural.requires_grad:
            variance[jets] = (share * (value - mean[jets]).square_().add_(spread)).sum(0)
    if natural.requires_grad:
        step = natural - b  # zero, with a gradient
        log_total, mean = torch.addcmul(log_total, mean, step), torch.addcmul(mean, variance, step)
    return log_total, mean, shares, values


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

    def around(self, sums: torch.Tensor) -> torch.Tensor:
        """(n, C, H, W) sums over the pixels about each, the pixel in the middle, as many as its tower has.

        A group's channels are the crystals of a tower, a square row by row; where it has one alone, so has the sum.

        Raises:
            ValueError: If they are not, or no crystal is in the middle.
        """
        sides = crystal_sides(self.group.tolist())
        if any(side % 2 == 0 for side in sides):
            raise ValueError(f"towers must have a crystal in the middle, got {sides} crystals along their sides")
        parts = []
        for side, channels in zip(sides, sums.split([side**2 for side in sides], 1), strict=True):
            plane = nn.functional.pixel_shuffle(channels, side)
            pooled = nn.functional.avg_pool2d(plane, side, 1, side // 2, divisor_override=1)
            parts.append(nn.functional.pixel_unshuffle(pooled, side))
        return torch.cat(parts, 1)

    def mixture_weights(
        self, weights: torch.Tensor, means: torch.Tensor, widths: torch.Tensor, iterations: int = 20
    ) -> torch.Tensor:
        """(K, C, H, W) weights at each pixel of its group's mixture, by expectation maximisation.

        Each pixel's are those of its own hits, NEIGHBOUR_SHRINKAGE more with the weights of its neighbourhood, and
        those in turn of the neighbourhood's hits and SHRINKAGE more with the group's.

        Args:
            weights, means, widths: (groups, K) mixture of each group, in x.
            iterations: Of expectation maximisation, from the group's weights on.
        """
        prior = weights[self.group].T[:, :, None, None].expand(-1, *self.shape)  # (K, C, H, W)
        groups, density = self.groups, self.values.new_empty(weights.shape[1], len(self.values))
        for own, mean, width in zip(density, means.T, widths.T, strict=True):
            pull = (self.values - mean[groups]) / width[groups]
            torch.exp(-pull.square() / 2 - width.log()[groups], out=own)
        density.clamp_(min=1e-300)
        by_pixel = prior
        for _ in range(iterations):
            share = by_pixel.flatten(1)[:, self.places] * density
            share /= share.sum(0)
            sums = torch.stack([self.sums(component) for component in share])
            nearby = self.around(sums) + SHRINKAGE * prior
            nearby /= nearby.sum(0)
            by_pixel = sums + NEIGHBOUR_SHRINKAGE * nearby
            by_pixel /= by_pixel.sum(0)
        return by_pixel

    def moments(self, by_position: bool) -> torch.Tensor:
        """(2, C, H, W) mean and standard deviation of the hits at each pixel, or of its whole group.

        Each pixel's are shrunk towards its neighbourhood's and the group's as in `mixture_weights`.
        """
        ones = torch.ones_like(self.values)
        number = self.by_group(ones)
        mean = self.by_group(self.values) / number
        variance = self.by_group((self.values - mean[self.groups]).square()) / number
        mean, variance = (moment[self.group, None, None].expand(self.shape) for moment in (mean, variance))
        if not by_position:
            return torch.stack([mean, variance.sqrt()])
        counts = self.sums(ones)
        place = self._shrunk(self.sums(self.values), counts, mean)
        squares = self.sums((self.values - place.flatten()[self.places]).square())
        return torch.stack([place, self._shrunk(squares, counts, variance).sqrt()])

    def occupancy(self, jets: int, inside: torch.Tensor, by_position: bool) -> torch.Tensor:
        """(C, H, W) probability of a hit by the hits of so many jets, at each pixel or on average over its whole group.

        Each pixel's is that of these jets, NEIGHBOUR_JETS more with its neighbourhood's, and that of these jets and
        SHRINKAGE_JETS more with the group's average, which keeps rare positions from a prior of zero.

        Args:
            jets: How many jets the hits are of.
            inside: (H, W) bool, which pixels lie inside the image.
            by_position: Whether each pixel has its own.
        """
        ones = torch.ones_like(self.values)
        average = (self.by_group(ones) / (torch.bincount(self.group) * inside.sum() * jets))[self.group, None, None]
        if not by_position:
            return average.expand(self.shape)
        counts = self.sums(ones)
        area = self.around(inside.to(counts.dtype).expand(1, *self.shape))[0].clamp(min=1)
        nearby = self.around(counts[None])[0] / area
        nearby = (nearby + SHRINKAGE_JETS * average) / (jets + SHRINKAGE_JETS)
        return (counts + NEIGHBOUR_JETS * nearby) / (jets + NEIGHBOUR_JETS)

    def _shrunk(self, sums: torch.Tensor, counts: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
        """(C, H, W) averages at each pixel of what sums to `sums` over `counts` hits, and is `group` on average."""
        nearby = (self.around(sums[None])[0] + SHRINKAGE * group) / (self.around(counts[None])[0] + SHRINKAGE)
        return (sums + NEIGHBOUR_SHRINKAGE * nearby) / (counts + NEIGHBOUR_SHRINKAGE)


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
