"""Pictures of where generated and real jets have their energy."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps

from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.evaluation.result import Evaluation
from jet_diffusion.observables.hits import CRYSTAL_CENTRES, TOWER_PITCH, Array
from jet_diffusion.plotting.style import GENERATED, RATIO_LIMITS, REAL, Figure, styled
from jet_diffusion.schema import CHANNEL_LABELS, CLASS_NAMES, GEV_PER_UNIT, NUM_TOWERS

REAL_ERROR = 0.2
"""A tower is drawn where the real mean is known this well; asking it of the generated mean would favour low ones."""


@styled()
def radial_profiles(evaluation: Evaluation) -> Figure:
    """Mean energy per crystal against the distance from the image's centre, in each channel."""
    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    panels = figure.subplots(2, 3, sharex=True, height_ratios=(3, 1))
    radius = np.hypot(CRYSTAL_CENTRES[:, None], CRYSTAL_CENTRES)
    edges = np.linspace(0, 1.1, 23)
    number = np.histogram(radius, edges)[0]
    means = {"real": mean_images(evaluation.reference), "generated": mean_images(evaluation.generated)}
    for index, label in enumerate(CHANNEL_LABELS):
        profiles = {}
        for name, mean in means.items():
            profiles[name] = np.histogram(radius, edges, weights=mean[index])[0] / number
            colour = REAL if name == "real" else GENERATED
            panels[0, index].stairs(profiles[name], edges, color=colour, lw=1.4, label=name)
        ratio = np.divide(
            profiles["generated"], profiles["real"], where=profiles["real"] > 0, out=np.full(len(number), np.nan)
        )
        panels[1, index].stairs(ratio, edges, color=GENERATED, baseline=None)
        panels[1, index].axhline(1, color=REAL, lw=0.7)
        panels[1, index].set(ylim=RATIO_LIMITS, xlabel=r"$\Delta R$ from the centre")
        panels[0, index].set(title=label, yscale="log")
    panels[0, 0].set_ylabel("mean energy per crystal [GeV]")
    panels[1, 0].set_ylabel("gen. / real")
    panels[0, 0].legend()
    return figure


def mean_images(sample: JetSample) -> Array:
    """(3, 125, 125) mean energies in GeV."""
    total = np.asarray(sample.voxels.astype(np.float64).sum(axis=0)).reshape(3, len(CRYSTAL_CENTRES), -1)
    return total / max(len(sample), 1) * GEV_PER_UNIT


@styled()
def mean_image_ratios(evaluation: Evaluation) -> Figure:
    """Ratio of the mean images, generated over real, tower by tower, for each class and channel.

    Towers whose real mean has a relative standard error above `REAL_ERROR` are left blank.
    """
    present = [label for label in range(len(CLASS_NAMES)) if (evaluation.generated.labels == label).any()]
    figure = Figure(figsize=(9.6, 3.1 * max(1, len(present))), layout="constrained")
    panels = figure.subplots(max(1, len(present)), 3, squeeze=False)
    half = NUM_TOWERS / 2 * TOWER_PITCH
    colours = colormaps["RdBu_r"].with_extremes(bad="#e4e4e4")
    every_real = JetSample.join([evaluation.reference, evaluation.second])
    for row, label in enumerate(present):
        real, known = _tower_means(every_real.of_class(label))
        generated, _ = _tower_means(evaluation.generated.of_class(label))
        ratio = np.divide(generated, real, where=known, out=np.full(real.shape, np.nan))
        for column, name in enumerate(CHANNEL_LABELS):
            shown = panels[row, column].imshow(
                np.log2(np.clip(ratio[column], 1 / 16, 16)),
                cmap=colours,
                vmin=-1,
                vmax=1,
                origin="lower",
                extent=(-half, half, -half, half),
            )
            panels[row, column].set(title=f"{CLASS_NAMES[label]}, {name}", xlabel=r"$\Delta\phi$")
            panels[row, 0].set_ylabel(r"$\Delta\eta$")
    if present:
        bar = figure.colorbar(shown, ax=panels, shrink=0.7, ticks=[-1, 0, 1])
        bar.ax.set_yticklabels(["1/2", "1", "2"])
        bar.set_label("mean energy, generated / real")
    return figure


def _tower_means(sample: JetSample) -> tuple[Array, Array]:
    """Mean tower energies, and which of them are known to `REAL_ERROR`: (3, 25, 25) each."""
    towers = sample.tower_energies
    mean = np.asarray(towers.mean(axis=0))
    square = np.asarray(towers.multiply(towers).mean(axis=0))
    error = np.sqrt(np.clip(square - mean**2, 0, None) / len(sample))
    shape = (len(CHANNEL_LABELS), NUM_TOWERS, NUM_TOWERS)
    return mean.reshape(shape), (error < REAL_ERROR * mean).reshape(shape)


@styled()
def hit_spectra(evaluation: Evaluation) -> Figure:
    """Spectrum of the energies of single hits in each channel."""
    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    panels = figure.subplots(2, 3, sharex=True, height_ratios=(3, 1))
    edges = np.geomspace(1e-3, 1e3, 49)
    pixels = len(CRYSTAL_CENTRES) ** 2
    for index, label in enumerate(CHANNEL_LABELS):
        spectra = {}
        for name, sample in (("real", evaluation.reference), ("generated", evaluation.generated)):
            chosen = sample.voxels.data[sample.voxels.indices // pixels == index] * GEV_PER_UNIT
            spectra[name] = np.histogram(chosen, edges)[0] / len(sample)
            panels[0, index].stairs(
                spectra[name], edges, color=REAL if name == "real" else GENERATED, lw=1.4, label=name
            )
        filled = spectra["real"] > 0
        ratio = np.divide(spectra["generated"], spectra["real"], where=filled, out=np.full(len(filled), np.nan))
        panels[1, index].stairs(ratio, edges, color=GENERATED, baseline=None)
        panels[1, index].axhline(1, color=REAL, lw=0.7)
        panels[1, index].set(ylim=RATIO_LIMITS, xlabel="energy of a hit [GeV]", xscale="log")
        panels[0, index].set(title=label, yscale="log")
    panels[0, 0].set_ylabel("hits per jet and bin")
    panels[1, 0].set_ylabel("gen. / real")
    panels[0, 0].legend()
    return figure
