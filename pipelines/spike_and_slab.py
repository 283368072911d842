"""Spike and slab: Bayes' rule for the single pixel in closed form, which a UNet corrects by the context.

This file needs `denoiser.py`, `pixel_prior.py`, `sum_constraints.py` and `crystal_refiner.py` beside it; to the Hub
they travel as one file.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from torch import nn

from .crystal_refiner import CrystalNetwork  # noqa: TID251 - on the Hub they are one file
from .denoiser import Denoiser, DenoiserOutput, Network, call_unet  # noqa: TID251
from .pixel_prior import PixelPrior, SlabPosterior  # noqa: TID251
from .sum_constraints import HitEnergy, Rings, energy_inputs, match_counts, match_energies  # noqa: TID251

INPUTS = ("x_t", "estimate", "hit_probability", "hit_value", "energy", "missing_energy")

MIN_VARIANCE = 0.05
"""The squared error of x_0 is weighted by 1 / max(sigma^2, MIN_VARIANCE)."""


class SpikeAndSlabDenoiser(Denoiser):
    r"""Estimates x_0 by Bayes' rule for each pixel, corrected by a UNet that sees the other pixels.

    Before it is noised a pixel is either z_0 (no energy, the spike) or, with probability p, a hit, whose value is
    distributed like a mixture of Gaussians (w_k, m_k, s_k) of mean m and variance v (the slab). With
    x_t = alpha x_0 + sigma eps the posterior mean is

        x_0 = z_0 + h (a - z_0)
        h   = sigmoid(logit p + delta + l)                                              probability of a hit
        l   = log sum_k w_k' N(x_t; alpha m_k', alpha^2 s_k^2 + sigma^2) - log N(x_t; alpha z_0, sigma^2)
        a   = sum_k r_k (m_k' sigma^2 + alpha s_k^2 x_t) / (sigma^2 + alpha^2 s_k^2)    value of a hit

    with r_k the components' share of the sum. The UNet gives delta, the log Bayes factor of the other pixels, and eta,
    by which they tilt the slab: times exp(b x_0), b = eta / sqrt(v), which is Bayes' rule where their likelihood is
    log-linear in x_0. A mixture of Gaussians stays one,

        m_k' = m_k + b s_k^2,    log w_k' = log w_k + b (m_k - m) + b^2 (s_k^2 - v) / 2,

    normalised to second order. With delta = eta = 0 this is exact for independent pixels, and there training starts:
    the last layer of the UNet is zero. A plain UNet cannot hold so many sharp thresholds that move with the noise
    level and needs far longer to find them.

    Where the hit count of a ring is known, logit p of its pixels is shifted until the prior expects it; and since the
    h of the exact posterior given the count add up to it, the log-odds after the network are shifted once more until
    they do (`match_counts`). Where its energy is known, the a are moved until they add up to it (`match_energies`).

    Args:
        channel_group: Group (0 tracks, 1 ECAL, 2 HCAL) of each channel of x.
        grid: Height and width of x.
        zero: z_0 of each channel.
        slab_weights, slab_means, slab_stds: w_k, m_k, s_k, per group a list of K numbers.
        noise_schedule: Configuration of the training DDPMScheduler.
        energy_line: Offset, then slope in x, of the logarithm of a hit's energy / GeV, each per group.
        inputs: What the UNet sees: x_t; estimate, hit_probability and hit_value (in units of the slab's width) by the
            pixel alone; energy, the expected energy of the pixel over the energy of the group's mean hit, and
            missing_energy, the logarithm of the ring's known over its expected energy (0 where it is not known).
        min_ratio: Noise level sigma/alpha below which the network was not trained and its output is not used.
        match_ratio: Noise level sigma/alpha up to which energies are matched: above, a pixel's own variance is so much
            wider than what the network knows of its value that energies expected with it add up to too much.
        crystal_channels: Hidden channels of each layer of a `CrystalNetwork` after the UNet; none without.
        window: First and last + 1 row, first and last + 1 column of x that hold the image; by default all.
        num_rings: Rings of all groups, equally many in each; by default each group is one.
    """

    @register_to_config
    def __init__(  # noqa: PLR0913, PLR0917
        self,
        channel_group: tuple[int, ...],
        grid: tuple[int, int],
        zero: tuple[float, ...],
        slab_weights: tuple[tuple[float, ...], ...],
        slab_means: tuple[tuple[float, ...], ...],
        slab_stds: tuple[tuple[float, ...], ...],
        noise_schedule: dict[str, Any],
        energy_line: tuple[tuple[float, ...], tuple[float, ...]],
        inputs: tuple[str, ...] = ("x_t", "estimate"),
        min_ratio: float = 0.0,
        match_ratio: float = 0.3,
        crystal_channels: tuple[int, ...] = (),
        window: tuple[int, int, int, int] | None = None,
        num_rings: int | None = None,
    ) -> None:
        super().__init__()
        if not inputs or set(inputs) - set(INPUTS):
            raise ValueError(f"inputs must be some of {INPUTS}, got {tuple(inputs)}")
        self.set_noise_schedule(noise_schedule)
        group = torch.tensor(channel_group)
        self.prior = PixelPrior(group, grid, zero, slab_weights, slab_means, slab_stds)
        self.rings = Rings(group, grid, num_rings)
        self.hit_energy = HitEnergy(*torch.tensor(energy_line, dtype=torch.float64)[:, group, None, None])
        self.crystal_network: CrystalNetwork | None = None
        if crystal_channels:
            seen, given = (count // len(group) for count in self.unet_channels())
            window = window or (0, grid[0], 0, grid[1])
            self.crystal_network = CrystalNetwork(channel_group, (seen + given, given), crystal_channels, window)

    def unet_channels(self) -> tuple[int, int]:
        """In: one block of channels for each input; out: delta and eta."""
        channels = len(self.config.channel_group)
        return len(self.config.inputs) * channels, 2 * channels

    def forward(
        self,
        unet: Network,
        x_t: torch.Tensor,
        timesteps: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        ring_sums: torch.Tensor | None = None,
    ) -> DenoiserOutput:
        """Posterior mean given the pixel and, through the UNet, its context."""
        prior, rings = self.prior, self.rings
        alpha, sigma = self.noise_level(timesteps)
        counts, energies = (None, None) if ring_sums is None else ring_sums.chunk(2, 1)
        log_odds = prior.logit if counts is None else prior.logit + rings.prior_shift(counts)  # logit p

        slab = prior.slab_posterior(x_t, alpha, sigma)
        probability = prior.hit_probability(log_odds + slab.log_bayes_factor)
        marginal = prior.estimate(probability, slab.value)
        inputs = self._inputs(x_t, probability, slab.value, marginal, energies)
        delta, eta = self._context(unet, inputs, timesteps, class_labels, sigma >= self.config.min_ratio * alpha)

        slab = prior.slab_posterior(x_t, alpha, sigma, eta)
        logit, value = log_odds + delta + slab.log_bayes_factor, slab.value  # logit h, a
        if counts is not None:
            logit = match_counts(logit, counts, prior, rings)
        probability = prior.hit_probability(logit)
        if energies is not None:
            value = self._matched_values(slab, probability, energies, sigma <= self.config.match_ratio * alpha)
        x_0 = prior.estimate(probability, value)
        return DenoiserOutput(x_0, x_0, marginal, logit, value)

    def marginal(self, x_t: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The best estimate of x_0 from each pixel alone: what no context-blind network can beat."""
        slab = self.prior.slab_posterior(x_t, *self.noise_level(timesteps))
        return self.prior.estimate(self.prior.hit_probability(self.prior.logit + slab.log_bayes_factor), slab.value)

    def guided(self, output: DenoiserOutput, unconditional: DenoiserOutput, scale: float) -> DenoiserOutput:
        """Classifier-free guidance of the log-odds of hits and of their values, rather than of the mean of x_0.

        The hits then need no longer add up to the known count.
        """
        pairs = zip(hits_of(output), hits_of(unconditional), strict=True)
        logit, value = (without + scale * (given - without) for given, without in pairs)
        x0 = self.prior.estimate(self.prior.hit_probability(logit), value)
        return replace(output, x0=x0, logit=logit, value=value)

    def negative_log_likelihood(
        self,
        output: DenoiserOutput,
        x_0: torch.Tensor,
        hit: torch.Tensor,
        timesteps: torch.Tensor,
        value_weight: torch.Tensor | float = 1.0,
    ) -> torch.Tensor:
        """(N, C, H, W) in nats, up to a constant, of which pixels are hit and of the hits' values.

        Its optimum is that of the squared error of x_0, h and a being the exact posterior's; but a hit's value, whose
        spread is small beside its distance from zero, counts by its own width.

        Args:
            output: Of `forward`.
            x_0: (N, C, H, W) clean jets.
            hit: (N, C, H, W) bool, which of their pixels are hits.
            timesteps: (N,) at which they were noised.
            value_weight: Of each pixel's value; the optimum is the same for any that does not depend on x_0.

        Raises:
            ValueError: If the output is not of a spike and slab.
        """
        logit, value = hits_of(output)
        variance = self.prior.value_variance(*self.noise_level(timesteps))
        truth = hit.to(x_0.dtype)
        pattern = nn.functional.binary_cross_entropy_with_logits(logit, truth, reduction="none")
        return pattern + value_weight * truth * (x_0 - value).square() / variance.clamp(min=1e-10) / 2

    def hits_and_energies(self, output: DenoiserOutput) -> tuple[torch.Tensor, torch.Tensor]:
        """Two (N, C, H, W): probability of a hit, and expected energy in GeV of each pixel.

        Raises:
            ValueError: If the output is not of a spike and slab.
        """
        logit, value = hits_of(output)
        probability = self.prior.hit_probability(logit)
        return probability, probability * self.hit_energy.at(value)

    def energy_share(self, output: DenoiserOutput) -> torch.Tensor:
        """(N, C, H, W) estimated energy of each pixel if it is hit, over the mean of its group's hits."""
        probability, energy = self.hits_and_energies(output)
        mean = self.rings.group_sums(energy) / self.rings.group_sums(probability)
        return self.hit_energy.at(hits_of(output)[1]) / self.rings.at_channels(mean).clamp(min=1e-10)

    def target(self, x_0: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The clean jet."""
        return x_0

    def loss_weight(self, timesteps: torch.Tensor) -> torch.Tensor:
        """1 / max(sigma^2, MIN_VARIANCE)."""
        return 1 / self.noise_level(timesteps)[1].square().clamp(min=MIN_VARIANCE)

    def _inputs(
        self,
        x_t: torch.Tensor,
        probability: torch.Tensor,
        value: torch.Tensor,
        marginal: torch.Tensor,
        energies: torch.Tensor | None,
    ) -> torch.Tensor:
        """(N, inputs * C, H, W) what the UNet sees."""
        mean, std = self.prior.hit_moments
        blocks = {
            "x_t": x_t,
            "estimate": marginal,
            "hit_probability": probability,
            "hit_value": (value - mean) / std,
        }
        if {"energy", "missing_energy"} & set(self.config.inputs):
            energy = probability * self.hit_energy.at(value)
            blocks["energy"], blocks["missing_energy"] = energy_inputs(energy, probability, energies, self.rings)
        return torch.cat([blocks[name] for name in self.config.inputs], 1)

    def _matched_values(
        self, slab: SlabPosterior, probability: torch.Tensor, energies: torch.Tensor, at_low_noise: torch.Tensor
    ) -> torch.Tensor:
        """(N, C, H, W) values of hits, those of jets at low noise (N, 1, 1, 1) matched to their known energies."""
        if slab.value.device.type != "cpu":  # to choose jets, the host would wait for the device
            return torch.where(
                at_low_noise, match_energies(slab, probability, energies, self.hit_energy, self.rings), slab.value
            )
        jets = at_low_noise.flatten().nonzero().flatten()
        if not len(jets):
            return slab.value
        chosen = (slab.of_jets(jets), probability[jets], energies[jets])
        return slab.value.index_copy(0, jets, match_energies(*chosen, self.hit_energy, self.rings))

    def _context(
        self,
        unet: Network,
        inputs: torch.Tensor,
        timesteps: torch.Tensor,
        class_labels: torch.Tensor | None,
        trained: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Delta and eta, each (N, C, H, W); zero at noise levels that were not trained."""
        context = call_unet(unet, inputs, timesteps, class_labels)
        if self.crystal_network is not None:
            context = context + self.crystal_network(torch.cat([inputs, context], 1), timesteps)
        delta, eta = (context * trained).chunk(2, 1)
        return delta, eta


def hits_of(output: DenoiserOutput) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-odds of hits and their values.

    Raises:
        ValueError: If the output is not of a spike and slab.
    """
    if output.logit is None or output.value is None:
        raise ValueError("the output has no log-odds and values of hits; it must be that of a spike and slab")
    return output.logit, output.value
