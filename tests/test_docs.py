from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def choices_table(rows):
    """The table of docs/model-choices.md: each measurement as `without → with`, in the order of the rows."""
    lines = [
        "| component | compared with | jets judged | mean W1 | FPD | AUC | cost | status | source |",
        "| --- | --- | ---: | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        metrics = " | ".join(measured(*row[name]) for name in ("w1", "fpd", "auc"))
        source = f"[{row['source'].partition('#')[2].replace('-', ' ')}](research-log/{row['source']})"
        cells = (row["component"], row["compared_with"], f"{row['jets_judged']:,}", metrics, row["cost"], row["status"])
        lines.append(f"| {' | '.join(cells)} | {source} |")
    return "\n".join(lines)


def measured(without, with_it, error=None):
    shown = [re.sub(r"^0", "", f"{value:.3f}") for value in (without, with_it, error) if value is not None]
    return f"{shown[0]} → {shown[1]}" + (f" ± {shown[2]}" if error is not None else "")


def test_the_table_of_model_choices_is_that_of_its_json():
    rows = json.loads((ROOT / "docs" / "model-choices.json").read_text())
    assert {row["status"] for row in rows} <= {"default", "optional", "removed"}
    table = choices_table(rows)
    assert table in (ROOT / "docs" / "model-choices.md").read_text(), f"put this table into the page:\n{table}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page)):
        if not link.startswith(("http:", "https:")):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), f"{link}: there is no such file"
            assert not anchor or anchor in anchors(target), f"{link}: {target.name} has no such heading"


@pytest.mark.parametrize("page", [page for page in PAGES if page.is_relative_to(ROOT / "docs")], ids=str)
def test_links_of_the_site_stay_in_it(page):
    for link in re.findall(r"\]\(([^)#\s]+)", without_code(page)):
        inside = (page.parent / link).resolve().is_relative_to(ROOT / "docs")
        assert inside or link.startswith(("http:", "https:")), f"{link} is no page of the site; name the file instead"


def test_the_sites_navigation_has_every_page_once():
    def pages(entry):
        if isinstance(entry, str):
            yield entry
        else:
            for part in entry.values() if isinstance(entry, dict) else entry:
                yield from pages(part)

    navigation = list(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    there = [page.relative_to(ROOT / "docs").as_posix() for page in PAGES if page.is_relative_to(ROOT / "docs")]
    assert sorted(navigation) == sorted(there)


def anchors(page):
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", without_code(page), flags=re.MULTILINE)
    titles = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def without_code(page):
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
