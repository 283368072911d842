"""The evaluation report: every number with its error, its baseline (real against real) and its sample size.

`report.json` is the one source of numbers: tables, pages and model cards read them from it.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from jet_diffusion.errors import UserError
from jet_diffusion.io import write_text_atomically

SCHEMA_VERSION = 2
REPORT_FILE = "report.json"


def refuse_existing(folder: Path, *, overwrite: bool) -> None:
    """Refuse to write a report over another unless the user asked for it.

    Raises:
        FileExistsError: If the folder holds a report already.
    """
    if (folder / REPORT_FILE).exists() and not overwrite:
        raise FileExistsError(f"{folder} holds a report already; choose another folder or --overwrite")


@dataclass(frozen=True)
class Goal:
    """What a metric should reach.

    Attributes:
        low: smallest accepted value, or None.
        high: largest accepted value, or None.
        of: what the limits are compared with: "value", or "excess", which is (value - baseline) / baseline.
    """

    low: float | None = None
    high: float | None = None
    of: str = "value"

    @property
    def text(self) -> str:
        """The goal in words."""
        shift, unit = (1, " times the baseline") if self.of == "excess" else (0, "")
        low, high = (None if limit is None else f"{limit + shift:.4g}" for limit in (self.low, self.high))
        if low is not None and high is not None:
            return f"{low} to {high}{unit}"
        return f"at most {high}{unit}" if low is None else f"at least {low}{unit}"


@dataclass(frozen=True)
class MetricResult:
    """One number of a report with its error, its baseline, its sample size and its goal.

    Attributes:
        name: identifier.
        label: name in tables.
        group: section it stands in.
        value: the number.
        error: its standard error, or None.
        baseline: the same number for real jets against other real jets, or None where there is none.
        baseline_error: standard error of the baseline.
        size: jets in each sample.
        unit: unit; empty for none.
        goal: what the number should reach, or None.
        has_power: whether the number may be believed; an AUC of a classifier that finds nothing may not.
        note: what a reader must know.
    """

    name: str
    label: str
    group: str
    value: float
    error: float | None
    baseline: float | None
    baseline_error: float | None
    size: int
    unit: str = ""
    goal: Goal | None = None
    has_power: bool = True
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal or without power."""
        if self.goal is None or not self.has_power:
            return None
        compared = self.value
        if self.goal.of == "excess":
            if not self.baseline or self.baseline <= 0:
                return None
            compared = (self.value - self.baseline) / self.baseline
        above = self.goal.low is None or compared >= self.goal.low
        return bool(above and (self.goal.high is None or compared <= self.goal.high))


@dataclass
class Report:
    """Results, tables and pictures of one evaluation.

    Attributes:
        heading: command, time, seed, samples with their fingerprints, versions.
        notices: what must be said before any number.
        results: the numbers.
        omitted: what was left out: name and reason.
        tables: name -> rows, each a dictionary of plain values.
        pictures: file (relative to the report, without suffix), caption and section of each picture.
    """

    heading: dict[str, Any]
    notices: list[str] = field(default_factory=list)
    results: list[MetricResult] = field(default_factory=list)
    omitted: list[dict[str, str]] = field(default_factory=list)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    pictures: list[dict[str, str]] = field(default_factory=list)

    def add(self, *results: MetricResult) -> None:
        """Add results.

        Raises:
            UserError: if a name is there already.
        """
        for result in results:
            if any(other.name == result.name for other in self.results):
                raise UserError(f"the report holds {result.name!r} already")
            self.results.append(result)

    def omit(self, name: str, reason: object) -> None:
        """Note why a result could not be computed."""
        self.omitted.append({"name": name, "reason": str(reason)})

    def result(self, name: str) -> MetricResult:
        """Return the result of a name.

        Raises:
            UserError: if it was left out or never existed.
        """
        for result in self.results:
            if result.name == name:
                return result
        reasons = [entry["reason"] for entry in self.omitted if entry["name"] == name]
        raise UserError(f"the report has no result {name!r}" + (f": {reasons[0]}" if reasons else ""))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; NaN and infinity become null."""
        rows = [{**asdict(result), "met": result.met} for result in self.results]
        return _plain(
            {
                "schema_version": SCHEMA_VERSION,
                "heading": self.heading,
                "notices": self.notices,
                "results": rows,
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
        """Read a report back, also one of an older schema version.

        Args:
            path: the file, or the folder that holds it.

        Raises:
            FileNotFoundError: there is none.
            UserError: it is no report, or of a newer schema version.
        """
        path = Path(path)
        path = path / REPORT_FILE if path.is_dir() else path
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise UserError(f"{path} is no report: {error}") from error
        version = content.get("schema_version") if isinstance(content, dict) else None
        if version == 1:
            content = _from_version_1(content)
        elif version != SCHEMA_VERSION:
            raise UserError(f"{path} has schema version {version}, this package reads 1 to {SCHEMA_VERSION}")
        parts = {name: content[name] for name in ("heading", "notices", "omitted", "tables", "pictures")}
        return cls(results=[_result(row) for row in content["results"]], **parts)


def _result(row: dict[str, Any]) -> MetricResult:
    known = {item.name for item in fields(MetricResult)}
    values = {name: value for name, value in row.items() if name in known}
    values["goal"] = Goal(**row["goal"]) if row.get("goal") else None
    values["value"] = math.nan if row["value"] is None else row["value"]
    return MetricResult(**values)


def _from_version_1(content: dict[str, Any]) -> dict[str, Any]:
    """Rename a report of version 1, which called results figures, baselines floors, known perturbations a ladder."""

    def renamed(row: dict[str, Any]) -> dict[str, Any]:
        return {re.sub(r"(^|_)floor", r"\1baseline", key): value for key, value in row.items()}

    results = [renamed({**row, "has_power": row["counts"]}) for row in content["figures"]]
    tables = {
        "perturbations" if name == "ladder" else name: [renamed(row) for row in rows]
        for name, rows in content["tables"].items()
    }
    return {**content, "results": results, "tables": tables}


def _plain(value: Any) -> Any:
    """Turn a value into what JSON has: numpy scalars become Python's, NaN and infinity become null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
