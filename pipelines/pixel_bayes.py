"""Bayes' rule for a single pixel: a spike where there is no energy and a slab of hits, before and given x_t.

This file needs `sum_constraints.py`, `denoiser.py` and `pixel_prior.py` beside it; to the Hub they travel as one file.
"""

from __future__ import annotations

import torch

from .pixel_prior import SlabPosterior, tilted_mixture  # noqa: TID251
from .sum_constraints import RegionSums  # noqa: TID251 - on the Hub they are one file


class PixelBayes(RegionSums):
    r"""Base class of denoisers that know the distribution of each pixel, and the exact posterior of it alone.

    The marginal of a pixel is a spike at z_0 (no energy) of weight 1 - p and a slab of hits, a mixture of
    Gaussians (w_k, m_k, s_k) of mean m and variance v. With x_t = alpha x_0 + sigma eps the posterior mean is exact:

        l   = log sum_k w_k' N(x_t; alpha m_k', alpha^2 s_k^2 + sigma^2) - log N(x_t; alpha z_0, sigma^2)
        h   = sigmoid(logit p + delta + l)                                     probability of a hit
        a   = sum_k r_k (m_k' sigma^2 + alpha s_k^2 x_t) / (sigma^2 + alpha^2 s_k^2)    value of the hit
        x_0 = z_0 + h (a - z_0)

    with r_k the components' share of that sum. p and the slab may differ from position to position. What others know
    of the pixel comes as delta (log-odds) and eta, by which the slab is tilted: times exp(b x_0), b = eta / sqrt(v),
    which is what Bayes' rule does to it where their likelihood is log-linear in x_0, and of which mixtures of
    Gaussians stay mixtures,

        m_k' = m_k + b s_k^2,    log w_k' = log w_k + b (m_k - m) + b^2 (s_k^2 - v) / 2,

    normalised to second order; a single Gaussian is moved by eta of its widths.

    Beside those of `RegionSums` the class needs the buffers `slab_bits`, `place_bits` and, where weights go by
    position, `slab_weight_bits`, and `zero_bits`, the value of x without energy.
    """

    def slab(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Weights, means and variances in x of the slab's components at each position, each (K, C, H or 1, W or 1)."""
        weights, means, widths = self.slab_bits.view(torch.float32).permute(0, 2, 1)[..., None, None]
        if self.config.weights_by_position:
            weights = self.slab_weight_bits.view(torch.float32)
        return weights, means, widths.square()

    def slab_posterior(
        self, x_t: torch.Tensor, timesteps: torch.Tensor, eta: torch.Tensor | None = None
    ) -> SlabPosterior:
        """What x_t says of a pixel if it is a hit, and of whether it is, by Bayes' rule (class docstring)."""
        alpha, sigma = self.noise_level(timesteps)
        variance = (sigma**2).clamp(min=1e-10)
        weights, means, spreads = self.slab()
        # Both densities are quadratic in x_t; what follows is their difference, in natural parameters about a centre.
        centre = means.mean(0)
        means = means - centre
        above_zero = centre - self.zero_bits.view(torch.float32).view(-1, 1, 1)
        rise = alpha / variance
        offset = x_t - alpha * centre
        natural = rise * offset
        log_odds = rise * above_zero * (offset + alpha * above_zero / 2)
        if eta is not None:
            mean = (weights * means).sum(0)
            spread = (weights * (spreads + (means - mean).square())).sum(0)
            tilt = eta / spread.sqrt()
            natural = natural + tilt
            log_odds = log_odds - tilt * (mean + tilt * (spread / 2))
        totals = alpha**2 * spreads[:, None] + variance
        gains = variance / totals
        log_scales = (gains.log() - (alpha * means[:, None]).square() / totals) / 2
        means, spreads = means[:, None] * gains, spreads[:, None] * gains
        log_total, value, shares, values = tilted_mixture(weights.log(), log_scales, means, spreads, natural)
        return SlabPosterior(log_odds + log_total, centre + value, shares, values.add_(centre), spreads)

    def posterior(
        self,
        x_t: torch.Tensor,
        timesteps: torch.Tensor,
        delta: torch.Tensor | float = 0.0,
        eta: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-odds of a hit and its value a, each (N, C, H, W), by Bayes' rule (class docstring)."""
        slab = self.slab_posterior(x_t, timesteps, eta)
        return self.log_odds(slab, delta), slab.value

    def log_odds(self, slab: SlabPosterior, delta: torch.Tensor | float) -> torch.Tensor:
        """(N, C, H, W) log-odds of a hit, delta being the context's."""
        return self.prior_logit_bits.view(torch.float32) + delta + slab.log_odds

    def value_variance(self, timesteps: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) variance of a hit's value given x_t."""
        alpha, sigma = self.noise_level(timesteps)
        spread = self.place_bits.view(torch.float32)[1].square()
        return spread * sigma**2 / (alpha**2 * spread + sigma**2).clamp(min=1e-10)

    def estimate(self, probability: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Posterior mean of x_0 by probabilities and values of hits."""
        zero = self.zero_bits.view(torch.float32).view(-1, 1, 1)
        return zero + probability * (value - zero)

    def marginal(self, x_t: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The best estimate of x_0 from each pixel alone: what no context-blind network can beat."""
        logit, value = self.posterior(x_t, timesteps)
        return self.estimate(self.hit_probability(logit), value)
