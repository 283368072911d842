"""Sums over regions of a jet: what channels, or rings of them, are asked to have, and how pixels come to add up to it.

This file needs `denoiser.py` and `pixel_prior.py` beside it; to the Hub they travel as one file.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from .denoiser import Denoiser, float_bits  # noqa: TID251 - on the Hub they are one file
from .pixel_prior import SlabPosterior  # noqa: TID251

ENERGY_LIMIT, MISSING_LIMIT = 30.0, 4.0
"""Largest energy of a pixel shown to the UNet, in mean hits, and largest logarithm of asked over expected energy."""

SHIFT_RANGE, SHIFT_NODES = 8.0, 65
"""Shifts of the prior log-odds at which the expected number of hits is tabulated: evenly from -8 to 8."""

HOLD_ITERATIONS, HOLD_STEP, HOLD_LIMIT = 4, 4.0, 10.0
"""Newton steps towards the asked number of hits, the longest of them, and the largest shift of log-odds in all."""

HOLD_DEVIATIONS = 2.0
"""Standard deviations by which a hit's value is moved at most towards the asked energy."""


Expected = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
"""Of values moved by (N, C, H, W): mean energy, its covariance with x, and its derivative, each (N, C, H, W)."""


class HitEnergy:
    """Energy in GeV whose logarithm is a line in x: log-normal where x is Gaussian.

    Args:
        offset, slope: (C, 1, 1) of the line.
    """

    def __init__(self, offset: torch.Tensor, slope: torch.Tensor) -> None:
        self.offset, self.slope = offset, slope

    def at(self, value: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) energy of a value in x."""
        return (self.offset + self.slope * value).exp()

    def expected(self, slab: SlabPosterior) -> Expected:
        """Mean energies of values distributed like the slab, as a function of how far these are moved.

        A move is a common factor of all energies.
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


class RegionSums(Denoiser):
    """Base class of denoisers that know where hits may be, and hold the hits and energies of regions to what is asked.

    A region is a channel group, or a ring of one. Beside its own buffers the class needs `prior_logit_bits` and
    `inside`, the prior log-odds of a hit and which pixels lie inside the image, and `energy_line_bits`, offset and
    slope of the line in x of the logarithm of a hit's energy.
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

        Given x_t a hit's value is a mixture of Gaussians (`HitEnergy` says what that makes of its energy). That the
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
        return HitEnergy(*self.energy_line_bits.view(torch.float32)[:, :, None, None])

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
