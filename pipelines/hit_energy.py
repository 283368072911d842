"""The energies that values of hits in x stand for, and what they are on average where a value is known with an error.

This file needs `pixel_prior.py` beside it; to the Hub they travel as one file.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from .pixel_prior import SlabPosterior  # noqa: TID251 - on the Hub they are one file

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
