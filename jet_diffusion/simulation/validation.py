"""Compare a file of jets with the published facts of the real one, and say where it differs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from tqdm.auto import tqdm

from jet_diffusion.data.hdf5 import QuarkGluonFile
from jet_diffusion.data.inspect import EnergyTally
from jet_diffusion.errors import UserError
from jet_diffusion.observables.table import compute_observables
from jet_diffusion.schema import CHANNELS, CLASS_NAMES, CRYSTALS_PER_TOWER, NUM_CRYSTALS, TRACKS
from jet_diffusion.simulation import facts
from jet_diffusion.simulation.facts import FREE, TUNED, Fact

MAX_CLASSIFIED = 20_000
"""Jets the quark/gluon classifier sees at most, half to learn from and half to be judged on."""

MIN_CLASSIFIED = 200


@dataclass(frozen=True)
class Row:
    """A line of the table: a fact and what the file has; `accepted` is None where nothing is asked."""

    fact: Fact
    found: float
    accepted: bool | None


@dataclass
class Measurement:
    """What a file has, gathered slice by slice.

    Attributes:
        tally: Energies by class and channel.
        fragment: Per channel, the energies that are not zero in the fragments' rows, and the cells seen.
        grid: Track pixels on the fragments' sparse grid, of all jets.
        observables: Simple observables of the first MAX_CLASSIFIED jets.
    """

    tally: EnergyTally = field(default_factory=EnergyTally)
    fragment: dict[str, list[np.ndarray]] = field(default_factory=lambda: {name: [] for name in CHANNELS})
    fragment_cells: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CHANNELS, 0))
    grid: list[np.ndarray] = field(default_factory=list)
    observables: list[np.ndarray] = field(default_factory=list)

    def add(self, energies: np.ndarray, labels: np.ndarray) -> None:
        """Take in jets: energies (n, 3, 125, 125) and labels (n,)."""
        self.tally.add(energies, labels)
        for channel, name in enumerate(CHANNELS):
            cells = energies[:, channel, : facts.FRAGMENT_ROWS]
            if name == "hcal":
                whole = facts.FRAGMENT_ROWS - facts.FRAGMENT_ROWS % CRYSTALS_PER_TOWER
                cells = cells[:, :whole:CRYSTALS_PER_TOWER, ::CRYSTALS_PER_TOWER]
            self.fragment[name].append(cells[cells > 0])
            self.fragment_cells[name] += cells.size
        self.grid.append(energies[:, TRACKS][:, facts.GRID][:, :, facts.GRID])
        if sum(map(len, self.observables)) < MAX_CLASSIFIED:
            self.observables.append(np.stack(list(compute_observables(energies).values()), axis=1))


def validate(path: str | Path, progress: bool = False) -> str:
    """The table that compares a file with the published facts.

    Raises:
        FileNotFoundError: There is no such file.
        UserError: It breaks the schema, or has no jets of one class.
    """
    with QuarkGluonFile(path) as file:
        for label, name in enumerate(CLASS_NAMES):
            if not np.any(file.labels == label):
                raise UserError(f"{path} holds no {name} jets; both classes are needed")
        measurement = Measurement()
        with tqdm(total=file.num_jets, unit="jet", disable=not progress) as bar:
            for start, stop in file.slices():
                measurement.add(file.energies(start, stop), file.labels[start:stop])
                bar.update(stop - start)
        rows = list(_rows(file, measurement))
    return _render(f"{path}: {file.num_jets} jets, against the real file's published facts", rows)


def class_auc(observables: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Area under the curve of gradient boosting between the classes, and its error (Hanley and McNeil 1982).

    Args:
        observables: (jets, observables); the first half is learnt from, the second judged.
        labels: (jets,) 0 or 1.
    """
    half = len(labels) // 2
    classifier = HistGradientBoostingClassifier(learning_rate=0.06, max_leaf_nodes=15, random_state=0)
    classifier.fit(observables[:half], labels[:half])
    truth = labels[half:]
    auc = float(roc_auc_score(truth, classifier.predict_proba(observables[half:])[:, 1]))
    positive = int(truth.sum())
    negative = len(truth) - positive
    first, second = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc) + (positive - 1) * (first - auc**2) + (negative - 1) * (second - auc**2)
    return auc, float(np.sqrt(spread / (positive * negative)))


def _row(fact: Fact, found: float) -> Row:
    if fact.tolerance is None:
        return Row(fact, found, None)
    return Row(fact, found, abs(found / fact.value - 1) <= fact.tolerance)


def _rows(file: QuarkGluonFile, measurement: Measurement) -> Iterator[Row]:
    for fact in facts.JETS:
        column, statistic = fact.name.split()
        values = getattr(file, column).astype(np.float64)
        yield _row(fact, float(getattr(np, statistic)(values)))
    yield from _channel_rows(measurement.tally)
    yield Row(
        Fact("jets with an HCAL not constant in 5x5", 0, FREE),
        measurement.tally.hcal_not_in_towers,
        measurement.tally.hcal_not_in_towers == 0,
    )
    yield from _fragment_rows(measurement)
    if file.num_jets >= MIN_CLASSIFIED:
        observables = np.concatenate(measurement.observables)
        auc, error = class_auc(observables, file.labels[: len(observables)])
        low, high = facts.AUC_RANGE
        fact = Fact(f"quark/gluon AUC {low} to {high} (error {error:.3f})", (low + high) / 2, FREE)
        yield Row(fact, auc, low <= auc <= high)


def _channel_rows(tally: EnergyTally) -> Iterator[Row]:
    pixels = tally.num_jets[:, None] * NUM_CRYSTALS**2
    hits = tally.histogram.sum(axis=-1)
    occupancy, mean = 100 * hits / pixels, tally.total / pixels
    for channel, name in enumerate(CHANNELS):
        for quantity, table, found in (("non-zero %", facts.OCCUPANCY, occupancy), ("mean", facts.MEAN, mean)):
            real = table[name]
            for label, class_name in enumerate(CLASS_NAMES):
                fact = Fact(f"{name} {quantity} {class_name}", real[label], TUNED, 0.1)
                yield _row(fact, float(found[label, channel]))
            use = TUNED if channel == TRACKS and table is facts.OCCUPANCY else FREE
            fact = Fact(f"{name} {quantity} gluon - quark", real[0] - real[1], use)
            difference = float(found[0, channel] - found[1, channel])
            agreed = 1 / facts.CLASS_FACTOR <= difference / fact.value <= facts.CLASS_FACTOR
            yield Row(fact, difference, agreed if table is facts.OCCUPANCY else None)
        quantile, largest = facts.TAILS[name]
        yield Row(Fact(f"{name} 99.9 % of non-zero", quantile, TUNED), tally.quantile([0, 1], channel, 0.999), None)
        yield Row(Fact(f"{name} largest", largest, TUNED), float(tally.largest[:, channel].max()), None)
        yield Row(Fact(f"{name} smallest", facts.SMALLEST[name], TUNED), float(tally.smallest[:, channel].min()), None)
    for label, class_name in enumerate(CLASS_NAMES):
        fact = Fact(f"non-zero crystals a {class_name} jet", facts.HITS[label], TUNED, 0.1)
        yield _row(fact, float(hits[label].sum() / tally.num_jets[label]))


def _fragment_rows(measurement: Measurement) -> Iterator[Row]:
    for name, (share, quantiles, use) in facts.FRAGMENTS.items():
        values = np.concatenate(measurement.fragment[name])
        yield Row(
            Fact(f"{name} non-zero share, rows 0-30", share, TUNED),
            len(values) / measurement.fragment_cells[name],
            None,
        )
        for probability, real in zip(facts.FRAGMENT_SHARES, quantiles, strict=True):
            quantile = float(np.quantile(values, probability)) if len(values) else float("nan")
            yield Row(Fact(f"{name} {probability:.0%} quantile, rows 0-30", real, use), quantile, None)
    grid = np.concatenate(measurement.grid)
    tracks = grid[grid > 0]
    found = [float((grid > 0).mean()), float((~(grid > 0).any(axis=(1, 2))).mean())]
    found += [float(np.quantile(tracks, q)) for q in (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)]
    for fact, value in zip(facts.GRID_TRACKS, found, strict=True):
        yield _row(Fact(f"grid: {fact.name}", fact.value, fact.use, fact.tolerance), value)


def _render(title: str, rows: list[Row]) -> str:
    """A table in Markdown; it ends with how many of the targets are met."""
    lines = [
        title,
        "",
        "| quantity | real | here | here/real | used to tune | target |",
        "| --- | ---: | ---: | ---: | --- | --- |",
    ]
    for row in rows:
        ratio = f"{row.found / row.fact.value:.2f}" if row.fact.value else ""
        verdict = {None: "", True: "met", False: "MISSED"}[row.accepted]
        use = "yes" if row.fact.use == TUNED else "no"
        lines.append(f"| {row.fact.name} | {row.fact.value:.4g} | {row.found:.4g} | {ratio} | {use} | {verdict} |")
    asked = [row for row in rows if row.accepted is not None]
    met = sum(bool(row.accepted) for row in asked)
    lines.append(f"\n{met} of {len(asked)} targets met (means and occupancies within 10 %, and so on)\n")
    return "\n".join(lines)
