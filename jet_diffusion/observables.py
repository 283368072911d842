"""The table of jet observables: what generated jets are judged by, in GeV and at full resolution.

A new observable is one row of `OBSERVABLES`; distances, classifiers, reports and the admissibility
test take it from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tqdm import tqdm

from jet_diffusion.hits import Array, Hits, check_image_shape, divide
from jet_diffusion.schema import CHANNEL_LABELS, CHANNELS, ECAL, HCAL, TRACKS
from jet_diffusion.substructure import Substructure

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
    """One number a jet.

    Attributes:
        name: identifier in tables and files.
        label: LaTeX label, without the unit.
        unit: unit of the values; empty for none.
        limits: range in which histograms are drawn; values outside go into the first and last bin.
        compute: features of N jets -> (N,) float64.
        empty: the value of a jet without hits.
        blind_to: controls (`jet_diffusion.metrics.controls`) this observable cannot see by construction
            or in samples of a thousand jets.
    """

    name: str
    label: str
    unit: str
    limits: tuple[float, float]
    compute: Callable[[JetFeatures], Array]
    empty: float = 0.0
    blind_to: frozenset[str] = frozenset()

    @property
    def axis_label(self) -> str:
        """The label with its unit in brackets."""
        return f"{self.label} [{self.unit}]" if self.unit else self.label


def _channel(name: str, label: str, unit: str, limits: Iterable[tuple[float, float]], attribute: str) -> list[Observable]:
    """One row per channel, of an attribute that holds (N, 3)."""
    return [
        Observable(
            f"{name}_{channel}",
            label.format(CHANNEL_LABELS[index]),
            unit,
            span,
            lambda jets, index=index: _resolve(jets, attribute)[:, index],
        )
        for index, (channel, span) in enumerate(zip(CHANNELS, limits, strict=True))
    ]


def _resolve(jets: JetFeatures, attribute: str) -> Array:
    """The features' own attribute, or else their substructure's."""
    return getattr(jets if hasattr(type(jets), attribute) else jets.substructure, attribute)


def _ring(index: int) -> Observable:
    return Observable(
        f"ring_{index}", rf"energy fraction in ring {index + 1}", "", (0, 1), lambda jets: jets.substructure.rings[:, index]
    )


def _rows() -> list[Observable]:
    """All observables, in the order of tables and figures."""
    sub = lambda name: lambda jets: getattr(jets.substructure, name)  # noqa: E731
    return [
        Observable("energy", r"$\sum E$", "GeV", (0, 600), lambda jets: jets.channel_energy.sum(axis=1)),
        *_channel("energy", r"$\sum E$ {}", "GeV", [(0, 400), (0, 250), (0, 150)], "channel_energy"),
        *_channel("hits", r"hits {}", "", [(0, 200), (0, 600), (0, 1000)], "channel_hits"),
        Observable("towers_hcal", r"towers HCAL", "", (0, 50), lambda jets: np.count_nonzero(jets.tower_energy[:, HCAL], axis=1).astype(np.float64)),
        Observable("image_pt", r"image $p_\mathrm{T}$", "GeV", (0, 600), lambda jets: jets.substructure.momentum[0]),
        Observable("image_mass", r"image mass", "GeV", (0, 200), lambda jets: jets.substructure.momentum[1]),
        Observable("width", r"width", "", (0, 0.5), sub("width")),
        *_channel("width", r"width {}", "", [(0, 0.5)] * 3, "channel_width"),
        Observable("ptd", r"$p_\mathrm{T}D$", "", (0, 1), sub("dispersion")),
        *_channel("ptd", r"$p_\mathrm{{T}}D$ {}", "", [(0, 1)] * 3, "channel_dispersion"),
        *_channel("leading", r"leading crystal {}", "", [(0, 1), (0, 1), (0, 0.04)], "channel_leading"),
        Observable("leading_tower", r"leading HCAL tower", "", (0, 1), lambda jets: jets.leading_towers[:, 0]),
        Observable("second_tower", r"second HCAL tower", "", (0, 0.5), lambda jets: jets.leading_towers[:, 1]),
        Observable("centroid_eta", r"$\langle\eta\rangle$", "", (-0.3, 0.3), lambda jets: jets.substructure.centroid[0]),
        Observable("centroid_phi", r"$\langle\phi\rangle$", "rad", (-0.3, 0.3), lambda jets: jets.substructure.centroid[1]),
        Observable("major_axis", r"major axis", "", (0, 0.5), lambda jets: jets.substructure.principal_axes[:, 0]),
        Observable("minor_axis", r"minor axis", "", (0, 0.4), lambda jets: jets.substructure.principal_axes[:, 1]),
        *[_ring(index) for index in range(5)],
        *[_tau(index) for index in range(3)],
        Observable("tau21", r"$\tau_2/\tau_1$", "", (0, 1), lambda jets: _tau_ratio(jets, 1)),
        Observable("tau32", r"$\tau_3/\tau_2$", "", (0, 1), lambda jets: _tau_ratio(jets, 2)),
        *[_flow("path", edges) for edges in (1, 2, 3)],
        *[_flow("cycle", edges) for edges in (2, 3)],
        Observable("overlap_tracks_ecal", "tracks-ECAL overlap", "", (0, 1), lambda jets: jets.tower_overlap(TRACKS, ECAL)),
        Observable("overlap_tracks_hcal", "tracks-HCAL overlap", "", (0, 1), lambda jets: jets.tower_overlap(TRACKS, HCAL)),
        Observable("overlap_ecal_hcal", "ECAL-HCAL overlap", "", (0, 1), lambda jets: jets.tower_overlap(ECAL, HCAL)),
    ]


def _tau(index: int) -> Observable:
    return Observable(
        f"tau{index + 1}", rf"$\tau_{index + 1}$", "", (0, 0.4), lambda jets: jets.substructure.subjettiness[:, index]
    )


def _tau_ratio(jets: JetFeatures, index: int) -> Array:
    tau = jets.substructure.subjettiness
    return divide(tau[:, index], tau[:, index - 1])


def _flow(kind: str, edges: int) -> Observable:
    method = f"energy_flow_{kind}"
    return Observable(
        f"flow_{kind}{edges}",
        rf"EFP {kind} {edges}",
        "",
        (0, 0.8),
        lambda jets: getattr(jets.substructure, method)(edges),
    )


OBSERVABLES: dict[str, Observable] = {row.name: row for row in _rows()}
"""Name -> observable."""


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
        ValueError: for a wrong shape or type, or a name that is not in the table.
    """
    energies = check_image_shape(energies)
    names = list(OBSERVABLES if names is None else names)
    unknown = [name for name in names if name not in OBSERVABLES]
    if unknown:
        raise ValueError(f"no observable {unknown[0]!r}; there are {', '.join(OBSERVABLES)}")
    columns = {name: np.empty(len(energies)) for name in names}
    for start in tqdm(range(0, len(energies), batch_size), desc="observables", unit="batch", disable=not progress):
        rows = slice(start, start + batch_size)
        jets = JetFeatures(energies[rows])
        for name in names:
            columns[name][rows] = OBSERVABLES[name].compute(jets)
    return columns


def quick_table(real_energies: Array, generated_energies: Array) -> list[dict[str, float | str]]:
    """Energy and occupancy per channel, generated against real: the trainer's glance at a sample.

    Args:
        real_energies: (N, 3, 125, 125) in GeV/100.
        generated_energies: (M, 3, 125, 125) in GeV/100.

    Returns:
        One row per quantity and channel: `quantity`, `channel`, `unit`, `real` and `generated` means with
        their standard errors `real_error` and `generated_error`, and `ratio` (NaN where the real mean is 0).

    Raises:
        ValueError: for a wrong shape or type, or no jets.
    """
    samples = {"real": Hits(real_energies), "generated": Hits(generated_energies)}
    for name, hits in samples.items():
        if hits.num_jets == 0:
            raise ValueError(f"the {name} sample holds no jets")
    rows: list[dict[str, float | str]] = []
    for quantity, unit, attribute, scale in (
        ("energy", "GeV", "channel_energy", 1.0),
        ("occupancy", "%", "channel_hits", 100.0 / 125**2),
    ):
        for index, channel in enumerate(CHANNELS):
            row: dict[str, float | str] = {"quantity": quantity, "channel": channel, "unit": unit}
            for name, hits in samples.items():
                values = getattr(hits, attribute)[:, index] * scale
                row[name] = float(values.mean())
                row[f"{name}_error"] = float(values.std() / np.sqrt(len(values)))
            row["ratio"] = float(divide(np.float64(row["generated"]), np.float64(row["real"]))) if row["real"] else float("nan")
            rows.append(row)
    return rows
