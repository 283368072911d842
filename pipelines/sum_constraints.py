"""Sum constraints: pixels are adjusted until each ring has its known hit count and energy.

A ring is a range of distances from the jet's axis in one calorimeter channel; without rings it is the whole channel.
This file needs `pixel_prior.py` beside it; to the Hub they travel as one file.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from .pixel_prior import PixelPrior, SlabPosterior  # noqa: TID251 - on the Hub the two are one file

ENERGY_LIMIT, MISSING_LIMIT = 30.0, 4.0
"""Largest energy of a pixel shown to the UNet, in mean hits, and largest logarithm of known over expected energy."""

SHIFT_RANGE, SHIFT_NODES = 8.0, 65
"""Shifts of the prior log-odds at which the expected number of hits is tabulated: evenly from -8 to 8."""

ITERATIONS = 4
"""Newton steps towards the known counts or energies."""

LONGEST_STEP, LARGEST_SHIFT = 4.0, 10.0
"""Of the log-odds: longest Newton step, and largest shift in all."""

LARGEST_MOVE = 2.0
"""Standard deviations by which a hit's value is moved at most towards the known energy."""

ExpectedEnergy = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
"""Of values moved by (N, C, H, W): mean energy, its covariance with x, and its derivative, each (N, C, H, W)."""


class HitEnergy(nn.Module):
    """Energy of a hit in GeV, whose logarithm is linear in x.

    Args:
        offset, slope: (C, 1, 1) of the line.
    """

    offset: torch.Tensor
    slope: torch.Tensor

    def __init__(self, offset: torch.Tensor, slope: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("offset", offset.to(torch.float32), persistent=False)
        self.register_buffer("slope", slope.to(torch.float32), persistent=False)

    def at(self, value: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) energy of a value in x."""
        return (self.offset + self.slope * value).exp()

    def expected(self, slab: SlabPosterior) -> ExpectedEnergy:
        """Mean energies of values distributed like the slab, as a function of how far these are moved.

        The energy is log-normal where x is Gaussian, and a move is a common factor.
        """
        exponent = self.offset + self.slope * slab.values + self.slope.square() * slab.variances / 2
        energies = slab.shares * exponent.exp()
        energy = energies.sum(0)
        covariance = (energies * (slab.values + self.slope * slab.variances - slab.value)).sum(0)

        def moved(by: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            growth = (self.slope * by).exp()
            grown = energy * growth
            return grown, covariance * growth, self.slope * grown

        return moved


class Rings(nn.Module):
    """Which ring each pixel lies in, sums over rings, and the number of hits that the prior expects in each.

    Args:
        group: (C,) channel group of each channel of x.
        grid: Height and width of x.
        count: Rings of all groups, equally many in each and group by group; None if each group is one.

    Attributes:
        index: (C, 1, 1) or (C, H, W) ring of each pixel.
        log_counts: (rings, SHIFT_NODES) logarithm of the expected hits when the prior's log-odds are shifted.
    """

    group: torch.Tensor
    index: torch.Tensor
    log_counts: torch.Tensor

    def __init__(self, group: torch.Tensor, grid: tuple[int, int], count: int | None) -> None:
        super().__init__()
        self.groups, self.whole = int(group.max()) + 1, count is None
        index = group.view(-1, 1, 1) if count is None else group.view(-1, 1, 1).expand(-1, *grid).contiguous()
        self.register_buffer("group", group, persistent=False)
        self.register_buffer("index", index, persistent=count is not None)
        zeros = torch.zeros(count or self.groups, SHIFT_NODES, dtype=torch.float32)
        self.register_buffer("log_counts", zeros)

    def expected_counts(self, prior: PixelPrior) -> torch.Tensor:
        """(rings, SHIFT_NODES) hits that the prior expects when its log-odds are shifted."""
        inside = prior.inside.bool()
        logit = prior.logit.double()[:, inside].flatten()
        ring = self.index.expand(-1, *inside.shape)[:, inside].flatten()
        shifts = torch.linspace(-SHIFT_RANGE, SHIFT_RANGE, SHIFT_NODES, dtype=torch.float64)
        return torch.stack([torch.bincount(ring, torch.sigmoid(logit + s), len(self.log_counts)) for s in shifts], 1)

    def prior_shift(self, counts: torch.Tensor) -> torch.Tensor:
        """Shift of the prior log-odds, to add to (N, C, H, W), with which it expects counts (N, rings); 0 where NaN."""
        nodes = self.log_counts
        known = counts.to(nodes).clamp(min=0.5).log().T.contiguous()  # (rings, N)
        high = torch.searchsorted(nodes, known).clamp(1, SHIFT_NODES - 1)
        below, above = nodes.gather(1, high - 1), nodes.gather(1, high)
        node = high - 1 + ((known - below) / (above - below)).clamp(0, 1)
        shift = ((2 * node / (SHIFT_NODES - 1) - 1) * SHIFT_RANGE).nan_to_num(0.0)
        return self.at_pixels(shift.T)

    def sums(self, x: torch.Tensor) -> torch.Tensor:
        """(N, rings) sums of x (N, C, H, W)."""
        sums = x.new_zeros(len(x), len(self.log_counts))
        if self.whole:
            return sums.index_add(1, self.group, x.sum((2, 3)))
        return sums.index_add(1, self.index.flatten(), x.flatten(1))

    def group_sums(self, x: torch.Tensor) -> torch.Tensor:
        """(N, groups) sums of x (N, C, H, W)."""
        return self.over_rings(self.sums(x))

    def over_rings(self, of_rings: torch.Tensor) -> torch.Tensor:
        """(N, groups) sums of (N, rings)."""
        return of_rings.unflatten(1, (self.groups, -1)).sum(2)

    def at_pixels(self, of_rings: torch.Tensor) -> torch.Tensor:
        """(N, C, 1, 1) or (N, C, H, W) the value of each pixel's ring, from (N, rings)."""
        return of_rings.index_select(1, self.index.flatten()).unflatten(1, self.index.shape)

    def at_channels(self, of_groups: torch.Tensor) -> torch.Tensor:
        """(N, C, 1, 1) the value of each channel's group, from (N, groups)."""
        return of_groups[:, self.group, None, None]


def match_counts(logit: torch.Tensor, counts: torch.Tensor, prior: PixelPrior, rings: Rings) -> torch.Tensor:
    """Log-odds (N, C, H, W), those of each ring shifted until its probabilities add up to the count.

    The shift is found by Newton's method for the logarithm of their sum, which rises evenly with the shift as long as
    probabilities are small, and kept within LARGEST_SHIFT: where the noise is so weak that every pixel has decided, no
    other pixel is forced. Its last step carries the gradient of the implicit function.

    Args:
        logit: (N, C, H, W) log-odds of hits.
        counts: (N, rings) hits; NaN where not known.
        prior: Which pixels lie inside the image.
        rings: Which ring each pixel lies in.
    """
    known = counts.isfinite()
    counts = counts.where(known, 1.0)  # a number, so that what is not known leaves no NaN in the gradient

    def step(shifted: torch.Tensor) -> torch.Tensor:
        probability = prior.hit_probability(shifted)
        expected = rings.sums(probability)
        slope = rings.sums((probability * (1 - probability)).detach())
        short = expected * (counts.clamp(min=1e-3) / expected.clamp(min=1e-6)).log()
        return (short / slope.clamp(min=1e-3)).clamp(-LONGEST_STEP, LONGEST_STEP) * known

    shift = torch.zeros_like(counts, dtype=logit.dtype)
    with torch.no_grad():
        for _ in range(ITERATIONS):
            shift = (shift + step(logit + rings.at_pixels(shift))).clamp(-LARGEST_SHIFT, LARGEST_SHIFT)
    free = shift.abs() < LARGEST_SHIFT
    last = step(logit + rings.at_pixels(shift)) * free
    return logit + rings.at_pixels(shift + last)


def match_energies(
    slab: SlabPosterior, probability: torch.Tensor, energies: torch.Tensor, hit_energy: HitEnergy, rings: Rings
) -> torch.Tensor:
    """Values of hits (N, C, H, W), moved until each ring's expected energy is the known one.

    Given x_t a hit's value is a mixture of Gaussians (`HitEnergy` says what that makes of its energy). That the
    energies add up to a known sum moves the values as in a Kalman filter, by their covariance with the energy times one
    number for all: what is missing goes to the hits that have both the energy and the uncertainty to supply it. The
    number is found by Newton's method, and no value is moved by more than LARGEST_MOVE of its standard deviation. Its
    last step carries the gradient of the implicit function.

    Args:
        slab: What is known of the values.
        probability: (N, C, H, W) of hits.
        energies: (N, rings) GeV; NaN where not known.
        hit_energy: Energy of a value.
        rings: Which ring each pixel lies in.
    """
    value = slab.value
    with torch.no_grad():
        expected = hit_energy.expected(slab)
        limit = LARGEST_MOVE * slab.variance.sqrt()
        moved = torch.zeros_like(value)
        for _ in range(ITERATIONS):
            energy, covariance, derivative = expected(moved)
            most = energy / derivative.clamp(min=1e-30)  # the linear law holds for about a factor of e
            reach, rate = probability * covariance, probability * derivative
            rise = rings.sums(rate * reach).clamp(min=1e-12)
            number = rings.at_pixels(((energies - rings.sums(probability * energy)) / rise).nan_to_num(0.0))
            moved = (moved + (reach * number).clamp(-most, most)).clamp(-limit, limit)
    if value.requires_grad:
        surplus = rings.sums(rate * (value - value.detach())) / rise
        moved = moved - reach * rings.at_pixels(surplus.where(energies.isfinite(), 0))
    return value + moved


def energy_inputs(
    energy: torch.Tensor, probability: torch.Tensor, energies: torch.Tensor | None, rings: Rings
) -> tuple[torch.Tensor, torch.Tensor]:
    """The UNet's inputs energy and missing_energy, each (N, C, H, W), by what each pixel says alone.

    Args:
        energy: (N, C, H, W) expected energy of each pixel in GeV.
        probability: (N, C, H, W) of hits.
        energies: (N, rings) known energies in GeV; NaN where not known.
        rings: Which ring each pixel lies in.
    """
    counts, expected = rings.group_sums(probability).clamp(min=0.5), rings.sums(energy).clamp(min=1e-3)
    known = expected if energies is None else torch.where(energies.isnan(), expected, energies.clamp(min=1e-3))
    missing = (known / expected).log().clamp(-MISSING_LIMIT, MISSING_LIMIT)
    mean = rings.at_channels(rings.over_rings(known) / counts)
    return (energy / mean).clamp(max=ENERGY_LIMIT), rings.at_pixels(missing).expand_as(energy)
