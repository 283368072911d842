"""Find the columns of the schema in a file, and check their shapes and values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jet_diffusion.data.files.kinds import READS
from jet_diffusion.data.files.stored import Stored, StoredDataset, check_shape
from jet_diffusion.errors import UserError, printable
from jet_diffusion.schema import IMAGE_SHAPE, PIXELS_SHAPE

KEYS = ("X_jets", "y", "pt", "m0")
"""The columns a file must hold."""

_OTHER_NAMES = {
    "X_jets": ("x", "xjets", "xjet", "images", "image", "imgs", "jets", "data"),
    "y": ("label", "labels", "target", "targets", "class", "isquark"),
    "pt": ("jetpt", "pts", "ptjet", "genpt"),
    "m0": ("jetm", "m", "mass", "jetmass", "jetm0", "mjet", "m0s"),
}
"""Names that others give the columns, without case and underscores: offered, never taken unasked."""


def parse_columns(columns: str | Mapping[str, str] | None) -> dict[str, str]:
    """The file's name of each column: "pt=jetPt,m0=jetM" or a mapping; columns left out keep their names.

    Raises:
        UserError: A name is none of the schema's, or comes twice.
    """
    if isinstance(columns, str):
        pairs = [part.partition("=") for part in columns.split(",") if part.strip()]
        given = [(ours.strip(), theirs.strip()) for ours, _, theirs in pairs]
    else:
        given = list((columns or {}).items())
    names = dict(given)
    wrong = [ours for ours, theirs in given if ours not in KEYS or not theirs]
    if wrong or len(names) < len(given):
        accepted = f"NAME=COLUMN with each NAME of {', '.join(KEYS)} once at most"
        raise UserError(f"columns must be {accepted}, not {columns!r}")
    return dict(zip(KEYS, KEYS, strict=True)) | names


def check_columns(stored: Stored, path: Path, names: Mapping[str, str], channels_first: bool | None) -> bool:
    """Refuse a file that lacks a column or whose shapes are others, saying what it holds.

    Args:
        stored: The open file.
        path: For messages.
        names: The file's name of each column.
        channels_first: Whether the images are (N, 3, 125, 125); None takes what a Parquet file shows.

    Returns:
        Whether the channels come first.

    Raises:
        UserError: In at most three lines.
    """
    missing = [key for key in KEYS if not stored.has(names[key])]
    if missing:
        raise UserError(_describe_missing(stored, path, names, missing))
    images = stored.storage(names["X_jets"])
    if channels_first is None:
        channels_first = stored.kind == "Parquet" and images.shape[1:] == IMAGE_SHAPE
    _check_images(images, path, channels_first)
    check_shape(f"{path}: {printable(images.name)}", images.shape)
    for key in KEYS[1:]:
        column = stored.storage(names[key])
        if column.shape not in (images.shape[:1], (images.shape[0], 1)):
            raise UserError(f"{path}: {key} has shape {column.shape}, expected {images.shape[:1]}")
    for key in KEYS:
        stored.check(names[key])
    return channels_first


def _describe_missing(stored: Stored, path: Path, names: Mapping[str, str], missing: list[str]) -> str:
    """What is missing, what is there, and what to do."""
    absent = ", ".join(key if names[key] == key else f"{printable(names[key])} (for {key})" for key in missing)
    held = [_show(item) for item in stored.contents.values()]
    there = ", ".join(held[:12]) + (f" and {len(held) - 12} more" if len(held) > 12 else "")
    near = {key: other for key in missing if (other := _near(stored, key))}
    if "X_jets" in near and sorted(stored.storage(near["X_jets"]).shape[1:]) != sorted(PIXELS_SHAPE):
        near = {}  # images of another size: no name would help
    kind = "an HDF5" if stored.kind == "HDF5" else "a Parquet"
    lines = [f"{path} is {kind} file without {absent}; it holds {there or 'nothing'}"]
    if near:
        option = ",".join(f"{key}={printable(other)}" for key, other in near.items())
        first = "X_jets" in near and stored.storage(near["X_jets"]).shape[1:] == IMAGE_SHAPE
        lines.append(f"if these are the columns, name them: --columns {option}" + " --channels-first" * first)
    without = [key for key in missing if key not in near and key != "X_jets"]
    if without and near:
        lines.append(f"{', '.join(without)} of each jet {'is' if len(without) == 1 else 'are'} needed too")
    if not near:
        lines.append(READS)
    return "\n".join(lines)


def _near(stored: Stored, key: str) -> str | None:
    """A column that others call so."""
    for name in stored.contents:
        bare = name.rpartition("/")[2].lower().replace("_", "")
        if bare in (key.lower().replace("_", ""), *_OTHER_NAMES[key]):
            return name
    return None


def _show(item: StoredDataset) -> str:
    return f"{printable(item.name)} {item.shape} {item.dtype}"


def _check_images(images: StoredDataset, path: Path, channels_first: bool) -> None:
    wanted = IMAGE_SHAPE if channels_first else PIXELS_SHAPE
    expected = f"(N, {wanted[0]}, {wanted[1]}, {wanted[2]})"
    name = printable(images.name)
    if images.shape[1:] != wanted:
        hint = f"; {READS}"
        if images.shape[1:] == IMAGE_SHAPE:
            hint = "; the channels stand first: --channels-first reads them so"
        elif images.shape[1:] == PIXELS_SHAPE:
            hint = "; the channels stand last: leave out --channels-first"
        raise UserError(f"{path}: {name} has shape {images.shape}, expected {expected}{hint}")
    if not _is_real(images.dtype):
        raise UserError(f"{path}: {name} has dtype {images.dtype}, expected float32")
    if images.shape[0] == 0:
        raise UserError(f"{path}: {name} holds no jets")


def _is_real(dtype: str) -> bool:
    try:
        return np.dtype(dtype).kind in "fiu"
    except TypeError:  # a type of Parquet that numpy has no name for
        return False


def as_single(values: NDArray[Any], name: str, path: Path, first_jet: int = 0) -> NDArray[np.float32]:
    """Convert numbers to float32 if that loses nothing; values that are not finite stay so.

    Raises:
        UserError: They are no real numbers, or float32 would round one; the message has the line that mends it.
    """
    if values.dtype.kind not in "fiu":
        raise UserError(f"{path}: {name} has dtype {values.dtype}, expected numbers (float32)")
    if values.dtype == np.float32:
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        single = values.astype(np.float32)
        wrong = (single.astype(values.dtype) != values) & ~(np.isnan(values) if values.dtype.kind == "f" else False)
    if wrong.any():
        place = tuple(int(index) for index in np.argwhere(wrong)[0])
        raise UserError(
            f"{path}: {name} of jet {first_jet + place[0]} is {values[place]} ({values.dtype}), which float32 cannot "
            f"hold exactly\nround it when you write the file: file['{name}'] = values.astype('float32')"
        )
    return single
