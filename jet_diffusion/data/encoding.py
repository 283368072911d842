"""Jets as rows of an Arrow table: a few kB a jet, and every float back bit for bit.

| column        | type                         | holds                                                          |
| ------------- | ---------------------------- | -------------------------------------------------------------- |
| `index`       | List(uint16)                 | places of the non-zero crystals in the flattened (3, 125, 125) |
| `value`       | List(float32)                | their energies, GeV/100                                        |
| `tower_index` | List(uint16)                 | places of the non-zero HCAL towers in the flattened (25, 25)   |
| `tower_value` | List(float32)                | the energy of each of a tower's 25 crystals, GeV/100           |
| `y`           | ClassLabel(gluon, quark)     | the class                                                      |
| `pt`, `m0`    | float32                      | pT and mass of the jet, GeV                                    |
| `content_hash`| uint64                       | 64-bit BLAKE2b of the places and bits of all non-zero crystals |
| `row`         | uint32                       | the jet's number in the source file                            |
| `simulated`   | bool                         | true for a simulated stand-in jet                              |

"Non-zero" is said of the bits, so that -0.0 survives. A jet whose HCAL values are the same, bit for bit, within
every 5x5 tower has its HCAL in the tower columns; any other jet has it in `index` and `value` and no towers.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Features, List, Value
from numpy.typing import NDArray

from jet_diffusion.errors import UserError
from jet_diffusion.schema import (
    CHANNELS,
    CLASS_NAMES,
    CRYSTAL_TO_TOWER,
    CRYSTALS_PER_TOWER,
    HCAL,
    IMAGE_SHAPE,
    NUM_CRYSTALS,
    NUM_TOWERS,
    check_energies,
)

FEATURES = Features(
    {
        "index": List(Value("uint16")),
        "value": List(Value("float32")),
        "tower_index": List(Value("uint16")),
        "tower_value": List(Value("float32")),
        "y": ClassLabel(names=list(CLASS_NAMES)),
        "pt": Value("float32"),
        "m0": Value("float32"),
        "content_hash": Value("uint64"),
        "row": Value("uint32"),
        "simulated": Value("bool"),
    }
)
"""Types of the columns."""

FINGERPRINTED = ("content_hash", "y", "pt", "m0")
"""The columns that make a split's fingerprint."""

IMAGE_COLUMNS = ["index", "value", "tower_index", "tower_value"]
"""The columns `decode_energies` needs."""

_PLANE = NUM_CRYSTALS**2
HCAL_START = HCAL * _PLANE
"""Place of the first HCAL crystal in a flattened image."""

_IMAGE = len(CHANNELS) * _PLANE
_TOWERS = NUM_TOWERS**2
_ROW, _COLUMN = np.divmod(np.arange(_PLANE), NUM_CRYSTALS)
_IS_CORNER = (_ROW % CRYSTALS_PER_TOWER == 0) & (_COLUMN % CRYSTALS_PER_TOWER == 0)
"""Whether a crystal is its tower's first."""


class StoredHits(NamedTuple):
    """The hits of n jets as their columns hold them: those of the first jet, then those of the second, and so on.

    Attributes:
        counts, place, energy: Crystals of each jet (n,), and the place and energy (GeV/100) of each crystal (K,).
        tower_counts, tower, tower_energy: The same of HCAL towers; the energy is that of each of the 25 crystals.
    """

    counts: NDArray[np.int32]
    place: NDArray[np.uint16]
    energy: NDArray[np.float32]
    tower_counts: NDArray[np.int32]
    tower: NDArray[np.uint16]
    tower_energy: NDArray[np.float32]


class _Hits(NamedTuple):
    """The K non-zero crystals of n jets, in the order of jet and place."""

    num_jets: int
    jet: NDArray[np.int64]
    place: NDArray[np.int64]
    bits: NDArray[np.uint32]

    def where(self, chosen: NDArray[np.bool_]) -> _Hits:
        return _Hits(self.num_jets, self.jet[chosen], self.place[chosen], self.bits[chosen])

    def offsets(self) -> NDArray[np.int32]:
        """Where each jet's hits begin, and K."""
        counts = np.bincount(self.jet, minlength=self.num_jets)
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)

    def columns(self) -> tuple[pa.ListArray, pa.ListArray]:
        """Places and values as Arrow lists, one a jet."""
        offsets = pa.array(self.offsets())
        values = self.bits.view(np.float32)
        places = self.place.astype(np.uint16)
        return pa.ListArray.from_arrays(offsets, places), pa.ListArray.from_arrays(offsets, values)


def encode_jets(
    energies: NDArray[np.float32],
    labels: NDArray[np.int64],
    pt: NDArray[np.float32],
    m0: NDArray[np.float32],
    first_row: int,
    simulated: bool = False,
    rows: NDArray[np.int64] | None = None,
) -> pa.Table:
    """Pack jets of a source file.

    Args:
        energies: (n, 3, 125, 125) float32, finite and not negative.
        labels: (n,) 0 gluon or 1 quark.
        pt: (n,) GeV.
        m0: (n,) GeV.
        first_row: Number of the first of them in the source file.
        simulated: Whether they are simulated stand-in jets.
        rows: (n,) numbers of the jets in the source file; by default they are consecutive.

    Returns:
        n rows with the columns of `FEATURES`.

    Raises:
        UserError: The energies break the schema or the lengths differ.
    """
    check_energies(energies, first_jet=first_row)
    count = len(energies)
    lengths = {len(column) for column in (labels, pt, m0)}
    if lengths != {count}:
        raise UserError(f"there are {count} jets but columns of length {sorted(lengths)}")
    hits = _find_hits(energies)
    crystals, towers = _split_towers(hits)
    columns = [
        *crystals.columns(),
        *towers.columns(),
        pa.array(labels, pa.int64()),
        pa.array(pt, pa.float32()),
        pa.array(m0, pa.float32()),
        pa.array(_hash(hits)),
        pa.array(np.arange(first_row, first_row + count) if rows is None else rows, pa.uint32()),
        pa.array(np.full(count, simulated)),
    ]
    return pa.table(columns, schema=FEATURES.arrow_schema)


def decode_energies(table: pa.Table) -> NDArray[np.float32]:
    """Unpack the images of an encoded table.

    Args:
        table: Rows with the columns of `IMAGE_COLUMNS`.

    Returns:
        (n, 3, 125, 125) float32, bit for bit what was encoded.

    Raises:
        UserError: A place lies outside the image, or places and values differ in number.
    """
    energies = np.zeros((table.num_rows, *IMAGE_SHAPE), np.float32)
    hits, jet = read_hits(table), np.arange(table.num_rows)
    energies.reshape(-1)[np.repeat(jet * _IMAGE, hits.counts) + hits.place] = hits.energy
    blocks = energies[:, HCAL].reshape(-1, NUM_TOWERS, CRYSTALS_PER_TOWER, NUM_TOWERS, CRYSTALS_PER_TOWER)
    row, column = np.divmod(hits.tower, NUM_TOWERS)
    blocks.swapaxes(2, 3)[np.repeat(jet, hits.tower_counts), row, column] = hits.tower_energy[:, None, None]
    return energies


def read_hits(table: pa.Table) -> StoredHits:
    """The hits of an encoded table.

    Args:
        table: Rows with the columns of `IMAGE_COLUMNS`.

    Raises:
        UserError: A place lies outside the image, or places and values differ in number.
    """
    return StoredHits(
        *_flatten(table, "index", "value", _IMAGE), *_flatten(table, "tower_index", "tower_value", _TOWERS)
    )


def content_hashes(energies: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Hash each jet's image: 64-bit BLAKE2b of the places and bits of its non-zero crystals.

    Args:
        energies: (n, 3, 125, 125) float32.

    Returns:
        (n,) uint64; equal for images that are equal bit for bit.
    """
    check_energies(energies)
    return _hash(_find_hits(energies))


def fingerprint(columns: Mapping[str, Any]) -> str:
    """Hash the content of encoded jets in their order.

    Args:
        columns: The Arrow columns named in `FINGERPRINTED`.

    Returns:
        32 hexadecimal digits.
    """
    digest = blake2b(digest_size=16)
    for name in FINGERPRINTED:
        digest.update(columns[name].to_numpy().tobytes())
    return digest.hexdigest()


def has_hcal_among_crystals(table: pa.Table) -> NDArray[np.bool_]:
    """Tell which encoded jets have HCAL in `index`, their towers not being constant.

    Returns:
        (n,) bool.
    """
    counts, place, _ = _flatten(table, "index", "value", _IMAGE)
    last = place[np.cumsum(counts)[counts > 0] - 1]  # places rise
    found = np.zeros(table.num_rows, np.bool_)
    found[counts > 0] = last >= HCAL_START
    return found


def _find_hits(energies: NDArray[np.float32]) -> _Hits:
    """Scan in the order the values lie in memory: what a file yields is a view of channels-last pixels."""
    pixels = np.moveaxis(energies, 1, -1)
    channels_last = pixels.flags.c_contiguous
    bits = (pixels if channels_last else np.ascontiguousarray(energies)).view(np.uint32).reshape(-1)
    seen = np.flatnonzero(bits != 0)
    if not channels_last:
        return _Hits(len(energies), *np.divmod(seen, _IMAGE), bits[seen])
    pixel, channel = np.divmod(seen, len(CHANNELS))
    jet, crystal = np.divmod(pixel, _PLANE)
    place = channel * _PLANE + crystal
    order = np.argsort(jet * _IMAGE + place, kind="stable")
    return _Hits(len(energies), jet[order], place[order], bits[seen[order]])


def _split_towers(hits: _Hits) -> tuple[_Hits, _Hits]:
    """Split into crystals and HCAL towers; jets whose towers are not constant stay all crystals."""
    is_hcal = hits.place >= HCAL_START
    hcal = hits.where(is_hcal)
    crystal = hcal.place - HCAL_START
    cell = hcal.jet * _TOWERS + CRYSTAL_TO_TOWER[crystal]
    corners = _IS_CORNER[crystal]
    tower_bits = np.zeros(hits.num_jets * _TOWERS, np.uint32)
    tower_bits[cell[corners]] = hcal.bits[corners]

    # Constant means: each hit equals its tower's corner, and each tower with a corner has 25 hits.
    equal = np.bincount(hcal.jet[tower_bits[cell] == hcal.bits], minlength=hits.num_jets)
    num_towers = np.bincount(hcal.jet[corners], minlength=hits.num_jets)
    num_hits = np.bincount(hcal.jet, minlength=hits.num_jets)
    constant = (equal == num_hits) & (num_hits == num_towers * CRYSTALS_PER_TOWER**2)

    tower_hits = _Hits(hits.num_jets, hcal.jet, CRYSTAL_TO_TOWER[crystal], hcal.bits)
    return hits.where(~(is_hcal & constant[hits.jet])), tower_hits.where(corners & constant[hcal.jet])


def _hash(hits: _Hits) -> NDArray[np.uint64]:
    places = hits.place.astype("<u2").view(np.uint8).data
    bits = hits.bits.astype("<u4").view(np.uint8).data
    digests = []
    for start, stop in pairwise(hits.offsets().tolist()):
        digest = blake2b(places[2 * start : 2 * stop], digest_size=8)
        digest.update(bits[4 * start : 4 * stop])
        digests.append(digest.digest())
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def _flatten(
    table: pa.Table, places: str, values: str, end: int
) -> tuple[NDArray[np.int32], NDArray[np.uint16], NDArray[np.float32]]:
    """The lengths (n,) of two list columns' lists, and the place and value of every entry."""
    place_lists, value_lists = table[places].combine_chunks(), table[values].combine_chunks()
    counts, value_counts = (np.diff(lists.offsets.to_numpy()) for lists in (place_lists, value_lists))
    if not np.array_equal(counts, value_counts):
        raise UserError(f"the lists of {places} and {values} differ in length")
    place = place_lists.flatten().to_numpy()
    if place.size and place.max() >= end:
        raise UserError(f"{places} holds {place.max()}; places must lie below {end}")
    return counts, place, value_lists.flatten().to_numpy()
