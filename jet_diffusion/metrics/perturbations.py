"""Known perturbations: real jets with a known fault, which a metric must see before it is believed.

`CONTROLS` are plainly wrong: every headline metric must see each of them. `PERTURBATIONS` are small faults that show
how much a classifier can see.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.sparse import csr_array, vstack

from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.observables.hits import PIXELS, Array
from jet_diffusion.schema import CHANNELS, CLASS_NAMES, CRYSTALS_PER_TOWER, HCAL, IMAGE_SHAPE, NUM_TOWERS

Perturbation = Callable[[JetSample, np.random.Generator], JetSample]
"""(real jets, random generator) -> as many changed jets; the input stays as it is."""

BLUR_CRYSTALS = 3
DROPPED = 0.05
SMEARING = 0.10


def blank(real: JetSample, rng: np.random.Generator) -> JetSample:
    """Remove all energy."""
    return real.with_voxels(csr_array(real.voxels.shape, dtype=np.float32))


def mean_image(real: JetSample, rng: np.random.Generator) -> JetSample:
    """Replace each jet by the mean image of its class."""
    classes = [label for label in range(len(CLASS_NAMES)) if (real.labels == label).any()]
    means = [csr_array(real.voxels[real.labels == label].mean(axis=0)[None].astype(np.float32)) for label in classes]
    averages = JetSample(vstack(means, format="csr"), np.array(classes), *np.zeros((2, len(classes))))
    _ = averages.observables  # of one image a class, so that they need not be computed for every copy
    copies = averages.take(np.searchsorted(classes, real.labels))
    return replace(copies, pt=real.pt, m0=real.m0, source=real.source)


def blurred(real: JetSample, rng: np.random.Generator) -> JetSample:
    """Average each image over 3x3 crystals."""
    return real.map(lambda energies: uniform_filter(energies, (0, 0, BLUR_CRYSTALS, BLUR_CRYSTALS), mode="constant"))


def pixel_shuffled(real: JetSample, rng: np.random.Generator) -> JetSample:
    """Put each channel's pixels in random places; their energies stay."""

    def shuffle(energies: Array) -> Array:
        flat = energies.reshape(-1, len(CHANNELS), PIXELS)
        return rng.permuted(flat, axis=-1).reshape(-1, *IMAGE_SHAPE)

    return real.map(shuffle)


def wrong_class(real: JetSample, rng: np.random.Generator) -> JetSample:
    """Label each jet as the other class; only a comparison class by class can see it."""
    return real.with_labels(1 - real.labels)


def energy_scaled(real: JetSample, rng: np.random.Generator, factor: float) -> JetSample:
    """Multiply all energies by a factor."""
    scaled = real.voxels.copy()
    scaled.data *= np.float32(factor)
    return real.with_voxels(scaled)


def hits_dropped(real: JetSample, rng: np.random.Generator) -> JetSample:
    """Remove 5 % of the hits; an HCAL tower is one hit."""
    return real.map(lambda energies: energies * (_per_hit(energies, rng.random) >= DROPPED))


def hits_smeared(real: JetSample, rng: np.random.Generator) -> JetSample:
    """Smear each hit's energy by a Gaussian of 10 %; an HCAL tower is one hit."""

    def smear(energies: Array) -> Array:
        factors = _per_hit(energies, lambda shape: 1 + SMEARING * rng.normal(size=shape))
        return energies * np.clip(factors, 0, None).astype(np.float32)

    return real.map(smear)


def hcal_shared_wrongly(real: JetSample, rng: np.random.Generator) -> JetSample:
    """Share each HCAL tower's energy at random over its 25 crystals instead of evenly; its sum stays."""

    def share(energies: Array) -> Array:
        changed = energies.copy()
        blocks = changed[:, HCAL].reshape(-1, NUM_TOWERS, CRYSTALS_PER_TOWER, NUM_TOWERS, CRYSTALS_PER_TOWER)
        shares = rng.standard_exponential(blocks.shape, dtype=np.float32)
        blocks *= shares / shares.mean(axis=(2, 4), keepdims=True)
        changed[:, HCAL] = blocks.reshape(changed[:, HCAL].shape)
        return changed

    return real.map(share)


def _per_hit(energies: Array, draw: Callable[[tuple[int, ...]], Array]) -> Array:
    """(N, 3, 125, 125) random numbers, one per crystal of tracks and ECAL and one per HCAL tower."""
    numbers = draw(energies.shape)
    towers = numbers[:, HCAL, ::CRYSTALS_PER_TOWER, ::CRYSTALS_PER_TOWER]
    numbers[:, HCAL] = towers.repeat(CRYSTALS_PER_TOWER, axis=1).repeat(CRYSTALS_PER_TOWER, axis=2)
    return numbers


CONTROLS: dict[str, Perturbation] = {
    "blank": blank,
    "mean image": mean_image,
    "blurred": blurred,
    "pixel-shuffled": pixel_shuffled,
    "wrong class": wrong_class,
    "energy-scaled": partial(energy_scaled, factor=1.25),
}
"""Name -> plainly wrong jets. `copied_training_jets` is the control of memorisation."""

PERTURBATIONS: dict[str, Perturbation] = {
    "energies x1.03": partial(energy_scaled, factor=1.03),
    "10 % smeared": hits_smeared,
    "5 % of hits dropped": hits_dropped,
    "HCAL shared wrongly": hcal_shared_wrongly,
}
"""Name -> jets with a small fault, the weakest first for a classifier on observables."""


def perturb(name: str, real: JetSample, seed: int) -> JetSample:
    """Apply one of `PERTURBATIONS`; the same seed gives the same jets."""
    return PERTURBATIONS[name](real, np.random.default_rng([seed, list(PERTURBATIONS).index(name)]))


def copied_training_jets(
    training: JetSample, num_jets: int, rng: np.random.Generator, smearing: float = 0.01
) -> JetSample:
    """Take training jets with every energy smeared by 1 %: what a generator that memorises would give."""
    copies = training.take(rng.integers(len(training), size=num_jets))
    voxels = copies.voxels.copy()
    voxels.data = (voxels.data * (1 + smearing * rng.normal(size=len(voxels.data)))).astype(np.float32)
    return copies.with_voxels(voxels)
