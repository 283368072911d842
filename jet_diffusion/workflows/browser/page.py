"""The page in a browser: a form, the jets it makes, and their files. Nothing is computed here."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from jet_diffusion.errors import UserError
from jet_diffusion.report.render import markdown_text
from jet_diffusion.schema import CLASS_NAMES
from jet_diffusion.workflows.browser.jets import SHOWN_JETS, JetBrowser, Wish

DRAWN = "any"
"""The choice of the class that lets the model draw it."""

BUTTONS = ["download", "fullscreen"]

STYLE = "<style>@media (max-width: 600px) { .jets .grid-container { grid-template-columns: 1fr !important } }</style>"
"""One jet a line in a narrow window."""

PROGRESS = gr.Progress()
"""As a default it asks Gradio for the bar of a call."""

KEPT_SECONDS = 3600
"""A visitor's files are deleted so long after they were made, or when the visitor has left."""


class StoppedError(Exception):
    """A visitor stopped the sampling."""


def make_page(browser: JetBrowser) -> gr.Blocks:
    """The page of a model."""
    stopping: set[str] = set()
    with gr.Blocks(title="Jets", analytics_enabled=False, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)) as page:
        folder = gr.State(None, time_to_live=KEPT_SECONDS, delete_callback=_remove)
        gr.HTML(STYLE, padding=False)
        gr.Markdown(_heading(browser))
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                form = _form(browser)
                with gr.Row():
                    make = gr.Button("Generate", variant="primary", min_width=120)
                    stop = gr.Button("Stop", min_width=80)
                status = gr.Markdown("Ready.", min_height=120)
            with gr.Column(scale=3, min_width=320):
                shown = _shown(browser)
        # The scheduler of a pipeline has a state, so that one visitor is served at a time; others wait in line.
        make.click(
            _generator(browser, stopping),
            [*form, folder],
            [status, *shown, folder],
            concurrency_limit=1,
            show_progress_on=status,
        )

        def end(request: gr.Request) -> None:
            stopping.add(str(request.session_hash))

        stop.click(end, queue=False, show_progress="hidden")
    return page


def _generator(browser: JetBrowser, stopping: set[str]) -> Callable[..., list[Any]]:
    """What the button does: makes a visitor's jets, in a folder that takes the place of the last one.

    Args:
        browser: Makes the jets.
        stopping: Visitors who pressed the other button.
    """

    def generate(request: gr.Request, progress: gr.Progress = PROGRESS, *values: Any) -> list[Any]:
        *wishes, old = values
        visitor = str(request.session_hash)
        stopping.discard(visitor)

        def on_step(done: int, steps: int) -> None:
            if visitor in stopping:
                raise StoppedError
            progress((done, steps), desc="denoising", unit="steps")

        new = Path(tempfile.mkdtemp(prefix="jet-diffusion-"))
        try:
            made = browser.make(_wish(browser, wishes), new, on_step)
        except (UserError, StoppedError) as error:
            _remove(new)
            text = f"**Not possible:** {markdown_text(error)}." if isinstance(error, UserError) else "Stopped."
            return [text, *[gr.skip()] * 6]
        _remove(old)
        downloads = [gr.DownloadButton(value=file, interactive=True) for file in (made.file, made.sheet)]
        return [made.text, made.jets, made.animation, made.observables, *downloads, new]

    return generate


def _shown(browser: JetBrowser) -> list[Any]:
    """Where jets, animation and observables are shown, and the buttons for the two files."""
    with gr.Tab("Jets"):
        gr.Markdown("Energy on a log scale. Click a jet to enlarge it.")
        gallery = gr.Gallery(show_label=False, columns=2, height=900, object_fit="contain", elem_classes="jets")
    with gr.Tab("Denoising"):
        gr.Markdown("The first jet, from noise to the last step.")
        animation = gr.Image(show_label=False, interactive=False, buttons=BUTTONS)
    with gr.Tab("Observables"):
        kind = "simulated" if browser.real.simulated else "real"
        gr.Markdown(f"Generated jets over {len(browser.real)} {kind} ones. Many jets make it smooth.")
        observables = gr.Image(show_label=False, interactive=False, buttons=BUTTONS)
    with gr.Row():
        data = gr.DownloadButton("Jets (HDF5)", interactive=False, min_width=120)
        sheet = gr.DownloadButton("Picture (PNG)", interactive=False, min_width=120)
    return [gallery, animation, observables, data, sheet]


def _form(browser: JetBrowser) -> list[Any]:
    """The inputs, in the order of `_wish`."""
    form = []
    if browser.conditional:
        form.append(gr.Radio([DRAWN, *CLASS_NAMES], value=DRAWN, label="class"))
        limits = browser.pipeline.first_stage.limits().tolist()
        for name, (low, high) in zip(("pT", "mass"), limits, strict=True):
            info = f"{low:.0f} to {high:.0f} in training; empty: drawn by the model"
            form.append(gr.Textbox("", label=f"{name} [GeV]", info=info))
    jets = f"1 to {browser.most_jets}; the first {SHOWN_JETS} are shown"
    form.append(gr.Textbox(str(min(8, browser.most_jets)), label="number of jets", info=jets))
    with gr.Row():  # beside each other, so that the button and the progress are seen without scrolling
        steps = f"1 to {browser.most_steps}; more are better"
        form.append(gr.Textbox(str(browser.default_steps), label="steps", info=steps, min_width=100))
        form.append(gr.Textbox("0", label="seed", info="same seed, same jets", min_width=100))
    return form


def _wish(browser: JetBrowser, values: list[Any]) -> Wish:
    *conditions, num_jets, steps, seed = values
    if not browser.conditional:
        return Wish(num_jets, steps, seed)
    label, pt, m0 = conditions
    return Wish(num_jets, steps, seed, "" if label == DRAWN else label, pt, m0)


def _heading(browser: JetBrowser) -> str:
    text = f"Calorimeter images, made from noise by the model **{markdown_text(browser.name)}**."
    if browser.pipeline.config.provenance:
        text += f" It was trained on simulated jets: {browser.pipeline.config.provenance}."
    return f"# Quark and gluon jets\n\n{text}"


def _remove(folder: Path | None) -> None:
    """Delete a visitor's folder."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
