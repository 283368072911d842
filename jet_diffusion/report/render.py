"""Fill the templates of reports and cards; text from files is escaped, so that it shows as itself.

A name, a description or an attribute of a file may hold anything. In Markdown and in HTML alike, control characters
become visible escapes, line breaks become spaces, and characters that would begin a heading, a link, a table cell or a
tag are written as themselves.
"""

from __future__ import annotations

import base64
import re
from functools import partial
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import BaseLoader, ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from jet_diffusion.errors import printable
from jet_diffusion.io import write_text_atomically
from jet_diffusion.report.model import MetricResult, Report
from jet_diffusion.report.tables import number, tables, verdict

TILES = (
    "fpd",
    "fpd_image",
    "kpd",
    "mean_w1",
    "mean_w1_image",
    "auc_observables",
    "auc_image",
    "auc_voxels",
    "auc_resnet",
    "auc_convnextv2",
    "w1_inside_band",
    "memorisation_observables",
    "tagger_fraction",
    "ms_per_jet",
)
"""Results shown large at the top of the page, where the report has them."""

VERDICTS = ("met", "missed", "no power", "inside", "outside", "outside both")
"""Cells that the page colours."""

_TITLE = "Evaluation of generated jets"
_WIDE = " (wide)"


def markdown_text(text: object) -> str:
    """Escape text so that Markdown shows it as it is: no heading, list, table cell, link, code or HTML."""
    escaped = re.sub(r"[\\`*|~$]|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", printable(text, None))
    escaped = escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # At the start of a line these would begin a heading or a list; a number such as -1.5 would not.
    escaped = re.sub(r"^[#+=-]+(?= )", r"\\\g<0>", escaped)
    return re.sub(r"^(\d+)(?=[.)] )", r"\1\\", escaped)


def code_text(text: object) -> str:
    """Put text on one line for a code span or block, without the backticks that would end it."""
    return printable(text, None).replace("`", "'")


def _anchor(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def _environment(*, html: bool) -> Environment:
    loader: BaseLoader = ChoiceLoader(
        [PackageLoader("jet_diffusion.report", "templates"), PackageLoader("jet_diffusion", "model_cards")]
    )
    escape = (
        partial(printable, limit=None) if html else markdown_text
    )  # HTML's own characters are escaped by autoescape
    environment = Environment(
        loader=loader,
        autoescape=html,
        finalize=lambda value: value if isinstance(value, Markup) else escape(value),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"anchor": _anchor, "code": lambda text: Markup(code_text(text))}
    return environment


def render_markdown(template: str, **values: Any) -> str:
    """Fill a Markdown template of `report/templates` or `model_cards`; every value is escaped.

    A template marks text that is Markdown already with `|safe`, and values in code with `|code`.
    """
    return _environment(html=False).get_template(template).render(**values)


def to_markdown(report: Report) -> str:
    """Write the report as Markdown, notices first."""
    title = report.heading.get("title", _TITLE)
    return render_markdown("report.md.j2", title=title, report=report, tables=tables(report)).rstrip() + "\n"


def to_html(report: Report, folder: Path) -> str:
    """Write the report as one HTML page that holds its own pictures and needs no network.

    Args:
        report: the report.
        folder: where its pictures lie.

    Raises:
        FileNotFoundError: a picture is missing.
    """
    by_name = {result.name: result for result in report.results}
    shown = tables(report)
    first = 1 if report.results else 0
    return (
        _environment(html=True)
        .get_template("report.html.j2")
        .render(
            title=report.heading.get("title", _TITLE),
            notices=report.notices,
            tiles=[_tile(by_name[name]) for name in TILES if name in by_name],
            first=shown[:first],
            rest=shown[first:],
            sections=[
                (section, [_picture(entry, folder) for entry in entries])
                for section, entries in groupby(report.pictures, key=lambda entry: entry["section"])
            ],
            verdicts=VERDICTS,
            style=Markup((files("jet_diffusion.report") / "templates" / "style.css.j2").read_text(encoding="utf-8")),
        )
    )


def write_texts(report: Report, folder: Path) -> None:
    """Write report.json, report.md and report.html."""
    report.save(folder)
    write_text_atomically(folder / "report.md", to_markdown(report))
    write_text_atomically(folder / "report.html", to_html(report, folder))


def _tile(result: MetricResult) -> dict[str, str]:
    baseline = number(result.baseline, result.baseline_error)
    return {
        "label": result.label,
        "value": number(result.value, result.error),
        "below": result.unit if result.baseline is None else f"baseline {baseline}",
        "goal": result.goal.text if result.goal else "",
        "verdict": verdict(result),
    }


def _picture(entry: dict[str, str], folder: Path) -> dict[str, Any]:
    content = (folder / f"{entry['file']}.png").read_bytes()
    return {
        "data": base64.b64encode(content).decode("ascii"),
        "wide": entry["caption"].endswith(_WIDE),
        "caption": entry["caption"].removesuffix(_WIDE),
    }
