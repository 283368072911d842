"""The prior of a single pixel, a spike if it is empty and a slab if it is a hit, and Bayes' rule given x_t.

This file is self-contained so that it can travel to the Hub.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

UNDERFLOW = -80.0
"""Logarithm of a share that counts as none: on CPUs exp is ten times slower where its result is no normal number."""

CACHED_NUMBERS = 50_000
"""Pixels whose mixtures are worked out at a time on a CPU."""


@dataclass(frozen=True)
class SlabPosterior:
    """Mixture of K Gaussians that the value of a hit has given x_t.

    Log Bayes factor and value carry a gradient, the components none.

    Attributes:
        log_bayes_factor: (N, C, H, W) logarithm of p(x_t | hit) / p(x_t | zero).
        value: (N, C, H, W) mean.
        shares, values: (K, N, C, H, W) weight and mean of each component.
        variances: (K, N, C, H or 1, W or 1).
    """

    log_bayes_factor: torch.Tensor
    value: torch.Tensor
    shares: torch.Tensor
    values: torch.Tensor
    variances: torch.Tensor

    @property
    def variance(self) -> torch.Tensor:
        """(N, C, H, W)."""
        return (self.shares * (self.variances + (self.values - self.value).square())).sum(0)

    def of_jets(self, rows: torch.Tensor) -> SlabPosterior:
        """The posterior of some of the jets, by their numbers (n,)."""
        components = (tensor[:, rows] for tensor in (self.shares, self.values, self.variances))
        return SlabPosterior(self.log_bayes_factor[rows], self.value[rows], *components)


class PixelPrior(nn.Module):
    """The distribution of each pixel before it is noised, and given x_t; `SpikeAndSlabDenoiser` has the equations.

    Args:
        group: (C,) channel group of each channel of x.
        grid: Height and width of x.
        zero: Value of x without energy, per channel.
        weights, means, stds: Mixture of the hits in x, per group a list of K numbers.

    Attributes:
        logit: (C, H, W) prior log-odds of a hit.
        hit_moments: (2, C, H, W) mean and standard deviation of the hits at each position.
        weights: (K, C, H, W) weights of the mixture at each position.
        means, stds: (K, C, 1, 1) of its components.
        zero: (C, 1, 1).
        inside: (H, W) int32, which pixels lie inside the image.
    """

    logit: torch.Tensor
    hit_moments: torch.Tensor
    weights: torch.Tensor
    means: torch.Tensor
    stds: torch.Tensor
    zero: torch.Tensor
    inside: torch.Tensor

    def __init__(
        self,
        group: torch.Tensor,
        grid: tuple[int, int],
        zero: Sequence[float],
        weights: Sequence[Sequence[float]],
        means: Sequence[Sequence[float]],
        stds: Sequence[Sequence[float]],
    ) -> None:
        super().__init__()
        shape = (len(group), *grid)
        slab = torch.tensor([weights, means, stds], dtype=torch.float32)[:, group]  # (3, C, K)
        weight, mean, std = slab.transpose(1, 2)[..., None, None].contiguous()
        moments = torch.stack([torch.zeros(shape, dtype=torch.float32), torch.ones(shape, dtype=torch.float32)])
        self.register_buffer("logit", torch.zeros(shape, dtype=torch.float32))
        self.register_buffer("hit_moments", moments)
        self.register_buffer("weights", weight.expand(-1, -1, *grid).contiguous())
        self.register_buffer("means", mean, persistent=False)
        self.register_buffer("stds", std, persistent=False)
        self.register_buffer("zero", torch.tensor(zero, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.register_buffer("inside", torch.ones(tuple(grid), dtype=torch.int32))

    def hit_probability(self, logit: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) probability of a hit; outside the image there is none."""
        return torch.sigmoid(logit) * self.inside

    def estimate(self, probability: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Posterior mean of x_0 by probabilities and values of hits."""
        return self.zero + probability * (value - self.zero)

    def slab_posterior(
        self, x_t: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor, eta: torch.Tensor | None = None
    ) -> SlabPosterior:
        """What x_t says of a pixel if it is a hit, and of whether it is one.

        Args:
            x_t: (N, C, H, W).
            alpha, sigma: (N, 1, 1, 1) noise level.
            eta: (N, C, H, W) tilt of the slab by the pixel's context, in units of its width.
        """
        variance = (sigma**2).clamp(min=1e-10)
        weights, spreads = self.weights, self.stds.square()
        # Both densities are quadratic in x_t; what follows is their difference, in natural parameters about a centre.
        centre = self.means.mean(0)
        means = self.means - centre
        above_zero = centre - self.zero
        rise = alpha / variance
        offset = x_t - alpha * centre
        natural = rise * offset
        log_factor = rise * above_zero * (offset + alpha * above_zero / 2)
        if eta is not None:
            mean = (weights * means).sum(0)
            spread = (weights * (spreads + (means - mean).square())).sum(0)
            tilt = eta / spread.sqrt()
            natural = natural + tilt
            log_factor = log_factor - tilt * (mean + tilt * (spread / 2))
        totals = alpha**2 * spreads[:, None] + variance
        gains = variance / totals
        log_scales = (gains.log() - (alpha * means[:, None]).square() / totals) / 2
        means, spreads = means[:, None] * gains, spreads[:, None] * gains
        log_total, value, shares, values = tilted_mixture(weights.log(), log_scales, means, spreads, natural)
        return SlabPosterior(log_factor + log_total, centre + value, shares, values.add_(centre), spreads)

    def value_variance(self, alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) variance of a hit's value given x_t, as if all hits at a position were one Gaussian."""
        spread = self.hit_moments[1].square()
        return spread * sigma**2 / (alpha**2 * spread + sigma**2).clamp(min=1e-10)


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
