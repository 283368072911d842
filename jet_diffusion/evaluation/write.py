"""Write a report into its folder: report.json, report.md, report.html and the pictures as PNG and PDF."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.evaluation import curves, images, plots
from jet_diffusion.evaluation.result import Evaluation
from jet_diffusion.plotting.jets import plot_mean_images, plot_side_by_side, save_figure
from jet_diffusion.plotting.style import experiment_style, styled
from jet_diffusion.report.render import write_texts
from jet_diffusion.schema import CLASS_NAMES

JETS_SHOWN = 2
"""Jets of each class in the side-by-side picture."""

FORMATS = ("png", "pdf")
PICTURES = "pictures"


def write_report(
    evaluation: Evaluation,
    folder: Path,
    *,
    pictures: bool = True,
    formats: Sequence[str] = FORMATS,
    style: str | None = None,
    progress: bool = False,
) -> None:
    """Draw the pictures and write the report's files.

    Args:
        evaluation: what was found.
        folder: where to; made if it does not exist.
        pictures: whether to draw; it takes as long as the distances of a few thousand jets.
        formats: of the pictures; the page needs "png".
        style: of the pictures: "cms", "atlas", or None for our own.
        progress: whether to show a bar.

    Raises:
        UserError: if there is no such style, or mplhep is not installed.
    """
    (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    drawn = drawings(evaluation) if pictures else iter(())
    with experiment_style(style):
        for name, caption, section, drawing in tqdm(drawn, desc="pictures", unit="picture", disable=not progress):
            save_drawing(drawing, folder, name, formats)
            evaluation.report.pictures.append({"file": f"{PICTURES}/{name}", "caption": caption, "section": section})
    write_texts(evaluation.report, folder)


def save_drawing(drawing: Figure, folder: Path, name: str, formats: Sequence[str] = FORMATS) -> None:
    """Save one picture in each format, in the reports' style."""
    with styled():
        if drawing.get_layout_engine() is not None:
            drawing.draw_without_rendering()
            drawing.set_layout_engine("none")  # what was laid out once need not be for each format
        for suffix in formats:
            save_figure(drawing, folder / PICTURES / f"{name}.{suffix}")


def drawings(evaluation: Evaluation) -> Iterator[tuple[str, str, str, Figure]]:
    """(file name, caption, section, figure) of every picture the evaluation allows."""
    finite = bool(np.isfinite(evaluation.generated.observables).all())
    yield from _jet_drawings(evaluation)
    if evaluation.bands is not None:
        chart = plots.wasserstein_chart(evaluation.bands)
        yield "wasserstein", "W1 of every observable, in units of its own band", "Observables", chart
    for name, page in plots.observable_pages(evaluation):
        caption = "Observables; grey bands: standard error of the real jets"
        yield name, caption, "Observables", page
    if finite:
        drawing = plots.correlation_matrices(evaluation)
        yield "correlations", "Correlations of the observables (wide)", "Observables", drawing
    if evaluation.two_sample:
        roc = plots.roc_curves(evaluation.two_sample)
        yield "roc", "ROC curves of the two-sample tests", "Classifiers", roc
        known = plots.perturbation_chart(evaluation.two_sample)
        caption = "Real jets with known perturbations; a classifier has power if it reaches .9 for one of them"
        yield "perturbations", caption, "Classifiers", known
    if evaluation.report.tables.get("sweep"):
        sweep = curves.sweep_chart(evaluation.report.tables["sweep"])
        yield "sweep", "Quality against cost", "Speed against quality", sweep
    if evaluation.closure:
        closure = plots.closure_chart(evaluation.closure)
        yield "closure", "Response to the asked pT and mass", "Condition closure", closure


def _jet_drawings(evaluation: Evaluation) -> Iterator[tuple[str, str, str, Figure]]:
    report, note = evaluation.report, evaluation.reference.simulated
    samples = {"Real": evaluation.reference, "Generated": evaluation.generated}
    present = [n for n in range(len(CLASS_NAMES)) if all((s.labels == n).any() for s in samples.values())]
    if present:
        real, generated = pairs_of_like_jets(evaluation.reference, evaluation.generated, present)
        columns = zip(real.pt, real.m0, generated.pt, generated.m0, strict=True)
        titles = [
            f"real: pT {pt:.0f}, m {m0:.0f} GeV\nasked: pT {asked_pt:.0f}, m {asked_m0:.0f} GeV"
            for pt, m0, asked_pt, asked_m0 in columns
        ]
        try:
            drawing = plot_side_by_side(real.energies(), generated.energies(), real.labels, note=note, titles=titles)
            yield "jets", "Real and generated jets for nearly the same class, pT and mass (wide)", "Jets", drawing
            sets = {
                f"{name} {CLASS_NAMES[label]}": sample.of_class(label).energies(slice(0, 500))
                for label in present
                for name, sample in samples.items()
            }
            yield "mean_images", "Mean images of up to 500 jets (wide)", "Jets", plot_mean_images(sets, note)
        except ValueError as error:
            report.omit("pictures of jets", error)
    yield (
        "mean_image_ratios",
        "Ratio of the mean images by tower; blank where real jets do not fix it to 20 %",
        "Jets",
        images.mean_image_ratios(evaluation),
    )
    yield (
        "radial_profiles",
        "Mean energy against the distance from the centre (wide)",
        "Jets",
        images.radial_profiles(evaluation),
    )
    yield "hit_spectra", "Energies of single hits (wide)", "Jets", images.hit_spectra(evaluation)


def pairs_of_like_jets(
    real: JetSample, generated: JetSample, labels: Sequence[int], number: int = JETS_SHOWN
) -> tuple[JetSample, JetSample]:
    """Pair generated jets with the real jets of their class whose pT and mass are nearest to those asked for.

    Args:
        real: real jets.
        generated: generated jets, with the conditions they were asked for.
        labels: classes to take jets of; both samples must have some.
        number: jets of each class, at most.

    Returns:
        The real and the generated jets, row by row.
    """
    rows: list[tuple[int, int]] = []
    for label in labels:
        there = np.flatnonzero(real.labels == label)
        known = np.stack([real.pt[there], real.m0[there]])
        scale = np.maximum(known.std(axis=1), 1e-6)[:, None]
        for row in np.flatnonzero(generated.labels == label)[:number]:
            asked = np.array([[generated.pt[row]], [generated.m0[row]]])
            rows.append((there[np.square((known - asked) / scale).sum(axis=0).argmin()], row))
    ours, theirs = np.array(rows).T
    return real.take(ours), generated.take(theirs)
