"""Samples that are plainly wrong: every headline metric must put each of them below an independent real sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.sparse import csr_array, vstack

from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.observables.hits import PIXELS, Array
from jet_diffusion.schema import CHANNELS, CLASS_NAMES, IMAGE_SHAPE

Control = Callable[[JetSample, np.random.Generator], JetSample]
"""(real jets, random generator) -> as many wrong jets with the same labels."""

ENERGY_SCALE = 1.25
BLUR_CRYSTALS = 3


def blank(real: JetSample, rng: np.random.Generator) -> JetSample:
    """Jets without any energy."""
    return real.with_voxels(csr_array(real.voxels.shape, dtype=np.float32))


def mean_image(real: JetSample, rng: np.random.Generator) -> JetSample:
    """The mean image of each jet's class, over and over."""
    classes = [label for label in range(len(CLASS_NAMES)) if (real.labels == label).any()]
    means = [csr_array(real.voxels[real.labels == label].mean(axis=0)[None].astype(np.float32)) for label in classes]
    averages = JetSample(vstack(means, format="csr"), np.array(classes), *np.zeros((2, len(classes))))
    _ = averages.observables  # of one image a class, so that they need not be computed for every copy
    copies = averages.take(np.searchsorted(classes, real.labels))
    return replace(copies, pt=real.pt, m0=real.m0, source=real.source)


def blurred(real: JetSample, rng: np.random.Generator) -> JetSample:
    """Each image averaged over 3x3 crystals."""
    return real.map(lambda energies: uniform_filter(energies, (0, 0, BLUR_CRYSTALS, BLUR_CRYSTALS), mode="constant"))


def pixel_shuffled(real: JetSample, rng: np.random.Generator) -> JetSample:
    """Each channel's pixels in random places: energies and hits as they were."""

    def shuffle(energies: Array) -> Array:
        flat = energies.reshape(-1, len(CHANNELS), PIXELS)
        return rng.permuted(flat, axis=-1).reshape(-1, *IMAGE_SHAPE)

    return real.map(shuffle)


def energy_scaled(real: JetSample, rng: np.random.Generator) -> JetSample:
    """All energies x 1.25."""
    scaled = real.voxels.copy()
    scaled.data *= np.float32(ENERGY_SCALE)
    return real.with_voxels(scaled)


def wrong_class(real: JetSample, rng: np.random.Generator) -> JetSample:
    """The same jets, each labelled as the other class; seen by comparing class by class."""
    return real.with_labels(1 - real.labels)


CONTROLS: dict[str, Control] = {
    "blank": blank,
    "mean image": mean_image,
    "blurred": blurred,
    "pixel-shuffled": pixel_shuffled,
    "wrong class": wrong_class,
    "energy-scaled": energy_scaled,
}
"""Name -> control. The copier of training jets is the memorisation test's own control."""
