from __future__ import annotations

from pathlib import Path

import pytest

from jet_diffusion.evaluation.goals import all_goals, inside_band_goal, response_bins_goal, response_goal

DOCUMENT = Path(__file__).parents[2] / "docs" / "evaluation.md"


def documented():
    """Result -> goal in words, from the document's table."""
    section = DOCUMENT.read_text(encoding="utf-8").split("\n## Goals\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {name.strip("`"): goal.split(", or ")[0] for name, _, goal in rows}


def test_the_document_has_every_goal_of_the_code():
    assert documented() == {name: goal.text for name, goal in all_goals().items()}


def test_goals_are_lowered_where_chance_allows_less():
    assert inside_band_goal(0.81).low == 0.81 and inside_band_goal(0.95).low == 0.9
    assert response_goal(0.001).text == "0.99 to 1.01"
    assert response_goal(0.01).high == pytest.approx(1.0258, abs=1e-4)
    assert response_bins_goal(5).high == pytest.approx(3.017, abs=1e-3)
