"""Pictures of where generated and real jets have their energy."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from scipy.sparse import csr_array

from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.evaluation.result import Evaluation
from jet_diffusion.observables.hits import CRYSTAL_CENTRES, TOWER_PITCH, Array
from jet_diffusion.plotting.style import GENERATED, RATIO_LIMITS, REAL, Figure, styled
from jet_diffusion.schema import CHANNEL_LABELS, CLASS_NAMES, GEV_PER_UNIT, NUM_TOWERS

REAL_ERROR = 0.2
"""A tower is drawn where the real mean is known this well; asking it of the generated mean would favour low ones."""


@styled()
def radial_profiles(evaluation: Evaluation) -> Figure:
    """Mean energy per crystal against the distance from the image's centre, in each channel, with standard errors."""
    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    panels = figure.subplots(2, 3, sharex=True, height_ratios=(3, 1))
    edges = np.linspace(0, 1.1, 23)
    kinds = (("real", evaluation.reference, REAL), ("generated", evaluation.generated, GENERATED))
    profiles = {name: radial_profile(sample, edges) for name, sample, _ in kinds}
    for index, label in enumerate(CHANNEL_LABELS):
        real = profiles["real"][0][index]
        for name, _, colour in kinds:
            mean, error = (values[index] for values in profiles[name])
            relative = [
                np.divide(values, real, where=real > 0, out=np.full(len(real), np.nan)) for values in (mean, error)
            ]
            for axes, (middle, width) in zip(panels[:, index], ((mean, error), relative), strict=True):
                band = {"baseline": middle - width, "fill": True, "color": colour, "alpha": 0.3}
                axes.stairs(middle + width, edges, **band)
                axes.stairs(middle, edges, baseline=None, color=colour, lw=1.4, label=name)
        panels[1, index].set(ylim=RATIO_LIMITS, xlabel=r"$\Delta R$ from the centre")
        panels[0, index].set(title=label, yscale="log")
    panels[0, 0].set_ylabel("mean energy per crystal [GeV]")
    panels[1, 0].set_ylabel("gen. / real")
    panels[0, 0].legend()
    return figure


def radial_profile(sample: JetSample, edges: Array) -> tuple[Array, Array]:
    """Mean energy per crystal in rings about the image's centre, and its standard error over the jets.

    Args:
        sample: N jets.
        edges: (R + 1,) distances from the centre, rising from 0.

    Returns:
        Two arrays (3, R), GeV.
    """
    radius = np.hypot(CRYSTAL_CENTRES[:, None], CRYSTAL_CENTRES).ravel()
    ring, rings = np.digitize(radius, edges) - 1, len(edges) - 1
    crystal = np.flatnonzero(ring < rings)
    rows = [crystal + channel * len(radius) for channel in range(3)]
    columns = [ring[crystal] + channel * rings for channel in range(3)]
    share = np.tile(GEV_PER_UNIT / np.bincount(ring[crystal], minlength=rings)[ring[crystal]], 3)
    place = np.concatenate(rows), np.concatenate(columns)
    profiles = (sample.voxels @ csr_array((share, place), shape=(3 * len(radius), 3 * rings))).toarray()
    error = profiles.std(axis=0) / np.sqrt(max(len(sample), 1))
    return profiles.mean(axis=0).reshape(3, rings), error.reshape(3, rings)


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
        bar.minorticks_off()
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
