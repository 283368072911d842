"""Look into a quark/gluon HDF5 file: layout, classes, energies of each channel, HCAL towers, pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from jet_diffusion.data.checks import Finding, JetCheck, repeated
from jet_diffusion.data.encoding import content_hashes
from jet_diffusion.data.hdf5 import QuarkGluonFile
from jet_diffusion.errors import UserError, printable
from jet_diffusion.plotting.jets import plot_jets, plot_mean_images, save_figure
from jet_diffusion.schema import CHANNEL_LABELS, CHANNELS, CLASS_NAMES, NUM_CRYSTALS, hcal_is_constant_in_towers

_DROPPED_BITS = 12
"""Bits of a float32 left out in the histogram of non-zero energies: its bins are 0.05 % wide."""

_BINS = 0x7F800000 >> _DROPPED_BITS

_PICTURED_JETS = 512
"""The pictures come from so many jets at the file's beginning."""

_JETS_PER_CLASS = 2

_Rows = list[tuple[str, ...]]


@dataclass
class EnergyTally:
    """Running statistics of the non-zero energies, by class and channel.

    Attributes:
        num_jets: (2,) jets of each class.
        total: (2, 3) sum of the energies.
        histogram: (2, 3, bins) non-zero energies by the upper bits of their float32, which order as they do.
        smallest: (2, 3) smallest non-zero energy.
        largest: (2, 3) largest energy.
        hcal_not_in_towers: Jets whose HCAL is not constant in 5x5 towers.
    """

    num_jets: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2, np.int64))
    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros((2, 3)))
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, 3, _BINS), np.int64))
    smallest: NDArray[np.float32] = field(default_factory=lambda: np.full((2, 3), np.inf, np.float32))
    largest: NDArray[np.float32] = field(default_factory=lambda: np.zeros((2, 3), np.float32))
    hcal_not_in_towers: int = 0

    def add(self, energies: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
        """Take in jets: energies (n, 3, 125, 125) float32 and their labels (n,)."""
        self.num_jets += np.bincount(labels, minlength=2)
        self.hcal_not_in_towers += int(np.count_nonzero(~hcal_is_constant_in_towers(energies)))
        for channel in range(len(CHANNELS)):
            images = energies[:, channel]
            jet, row, column = np.nonzero(images)
            values = images[jet, row, column]
            for label in range(len(CLASS_NAMES)):
                self._add_hits(label, channel, values[labels[jet] == label])

    def _add_hits(self, label: int, channel: int, values: NDArray[np.float32]) -> None:
        if not values.size:
            return
        place = label, channel
        self.total[place] += values.sum(dtype=np.float64)
        self.histogram[place] += np.bincount(values.view(np.uint32) >> _DROPPED_BITS, minlength=_BINS)
        self.smallest[place] = min(self.smallest[place], values.min())
        self.largest[place] = max(self.largest[place], values.max())

    def quantile(self, labels: list[int], channel: int, share: float) -> float:
        """Quantile of the non-zero energies, to 0.05 %; nan where there are none."""
        counts = self.histogram[labels, channel].sum(axis=0)
        if not counts.any():
            return float("nan")
        below = np.searchsorted(np.cumsum(counts), share * counts.sum())
        middle = np.uint32((int(below) << _DROPPED_BITS) + (1 << (_DROPPED_BITS - 1)))
        return float(middle.view(np.float32))


def tally_energies(file: QuarkGluonFile, max_jets: int | None = None) -> tuple[EnergyTally, list[Finding]]:
    """Run over a file, or its first jets, with a progress bar.

    Returns:
        Statistics of the jets that are not faulty, and what the checks found in all.

    Raises:
        UserError: `max_jets` is not positive, or the file is damaged.
    """
    if max_jets is not None and max_jets < 1:
        raise UserError(f"max_jets must be positive, not {max_jets}")
    num_jets = min(file.num_jets, max_jets or file.num_jets)
    tally, check, hashes = EnergyTally(), JetCheck(), []
    with tqdm(total=num_jets, unit=" jets", desc="inspect") as progress:
        for start, stop in file.slices(stop=num_jets):
            energies, labels = file.energies(start, stop, check=False), file.labels[start:stop]
            sound = ~check.add(energies, labels, file.pt[start:stop], file.m0[start:stop], start)
            tally.add(energies[sound], labels[sound])
            hashes.append((start + np.flatnonzero(sound), content_hashes(energies[sound])))
            progress.update(stop - start)
    rows, images = (np.concatenate(parts) for parts in zip(*hashes, strict=True))
    again = repeated(images, rows)
    return tally, [*check.findings(file.unit_is_stated), *([again] if again else [])]


def describe_file(file: QuarkGluonFile) -> str:
    """Tell how a file is stored, its attributes and classes, and the ranges of pT and mass."""
    storage: _Rows = [("dataset", "shape", "type", "chunks", "compression", "MB on disk")]
    for stored in file.datasets:
        *names, size = stored
        storage.append((*(str(item) if item is not None else "-" for item in names), f"{size / 1e6:.2f}"))
    classes: _Rows = [("class", "jets", "%")]
    for label, name in enumerate(CLASS_NAMES):
        count = int(np.count_nonzero(file.labels == label))
        classes.append((name, str(count), f"{100 * count / file.num_jets:.2f}"))
    ranges: _Rows = [("GeV", "min", "mean", "max")]
    for name, column in (("pt", file.pt), ("m0", file.m0)):
        values = column.min(), column.mean(dtype=np.float64), column.max()
        ranges.append((name, *(f"{value:.2f}" for value in values)))
    attributes = [f"  {printable(name)} = {printable(value, 300)}" for name, value in file.attrs.items()] or ["  none"]
    remarks = "".join(f"\n  {remark}" for remark in file.remarks)
    parts = [
        f"{file.path}: {file.kind}, {file.num_jets} jets, {file.path.stat().st_size / 1e6:.1f} MB{remarks}",
        _table(storage),
        "\n".join(["attributes", *attributes]),
        _table(classes),
        _table(ranges),
    ]
    if file.simulated:
        parts.insert(1, f"*** NOT COLLISION DATA: {printable(file.simulated, 500)} ***")
    return "\n\n".join(parts)


def describe_energies(tally: EnergyTally) -> str:
    """Tell the statistics of each channel, for each class and for both."""
    header = ("channel", "class", "non-zero %", "mean/pixel", "smallest", "99.9 % of non-zero", "largest")
    rows: _Rows = [header]
    for channel, label_name in enumerate(CHANNEL_LABELS):
        for name, labels in (*((name, [label]) for label, name in enumerate(CLASS_NAMES)), ("both", [0, 1])):
            pixels = int(tally.num_jets[labels].sum()) * NUM_CRYSTALS**2
            if pixels:
                values = (
                    tally.total[labels, channel].sum() / pixels,
                    tally.smallest[labels, channel].min(),
                    tally.quantile(labels, channel, 0.999),
                    tally.largest[labels, channel].max(),
                )
                occupancy = 100 * tally.histogram[labels, channel].sum() / pixels
                cells = (f"{value:.4g}" if np.isfinite(value) else "-" for value in values)
                rows.append((label_name, name, f"{occupancy:.3f}", *cells))
    num_jets, exceptions = int(tally.num_jets.sum()), tally.hcal_not_in_towers
    constant = f"in all {num_jets} jets" if exceptions == 0 else f"in all but {exceptions} of {num_jets} jets"
    return f"energies in GeV/100\n{_table(rows)}\n\nHCAL is constant in its 5x5 towers {constant}"


def draw_pictures(file: QuarkGluonFile, folder: Path) -> list[Path]:
    """Draw a few jets of each class, and each class's mean image, from the file's first jets.

    Returns:
        The pictures' paths.
    """
    stop = min(_PICTURED_JETS, file.num_jets)
    energies, labels, wanted = _sound_jets(file, stop)
    members = {name: np.flatnonzero(labels == label) for label, name in enumerate(CLASS_NAMES)}
    shown = np.concatenate([jets[:_JETS_PER_CLASS] for jets in members.values()])
    titles = [rf"$p_T$ = {file.pt[jet]:.0f} GeV" for jet in wanted[shown]]
    means = {name: energies[jets] for name, jets in members.items() if jets.size}
    folder.mkdir(parents=True, exist_ok=True)
    if not len(shown):
        raise UserError(f"{file.path}: the first {stop} jets are all faulty or empty; there is nothing to draw")
    figures = {
        "jets.png": plot_jets(energies[shown], labels[shown], titles, file.simulated),
        "mean_images.png": plot_mean_images(means, file.simulated),
    }
    for name, figure in figures.items():
        save_figure(figure, folder / name)
    return [folder / name for name in figures]


def _sound_jets(file: QuarkGluonFile, stop: int) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Energies, labels and numbers of those of the first jets that are neither faulty nor empty."""
    energies = file.energies(0, stop, check=False)
    rows = np.flatnonzero(~JetCheck().add(energies, file.labels[:stop], file.pt[:stop], file.m0[:stop]))
    return energies[rows], file.labels[rows], rows


def _table(rows: _Rows) -> str:
    """Lay out rows of text in columns, the first at the left and the others at the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)
