"""The evaluation report: every figure with its error, floor and sample size, and how it came to be.

`report.json` is the one source of numbers: the table, the page and the model cards read them from it.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from jet_diffusion.io import write_text_atomically

SCHEMA_VERSION = 1
REPORT_FILE = "report.json"


def refuse_existing(folder: Path, *, overwrite: bool) -> None:
    """Keep a report from being written over another unless that was asked for.

    Raises:
        FileExistsError: If the folder holds a report already.
    """
    if (folder / REPORT_FILE).exists() and not overwrite:
        raise FileExistsError(f"{folder} holds a report already; choose another folder or --overwrite")


@dataclass(frozen=True)
class Goal:
    """What a figure should reach.

    Attributes:
        low: smallest accepted, or None.
        high: largest accepted, or None.
        of: "value" or "excess": what is held against the limits. An excess is measured in floors.
    """

    low: float | None = None
    high: float | None = None
    of: str = "value"

    @property
    def text(self) -> str:
        """The goal in words."""
        unit = " floors above the floor" if self.of == "excess" else ""
        if self.low is not None and self.high is not None:
            return f"{self.low:.4g} to {self.high:.4g}{unit}"
        return f"<= {self.high:.4g}{unit}" if self.high is not None else f">= {self.low:.4g}{unit}"


@dataclass(frozen=True)
class Figure:
    """One number of a report.

    Attributes:
        name: identifier.
        label: name in tables.
        group: section it stands in.
        value: the number.
        error: its standard error, or None.
        floor: the same number between two real samples, or None where there is none.
        floor_error: standard error of the floor.
        size: jets in each sample.
        unit: unit; empty for none.
        goal: what it should reach, or None.
        counts: whether it may be believed; a classifier without power does not count.
        note: what a reader must know.
    """

    name: str
    label: str
    group: str
    value: float
    error: float | None
    floor: float | None
    floor_error: float | None
    size: int
    unit: str = ""
    goal: Goal | None = None
    counts: bool = True
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal or if the figure does not count."""
        if self.goal is None or not self.counts:
            return None
        held = self.value
        if self.goal.of == "excess":
            if not self.floor or self.floor <= 0:
                return None
            held = (self.value - self.floor) / self.floor
        above = self.goal.low is None or held >= self.goal.low
        return bool(above and (self.goal.high is None or held <= self.goal.high))


@dataclass
class Report:
    """Figures, tables and pictures of one evaluation.

    Attributes:
        heading: command, time, seed, samples with their fingerprints, versions.
        notices: what must be said before any number.
        figures: the numbers.
        omitted: what was left out: name and reason.
        tables: name -> rows, each a dictionary of plain values.
        pictures: file (relative to the report, without suffix), caption and section of each picture.
    """

    heading: dict[str, Any]
    notices: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    omitted: list[dict[str, str]] = field(default_factory=list)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    pictures: list[dict[str, str]] = field(default_factory=list)

    def add(self, *figures: Figure) -> None:
        """Put figures in.

        Raises:
            ValueError: if a name is there already.
        """
        for figure in figures:
            if any(other.name == figure.name for other in self.figures):
                raise ValueError(f"the report holds {figure.name!r} already")
            self.figures.append(figure)

    def omit(self, name: str, reason: object) -> None:
        """Say why a figure is not there."""
        self.omitted.append({"name": name, "reason": str(reason)})

    def figure(self, name: str) -> Figure:
        """The figure of that name.

        Raises:
            ValueError: if it was left out or never existed.
        """
        for figure in self.figures:
            if figure.name == name:
                return figure
        reasons = [entry["reason"] for entry in self.omitted if entry["name"] == name]
        raise ValueError(f"the report has no figure {name!r}" + (f": {reasons[0]}" if reasons else ""))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; numbers that JSON lacks become null."""
        rows = [{**asdict(figure), "met": figure.met} for figure in self.figures]
        return _plain(
            {
                "schema_version": SCHEMA_VERSION,
                "heading": self.heading,
                "notices": self.notices,
                "figures": rows,
                "omitted": self.omitted,
                "tables": self.tables,
                "pictures": self.pictures,
            }
        )

    def save(self, folder: Path) -> Path:
        """Write `report.json` into a folder, which must exist; returns its path."""
        path = folder / REPORT_FILE
        write_text_atomically(path, json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")
        return path

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read a report back.

        Args:
            path: the file, or the folder that holds it.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is no report, or of another schema version.
        """
        path = Path(path)
        path = path / REPORT_FILE if path.is_dir() else path
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is no report: {error}") from error
        version = content.get("schema_version") if isinstance(content, dict) else None
        if version != SCHEMA_VERSION:
            raise ValueError(f"{path} has schema version {version}, this package reads {SCHEMA_VERSION}")
        parts = {name: content[name] for name in ("heading", "notices", "omitted", "tables", "pictures")}
        return cls(figures=[_figure(row) for row in content["figures"]], **parts)


def _figure(row: dict[str, Any]) -> Figure:
    known = {item.name for item in fields(Figure)}
    values = {name: value for name, value in row.items() if name in known}
    values["goal"] = Goal(**row["goal"]) if row.get("goal") else None
    values["value"] = math.nan if row["value"] is None else row["value"]
    return Figure(**values)


def _plain(value: Any) -> Any:
    """Only what JSON has: numpy scalars become Python's, not-a-number and infinity become null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
