"""Spike and slab: Bayes' rule for the single pixel in closed form, with the context left to the UNet.

This file needs `denoiser.py`, `sum_constraints.py`, `pixel_bayes.py`, `pixel_prior.py` and `crystal_refiner.py`
beside it; to the Hub they travel as one file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from torch import nn

from .crystal_refiner import CrystalNetwork  # noqa: TID251 - on the Hub they are one file
from .denoiser import DenoiserOutput, Network, call_unet, float_bits  # noqa: TID251
from .pixel_bayes import PixelBayes  # noqa: TID251
from .pixel_prior import Hits, fit_mixture  # noqa: TID251

INPUTS = ("x_t", "estimate", "hit_probability", "hit_value", "previous", "energy", "missing_energy")

ENERGY_INPUTS = {"energy", "missing_energy"}

MIN_VARIANCE = 0.05
"""The squared error of x_0 is weighted by 1 / max(sigma^2, MIN_VARIANCE)."""


class SpikeAndSlabDenoiser(PixelBayes):
    """Bayes' rule for the single pixel in closed form (`PixelBayes`); the UNet gives only the context's part.

    It sees x_t and what the pixel alone says, so the mean image's context costs it nothing, and gives delta and eta of
    `PixelBayes`. With its last layer at zero training starts at the marginal denoiser. A plain UNet cannot hold so many
    sharp thresholds that move with the noise level and needs far longer to find them.

    Where the number n of hits a region (a channel group, or a ring of one) is to have is known, logit p of the whole
    region is shifted until the prior expects n; and, since the h of the exact posterior given n add up to n, the
    region's log-odds after the network are shifted by one more number until they do. So are the values of hits where
    their energy is known.

    Args:
        channel_group: Group (0 tracks, 1 ECAL, 2 HCAL) of each channel of x.
        grid: Height and width of x.
        zero: Value of x without energy, per channel.
        slab_weights, slab_means, slab_stds: Mixture of the hits in x, per group a list of K numbers.
        noise_schedule: Configuration of the training DDPMScheduler.
        inputs: What the UNet sees: x_t; estimate, hit_probability and hit_value (in units of the slab's width) by the
            pixel alone; previous, its own estimate of x_0 one call earlier, at first the pixel's (self-conditioning,
            arXiv:2208.04202); energy, the probability of a hit times the energy of its expected value, over the energy
            of the group's mean hit, and missing_energy, the logarithm of the energy asked of the region over the sum of
            those (0 where none is asked for): sums of energies are not to be had from their logarithms in x.
        min_ratio: Noise level sigma/alpha below which the network was not trained and its output is not used.
        hold_ratio: Noise level sigma/alpha up to which energies are held: above, a pixel's own variance is so much
            wider than what the network knows of its value that energies expected with it add up to too much.
        energy_line: Offset, then slope in x, of the logarithm of a hit's energy / GeV, each per group.
        crystal_channels: Hidden channels of each layer of a `CrystalNetwork` after the UNet; none without.
        weights_by_position: Each position has its own weights of the group's mixture.
        window: First and last + 1 row, first and last + 1 column of x that hold the image; by default all.
        num_regions: Regions of which hits and energies are asked, equally many in each group and group by group; by
            default the groups.
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
        hold_ratio: float = 0.5,
        crystal_channels: tuple[int, ...] = (),
        weights_by_position: bool = False,
        window: tuple[int, int, int, int] | None = None,
        num_regions: int | None = None,
    ) -> None:
        super().__init__()
        if not inputs or set(inputs) - set(INPUTS):
            raise ValueError(f"inputs must be some of {INPUTS}, got {tuple(inputs)}")
        self.set_noise_schedule(noise_schedule)
        channels = len(channel_group)
        self.register_buffer("prior_logit_bits", float_bits(torch.zeros(channels, *grid)))
        self.register_buffer("inside", torch.ones(tuple(grid), dtype=torch.int32))
        group = torch.tensor(channel_group)
        self.register_buffer("group", group, persistent=False)
        self.set_regions(group, grid, num_regions)
        place = torch.stack([torch.zeros(channels, *grid), torch.ones(channels, *grid)])
        self.register_buffer("place_bits", float_bits(place))
        # The dtype is named: loading in half precision changes the default.
        slab = torch.tensor([slab_weights, slab_means, slab_stds], dtype=torch.float64)[:, group]  # (3, C, K)
        self.register_buffer("slab_bits", float_bits(slab), persistent=False)
        line = torch.tensor(energy_line, dtype=torch.float64)[:, group]
        self.register_buffer("energy_line_bits", float_bits(line), persistent=False)
        if weights_by_position:
            weights = slab[0].T[:, :, None, None].expand(-1, -1, *grid)
            self.register_buffer("slab_weight_bits", float_bits(weights))  # (K, C, H, W)
        self.register_buffer("zero_bits", float_bits(torch.tensor(zero, dtype=torch.float64)), persistent=False)
        self.crystal_network: CrystalNetwork | None = None
        if crystal_channels:
            seen, given = (count // channels for count in self.unet_channels())
            window = window or (0, grid[0], 0, grid[1])
            self.crystal_network = CrystalNetwork(channel_group, (seen + given, given), crystal_channels, window)

    @classmethod
    def fit(
        cls,
        batches: Iterable[torch.Tensor],
        *,
        channel_group: tuple[int, ...],
        zero: torch.Tensor,
        hit_threshold: torch.Tensor,
        mask: torch.Tensor,
        noise_schedule: dict[str, Any],
        regions: torch.Tensor | None = None,
        components: int = 5,
        prior: str = "mixture",
        **settings: Any,
    ) -> SpikeAndSlabDenoiser:
        """Fit spike and slab to training jets in model space.

        Args:
            batches: Tensors x (n, C, H, W).
            channel_group, zero, hit_threshold, mask: As the representation declares them.
            noise_schedule: Configuration of the training DDPMScheduler.
            regions: (C, H, W) region of each pixel, none empty, as the representation declares them; by default the
                channel groups.
            components: Gaussians of each group's slab.
            prior: "mixture" for an occupancy and weights of the group's mixture at each pixel; "group" for one
                occupancy and mixture per group.
            settings: Further arguments of the class.
        """
        if prior not in ("mixture", "group"):
            raise ValueError(f"prior must be mixture or group, got {prior!r}")
        if prior == "mixture" and components < 2:
            raise ValueError(f"prior mixture needs two components or more, got {components}")
        group = torch.tensor(channel_group)
        shape = (len(group), *mask.shape)
        places, values, jets = [], [], 0
        for x in batches:
            hit = (x > hit_threshold.view(-1, 1, 1)) & mask
            places.append(hit.flatten(1).nonzero()[:, 1])
            values.append(x[hit].double())
            jets += len(x)
        hits = Hits(torch.cat(places), torch.cat(values), group, shape)
        by_position = prior == "mixture"
        place = hits.moments(by_position)
        slab = [fit_mixture(hits.values[hits.groups == g], components) for g in range(int(group.max()) + 1)]
        denoiser = cls(
            channel_group=tuple(channel_group),
            grid=tuple(mask.shape),
            zero=tuple(zero.tolist()),
            slab_weights=[weights for weights, _, _ in slab],
            slab_means=[means for _, means, _ in slab],
            slab_stds=[stds for _, _, stds in slab],
            noise_schedule=noise_schedule,
            weights_by_position=by_position,
            window=tuple(edge for axis in (1, 0) for edge in _extent(mask.any(axis))),
            num_regions=None if regions is None else int(regions.max()) + 1,
            **settings,
        )
        if by_position:
            weights, means, widths = torch.tensor(slab, dtype=torch.float64).unbind(1)
            denoiser.slab_weight_bits.copy_(float_bits(hits.mixture_weights(weights, means, widths)))
        probability = hits.occupancy(jets, mask, by_position)
        denoiser.prior_logit_bits.copy_(float_bits(torch.logit(probability, eps=1e-7)))
        denoiser.place_bits.copy_(float_bits(place))
        denoiser.inside.copy_(mask.to(torch.int32))
        denoiser.fit_regions(regions)
        return denoiser

    @property
    def sees_previous(self) -> bool:
        """Whether previous is among the inputs."""
        return "previous" in self.config.inputs

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
        totals: torch.Tensor | None = None,
        previous: torch.Tensor | None = None,
    ) -> DenoiserOutput:
        """Posterior mean given the pixel and, through the UNet, its context."""
        hits, energies = (None, None) if totals is None else totals.chunk(2, 1)
        shift = 0.0 if hits is None else self.prior_shift(hits)
        logit, value = self.posterior(x_t, timesteps, shift)
        place, scale = self.place_bits.view(torch.float32)
        probability = self.hit_probability(logit)
        marginal = self.estimate(probability, value)
        blocks = {
            "x_t": x_t,
            "estimate": marginal,
            "hit_probability": probability,
            "hit_value": (value - place) / scale,
            "previous": marginal if previous is None else torch.where(previous.isnan(), marginal, previous),
        }
        if ENERGY_INPUTS & set(self.config.inputs):
            blocks["energy"], blocks["missing_energy"] = self.energy_inputs(probability, value, energies)
        inputs = torch.cat([blocks[name] for name in self.config.inputs], 1)
        context = call_unet(unet, inputs, timesteps, class_labels)
        if self.crystal_network is not None:
            context = context + self.crystal_network(torch.cat([inputs, context], 1), timesteps)
        if self.config.min_ratio:
            alpha, sigma = self.noise_level(timesteps)
            context = context * (sigma >= self.config.min_ratio * alpha)
        delta, eta = context.chunk(2, 1)
        slab = self.slab_posterior(x_t, timesteps, eta)
        logit, value = self.log_odds(slab, shift + delta), slab.value
        if hits is not None:
            logit = self.held(logit, hits)
        if energies is not None:
            alpha, sigma = self.noise_level(timesteps)
            quiet = (sigma <= self.config.hold_ratio * alpha).flatten().nonzero().flatten()
            if len(quiet):
                held = self.held_values(slab.of_jets(quiet), logit[quiet], energies[quiet])
                value = value.index_copy(0, quiet, held)
        x_0 = self.estimate(self.hit_probability(logit), value)
        return DenoiserOutput(x_0, x_0, marginal, logit, value)

    def guided(self, output: DenoiserOutput, blind: DenoiserOutput, scale: float) -> DenoiserOutput:
        """Classifier-free guidance of the log-odds of hits and of their values, rather than of the mean of x_0.

        The hits then need no longer add up to the number asked for.
        """
        given, without = hits_of(output), hits_of(blind)
        logit, value = (b + scale * (a - b) for a, b in zip(given, without, strict=True))
        return replace(output, x0=self.estimate(self.hit_probability(logit), value), logit=logit, value=value)

    def surprise(
        self,
        output: DenoiserOutput,
        x_0: torch.Tensor,
        hit: torch.Tensor,
        timesteps: torch.Tensor,
        value_weight: torch.Tensor | float = 1.0,
    ) -> torch.Tensor:
        """(N, C, H, W) minus log-likelihood in nats, up to a constant, of which pixels are hit and of the hits' values.

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
        variance = self.value_variance(timesteps)
        truth = hit.to(x_0.dtype)
        pattern = nn.functional.binary_cross_entropy_with_logits(logit, truth, reduction="none")
        return pattern + value_weight * truth * (x_0 - value).square() / variance.clamp(min=1e-10) / 2

    def hits_and_energies(self, output: DenoiserOutput) -> tuple[torch.Tensor, torch.Tensor]:
        """Two (N, C, H, W): probability of a hit, and energy in GeV that each pixel has by it and the hit's value.

        Raises:
            ValueError: If the output is not of a spike and slab.
        """
        logit, value = hits_of(output)
        probability = self.hit_probability(logit)
        return probability, probability * self._hit_energy.at(value)

    def energy_share(self, output: DenoiserOutput) -> torch.Tensor:
        """(N, C, H, W) estimated energy of each pixel if it is hit, over the mean of its group's hits."""
        logit, value = hits_of(output)
        probability, energy = self.hit_probability(logit), self._hit_energy.at(value)
        mean = self._by_group(probability * energy) / self._by_group(probability)
        return energy / self._at_channels(mean).clamp(min=1e-10)

    def target(self, x_0: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The clean jet."""
        return x_0

    def loss_weight(self, timesteps: torch.Tensor) -> torch.Tensor:
        """1 / max(sigma^2, MIN_VARIANCE)."""
        return 1 / self.noise_level(timesteps)[1].square().clamp(min=MIN_VARIANCE)


def hits_of(output: DenoiserOutput) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-odds of hits and their values.

    Raises:
        ValueError: If the output is not of a spike and slab.
    """
    if output.logit is None or output.value is None:
        raise ValueError("the output has no log-odds and values of hits; it must be that of a spike and slab")
    return output.logit, output.value


def _extent(flags: torch.Tensor) -> tuple[int, int]:
    """First and last + 1 place that is true."""
    places = flags.nonzero()
    return int(places[0]), int(places[-1]) + 1
