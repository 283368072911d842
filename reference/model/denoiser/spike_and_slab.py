"""Made of crystal_network.py, denoiser.py, slab.py, hit_energy.py, regions.py, pixel_bayes.py, spike_and_slab.py."""

from __future__ import annotations

"""What neighbouring crystals say of one another: small convolutions after a UNet that works on towers.

This file is self-contained so that it can travel to the Hub.
"""


import itertools
import math
from collections.abc import Sequence

import torch
from diffusers.models.embeddings import Timesteps
from torch import nn


def crystal_sides(channel_group: Sequence[int]) -> list[int]:
    """Crystals along the side of each group's towers: a group's channels are the crystals of one, row by row.

    Args:
        channel_group: Group of each channel of x.

    Raises:
        ValueError: If a group's channels are not together, or are no square.
    """
    sizes = torch.bincount(torch.tensor(channel_group)).tolist()
    sides = [math.isqrt(size) for size in sizes]
    if list(channel_group) != sorted(channel_group) or [side**2 for side in sides] != sizes:
        raise ValueError(f"each group's channels must be together and a square number of crystals, got {sizes}")
    return sides


class CrystalNetwork(nn.Module):
    """Small convolutions at the image's own resolution, after a UNet that works on towers.

    A UNet over towers has fewer features at a tower than x has channels there, and what neighbouring crystals say of
    one another (clusters, tracks that lie on them) does not fit through it. Here the channels of a tower are laid
    out as the crystals they are, across towers, those of fewer crystals (HCAL) repeated.

    Args:
        channel_group: Group of each channel of x; a group's channels are the crystals of a square, row by row.
        blocks: How many times as many channels as x go in, and come out.
        widths: Hidden channels of each layer.
        window: First and last + 1 row, first and last + 1 column of x that hold the image.
    """

    def __init__(
        self,
        channel_group: tuple[int, ...],
        blocks: tuple[int, int],
        widths: tuple[int, ...],
        window: tuple[int, int, int, int],
    ) -> None:
        super().__init__()
        self.sides = crystal_sides(channel_group)
        self.sizes = [side**2 for side in self.sides]
        self.blocks, self.window, self.side = blocks, window, max(self.sides)
        self.timestep = nn.Sequential(Timesteps(32, True, 0), nn.Linear(32, 2 * widths[0]))
        groups = len(self.sizes)
        channels = (blocks[0] * groups, *widths, blocks[1] * groups)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(channels))
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, inputs: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """(N, blocks[1] * C, H, W) float32 of inputs (N, blocks[0] * C, H, W) and timesteps (N,)."""
        device, own = inputs.device.type, next(self.parameters()).dtype
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else own
        # At this resolution convolutions of few channels are nearly twice as fast with the channels last, and products
        # four times if both factors have them last.
        last = torch.channels_last
        embedding = self.timestep[1](self.timestep[0](timesteps).to(own)).to(dtype)[:, :, None, None]
        scale, shift = (half.contiguous(memory_format=last) for half in embedding.chunk(2, 1))
        hidden = self.to_crystals(inputs.to(dtype)).contiguous(memory_format=last)
        hidden = self.layers[0](hidden) * (1 + scale) + shift
        for layer in self.layers[1:]:
            hidden = layer(nn.functional.silu(hidden))
        top, bottom, left, right = self.window
        height, width = inputs.shape[2:]
        padding = (left, width - right, top, height - bottom)
        return nn.functional.pad(self.to_towers(hidden).to(torch.float32), padding)

    def to_crystals(self, inputs: torch.Tensor) -> torch.Tensor:
        """(N, groups * blocks[0], h, w) planes of crystals of inputs (N, blocks[0] * C, H, W), inside the window."""
        top, bottom, left, right = self.window
        blocks = inputs[:, :, top:bottom, left:right].unflatten(1, (self.blocks[0], -1)).split(self.sizes, 2)
        planes = []
        for channels, side in zip(blocks, self.sides, strict=True):
            plane = nn.functional.pixel_shuffle(channels.flatten(1, 2), side)
            repeat = self.side // side
            planes.append(plane.repeat_interleave(repeat, 2).repeat_interleave(repeat, 3) if repeat > 1 else plane)
        return torch.cat(planes, 1)

    def to_towers(self, planes: torch.Tensor) -> torch.Tensor:
        """The reverse for (N, groups * blocks[1], h, w): averages where crystals were repeated."""
        channels = []
        for plane, side in zip(planes.chunk(len(self.sides), 1), self.sides, strict=True):
            pooled = nn.functional.avg_pool2d(plane, self.side // side) if side < self.side else plane
            channels.append(nn.functional.pixel_unshuffle(pooled, side).unflatten(1, (self.blocks[1], -1)))
        return torch.cat(channels, 2).flatten(1, 2)


"""Denoisers: from the noisy jet x_t and a UNet's output to the estimate of the clean jet x_0.

The forward process is the usual variance-preserving one, x_t = alpha x_0 + sigma eps with alpha^2 = alpha_bar_t.
A denoiser owns the noise schedule it was trained with and is used by the trainer and the pipeline alike, so that
what the UNet's output means is written down once. Whatever it means, the scheduler is always given x_0
(`prediction_type="sample"`). This file is self-contained so that it can travel to the Hub.
"""


from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import ConfigMixin, DDPMScheduler, ModelMixin
from diffusers.configuration_utils import register_to_config

Network = Callable[..., Any]
"""A UNet2DModel, bare or wrapped for several processes: (inputs, timesteps, class_labels=...) -> .sample"""


@dataclass
class DenoiserOutput:
    """What one call of a denoiser gives.

    Attributes:
        x0: (N, C, H, W) estimate of the clean jet in model space.
        prediction: What the training loss compares with `Denoiser.target`.
        marginal: (N, C, H, W) what x0 would be from each pixel alone, where the denoiser knows it.
        logit, value: (N, C, H, W) log-odds of a hit and its value if it is one, where the denoiser has them.
        slab: The whole distribution of the value, where the denoiser has it and no gradient is asked for.
    """

    x0: torch.Tensor
    prediction: torch.Tensor
    marginal: torch.Tensor | None = None
    logit: torch.Tensor | None = None
    value: torch.Tensor | None = None
    slab: Any = None


def float_bits(values: torch.Tensor) -> torch.Tensor:
    """Float32 values as int32 bit patterns: a buffer that `module.to(bfloat16)` leaves as it is."""
    return values.to(torch.float32).contiguous().view(torch.int32)


class Denoiser(ModelMixin, ConfigMixin):
    """Base class: the noise schedule, and what the trainer and the pipeline ask of a denoiser."""

    def set_noise_schedule(self, noise_schedule: dict[str, Any]) -> None:
        """Keep alpha_bar for every training timestep of a DDPMScheduler of this configuration."""
        alphas_cumprod = DDPMScheduler(**noise_schedule).alphas_cumprod
        self.register_buffer("alphas_cumprod_bits", float_bits(alphas_cumprod))

    @property
    def alphas_cumprod(self) -> torch.Tensor:
        """(T,) float32 alpha_bar of the training timesteps."""
        return self.alphas_cumprod_bits.view(torch.float32)

    @property
    def dtype(self) -> torch.dtype:
        """Denoisers compute in float32, whatever the UNet's precision."""
        return torch.float32

    def noise_level(self, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Alpha and sigma, each (N, 1, 1, 1), at timesteps (N,); between two the logarithm of sigma/alpha is linear."""
        alphas_cumprod = self.alphas_cumprod
        if timesteps.is_floating_point():
            log_ratio = torch.log(1 / alphas_cumprod - 1) / 2
            low = timesteps.floor().long().clamp(0, len(alphas_cumprod) - 1)
            high = (low + 1).clamp(max=len(alphas_cumprod) - 1)
            between = log_ratio[low].lerp(log_ratio[high], (timesteps - low).to(log_ratio.dtype))
            alpha_bar = torch.where(timesteps == low, alphas_cumprod[low], torch.sigmoid(-2 * between))
        else:
            alpha_bar = alphas_cumprod[timesteps]
        alpha_bar = alpha_bar.view(-1, 1, 1, 1)
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def add_noise(self, x_0: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The forward process, x_t = alpha x_0 + sigma eps in closed form, at timesteps (N,)."""
        alpha, sigma = self.noise_level(timesteps)
        return alpha * x_0 + sigma * noise

    def power_timesteps(self, steps: int, power: float) -> list[int]:
        """Descending timesteps that fall from the last as (1 - i / steps)^power: above 1, closer at low noise.

        Evenly spread where there are too many for that.
        """
        last = len(self.alphas_cumprod) - 1
        falling = last * (1 - torch.arange(steps) / steps) ** power
        timesteps: list[int] = falling.round().long().unique().flip(0).tolist()
        return timesteps if len(timesteps) == steps else torch.linspace(last, 0, steps).round().long().tolist()

    @property
    def sees_previous(self) -> bool:
        """Whether the UNet is shown the estimate of an earlier call (self-conditioning)."""
        return False

    @property
    def knows_posterior(self) -> bool:
        """Whether x_0 can be drawn (`draw`)."""
        return False

    def unet_channels(self) -> tuple[int, int]:
        """Input and output channels the UNet must have."""
        raise NotImplementedError

    def forward(
        self,
        unet: Network,
        x_t: torch.Tensor,
        timesteps: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        totals: torch.Tensor | None = None,
        previous: torch.Tensor | None = None,
    ) -> DenoiserOutput:
        """Estimate x_0.

        Args:
            unet: The network, called once; its dtype decides the precision of that call alone.
            x_t: (N, C, H, W) float32, scaled as the forward process above.
            timesteps: (N,) training timesteps, whole or fractional.
            class_labels: (N, E) embedding of the conditions, or None.
            totals: (N, 2 regions) hits of each region (`Representation.regions`) the jet is to have, then energies in
                GeV, where known; NaN where not.
            previous: (N, C, H, W) estimate of x_0 of an earlier call, where there was one; NaN where not. Of use only
                to denoisers with `sees_previous`.
        """
        raise NotImplementedError

    def guided(self, output: DenoiserOutput, blind: DenoiserOutput, scale: float) -> DenoiserOutput:
        """Classifier-free guidance (arXiv:2207.12598): x_0 moved away from that of `blind`, which saw no conditions."""
        return replace(output, x0=blind.x0 + scale * (output.x0 - blind.x0))

    def draw(self, output: DenoiserOutput, generators: list[torch.Generator]) -> torch.Tensor:
        """(N, C, H, W) x_0, each pixel drawn by itself from its posterior given x_t, where `knows_posterior`.

        Args:
            output: Of `forward`.
            generators: One a jet.
        """
        raise NotImplementedError

    def target(self, x_0: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """What `DenoiserOutput.prediction` should be for this jet and noise."""
        raise NotImplementedError

    def loss_weight(self, timesteps: torch.Tensor) -> torch.Tensor:
        """(N, 1, 1, 1) weight of the squared error at each timestep."""
        raise NotImplementedError


def call_unet(
    unet: Network, inputs: torch.Tensor, timesteps: torch.Tensor, class_labels: torch.Tensor | None
) -> torch.Tensor:
    """Run the network in its own precision (outside autocast) and return float32."""
    dtype = getattr(unet, "dtype", torch.float32)
    labels = None if class_labels is None else class_labels.to(dtype)
    return unet(inputs.to(dtype), timesteps, class_labels=labels).sample.to(torch.float32)


class PlainDenoiser(Denoiser):
    """The ordinary diffusion model: the UNet sees x_t alone and predicts epsilon, x_0 or v.

    Args:
        channels: Channels of x.
        noise_schedule: Configuration of the training DDPMScheduler (betas, T).
        prediction: "epsilon", "sample" or "v_prediction" (Salimans and Ho, arXiv:2202.00512).
        snr_gamma: Min-SNR weighting (Hang et al., arXiv:2303.09556) if positive; 0 weighs every timestep alike.
    """

    @register_to_config
    def __init__(
        self,
        channels: int,
        noise_schedule: dict[str, Any],
        prediction: str = "v_prediction",
        snr_gamma: float = 0.0,
    ) -> None:
        super().__init__()
        if prediction not in ("epsilon", "sample", "v_prediction"):
            raise ValueError(f"prediction must be epsilon, sample or v_prediction, got {prediction!r}")
        self.set_noise_schedule(noise_schedule)
        if prediction == "epsilon" and self.alphas_cumprod[-1] == 0:
            raise ValueError("epsilon says nothing of x_0 at zero terminal SNR; predict sample or v_prediction")

    def unet_channels(self) -> tuple[int, int]:
        """As many as x has, both ways."""
        return self.config.channels, self.config.channels

    def forward(
        self,
        unet: Network,
        x_t: torch.Tensor,
        timesteps: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        totals: torch.Tensor | None = None,
        previous: torch.Tensor | None = None,
    ) -> DenoiserOutput:
        """The UNet's prediction, and the x_0 it stands for."""
        prediction = call_unet(unet, x_t, timesteps, class_labels)
        alpha, sigma = self.noise_level(timesteps)
        if self.config.prediction == "epsilon":
            return DenoiserOutput((x_t - sigma * prediction) / alpha, prediction)
        if self.config.prediction == "v_prediction":
            return DenoiserOutput(alpha * x_t - sigma * prediction, prediction)
        return DenoiserOutput(prediction, prediction)

    def target(self, x_0: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Noise, jet, or velocity alpha eps - sigma x_0."""
        if self.config.prediction == "epsilon":
            return noise
        if self.config.prediction == "sample":
            return x_0
        alpha, sigma = self.noise_level(timesteps)
        return alpha * noise - sigma * x_0

    def loss_weight(self, timesteps: torch.Tensor) -> torch.Tensor:
        """One, or the min-SNR weight in the units of the prediction."""
        alpha, sigma = self.noise_level(timesteps)
        if not self.config.snr_gamma:
            return torch.ones_like(alpha)
        snr = (alpha / sigma).square()
        weight = snr.clamp(max=self.config.snr_gamma)
        return {"epsilon": weight / snr, "sample": weight, "v_prediction": weight / (snr + 1)}[self.config.prediction]


"""The slab: how the values of hits are distributed, before and given a noisy pixel, and its fit to training jets."""


import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn


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


"""The energies that values of hits in x stand for, and what they are on average where a value is known with an error.

This file needs `slab.py` beside it; to the Hub they travel as one file.
"""


from collections.abc import Callable

import torch


Expected = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
"""Of values moved by (N, C, H, W): mean energy, its covariance with x, and its derivative, each (N, C, H, W)."""


class HitEnergy:
    """Base class: energy in GeV as a function of x that rises with a line in x.

    Args:
        offset, slope: (C, 1, 1) of the line.
    """

    def __init__(self, offset: torch.Tensor, slope: torch.Tensor) -> None:
        self.offset, self.slope = offset, slope

    def at(self, value: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) energy of a value in x."""
        raise NotImplementedError

    def expected(self, slab: SlabPosterior) -> Expected:
        """Mean energies of values distributed like the slab, as a function of how far these are moved."""
        raise NotImplementedError


class LogLinearEnergy(HitEnergy):
    """exp(line): log-normal where x is Gaussian."""

    def at(self, value: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) energy of a value in x."""
        return (self.offset + self.slope * value).exp()

    def expected(self, slab: SlabPosterior) -> Expected:
        """A move is a common factor of all energies."""
        exponent = self.offset + self.slope * slab.values + self.slope.square() * slab.variances / 2
        energies = slab.shares * exponent.exp()
        energy = energies.sum(0)
        covariance = (energies * (slab.values + self.slope * slab.variances - slab.value)).sum(0)

        def moved(by: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            growth = (self.slope * by).exp()
            grown = energy * growth
            return grown, covariance * growth, self.slope * grown

        return moved


class FourthRootLinearEnergy(HitEnergy):
    """line^4, whose mean and covariance with x are polynomials of the first moments of the line."""

    def at(self, value: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) energy of a value in x; zero where the line is negative."""
        return (self.offset + self.slope * value).clamp(min=0) ** 4

    def expected(self, slab: SlabPosterior) -> Expected:
        """By the binomial theorem, a move being added to the line; covariances are those of Stein's lemma."""
        root, spread = self.offset + self.slope * slab.values, self.slope.square() * slab.variances
        powers = [slab.shares, slab.shares * root]  # each component's moments of the line, times its share
        for n in range(2, 5):
            powers.append(root * powers[-1] + (n - 1) * spread * powers[-2])
        first, second, third, fourth = (power.sum(0) for power in powers[1:])
        from_mean, pull = slab.values - slab.value, self.slope * slab.variances
        with_line, with_square, with_cube, with_fourth = (
            (powers[n] * from_mean + n * pull * powers[n - 1]).sum(0) for n in range(1, 5)
        )

        def moved(by: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            d = self.slope * by
            rate = third + d * (3 * second + d * (3 * first + d))
            energy = fourth + d * (4 * third + d * (6 * second + d * (4 * first + d)))
            covariance = with_fourth + d * (4 * with_cube + d * (6 * with_square + d * (4 * with_line)))
            return energy, covariance, 4 * self.slope * rate

        return moved


HIT_ENERGIES: dict[str, type[HitEnergy]] = {"log": LogLinearEnergy, "fourth_root": FourthRootLinearEnergy}
"""By what of the energy rises linearly with x."""


"""Sums over regions of a jet: what channels, or rings of them, are asked to have, and how pixels come to add up to it.

This file needs `denoiser.py`, `hit_energy.py` and `slab.py` beside it; to the Hub they travel as one file.
"""


import torch


ENERGY_LIMIT, MISSING_LIMIT = 30.0, 4.0
"""Largest energy of a pixel shown to the UNet, in mean hits, and largest logarithm of asked over expected energy."""

SHIFT_RANGE, SHIFT_NODES = 8.0, 65
"""Shifts of the prior log-odds at which the expected number of hits is tabulated: evenly from -8 to 8."""

HOLD_ITERATIONS, HOLD_STEP, HOLD_LIMIT = 4, 4.0, 10.0
"""Newton steps towards the asked number of hits, the longest of them, and the largest shift of log-odds in all."""

HOLD_DEVIATIONS = 2.0
"""Standard deviations by which a hit's value is moved at most towards the asked energy."""


class RegionSums(Denoiser):
    """Base class of denoisers that know where hits may be, and hold the hits and energies of regions to what is asked.

    A region is a channel group, or a ring of one. Beside its own buffers the class needs `prior_logit_bits` and
    `inside`, the prior log-odds of a hit and which pixels lie inside the image, and `energy_line_bits`, offset and
    slope of the line in x that the energy of a hit follows by the configuration's `energy_map`.
    """

    def set_regions(self, group: torch.Tensor, grid: tuple[int, int], num_regions: int | None) -> None:
        """Make the buffers: regions are the groups (C,) until `fit_regions`, whose number is then `num_regions`."""
        self.groups = int(group.max()) + 1
        if num_regions is None:
            self.register_buffer("region", group.view(-1, 1, 1), persistent=False)
        else:
            self.register_buffer("region", group.view(-1, 1, 1).expand(-1, *grid).contiguous())
        self.register_buffer("log_hits_bits", float_bits(torch.zeros(num_regions or self.groups, SHIFT_NODES)))

    def fit_regions(self, regions: torch.Tensor | None) -> None:
        """Take over regions (C, H, W), where they are not the groups, and tabulate what the prior expects in each."""
        if regions is not None:
            self.region.copy_(regions)
        self.log_hits_bits.copy_(float_bits(self.expected_hits().log()))

    def expected_hits(self) -> torch.Tensor:
        """(regions, SHIFT_NODES) hits the prior expects when its log-odds are shifted."""
        logit = self.prior_logit_bits.view(torch.float32).double()[:, self.inside.bool()].flatten()
        region = self.region.expand(-1, *self.inside.shape)[:, self.inside.bool()].flatten()
        shifts = torch.linspace(-SHIFT_RANGE, SHIFT_RANGE, SHIFT_NODES, dtype=torch.float64)
        count = len(self.log_hits_bits)
        return torch.stack([torch.bincount(region, torch.sigmoid(logit + s), count) for s in shifts], 1)

    def prior_shift(self, hits: torch.Tensor) -> torch.Tensor:
        """Shift of the prior log-odds, to add to (N, C, H, W), with which it expects hits (N, regions); 0 where NaN."""
        nodes = self.log_hits_bits.view(torch.float32)
        asked = hits.to(nodes).clamp(min=0.5).log().T.contiguous()  # (regions, N)
        high = torch.searchsorted(nodes, asked).clamp(1, SHIFT_NODES - 1)
        below, above = nodes.gather(1, high - 1), nodes.gather(1, high)
        place = high - 1 + ((asked - below) / (above - below)).clamp(0, 1)
        shift = ((2 * place / (SHIFT_NODES - 1) - 1) * SHIFT_RANGE).nan_to_num(0.0)
        return self._at_pixels(shift.T)

    def _by_region(self, x: torch.Tensor) -> torch.Tensor:
        """(N, regions) sums of x (N, C, H, W)."""
        sums = x.new_zeros(len(x), len(self.log_hits_bits))
        if self.config.num_regions is None:
            return sums.index_add(1, self.group, x.sum((2, 3)))
        return sums.index_add(1, self.region.flatten(), x.flatten(1))

    def _by_group(self, x: torch.Tensor) -> torch.Tensor:
        """(N, groups) sums of x (N, C, H, W)."""
        return self._over_rings(self._by_region(x))

    def _over_rings(self, of_regions: torch.Tensor) -> torch.Tensor:
        """(N, groups) sums of (N, regions)."""
        return of_regions.unflatten(1, (self.groups, -1)).sum(2)

    def _at_pixels(self, of_regions: torch.Tensor) -> torch.Tensor:
        """(N, C, 1, 1) or (N, C, H, W) the value of each pixel's region, from (N, regions)."""
        return of_regions.index_select(1, self.region.flatten()).unflatten(1, self.region.shape)

    def _at_channels(self, of_groups: torch.Tensor) -> torch.Tensor:
        """(N, C, 1, 1) the value of each channel's group, from (N, groups)."""
        return of_groups[:, self.group, None, None]

    def held(self, logit: torch.Tensor, hits: torch.Tensor) -> torch.Tensor:
        """Log-odds (N, C, H, W), each region's shifted until its probabilities add up to hits (N, regions).

        The shift is found by Newton's method for the logarithm of their sum, which rises evenly with the shift as long
        as probabilities are small, and kept within HOLD_LIMIT: where the noise is so weak that every pixel has
        decided, no other pixel is forced. Its last step carries the gradient of the implicit function.
        """
        known = hits.isfinite()
        hits = hits.where(known, 1.0)  # a number, so that what is not asked for leaves no NaN in the gradient

        def step(shifted: torch.Tensor) -> torch.Tensor:
            probability = self.hit_probability(shifted)
            expected = self._by_region(probability)
            slope = self._by_region((probability * (1 - probability)).detach())
            short = expected * (hits.clamp(min=1e-3) / expected.clamp(min=1e-6)).log()
            return (short / slope.clamp(min=1e-3)).clamp(-HOLD_STEP, HOLD_STEP) * known

        shift = torch.zeros_like(hits, dtype=logit.dtype)
        with torch.no_grad():
            for _ in range(HOLD_ITERATIONS):
                shift = (shift + step(logit + self._at_pixels(shift))).clamp(-HOLD_LIMIT, HOLD_LIMIT)
        free = shift.abs() < HOLD_LIMIT
        last = step(logit + self._at_pixels(shift)) * free
        return logit + self._at_pixels(shift + last)

    def held_values(self, slab: SlabPosterior, logit: torch.Tensor, energies: torch.Tensor) -> torch.Tensor:
        """Values of hits (N, C, H, W), moved so that each region's energies add up to those asked for.

        Given x_t a hit's value is a mixture of Gaussians (`hit_energy` says what that makes of its energy). That the
        energies add up to a known sum moves the values as in a Kalman filter, by their covariance with the energy times
        one number for all: what is missing goes to the hits that have both the energy and the uncertainty to supply it.
        The number is found by Newton's method, and no value is moved by more than HOLD_DEVIATIONS of its standard
        deviation. Its last step carries the gradient of the implicit function.

        Args:
            slab: What is known of the values.
            logit: Log-odds of hits.
            energies: (N, regions) GeV; NaN where not known.
        """
        value = slab.value
        with torch.no_grad():
            expected, probability = self._hit_energy.expected(slab), self.hit_probability(logit)
            limit = HOLD_DEVIATIONS * slab.variance.sqrt()
            moved = torch.zeros_like(value)
            for _ in range(HOLD_ITERATIONS):
                energy, covariance, derivative = expected(moved)
                most = energy / derivative.clamp(min=1e-30)  # the linear law holds for about a factor of e
                reach, rate = probability * covariance, probability * derivative
                rise = self._by_region(rate * reach).clamp(min=1e-12)
                number = self._at_pixels(((energies - self._by_region(probability * energy)) / rise).nan_to_num(0.0))
                moved = (moved + (reach * number).clamp(-most, most)).clamp(-limit, limit)
        if value.requires_grad:
            surplus = self._by_region(rate * (value - value.detach())) / rise
            moved = moved - reach * self._at_pixels(surplus.where(energies.isfinite(), 0))
        return value + moved

    @property
    def _hit_energy(self) -> HitEnergy:
        """The energy in GeV that x stands for where there is a hit."""
        return HIT_ENERGIES[self.config.energy_map](*self.energy_line_bits.view(torch.float32)[:, :, None, None])

    def hit_probability(self, logit: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) probability of a hit; outside the image there is none."""
        return torch.sigmoid(logit) * self.inside

    def energy_inputs(
        self, probability: torch.Tensor, value: torch.Tensor, asked: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The inputs energy and missing_energy, each (N, C, H, W), by what each pixel says alone.

        Args:
            probability, value: Of hits.
            asked: (N, regions) energies asked for in GeV; NaN where none is.
        """
        energy = probability * self._hit_energy.at(value)
        hits, expected = self._by_group(probability).clamp(min=0.5), self._by_region(energy).clamp(min=1e-3)
        asked = expected if asked is None else torch.where(asked.isnan(), expected, asked.clamp(min=1e-3))
        missing = (asked / expected).log().clamp(-MISSING_LIMIT, MISSING_LIMIT)
        mean = self._at_channels(self._over_rings(asked) / hits)
        return (energy / mean).clamp(max=ENERGY_LIMIT), self._at_pixels(missing).expand_as(energy)


"""Bayes' rule for a single pixel: a spike where there is no energy and a slab of hits, before and given x_t.

This file needs `regions.py`, `denoiser.py` and `slab.py` beside it; to the Hub they travel as one file.
"""


import torch



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
            return self.slab_weight_bits.view(torch.float32), means, widths.square()
        place, scale = self.place_bits.view(torch.float32)
        return weights, place + scale * means, (scale * widths).square()

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


"""Spike and slab: Bayes' rule for the single pixel in closed form, with the context left to the UNet.

This file needs `denoiser.py`, `regions.py`, `pixel_bayes.py`, `hit_energy.py`, `slab.py` and `crystal_network.py`
beside it; to the Hub they travel as one file.
"""


from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.utils.torch_utils import randn_tensor
from torch import nn


INPUTS = ("x_t", "estimate", "hit_probability", "hit_value", "previous", "energy", "missing_energy")

ENERGY_INPUTS = {"energy", "missing_energy"}


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
        slab_weights, slab_means, slab_stds: Mixture of the hits, per group a list of K numbers; means and widths are in
            units of each position's width from its mean, or in x where weights go by position.
        noise_schedule: Configuration of the training DDPMScheduler.
        inputs: What the UNet sees: x_t; estimate, hit_probability and hit_value (in units of the slab's width) by the
            pixel alone; previous, its own estimate of x_0 one call earlier, at first the pixel's (self-conditioning,
            arXiv:2208.04202); energy, the probability of a hit times the energy of its expected value, over the energy
            of the group's mean hit, and missing_energy, the logarithm of the energy asked of the region over the sum of
            those (0 where none is asked for): sums of energies are not to be had from their logarithms in x.
        min_variance: The squared error of x_0 is weighted by 1 / max(sigma^2, min_variance).
        min_ratio: Noise level sigma/alpha below which the network was not trained and its output is not used.
        hold_hits: Make the probabilities h add up to the number of hits asked for, as described above.
        hold_energies: The same for the energies of hits.
        hold_ratio: Noise level sigma/alpha up to which energies are held: above, a pixel's own variance is so much
            wider than what the network knows of its value that energies expected with it add up to too much.
        energy_map: What of the energy of hits rises linearly with x, log or fourth_root.
        energy_line: Per group, offset and slope in x of that of energy / GeV; without it no energies can be held.
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
        inputs: tuple[str, ...] = ("x_t", "estimate"),
        min_variance: float = 0.05,
        min_ratio: float = 0.0,
        hold_hits: bool = True,
        hold_energies: bool = True,
        hold_ratio: float = 0.5,
        energy_map: str | None = None,
        energy_line: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
        crystal_channels: tuple[int, ...] = (),
        weights_by_position: bool = False,
        window: tuple[int, int, int, int] | None = None,
        num_regions: int | None = None,
    ) -> None:
        super().__init__()
        if not inputs or set(inputs) - set(INPUTS):
            raise ValueError(f"inputs must be some of {INPUTS}, got {tuple(inputs)}")
        if energy_line is None and ENERGY_INPUTS & set(inputs):
            raise ValueError(f"inputs {sorted(ENERGY_INPUTS)} need energy_line, the energy x stands for")
        if energy_line is not None and energy_map not in HIT_ENERGIES:
            raise ValueError(f"energy_map, of energy_line, must be one of {tuple(HIT_ENERGIES)}, got {energy_map!r}")
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
        line = torch.full((2, channels), torch.nan) if energy_line is None else torch.tensor(energy_line)[:, group]
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
        components: int = 1,
        prior: str = "position",
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
            prior: "mixture" for an occupancy and weights of the group's mixture at each pixel; "position" for an
                occupancy and the hits' mean and width at each pixel; "occupancy" for an occupancy at each pixel and
                one mean and width per group; "group" for one of all per group.
            settings: Further arguments of the class.
        """
        if prior not in ("mixture", "position", "occupancy", "group"):
            raise ValueError(f"prior must be mixture, position, occupancy or group, got {prior!r}")
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
        place = hits.moments(by_position=prior in ("mixture", "position"))
        scaled = hits.values
        if prior != "mixture":
            scaled = (hits.values - place[0].flatten()[hits.places]) / place[1].flatten()[hits.places]
        slab = [fit_mixture(scaled[hits.groups == g], components) for g in range(int(group.max()) + 1)]
        denoiser = cls(
            channel_group=tuple(channel_group),
            grid=tuple(mask.shape),
            zero=tuple(zero.tolist()),
            slab_weights=[weights for weights, _, _ in slab],
            slab_means=[means for _, means, _ in slab],
            slab_stds=[stds for _, _, stds in slab],
            noise_schedule=noise_schedule,
            weights_by_position=prior == "mixture",
            window=tuple(edge for axis in (1, 0) for edge in _extent(mask.any(axis))),
            num_regions=None if regions is None else int(regions.max()) + 1,
            **settings,
        )
        if prior == "mixture":
            weights, means, widths = torch.tensor(slab, dtype=torch.float64).unbind(1)
            denoiser.slab_weight_bits.copy_(float_bits(hits.mixture_weights(weights, means, widths)))
        probability = hits.occupancy(jets, mask, by_position=prior != "group")
        denoiser.prior_logit_bits.copy_(float_bits(torch.logit(probability, eps=1e-7)))
        denoiser.place_bits.copy_(float_bits(place))
        denoiser.inside.copy_(mask.to(torch.int32))
        denoiser.fit_regions(regions)
        return denoiser

    @property
    def sees_previous(self) -> bool:
        """Whether previous is among the inputs."""
        return "previous" in self.config.inputs

    @property
    def knows_posterior(self) -> bool:
        """Whether x_0 can be drawn: each pixel's distribution is known."""
        return True

    def unet_channels(self) -> tuple[int, int]:
        """In: one block of channels for each input; out: delta and eta."""
        channels = len(self.config.channel_group)
        return len(self.config.inputs) * channels, 2 * channels

    def same_kind_of_slab(self, other: SpikeAndSlabDenoiser) -> bool:
        """Whether the slabs have as many components and differ from position to position in the same way."""
        mine, others = ((d.slab_bits.shape, d.config.weights_by_position) for d in (self, other))
        return mine == others

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
        if hits is not None and self.config.hold_hits:
            logit = self.held(logit, hits)
        if energies is not None and self.config.hold_energies and self.config.energy_line is not None:
            alpha, sigma = self.noise_level(timesteps)
            quiet = (sigma <= self.config.hold_ratio * alpha).flatten().nonzero().flatten()
            if len(quiet):
                held = self.held_values(slab.of_jets(quiet), logit[quiet], energies[quiet])
                value = value.index_copy(0, quiet, held)
        x_0 = self.estimate(self.hit_probability(logit), value)
        return DenoiserOutput(x_0, x_0, marginal, logit, value, None if torch.is_grad_enabled() else slab)

    def guided(self, output: DenoiserOutput, blind: DenoiserOutput, scale: float) -> DenoiserOutput:
        """Classifier-free guidance of the log-odds of hits and of their values, rather than of the mean of x_0.

        The hits then need no longer add up to the number asked for.
        """
        given, without = hits_of(output), hits_of(blind)
        logit, value = (b + scale * (a - b) for a, b in zip(given, without, strict=True))
        return replace(output, x0=self.estimate(self.hit_probability(logit), value), logit=logit, value=value)

    def draw(self, output: DenoiserOutput, generators: list[torch.Generator]) -> torch.Tensor:
        """(N, C, H, W) x_0, each pixel drawn by itself: whether it is hit, of which component, and its value."""
        logit, value = hits_of(output)
        slab: SlabPosterior = output.slab  # training, which draws nothing, does not keep it
        probability = self.hit_probability(logit)
        shape, device = probability.shape, probability.device
        uniform = torch.cat([torch.rand(1, *shape[1:], generator=g, device=g.device) for g in generators]).to(device)
        normal = randn_tensor(shape, generator=generators, device=device, dtype=probability.dtype)
        # Below the probability the uniform number makes a hit, and where it lies below chooses the component.
        chosen = (slab.shares.cumsum(0) < uniform / probability).sum(0, keepdim=True).clamp(max=len(slab.shares) - 1)
        drawn, variance = (of.expand_as(slab.shares).gather(0, chosen)[0] for of in (slab.values, slab.variances))
        hit = drawn + variance.sqrt() * normal + (value - slab.value)  # as its mean was moved by the energy asked for
        zero = self.zero_bits.view(torch.float32).view(-1, 1, 1)
        return torch.where(uniform < probability, hit, zero)

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
        """1 / max(sigma^2, min_variance)."""
        return 1 / self.noise_level(timesteps)[1].square().clamp(min=self.config.min_variance)


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
