"""A set of jets in the forms other tools read: point clouds, awkward arrays, ROOT files and histograms."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from jet_diffusion.errors import UserError, require
from jet_diffusion.io import write_atomically
from jet_diffusion.observables.hits import CRYSTAL_CENTRES, PIXELS, TOWERS, Array
from jet_diffusion.observables.table import OBSERVABLES
from jet_diffusion.schema import (
    CHANNELS,
    CLASS_NAMES,
    CRYSTAL_PITCH,
    CRYSTAL_TO_TOWER,
    CRYSTALS_PER_TOWER,
    GEV_PER_UNIT,
    HCAL,
    NUM_CRYSTALS,
    hcal_is_constant_in_towers,
)

if TYPE_CHECKING:
    from jet_diffusion.data.jet_set import JetSample

TOWER_CRYSTALS = CRYSTALS_PER_TOWER**2

CONDITIONS = {
    "pt": (r"jet $p_\mathrm{T}$ [GeV]", (0.0, 300.0)),
    "m0": ("jet mass [GeV]", (0.0, 60.0)),
}
"""Label and range of the conditions' histograms."""


class PointClouds(NamedTuple):
    """Jets as padded sets of points, by the conventions of JetNet (https://zenodo.org/records/6975118).

    The points of a jet are sorted by falling energy, and zeros fill its row. The mask is true where there is a point.
    PyTorch's `key_padding_mask` is the opposite: `~mask`.

    Attributes:
        points: (N, P, 4) float64: eta and phi from the image's centre (radians), energy in GeV (the tracks' is their
            pT), and the channel: 0 tracks, 1 ECAL, 2 HCAL.
        mask: (N, P) bool.
        left_out: (N,) how many points of each jet were too many for P; the least energetic are left out.
    """

    points: Array
    mask: Array
    left_out: Array


class Points(NamedTuple):
    """The points of all jets in one list, jet by jet and by falling energy.

    Attributes:
        number: (N,) points of each jet.
        columns: (M, 4) eta, phi, energy and channel, as in `PointClouds`.
    """

    number: Array
    columns: Array


def list_points(jets: JetSample, towers: bool = True) -> Points:
    """List the points of jets.

    Args:
        jets: the jets.
        towers: whether an HCAL tower is one point at its centre, or each of its 25 crystals is.

    Raises:
        UserError: if energy is spread unevenly in some tower, so that one point cannot stand for it.
    """
    jet = np.repeat(np.arange(len(jets)), np.diff(jets.voxels.indptr))
    channel, pixel = np.divmod(jets.voxels.indices.astype(np.int64), PIXELS)
    row, column = np.divmod(pixel, NUM_CRYSTALS)
    energy = jets.voxels.data.astype(np.float64) * GEV_PER_UNIT
    if towers:
        _check_towers(jets)
        hcal, centre = channel == HCAL, CRYSTALS_PER_TOWER // 2
        energy[hcal] *= TOWER_CRYSTALS
        # The central crystal of a tower has the tower's position.
        kept = ~hcal | ((row % CRYSTALS_PER_TOWER == centre) & (column % CRYSTALS_PER_TOWER == centre))
        jet, channel, row, column, energy = (values[kept] for values in (jet, channel, row, column, energy))
    order = np.lexsort((-energy, jet))
    columns = np.stack([CRYSTAL_CENTRES[row], CRYSTAL_CENTRES[column], energy, channel], axis=1)
    return Points(np.bincount(jet, minlength=len(jets)), columns[order])


def _check_towers(jets: JetSample) -> None:
    first = 0
    for energies in jets.batches():
        uneven = np.flatnonzero(~hcal_is_constant_in_towers(energies.astype(np.float32, copy=False)))
        if len(uneven):
            raise UserError(
                f"jet {first + uneven[0]} has HCAL towers whose 25 crystals differ, so that one point cannot stand for "
                "a tower; pass towers=False to get a point for each crystal"
            )
        first += len(energies)


def to_point_clouds(jets: JetSample, max_points: int | None = None, *, towers: bool = True) -> PointClouds:
    """Turn jets into padded point clouds; see `JetSample.to_point_clouds`."""
    if max_points is not None and max_points < 1:
        raise UserError(f"max_points must be at least 1, or None for as many as the fullest jet has, not {max_points}")
    number, columns = list_points(jets, towers)
    size = int(max(number, default=0)) if max_points is None else max_points
    mask = np.arange(size) < number[:, None]
    jet = np.repeat(np.arange(len(jets)), number)
    rank = np.arange(len(columns)) - np.repeat(np.cumsum(number) - number, number)
    kept = rank < size
    points = np.zeros((len(jets), size, columns.shape[1]))
    points[jet[kept], rank[kept]] = columns[kept]
    return PointClouds(points, mask, np.maximum(number - size, 0))


def from_points(points: Array, mask: Array, *, towers: bool = True) -> csr_array:
    """Fill images with points; see `JetSample.from_point_clouds`.

    Returns:
        (N, 46875) sparse float32 in GeV/100.
    """
    if points.ndim != 3 or points.shape[2] != 4 or mask.shape != points.shape[:2] or mask.dtype != bool:
        raise UserError(
            "points must have the shape (N, P, 4) and their mask (N, P) and the type bool, not "
            f"{points.shape}, {mask.shape} and {mask.dtype}"
        )
    jet, rank = np.nonzero(mask)
    eta, phi, energy, channel = points[jet, rank].astype(np.float64).T
    row, column = (np.rint(angle / CRYSTAL_PITCH) + NUM_CRYSTALS // 2 for angle in (eta, phi))
    inside = (row >= 0) & (row < NUM_CRYSTALS) & (column >= 0) & (column < NUM_CRYSTALS)
    unknown = ~np.isin(channel, range(len(CHANNELS)))
    if len(at := np.flatnonzero(~inside | unknown)):
        first = at[0]
        fault = "has no channel 0, 1 or 2" if unknown[first] else "lies outside the image"
        raise UserError(
            f"point {rank[first]} of jet {jet[first]} {fault}: eta {eta[first]:.3g}, phi {phi[first]:.3g}, "
            f"channel {channel[first]:.3g}"
        )
    pixel = (row * NUM_CRYSTALS + column).astype(np.int64)
    voxel = channel.astype(np.int64) * PIXELS + pixel
    value = energy / GEV_PER_UNIT
    if towers:
        hcal = channel == HCAL
        crystals = np.argsort(CRYSTAL_TO_TOWER, kind="stable").reshape(TOWERS, TOWER_CRYSTALS)
        spread = HCAL * PIXELS + crystals[CRYSTAL_TO_TOWER[pixel[hcal]]]
        jet = np.concatenate([jet[~hcal], np.repeat(jet[hcal], TOWER_CRYSTALS)])
        voxel = np.concatenate([voxel[~hcal], spread.ravel()])
        value = np.concatenate([value[~hcal], np.repeat(value[hcal] / TOWER_CRYSTALS, TOWER_CRYSTALS)])
    images = csr_array((value, (jet, voxel)), shape=(len(points), len(CHANNELS) * PIXELS))  # adds up equal places
    images.eliminate_zeros()
    images.sort_indices()
    return images.astype(np.float32)


def to_awkward(jets: JetSample, *, towers: bool = True) -> Any:
    """Turn jets into an awkward array; see `JetSample.to_awkward`."""
    ak = require("awkward", "root", "an awkward array")
    number, columns = list_points(jets, towers)
    eta, phi, energy, channel = columns.T
    hits = ak.zip({"eta": eta, "phi": phi, "energy": energy, "channel": channel.astype(np.int8)})
    fields = {"label": jets.labels, "pt": jets.pt, "m0": jets.m0, "hits": ak.unflatten(hits, number)}
    array = ak.zip(fields, depth_limit=1)
    return array if jets.simulated is None else ak.with_parameter(array, "simulated", jets.simulated)


def to_root(jets: JetSample, path: str | Path, *, towers: bool = True) -> None:
    """Write jets into a ROOT file; see `JetSample.to_root`."""
    uproot = require("uproot", "root", "a ROOT file")
    path = Path(path)
    if path.suffix != ".root":
        raise UserError(f"the name of a ROOT file ends in .root, and {path} does not")
    if path.exists():
        raise FileExistsError(f"{path} exists already; choose another name or delete it")
    write_atomically(path, partial(_write_tree, uproot, jets, to_awkward(jets, towers=towers)))


def _write_tree(uproot: Any, jets: JetSample, array: Any, path: Path) -> None:
    columns = {name: array[name] for name in ("label", "pt", "m0", "hits")}
    with uproot.recreate(path) as file:
        types = {name: column.type.content for name, column in columns.items()}
        file.mktree("jets", types, title=jets.simulated or "jets").extend(columns)
        if jets.simulated is not None:
            file["simulated"] = jets.simulated


def to_hist(jets: JetSample, name: str, bins: int = 40, limits: tuple[float, float] | None = None) -> Any:
    """Fill a histogram of one quantity; see `JetSample.to_hist`."""
    hist = require("hist", "root", "a histogram")
    if name in CONDITIONS:
        label, usual = CONDITIONS[name]
        values = getattr(jets, name)
    elif name in OBSERVABLES:
        label, usual = OBSERVABLES[name].axis_label, OBSERVABLES[name].limits
        values = jets.observable(name)
    else:
        raise UserError(f"no quantity {name!r}; there are {', '.join([*CONDITIONS, *OBSERVABLES])}")
    classes = hist.axis.StrCategory(CLASS_NAMES, name="jet_class", label="class")
    axis = hist.axis.Regular(bins, *(limits or usual), name=name, label=label)
    filled = hist.Hist(classes, axis, storage=hist.storage.Int64(), label=jets.simulated or jets.source)
    names = np.array([*CLASS_NAMES, "unlabelled"])  # the last is -1, the label of unconditional jets
    return filled.fill(jet_class=names[jets.labels], **{name: values})
