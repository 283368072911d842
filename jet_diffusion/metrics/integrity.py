"""Sanity checks: jets with impossible values, empty or repeated jets, and jets in another unit."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from jet_diffusion.data.jet_set import VOXELS, JetSample
from jet_diffusion.errors import UserError
from jet_diffusion.observables.hits import Array
from jet_diffusion.schema import CHANNELS, CRYSTALS_PER_TOWER, GEV_PER_UNIT, HCAL, NUM_TOWERS

TOWER_TOLERANCE = 1e-4
"""Relative spread within an HCAL tower that rounding to half precision could not make."""

PLAUSIBLE_RESPONSE = (0.2, 20.0)
"""Bounds on the median of real jets' summed energy over their pT; 2.1 in the stand-in jets."""

UNIT_FACTORS = (1e-5, 1e-3, 1e-2, 1e2, 1e3, 1e5)
"""Ratios that a confusion of GeV/100, GeV, MeV and TeV makes."""

UNIT_TOLERANCE = 0.3


def count_faults(sample: JetSample) -> dict[str, int]:
    """Count jets with impossible content.

    Returns:
        Number of jets with `not_finite` values, with `negative` values, `empty`, with `uneven_towers` (HCAL
        not constant in its 5x5 blocks), and `repeated` (an image that an earlier jet has too).
    """
    voxels = sample.voxels
    jet = np.repeat(np.arange(len(sample)), np.diff(voxels.indptr))

    def jets_with(bad: Array) -> int:
        return len(np.unique(jet[bad]))

    images = {voxels.indices[a:b].tobytes() + voxels.data[a:b].tobytes() for a, b in pairwise(voxels.indptr)}
    return {
        "not_finite": jets_with(~np.isfinite(voxels.data)),
        "negative": jets_with(voxels.data < 0),
        "empty": int(np.count_nonzero(np.diff(voxels.indptr) == 0)),
        "uneven_towers": sum(int(_uneven(batch).sum()) for batch in sample.batches()),
        "repeated": len(sample) - len(images),
    }


def _uneven(energies: Array) -> Array:
    """(N,) whether a jet's HCAL varies within a tower."""
    shape = (-1, NUM_TOWERS, CRYSTALS_PER_TOWER, NUM_TOWERS, CRYSTALS_PER_TOWER)
    blocks = energies[:, HCAL].reshape(shape)
    first = blocks[:, :, :1, :, :1]
    uneven = ~(np.abs(blocks - first) <= TOWER_TOLERANCE * np.abs(first))
    return np.asarray(uneven.any(axis=(1, 2, 3, 4)))


def check_units(real: JetSample, generated: JetSample) -> None:
    """Refuse jets that are plainly in another unit than GeV/100.

    Raises:
        UserError: if real jets hold far more or less energy than their pT, or if hits of generated jets are
            a power of ten away from those of real jets in every channel.
    """
    response = float(np.median(real.voxels.sum(axis=1) * GEV_PER_UNIT / real.pt))
    low, high = PLAUSIBLE_RESPONSE
    if not low < response < high:
        raise UserError(
            f"{real.source}: summed energy over pT has median {response:.3g}, expected {low} to {high}; "
            "energies must be in GeV/100 and pt in GeV"
        )
    ratios = typical_hits(generated) / typical_hits(real)
    for factor in UNIT_FACTORS:
        if (np.abs(np.log(ratios / factor)) < UNIT_TOLERANCE).all():
            raise UserError(
                f"{generated.source}: hits are {', '.join(f'{ratio:.3g}' for ratio in ratios)} times the real ones "
                f"in {', '.join(CHANNELS)}, as if in another unit; energies must be in GeV/100"
            )


def typical_hits(sample: JetSample) -> Array:
    """(3,) median non-zero value of each channel, GeV/100; NaN for a channel without hits."""
    channel = sample.voxels.indices // (VOXELS // len(CHANNELS))
    values = [sample.voxels.data[channel == index] for index in range(len(CHANNELS))]
    return np.array([np.median(hits) if len(hits) else np.nan for hits in values])


def condition_mismatch(real: JetSample, generated: JetSample, level: float = 1e-3) -> list[str]:
    """Name those of class, pT and mass whose distribution differs between generated and real jets."""
    from scipy.stats import ks_2samp

    columns = ("labels", "pt", "m0")
    # The exact p-value overflows for thousands of jets with equal numbers in common, and a hundred are asymptotic.
    tests = {name: ks_2samp(getattr(real, name), getattr(generated, name), method="asymp") for name in columns}
    return [name for name, test in tests.items() if test.pvalue < level]
