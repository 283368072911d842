"""Fits to training jets: representations, the one-pixel prior and the conditioner's scales."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from jet_diffusion.errors import UserError
from jet_diffusion.pipelines.conditioner import Conditioner
from jet_diffusion.pipelines.crystal_refiner import crystal_sides
from jet_diffusion.pipelines.notebook_baselines import ChannelMaxGrid, ImageRangeGrid
from jet_diffusion.pipelines.representation import GROUPS, Representation
from jet_diffusion.pipelines.spike_and_slab import SpikeAndSlabDenoiser
from jet_diffusion.pipelines.tower_representations import HitValueMap

SHRINKAGE, NEIGHBOUR_SHRINKAGE = 20, 200
"""Hits' worth of the whole group that those of a neighbourhood are mixed with, and of it that a pixel's are."""

SHRINKAGE_JETS, NEIGHBOUR_JETS = 100, 2000
"""The same for the probability of a hit, in jets' worth."""

MAX_RANGES = 2000
"""Ranges of training images that `ImageRangeGrid` keeps."""

MIXTURE_VALUES = 20_000
"""Values that a mixture is fitted to. So many, evenly spaced in order of size, give the same fit as all of them."""

ConditionerType = TypeVar("ConditionerType", bound=Conditioner)


def fit_representation(kind: type[Representation], batches: Iterable[torch.Tensor], **settings: Any) -> Representation:
    """Fit a representation to training jets.

    Args:
        kind: Its class.
        batches: Tensors of energies (n, 3, 125, 125) in GeV/100; a few thousand jets suffice.
        settings: The representation's own settings.

    Raises:
        UserError: If a channel, or every image, holds no energy.
    """
    fits: dict[type, Callable[..., Representation]] = {
        HitValueMap: fit_hit_values,
        ChannelMaxGrid: fit_channel_max,
        ImageRangeGrid: fit_image_ranges,
    }
    (fit,) = (fit for base, fit in fits.items() if issubclass(kind, base))
    return fit(kind, batches, **settings)


def fit_hit_values(kind: type[HitValueMap], batches: Iterable[torch.Tensor], **settings: Any) -> HitValueMap:
    """Fit the logarithmic scale of each channel group: its ends, and the moments that standardise it.

    Args and errors as of `fit_representation`.
    """
    blank = kind(**settings)
    hits: list[list[torch.Tensor]] = [[] for _ in GROUPS]
    pixels = [0] * len(GROUPS)
    group = torch.tensor(blank.channel_group)
    for energies in batches:
        grid = blank.to_grid(energies.to(torch.float32))
        for g in range(len(GROUPS)):
            values = grid[:, group == g]
            hits[g].append(values[values > 0])
            pixels[g] += values.numel()
    fitted: dict[str, list[Any]] = {name: [] for name in ("log_min", "log_low", "log_high", "log_max")}
    log_hits = [torch.cat(group_hits).double().log() for group_hits in hits]
    for name, values in zip(GROUPS, log_hits, strict=True):
        if values.numel() < 2 or values.max() == values.min():
            raise UserError(f"channel {name} holds no spread of energies in the jets to fit on")
        low, high = values.sort().values[[int(q * (len(values) - 1)) for q in (0.001, 0.999)]].tolist()
        if low == high:
            low, high = values.min().item(), values.max().item()
        fitted["log_low"].append(low)
        fitted["log_high"].append(high)
        fitted["log_min"].append(values.min().item())
        fitted["log_max"].append(values.max().item())
    scaled = kind(**settings, **fitted)
    moments: dict[str, list[float]] = {"mean": [], "std": []}
    for g, values in enumerate(log_hits):
        raw = scaled.raw(values, torch.full(values.shape, g))
        mean = raw.sum().item() / pixels[g]
        moments["mean"].append(mean)
        moments["std"].append(math.sqrt(raw.square().sum().item() / pixels[g] - mean**2))
    return kind(**settings, **fitted, **moments)


def fit_channel_max(kind: type[ChannelMaxGrid], batches: Iterable[torch.Tensor], **settings: Any) -> ChannelMaxGrid:
    """Find the largest cell of each channel. Args and errors as of `fit_representation`."""
    blank = kind(**settings)
    largest = torch.stack([blank.shrink(energies).amax((0, 2, 3)) for energies in batches]).amax(0)
    if not (largest > 0).all():
        raise UserError(f"a channel of tracks, ecal, hcal is blank in the jets to fit on: {largest.tolist()}")
    return kind(**settings, channel_max=tuple(largest.tolist()))


def fit_image_ranges(kind: type[ImageRangeGrid], batches: Iterable[torch.Tensor], **settings: Any) -> ImageRangeGrid:
    """Collect the ranges of the first training images. Args and errors as of `fit_representation`."""
    blank = kind(**settings)
    ranges = torch.cat([torch.stack(blank.range_of(blank.shrink(energies)), 1) for energies in batches])
    ranges = ranges[ranges[:, 1] > ranges[:, 0]][:MAX_RANGES]
    if not len(ranges):
        raise UserError("every image of the jets to fit on is blank")
    return kind(**settings, ranges=tuple((low, high) for low, high in ranges.tolist()))


def fit_conditioner(
    kind: type[ConditionerType],
    labels: torch.Tensor,
    pt: torch.Tensor,
    m0: torch.Tensor,
    ring_sums: torch.Tensor | None = None,
    *,
    embedding_dim: int,
) -> ConditionerType:
    """A fresh embedder, standardised by training jets.

    Args:
        kind: Its class.
        labels: (N,) 0 gluon, 1 quark.
        pt, m0: (N,) in GeV, positive.
        ring_sums: (N, 2 rings) hit counts, then energies (GeV) of each ring, to condition on them as well.
        embedding_dim: Width of the embedding.
    """
    log_pt, log_m0 = pt.double().log(), m0.double().log()
    log_sums = () if ring_sums is None else ring_sums.double().log1p().unbind(1)
    return kind(
        embedding_dim=embedding_dim,
        log_pt_mean=log_pt.mean().item(),
        log_pt_std=max(log_pt.std().item(), 1e-6),
        log_m0_mean=log_m0.mean().item(),
        log_m0_std=max(log_m0.std().item(), 1e-6),
        log_ring_sums_mean=tuple(column.mean().item() for column in log_sums),
        log_ring_sums_std=tuple(max(column.std().item(), 1e-6) for column in log_sums),
    )


def fit_spike_and_slab(
    batches: Iterable[torch.Tensor],
    representation: HitValueMap,
    noise_schedule: dict[str, Any],
    *,
    components: int = 5,
    **settings: Any,
) -> SpikeAndSlabDenoiser:
    """Fit the one-pixel prior to training jets.

    Args:
        batches: Tensors x (n, C, H, W).
        representation: Of x.
        noise_schedule: Configuration of the training DDPMScheduler.
        components: Gaussians of each group's slab.
        settings: Further arguments of the denoiser.

    Raises:
        UserError: If there is but one component, of which nothing could differ from position to position.
    """
    if components < 2:
        raise UserError(f"the slab needs two components or more, got {components}")
    mask = representation.mask()
    hits, jets = collect_hits(batches, representation)
    slab = [fit_mixture(hits.values[hits.groups == g], components) for g in range(int(hits.group.max()) + 1)]
    weights, means, stds = zip(*slab, strict=True)
    denoiser = SpikeAndSlabDenoiser(
        channel_group=tuple(representation.channel_group),
        grid=tuple(mask.shape),
        zero=tuple(representation.zero().tolist()),
        slab_weights=weights,
        slab_means=means,
        slab_stds=stds,
        noise_schedule=noise_schedule,
        energy_line=tuple(map(tuple, representation.energy_line().tolist())),
        window=tuple(edge for axis in (1, 0) for edge in _extent(mask.any(axis))),
        num_rings=representation.num_rings if representation.config.ring_edges else None,
        **settings,
    )
    own = denoiser.prior
    own.weights.copy_(hits.mixture_weights(*torch.tensor([weights, means, stds], dtype=torch.float64)))
    own.logit.copy_(torch.logit(hits.occupancy(jets, mask), eps=1e-7))
    own.hit_moments.copy_(hits.moments())
    own.inside.copy_(mask)
    if representation.config.ring_edges:
        denoiser.rings.index.copy_(representation.rings())
    denoiser.rings.log_counts.copy_(denoiser.rings.expected_counts(own).log())
    return denoiser


def collect_hits(batches: Iterable[torch.Tensor], representation: HitValueMap) -> tuple[Hits, int]:
    """The hits of jets in model space, tensors x (n, C, H, W), and the number of jets."""
    threshold, mask = representation.hit_threshold().view(-1, 1, 1), representation.mask()
    pixel_index, values, jets = [], [], 0
    for x in batches:
        hit = (x > threshold) & mask
        pixel_index.append(hit.flatten(1).nonzero()[:, 1])
        values.append(x[hit].double())
        jets += len(x)
    group = torch.tensor(representation.channel_group)
    return Hits(torch.cat(pixel_index), torch.cat(values), group, (len(group), *mask.shape)), jets


class Hits(NamedTuple):
    """The hits of many jets in model space.

    Attributes:
        pixel_index: (n,) index of each hit's pixel in a flattened (C, H, W).
        values: (n,) x, float64.
        group: (C,) group of each channel.
        shape: (C, H, W).
    """

    pixel_index: torch.Tensor
    values: torch.Tensor
    group: torch.Tensor
    shape: tuple[int, ...]

    @property
    def groups(self) -> torch.Tensor:
        """(n,) group of each hit."""
        return self.group[self.pixel_index // math.prod(self.shape[1:])]

    def sums(self, weights: torch.Tensor) -> torch.Tensor:
        """(C, H, W) sums of weights (n,) over the hits of each pixel."""
        return torch.bincount(self.pixel_index, weights, minlength=math.prod(self.shape)).view(self.shape)

    def by_group(self, weights: torch.Tensor) -> torch.Tensor:
        """(groups,) sums of weights (n,) over the hits of each group."""
        return torch.bincount(self.groups, weights, minlength=int(self.group.max()) + 1)

    def around(self, sums: torch.Tensor) -> torch.Tensor:
        """(n, C, H, W) sums over the pixels about each, the pixel in the middle, as many as its tower has.

        A group's channels are the crystals of a tower, a square row by row; where it has one alone, so has the sum.

        Raises:
            UserError: If they are not, or no crystal is in the middle.
        """
        sides = crystal_sides(self.group.tolist())
        if any(side % 2 == 0 for side in sides):
            raise UserError(f"towers must have a crystal in the middle, got {sides} crystals along their sides")
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
            share = by_pixel.flatten(1)[:, self.pixel_index] * density
            share /= share.sum(0)
            sums = torch.stack([self.sums(component) for component in share])
            nearby = self.around(sums) + SHRINKAGE * prior
            nearby /= nearby.sum(0)
            by_pixel = sums + NEIGHBOUR_SHRINKAGE * nearby
            by_pixel /= by_pixel.sum(0)
        return by_pixel

    def moments(self) -> torch.Tensor:
        """(2, C, H, W) mean and standard deviation of the hits at each pixel.

        Each pixel's are shrunk towards its neighbourhood's and the group's as in `mixture_weights`.
        """
        ones = torch.ones_like(self.values)
        number = self.by_group(ones)
        mean = self.by_group(self.values) / number
        variance = self.by_group((self.values - mean[self.groups]).square()) / number
        mean, variance = (moment[self.group, None, None].expand(self.shape) for moment in (mean, variance))
        counts = self.sums(ones)
        hit_mean = self._shrunk(self.sums(self.values), counts, mean)
        squares = self.sums((self.values - hit_mean.flatten()[self.pixel_index]).square())
        return torch.stack([hit_mean, self._shrunk(squares, counts, variance).sqrt()])

    def occupancy(self, jets: int, inside: torch.Tensor) -> torch.Tensor:
        """(C, H, W) probability of a hit at each pixel, by the hits of so many jets.

        Each pixel's is that of these jets, NEIGHBOUR_JETS more with its neighbourhood's, and that of these jets and
        SHRINKAGE_JETS more with the group's average, which keeps rare positions from a prior of zero.

        Args:
            jets: How many jets the hits are of.
            inside: (H, W) bool, which pixels lie inside the image.
        """
        ones = torch.ones_like(self.values)
        average = (self.by_group(ones) / (torch.bincount(self.group) * inside.sum() * jets))[self.group, None, None]
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
        UserError: If there are fewer than ten values a component.
    """
    if values.numel() < 10 * components:
        raise UserError(f"{values.numel()} hits are too few for a slab of {components} components")
    ordered = values.double().flatten().sort().values
    ordered = ordered[:: max(1, len(ordered) // MIXTURE_VALUES)]
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
        raise UserError("the slab's mixture did not converge; choose fewer components")
    return flat[0], flat[1], flat[2]


def _extent(flags: torch.Tensor) -> tuple[int, int]:
    """First and last + 1 index that is true."""
    found = flags.nonzero()
    return int(found[0]), int(found[-1]) + 1
