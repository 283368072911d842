"""The report as one HTML page that holds its own pictures and needs no network."""

from __future__ import annotations

import base64
from html import escape
from itertools import groupby
from pathlib import Path

from jet_diffusion.report.model import Report
from jet_diffusion.report.tables import Table, tables

STYLE = """
:root { color-scheme: light; --ink: #1d2430; --faint: #667085; --line: #d9dee7; --accent: #b84a00; --good: #0b6b3a; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff; font: 16px/1.5 system-ui, sans-serif; }
main, header, nav { max-width: 1180px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 28px; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 8px; }
h2 { font-size: 1.35rem; margin: 44px 0 6px; padding-top: 10px; border-top: 1px solid var(--line); }
p { margin: 6px 0 12px; max-width: 75ch; color: var(--faint); }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; padding-top: 10px; font-size: .92rem; }
a { color: #175cd3; text-decoration: none; }
.notice { border-left: 5px solid var(--accent); background: #fff4ec; padding: 10px 14px; margin: 0 0 10px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 4px 14px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--faint); font-weight: 600; white-space: nowrap; }
td { white-space: nowrap; }
td:first-child { white-space: normal; min-width: 15ch; }
td:last-child { white-space: normal; min-width: 26ch; overflow-wrap: anywhere; }
.met, .inside { color: var(--good); font-weight: 600; }
.missed, .outside, .outside-both { color: var(--accent); font-weight: 600; }
.does-not-count { color: var(--faint); font-style: italic; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(210px, 1fr)); gap: 12px; margin: 16px 0; }
.tile { border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; }
.tile b { display: block; font-size: 1.15rem; font-weight: 650; white-space: nowrap; }
.tile span { display: block; font-size: .82rem; color: var(--faint); }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: 18px; }
figure { margin: 0; }
figure.wide { grid-column: 1 / -1; }
figure img { width: 100%; height: auto; display: block; }
figcaption { font-size: .85rem; color: var(--faint); padding-top: 4px; }
@media (max-width: 640px) { figure.wide img { width: 900px; max-width: none; } h1 { font-size: 1.5rem; } }
"""

TILES = (
    "fpd",
    "kpd",
    "mean_w1",
    "auc_observables",
    "auc_voxels",
    "auc_resnet",
    "auc_convnextv2",
    "w1_inside_band",
    "memorisation_observables",
    "tagger_fraction",
    "ms_per_jet",
)
"""Figures shown large at the top, where the report has them."""


def to_html(report: Report, folder: Path) -> str:
    """The page.

    Args:
        report: the report.
        folder: where its pictures lie.

    Raises:
        FileNotFoundError: a picture is missing.
    """
    title = escape(report.heading.get("title", "Evaluation of generated jets"))
    notices = "".join(f'<div class="notice">{escape(notice)}</div>' for notice in report.notices)
    pictures = [
        (f"Pictures: {section}", f'<div class="pictures">{"".join(_picture(entry, folder) for entry in entries)}</div>')
        for section, entries in groupby(report.pictures, key=lambda entry: entry["section"])
    ]
    written = [_section(table) for table in tables(report)]
    first = 1 if report.figures else 0
    body = [*written[:first], *pictures, *written[first:]]
    links = "".join(f'<a href="#{_anchor(name)}">{escape(name)}</a>' for name, _ in body)
    sections = "".join(f'<h2 id="{_anchor(name)}">{escape(name)}</h2>{content}' for name, content in body)
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
        f"<body><header>{notices}<h1>{title}</h1>{_tiles(report)}</header><nav>{links}</nav>"
        f"<main>{sections}</main></body></html>\n"
    )


def _tiles(report: Report) -> str:
    from jet_diffusion.report.tables import number, verdict

    by_name = {figure.name: figure for figure in report.figures}
    tiles = []
    for figure in (by_name[name] for name in TILES if name in by_name):
        word = verdict(figure)
        floor = f"floor {number(figure.floor, figure.floor_error)}" if figure.floor is not None else figure.unit
        goal = f"goal {figure.goal.text}: " if figure.goal else ""
        status = f'<span>{escape(goal)}<i class="{_anchor(word)}">{escape(word)}</i></span>' if word else ""
        tiles.append(
            f'<div class="tile"><span>{escape(figure.label)}</span><b>{escape(number(figure.value, figure.error))}</b>'
            f"<span>{escape(floor)}</span>{status}</div>"
        )
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def _section(table: Table) -> tuple[str, str]:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = "".join(f"<tr>{''.join(_cell(cell) for cell in row)}</tr>" for row in table.rows)
    text = f"<p>{escape(table.text)}</p>" if table.text else ""
    return table.title, f'{text}<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'


def _cell(text: str) -> str:
    words = ("met", "missed", "does not count", "inside", "outside", "outside both")
    return f'<td class="{_anchor(text)}">{escape(text)}</td>' if text in words else f"<td>{escape(text)}</td>"


def _picture(entry: dict[str, str], folder: Path) -> str:
    content = base64.b64encode((folder / f"{entry['file']}.png").read_bytes()).decode("ascii")
    wide = " class=wide" if entry["caption"].endswith(" (wide)") else ""
    caption = escape(entry["caption"].removesuffix(" (wide)"))
    return (
        f'<figure{wide}><div class="scroll"><img alt="{caption}" loading="lazy" '
        f'src="data:image/png;base64,{content}"></div><figcaption>{caption}</figcaption></figure>'
    )


def _anchor(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())
