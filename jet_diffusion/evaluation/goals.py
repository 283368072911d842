"""Goals: what a very good generator reaches in each result. Headline metrics have theirs in `HEADLINE`."""

from __future__ import annotations

from scipy.stats import chi2, norm

from jet_diffusion.metrics.headline import HEADLINE
from jet_diffusion.report.model import Goal

GOALS = {
    "w1_inside_band": Goal(low=0.9),
    "w1_outside_simultaneous": Goal(high=0),
    "auc_observables": Goal(high=0.55),
    "auc_image": Goal(high=0.55),
    "auc_voxels": Goal(high=0.55),
    "auc_resnet": Goal(high=0.65),
    "auc_convnextv2": Goal(high=0.65),
    "response": Goal(0.99, 1.01),
    "memorisation_observables": Goal(0.95, 1.05),
    "memorisation_pixels": Goal(0.95, 1.05),
    "tagger_fraction": Goal(low=0.97),
    "ms_per_jet": Goal(high=10),
}
"""Result -> goal. Where chance alone allows less, the functions below lower it."""

LEVEL = 0.99
"""Share of perfect generators that meet the goal of a response."""


def all_goals() -> dict[str, Goal]:
    """Result -> goal, the headline metrics first."""
    return {row.name: row.goal for row in HEADLINE.values() if row.goal is not None} | GOALS


def inside_band_goal(least_inside: float) -> Goal:
    """Goal of the share of observables inside their own bands.

    Args:
        least_inside: share that 95 % of perfect generators reach.
    """
    return Goal(low=min(GOALS["w1_inside_band"].low or 0.0, least_inside))


def response_goal(error: float) -> Goal:
    """Goal of a mean response: 1 within 1 %, or within 2.6 standard errors where that is more.

    Args:
        error: standard error of the response.
    """
    tolerance = max((GOALS["response"].high or 1.0) - 1, float(norm.ppf((1 + LEVEL) / 2)) * error)
    return Goal(1 - tolerance, 1 + tolerance)


def response_bins_goal(bins: int) -> Goal:
    """Goal of the mean squared pull over the bins of a response: the 99 % point of its chi-square.

    Args:
        bins: number of bins.
    """
    return Goal(high=float(chi2.ppf(LEVEL, bins)) / bins)
