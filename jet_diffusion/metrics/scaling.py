"""Put features on one scale before distances mix them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jet_diffusion.observables.hits import Array

SCALE_QUANTILE = 0.95
"""High enough to be a feature's usual range, low enough to lie below its outliers.

One jet in some hundreds has a mis-measured track, which makes the 99.9 % quantile of the track energy five times
the 95 % one: in such units a factor 1.25 on all energies vanishes among the fluctuations of a thousand jets.
"""


@dataclass(frozen=True)
class FeatureScale:
    """Division by each feature's 95 % quantile of magnitude in the reference, capped at twice that.

    A single mis-measured track of the real file is 1,000 times a usual one: dividing by the maximum would
    flatten every other jet, and without the cap such a jet alone would make up the covariance.

    Attributes:
        scale: (K,) what features are divided by; 1 for a feature that is 0 throughout.
        cap: largest magnitude after scaling.
    """

    scale: Array
    cap: float = 2.0

    @classmethod
    def fit(cls, reference: Array) -> FeatureScale:
        """Take the scale from the real reference jets (N, K)."""
        scale = np.quantile(np.abs(reference), SCALE_QUANTILE, axis=0)
        return cls(np.where(scale > 0, scale, 1.0))

    def __call__(self, features: Array) -> Array:
        """Scale features (N, K); NaN stays NaN."""
        return np.clip(features / self.scale, -self.cap, self.cap)

    def capped(self, features: Array) -> int:
        """How many jets have a feature that the cap changes."""
        return int(np.count_nonzero((np.abs(features / self.scale) > self.cap).any(axis=1)))


LEAST_VARIANCE = 1e-3
"""Directions with less than this fraction of the largest variance carry no information of their own."""

OUTLIER_WIDTHS = 6.0


@dataclass(frozen=True)
class Whitening:
    """Uncorrelated features of unit variance, for metrics of nearest neighbours.

    Features are put on their median and central width, capped at six widths, and rotated into the reference's
    principal directions; those of negligible variance (one observable determined by others) are left out.

    Attributes:
        centre: (K,) medians.
        width: (K,) central widths.
        rotation: (K, L) map to the L directions.
    """

    centre: Array
    width: Array
    rotation: Array

    @classmethod
    def fit(cls, reference: Array) -> Whitening:
        """Take all three from the real reference jets (N, K)."""
        whitening = cls(np.median(reference, axis=0), central_width(reference), np.eye(reference.shape[1]))
        variance, directions = np.linalg.eigh(np.atleast_2d(np.cov(whitening(reference), rowvar=False)))
        kept = variance > LEAST_VARIANCE * variance.max()
        return cls(whitening.centre, whitening.width, directions[:, kept] / np.sqrt(variance[kept]))

    def __call__(self, features: Array) -> Array:
        """Whiten features: (N, K) -> (N, L)."""
        capped = np.clip((features - self.centre) / self.width, -OUTLIER_WIDTHS, OUTLIER_WIDTHS)
        return capped @ self.rotation


def central_width(reference: Array) -> Array:
    """(K,) half the distance between the 16 % and 84 % quantiles, 1 where that is 0: a robust sigma."""
    low, high = np.quantile(reference, [0.16, 0.84], axis=0)
    return np.where(high > low, (high - low) / 2, 1.0)
