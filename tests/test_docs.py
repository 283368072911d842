from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


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
