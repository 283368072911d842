"""Check whether the jets of a file or dataset are plausible: refuse what cannot be right, warn of what is odd.

`JetCheck` takes jets in any number of parts and counts over all of them; `findings` says what it saw. Inspect prints
the findings, convert refuses or puts them on the dataset card, training and evaluation refuse.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from jet_diffusion.data.files.units import PLAUSIBLE_RESPONSE, explain_response, response
from jet_diffusion.errors import UserError
from jet_diffusion.schema import CHANNEL_LABELS, CHANNELS, CRYSTALS_PER_TOWER, GEV_PER_UNIT, HCAL, NUM_TOWERS

MAX_ENERGY = 1e4
"""Highest energy that makes sense (GeV/100); single mis-measured tracks of the published file reach 757."""

MAX_GEV = 7000.0
"""Highest pT or mass that makes sense (GeV), the energy of an LHC beam at 14 TeV."""

LOG_JETS, LOG_LARGEST = 1000, 7.0
"""Among so many jets one track at least is larger (GeV/100); the logarithm of none is."""

Level = Literal["refused", "warning", "note"]

_PER_JET = {
    "negative": "{} with an energy below 0",
    "not finite": "{} with an energy that is not finite",
    "too large": f"{{}} with an energy above {MAX_ENERGY * GEV_PER_UNIT:g} GeV",
    "pt": f"{{}} whose pt is not between 0 and {MAX_GEV:g} GeV",
    "m0": f"{{}} whose m0 is not between 0 and {MAX_GEV:g} GeV",
    "empty": "{} without a hit",
}
"""What is wrong with a single jet -> how it is said. All but empty jets are refused."""

_BINS = np.linspace(-12, 12, 2401)
"""Edges of the histogram of the decimal logarithm of energy over pT."""


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Attributes:
        check: Its name, such as "units".
        level: "refused" where no model should be trained on it, else "warning" or "note".
        text: What was seen and what to do, in one sentence.
        count: Jets concerned; 0 where it is about all of them.
        jets: The first three of them.
    """

    check: str
    level: Level
    text: str
    count: int = 0
    jets: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.check}: {self.text}"


@dataclass
class JetCheck:
    """What a check counts over jets. Counts of several processes are added with `+`.

    Attributes:
        counts: Numbers of jets, or sums over them, by name.
        rows: The first three jets of each fault.
        histogram: Jets by the logarithm of energy over pT.
        largest: Largest finite energy, GeV/100.
    """

    counts: dict[str, float] = field(default_factory=dict)
    rows: dict[str, list[int]] = field(default_factory=dict)
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(_BINS) + 1, np.int64))
    largest: float = 0.0

    def add(
        self,
        energies: NDArray[np.float32],
        labels: NDArray[np.int64],
        pt: NDArray[np.float32],
        m0: NDArray[np.float32],
        rows: NDArray[np.int64] | int = 0,
    ) -> NDArray[np.bool_]:
        """Take in jets.

        Args:
            energies: (n, 3, 125, 125) GeV/100, any values.
            labels: (n,) 0 gluon or 1 quark.
            pt, m0: (n,) GeV, any values.
            rows: (n,) numbers of the jets, or that of the first where they are consecutive.

        Returns:
            (n,) whether a jet is faulty: refused by itself, or empty.
        """
        faults = find_faults(energies, pt, m0)
        for name, wrong in faults.items():
            self._count(name, wrong, rows + np.arange(len(labels)) if isinstance(rows, int) else rows)
        faulty = np.logical_or.reduce(list(faults.values()))
        self._add_sound(energies[~faulty], labels[~faulty], pt[~faulty], m0[~faulty])
        self._bump("jets", len(labels))
        return faulty

    def _count(self, name: str, wrong: NDArray[np.bool_], rows: NDArray[np.int64]) -> None:
        self._bump(name, int(wrong.sum()))
        seen = self.rows.setdefault(name, [])
        seen += rows[wrong][: 3 - len(seen)].tolist()

    def _add_sound(
        self,
        energies: NDArray[np.float32],
        labels: NDArray[np.int64],
        pt: NDArray[np.float32],
        m0: NDArray[np.float32],
    ) -> None:
        """What is judged over all jets, of those that are not faulty."""
        if not len(labels):
            return
        with np.errstate(divide="ignore"):
            places = np.searchsorted(_BINS, np.log10(response(energies, pt)))
        self.histogram += np.bincount(places, minlength=len(self.histogram))
        hits = np.count_nonzero(energies, axis=(1, 2, 3))
        largest = energies.max(axis=(2, 3))
        self.largest = max(self.largest, float(largest.max()))
        self._bump("sound", len(labels))
        self._bump("m0 above pt", int((m0 > pt).sum()))
        self._bump("normalised", int(((largest == 1) | (largest == 0)).all(axis=1).sum()))
        for label in (0, 1):
            chosen = hits[labels == label].astype(np.float64)
            for name, value in (("jets", len(chosen)), ("hits", chosen.sum()), ("hits2", (chosen**2).sum())):
                self._bump(f"{name} of class {label}", float(value))
        for channel in range(len(CHANNELS)):
            filled = largest[:, channel] > 0
            self._bump(f"filled {channel}", int(filled.sum()))
            self._bump(f"towers {channel}", int(_constant_in_towers(energies[filled, channel]).sum()))

    def _bump(self, name: str, value: float) -> None:
        self.counts[name] = self.counts.get(name, 0) + value

    def __add__(self, other: JetCheck) -> JetCheck:
        counts = {
            name: self.counts.get(name, 0) + other.counts.get(name, 0) for name in {**self.counts, **other.counts}
        }
        names = {**self.rows, **other.rows}
        rows = {name: sorted(self.rows.get(name, []) + other.rows.get(name, []))[:3] for name in names}
        return JetCheck(counts, rows, self.histogram + other.histogram, max(self.largest, other.largest))

    def shifted(self, rows: int) -> JetCheck:
        """The same of jets whose numbers are so much higher."""
        return replace(self, rows={name: [row + rows for row in seen] for name, seen in self.rows.items()})

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON holds it."""
        filled = np.flatnonzero(self.histogram)
        bins = dict(zip(filled.tolist(), self.histogram[filled].tolist(), strict=True))
        return {"counts": self.counts, "rows": self.rows, "histogram": bins, "largest": self.largest}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        """What `to_json` gave."""
        check = cls(dict(stored["counts"]), dict(stored["rows"]), largest=stored["largest"])
        for place, count in stored["histogram"].items():
            check.histogram[int(place)] = count
        return check

    def findings(self, unit_is_stated: bool = False, dropped: bool = False) -> list[Finding]:
        """What the check found, refusals first.

        Args:
            unit_is_stated: Whether the user vouches for the unit; then an odd one is a warning.
            dropped: Whether faulty jets are left out; then they are a note.
        """
        found = [*self._jet_findings(dropped), *self._unit_findings(unit_is_stated), *self._channel_findings()]
        found += self._class_findings()
        order: tuple[Level, ...] = ("refused", "warning", "note")
        return sorted(found, key=lambda finding: order.index(finding.level))

    def _jet_findings(self, dropped: bool) -> Iterable[Finding]:
        for name, text in _PER_JET.items():
            count = int(self.counts.get(name, 0))
            if count:
                level: Level = "note" if dropped else "warning" if name == "empty" else "refused"
                jets, they, them = ("1 jet", "it is", "it") if count == 1 else (f"{count} jets", "they are", "them")
                remedy = f"{they} left out" if dropped else f"`convert --drop-bad` leaves {them} out"
                first = ", ".join(map(str, self.rows[name]))
                seen = f"{text.format(jets)} of {int(self.counts['jets'])} (first: {first})"
                yield Finding(name, level, f"{seen}; {remedy}", count, tuple(self.rows[name]))

    def _unit_findings(self, stated: bool) -> Iterable[Finding]:
        sound = self.counts.get("sound", 0)
        if not sound:
            return
        if self.counts["normalised"] == sound:
            text = "each channel's largest value is 1 in every jet: it looks normalised jet by jet"
            yield Finding("units", "refused", f"{text}, so the energies are lost; start from the file before that step")
            return
        seen = self.median_response()
        if not PLAUSIBLE_RESPONSE[0] < seen < PLAUSIBLE_RESPONSE[1]:
            text = f"the energies add up to {seen:.3g} of pt (median; about 2 is usual), {explain_response(seen)}"
            yield Finding("units", "warning" if stated else "refused", text)
        elif sound >= LOG_JETS and self.largest < LOG_LARGEST:
            text = f"the largest of {int(sound)} jets' energies is {100 * self.largest:.3g} GeV; more is usual"
            yield Finding("units", "warning", f"{text}: was a logarithm taken?")
        above = self.counts["m0 above pt"]
        if above > 0.01 * sound:
            text = f"m0 is above pt in {int(above)} jets, which no jet of the usual size allows: are they swapped?"
            yield Finding("m0", "warning", text, int(above))

    def median_response(self) -> float:
        """Median of energy over pT to 2 %; NaN without jets."""
        total = self.histogram.sum()
        if not total:
            return float("nan")
        place = int(np.searchsorted(np.cumsum(self.histogram), total / 2))
        return float(10 ** _BINS[min(place, len(_BINS) - 1)])

    def _channel_findings(self) -> Iterable[Finding]:
        sound = self.counts.get("sound", 0)
        filled = [self.counts.get(f"filled {channel}", 0) for channel in range(len(CHANNELS))]
        towers = [self.counts.get(f"towers {channel}", 0) for channel in range(len(CHANNELS))]
        for channel, label in enumerate(CHANNEL_LABELS):
            if sound and not filled[channel]:
                yield Finding("channels", "warning", f"channel {channel} ({label}) is empty in all jets")
        like_hcal = [c for c in range(HCAL) if filled[c] and towers[c] > 0.99 * filled[c]]
        if like_hcal and filled[HCAL] and towers[HCAL] < 0.5 * filled[HCAL]:
            share = "all" if towers[like_hcal[0]] == filled[like_hcal[0]] else f"{towers[like_hcal[0]]:.0f}"
            text = f"channel {like_hcal[0]}, not {HCAL}, is constant in towers in {share} jets: another order?"
            remedy = "expected are tracks, ECAL, HCAL; reorder them: images[..., [tracks, ecal, hcal]]"
            yield Finding("channels", "refused", f"{text} {remedy}")
        elif filled[HCAL] and towers[HCAL] < filled[HCAL]:
            count = int(filled[HCAL] - towers[HCAL])
            yield Finding("towers", "note", f"HCAL is not constant in 5x5 towers in {count} jets", count)

    def _class_findings(self) -> Iterable[Finding]:
        count = [self.counts.get(f"jets of class {label}", 0) for label in (0, 1)]
        if not sum(count):
            return
        if not all(count):
            only = "quark" if count[1] else "gluon"
            text = f"all jets are {only} jets: a model of them cannot be asked for the other class"
            yield Finding("classes", "warning", text)
            return
        mean = [self.counts[f"hits of class {label}"] / count[label] for label in (0, 1)]
        squares = [self.counts[f"hits2 of class {label}"] / count[label] for label in (0, 1)]
        error = sum(max(squares[label] - mean[label] ** 2, 0) / count[label] for label in (0, 1)) ** 0.5
        if mean[1] - mean[0] > 5 * error:
            text = (
                f"class 1 (quark) has {mean[1]:.0f} hits a jet and class 0 (gluon) {mean[0]:.0f}; gluon jets have more"
            )
            yield Finding("classes", "warning", f"{text}: are the classes swapped? Here y = 1 is quark")


def find_faults(
    energies: NDArray[np.float32], pt: NDArray[np.float32], m0: NDArray[np.float32]
) -> dict[str, NDArray[np.bool_]]:
    """Tell what is wrong with single jets: (n,) bool for each name of a fault."""
    with np.errstate(invalid="ignore"):
        lowest, highest = energies.min(axis=(1, 2, 3)), energies.max(axis=(1, 2, 3))
        finite = np.isfinite(lowest) & np.isfinite(highest)  # NaN is the minimum of what holds it
        return {
            "negative": finite & (lowest < 0),
            "not finite": ~finite,
            "too large": finite & (highest > MAX_ENERGY),
            "pt": ~((pt > 0) & (pt < MAX_GEV)),
            "m0": ~((m0 > 0) & (m0 < MAX_GEV)),
            "empty": finite & (highest == 0) & (lowest == 0),
        }


def repeated(
    hashes: NDArray[np.uint64], rows: NDArray[np.integer] | None = None, sources: Sequence[dict[str, Any]] = ()
) -> Finding | None:
    """Describe images that occur more than once.

    Args:
        hashes: (n,) content hashes of all jets, in their order.
        rows: (n,) their numbers; by default 0 to n - 1.
        sources: The files they come from, as `JetFiles.provenance` tells; images in two files are named.
    """
    rows = np.arange(len(hashes)) if rows is None else rows
    _, first, inverse, count = np.unique(hashes, return_index=True, return_inverse=True, return_counts=True)
    later = np.flatnonzero(np.arange(len(hashes)) != first[inverse])
    if not len(later):
        return None
    text = f"{len(later)} jets repeat the image of a jet before them (first: {', '.join(map(str, rows[later[:3]]))})"
    if count.max() > 2:
        text += f"; one image occurs {count.max()} times"
    starts = [source["first_row"] for source in sources]
    file, original = (np.searchsorted(starts, rows[jets], side="right") - 1 for jets in (later, first[inverse[later]]))
    for pair in np.unique(np.column_stack((original, file)), axis=0).tolist():
        if sources and pair[0] != pair[1]:
            chosen = rows[later[(original == pair[0]) & (file == pair[1])]] - starts[pair[1]]
            shown = ", ".join(map(str, chosen[:10])) + (" ..." if len(chosen) > 10 else "")
            names = [sources[place]["name"] for place in pair]
            text += f"; {len(chosen)} jets of {names[1]} (its rows {shown}) are in {names[0]} too"
    return Finding("repeats", "warning", text, len(later), tuple(rows[later[:3]].tolist()))


def refuse(origin: str, findings: Iterable[Finding]) -> None:
    """Raise an error if a finding is refused.

    Raises:
        UserError: One line for each finding that is refused.
    """
    wrong = [str(finding) for finding in findings if finding.level == "refused"]
    if wrong:
        raise UserError("\n".join([f"{origin} cannot be used as it is", *(f"  {line}" for line in wrong)]))


def describe_findings(findings: Iterable[Finding]) -> str:
    """A table of findings; one line where there are none."""
    rows = [(finding.level, finding.check, finding.text) for finding in findings]
    if not rows:
        return "checks: nothing odd in units, values, conditions, channels and classes"
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = [f"  {level:<{widths[0]}}  {check:<{widths[1]}}  {text}" for level, check, text in rows]
    return "\n".join(["checks", *lines])


def _constant_in_towers(images: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which (n, 125, 125) images are the same, bit for bit, within every 5x5 tower."""
    bits = np.ascontiguousarray(images).view(np.uint32)
    blocks = bits.reshape(-1, NUM_TOWERS, CRYSTALS_PER_TOWER, NUM_TOWERS, CRYSTALS_PER_TOWER)
    constant: NDArray[np.bool_] = (blocks == blocks[:, :, :1, :, :1]).all(axis=(1, 2, 3, 4))
    return constant
