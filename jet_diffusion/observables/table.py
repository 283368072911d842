"""The table of jet observables: what generated jets are judged by, in GeV and at full resolution.

A new observable is one row of `OBSERVABLES`; distances, classifiers, reports and the admissibility
test take it from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from jet_diffusion.errors import UserError
from jet_diffusion.observables.hits import PIXELS, Array, Hits, divide
from jet_diffusion.observables.substructure import Substructure, ring_labels
from jet_diffusion.schema import CHANNEL_LABELS, CHANNELS, ECAL, HCAL, TRACKS, check_energies

BATCH_SIZE = 256


class JetFeatures(Hits):
    """A batch of jets with the intermediate results that several observables share."""

    @cached_property
    def substructure(self) -> Substructure:
        """Shape of the energy flow of all channels together."""
        return Substructure(self)

    @cached_property
    def channel_leading(self) -> Array:
        """(N, 3): the largest crystal of each channel over the channel's energy."""
        group = self.jet * len(CHANNELS) + self.channel
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        largest = np.zeros(self.num_jets * len(CHANNELS))
        if len(group):
            largest[group[starts]] = np.maximum.reduceat(self.energy, starts)
        return divide(largest.reshape(-1, len(CHANNELS)), self.channel_energy)

    @cached_property
    def leading_towers(self) -> Array:
        """(N, 2): the two most energetic HCAL towers over the HCAL's energy."""
        towers = self.tower_energy[:, HCAL]
        largest = np.partition(towers, -2, axis=1)[:, :-3:-1]
        return divide(largest, self.channel_energy[:, HCAL, None])

    def tower_overlap(self, first: int, second: int) -> Array:
        """(N,) cosine of two channels' tower energies: 1 when they lie alike, 0 when apart."""
        one, two = self.tower_energy[:, first], self.tower_energy[:, second]
        norm = np.sqrt(np.einsum("nt,nt->n", one, one) * np.einsum("nt,nt->n", two, two))
        return divide(np.einsum("nt,nt->n", one, two), norm)


@dataclass(frozen=True)
class Observable:
    """An observable: one number for each jet.

    Attributes:
        name: identifier in tables and files.
        label: LaTeX label, without the unit.
        unit: unit of the values; empty for none.
        limits: range in which histograms are drawn; values outside go into the first and last bin.
        compute: features of N jets -> (N,) float64.
        empty: the value of a jet without hits.
        blind_to: controls (`jet_diffusion.metrics.perturbations`) that a permutation test of this observable cannot see
            by construction or in samples of a thousand jets.
        first_stage: whether the value follows from what a model is given or draws first: class, pT, mass, and the hits
            and energy of each channel in each ring. Such an observable does not test the image itself.
    """

    name: str
    label: str
    unit: str
    limits: tuple[float, float]
    compute: Callable[[JetFeatures], Array]
    empty: float = 0.0
    blind_to: frozenset[str] = frozenset()
    first_stage: bool = False

    @property
    def axis_label(self) -> str:
        """The label with its unit in brackets."""
        return f"{self.label} [{self.unit}]" if self.unit else self.label


Compute = Callable[[JetFeatures], Array]

BLUR, SHUFFLE, CLASS, SCALE = "blurred", "pixel-shuffled", "wrong class", "energy-scaled"
"""Controls that an observable may be blind to; it sees every blank or mean image."""


def _row(
    name: str,
    label: str,
    limits: tuple[float, float],
    compute: Compute,
    *blind_to: str,
    unit: str = "",
    first_stage: bool = False,
) -> Observable:
    return Observable(name, label, unit, limits, compute, blind_to=frozenset(blind_to), first_stage=first_stage)


def _shape(attribute: str, index: int | None = None) -> Compute:
    """An attribute of the substructure, or one of its columns; for (N, 2) pairs, an entry of the tuple."""

    def compute(jets: JetFeatures) -> Array:
        values = getattr(jets.substructure, attribute)
        if index is None:
            return np.asarray(values)
        return np.asarray(values[index] if isinstance(values, tuple) else values[:, index])

    return compute


def _by_channel(
    name: str,
    label: str,
    limits: list[tuple[float, float]],
    compute: Compute,
    *blind_to: tuple[str, ...],
    unit: str = "",
    first_stage: bool = False,
) -> list[Observable]:
    """One row per channel of a quantity that is computed for all three, with what each is blind to."""
    return [
        _row(
            f"{name}_{CHANNELS[index]}",
            f"{CHANNEL_LABELS[index]} {label}",
            limits[index],
            lambda jets, index=index: compute(jets)[:, index],  # type: ignore[misc]
            *blind_to[index],
            unit=unit,
            first_stage=first_stage,
        )
        for index in range(len(CHANNELS))
    ]


def _tower_count(jets: JetFeatures) -> Array:
    return np.count_nonzero(jets.tower_energy[:, HCAL], axis=1).astype(np.float64)


def _subjettiness_ratio(index: int) -> Compute:
    def compute(jets: JetFeatures) -> Array:
        tau = jets.substructure.subjettiness
        return divide(tau[:, index], tau[:, index - 1])

    return compute


def _energy_flow(method: str, edges: int) -> Compute:
    return lambda jets: getattr(jets.substructure, method)(edges)


def _overlap(first: int, second: int) -> Compute:
    return lambda jets: jets.tower_overlap(first, second)


def _sums() -> Iterator[Observable]:
    """Energies, multiplicities, momentum and mass."""
    energy, same = (BLUR, SHUFFLE, CLASS), (SHUFFLE, SCALE)
    given: dict[str, Any] = {"first_stage": True}
    total = {"unit": "GeV", **given}
    yield _row("energy", r"$\sum E$", (0, 600), lambda jets: jets.channel_energy.sum(axis=1), *energy, **total)
    ranges: list[tuple[float, float]] = [(0, 400), (0, 250), (0, 200)]
    blind = energy, energy, (BLUR, SHUFFLE)
    yield from _by_channel("energy", r"$\sum E$", ranges, lambda jets: jets.channel_energy, *blind, **total)
    ranges = [(0, 200), (0, 600), (0, 1250)]
    yield from _by_channel("hits", "hits", ranges, lambda jets: jets.channel_hits, *[same] * 3, **given)
    yield _row("towers_hcal", "HCAL towers", (0, 50), _tower_count, SCALE, **given)
    # The first stage fixes the image pT within 2 to 3 % of its width. It does not fix the mass.
    yield _row("image_pt", r"image $p_\mathrm{T}$", (0, 600), _shape("momentum", 0), BLUR, CLASS, **total)
    yield _row("image_mass", "image mass", (0, 300), _shape("momentum", 1), BLUR, CLASS, unit="GeV")


def _spreads() -> Iterator[Observable]:
    """Widths, and how unevenly deposits share the energy."""
    same = (SHUFFLE, SCALE)
    unit_ranges: list[tuple[float, float]] = [(0, 1)] * 3
    yield _row("width", "width", (0, 0.8), _shape("width"), BLUR, SCALE)
    widths = [(BLUR, SCALE)] * 3
    yield from _by_channel("width", "width", unit_ranges, lambda jets: jets.substructure.channel_width, *widths)
    label = r"$p_\mathrm{T}D$"
    yield _row("ptd", label, (0, 0.6), _shape("dispersion"), SCALE)
    blind = same, same, (SCALE,)
    yield from _by_channel("ptd", label, unit_ranges, lambda jets: jets.substructure.channel_dispersion, *blind)
    ranges: list[tuple[float, float]] = [(0, 1), (0, 0.6), (0, 0.04)]
    leading = same, same, (BLUR, *same)
    yield from _by_channel("leading", "leading crystal", ranges, lambda jets: jets.channel_leading, *leading)
    yield _row("leading_tower", "HCAL leading tower", (0, 1), lambda jets: jets.leading_towers[:, 0], SCALE)
    yield _row("second_tower", "HCAL second tower", (0, 0.5), lambda jets: jets.leading_towers[:, 1], SCALE)


def _shapes() -> Iterator[Observable]:
    """Where the energy lies: centroid, axes, rings, subjets, energy flow, overlap of channels."""
    moved, shape = (BLUR, CLASS, SCALE), (BLUR, SCALE)
    yield _row("centroid_eta", r"$\langle\eta\rangle$", (-0.3, 0.3), _shape("centroid", 0), *moved)
    yield _row("centroid_phi", r"$\langle\phi\rangle$", (-0.3, 0.3), _shape("centroid", 1), SHUFFLE, *moved, unit="rad")
    yield _row("major_axis", "major axis", (0, 0.8), _shape("principal_axes", 0), *shape)
    yield _row("minor_axis", "minor axis", (0, 0.6), _shape("principal_axes", 1), *shape)
    for ring, text in enumerate(ring_labels()):
        label = f"energy fraction {text}"
        yield _row(f"ring_{ring}", label, (0, 1), _shape("rings", ring), *shape, first_stage=True)
    for axes in (1, 2, 3):
        yield _row(f"tau{axes}", rf"$\tau_{axes}$", (0, 0.8), _shape("subjettiness", axes - 1), *shape)
    yield _row("tau21", r"$\tau_2/\tau_1$", (0.3, 1.1), _subjettiness_ratio(1), *moved)
    yield _row("tau32", r"$\tau_3/\tau_2$", (0.5, 1.1), _subjettiness_ratio(2), *moved)
    for kind, limits, orders in (("path", (0, 1.3), (1, 2, 3)), ("cycle", (0, 1.4), (2, 3))):
        for edges in orders:
            flow, label = _energy_flow(f"energy_flow_{kind}", edges), f"energy flow, {kind} of {edges}"
            yield _row(f"flow_{kind}{edges}", label, limits, flow, *shape)
    for first, second in ((TRACKS, ECAL), (TRACKS, HCAL), (ECAL, HCAL)):
        name = f"overlap_{CHANNELS[first]}_{CHANNELS[second]}"
        label = f"{CHANNEL_LABELS[first]}-{CHANNEL_LABELS[second]} overlap"
        yield _row(name, label, (0, 1), _overlap(first, second), SCALE)


OBSERVABLES: dict[str, Observable] = {row.name: row for row in (*_sums(), *_spreads(), *_shapes())}
"""Name -> observable, in the order of tables and figures."""

IMAGE_ONLY = np.flatnonzero([not row.first_stage for row in OBSERVABLES.values()])
"""Columns of the observables that the first stage does not fix: they test the image itself."""


def compute_observables(
    energies: Array, names: Iterable[str] | None = None, *, batch_size: int = BATCH_SIZE, progress: bool = False
) -> dict[str, Array]:
    """Compute observables of jets.

    Args:
        energies: (N, 3, 125, 125) in GeV/100. Negative values count as they are; NaN gives NaN.
        names: which rows of `OBSERVABLES`; all when absent.
        batch_size: jets handled at a time.
        progress: whether to show a bar.

    Returns:
        Name -> (N,) float64.

    Raises:
        UserError: for a wrong shape or type, or a name that is not in the table.
    """
    check_energies(energies, physical=False)
    names = list(OBSERVABLES if names is None else names)
    unknown = [name for name in names if name not in OBSERVABLES]
    if unknown:
        raise UserError(f"no observable {unknown[0]!r}; there are {', '.join(OBSERVABLES)}")
    columns = {name: np.empty(len(energies)) for name in names}
    for start in tqdm(range(0, len(energies), batch_size), desc="observables", unit="batch", disable=not progress):
        rows = slice(start, start + batch_size)
        jets = JetFeatures(energies[rows])
        for name in names:
            columns[name][rows] = OBSERVABLES[name].compute(jets)
    return columns


def quick_table(real_energies: Array, generated_energies: Array) -> list[dict[str, float | str]]:
    """Compare mean energy and occupancy of each channel between generated and real jets.

    Args:
        real_energies: (N, 3, 125, 125) in GeV/100.
        generated_energies: (M, 3, 125, 125) in GeV/100.

    Returns:
        One row per quantity and channel: `quantity`, `channel`, `unit`, `real` and `generated` means with
        their standard errors `real_error` and `generated_error`, and `ratio` (NaN where the real mean is 0).

    Raises:
        UserError: for a wrong shape or type, or no jets.
    """
    samples = {"real": Hits(real_energies), "generated": Hits(generated_energies)}
    for name, hits in samples.items():
        if hits.num_jets == 0:
            raise UserError(f"the {name} sample holds no jets")
    rows: list[dict[str, float | str]] = []
    for quantity, unit in (("energy", "GeV"), ("occupancy", "%")):
        values = {
            name: hits.channel_energy if quantity == "energy" else 100 * hits.channel_hits / PIXELS
            for name, hits in samples.items()
        }
        means = {name: matrix.mean(axis=0) for name, matrix in values.items()}
        errors = {name: matrix.std(axis=0) / np.sqrt(len(matrix)) for name, matrix in values.items()}
        for index, channel in enumerate(CHANNELS):
            real, generated = float(means["real"][index]), float(means["generated"][index])
            rows.append(
                {
                    "quantity": quantity,
                    "channel": channel,
                    "unit": unit,
                    "real": real,
                    "real_error": float(errors["real"][index]),
                    "generated": generated,
                    "generated_error": float(errors["generated"][index]),
                    "ratio": generated / real if real else float("nan"),
                }
            )
    return rows
