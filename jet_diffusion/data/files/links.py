"""Find out whether an HDF5 file keeps content in other files, and refuse that unless the user asked for it.

Without this check a file could put any other file of the reader's machine into a dataset, and a virtual dataset
whose source is missing would read as zeros.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py

from jet_diffusion.errors import UserError, printable

MAX_LINKS = 16
"""Soft links followed one after the other; more is a cycle."""


def resolve(file: h5py.File, name: str, follow: bool) -> tuple[Any, list[str]]:
    """Open an object of a file; one that lies in another file is refused unless links are followed.

    Args:
        file: The open file.
        name: Path of the object in it.
        follow: Whether content in other files is read.

    Returns:
        The object, None if there is none; and what lies in other files, as phrases.

    Raises:
        UserError: The object lies elsewhere and `follow` is false, its source is missing, or links go in a circle.
    """
    elsewhere: list[str] = []
    parts, node, left = _parts(name), file["/"], MAX_LINKS
    while parts:
        part = parts.pop(0)
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if link is None:
            return None, elsewhere
        if isinstance(link, h5py.SoftLink):
            left -= 1
            if left < 0:
                raise UserError(f"{file.filename}: the link {printable(name)} goes in a circle")
            node = file["/"] if link.path.startswith("/") else node
            parts = _parts(link.path) + parts
            continue
        if isinstance(link, h5py.ExternalLink):
            elsewhere.append(
                f"{printable(name)} is a link to {printable(link.path)} in {printable(link.filename, 200)}"
            )
            _refuse_unless(follow, file, elsewhere[-1])
        try:
            node = node[part]
        except (KeyError, OSError, RuntimeError) as error:
            raise UserError(f"{file.filename}: {printable(name)} cannot be opened: {printable(error, 200)}") from error
    if isinstance(node, h5py.Dataset):
        for seen in _other_files(node, printable(name)):
            elsewhere.append(seen)
            _refuse_unless(follow, file, seen)
        _check_sources(node, depth=8)
    return node, elsewhere


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".")]


def _refuse_unless(follow: bool, file: h5py.File, seen: str) -> None:
    if not follow:
        raise UserError(f"{file.filename}: {seen}; content of other files is read only if you mean it: --follow-links")


def _other_files(dataset: h5py.Dataset, name: str) -> list[str]:
    """What of a dataset lies in other files."""
    seen = []
    if dataset.external:
        seen.append(f"{name} lies as raw bytes in {_listed({source[0] for source in dataset.external})}")
    if dataset.is_virtual:
        sources = {source.file_name for source in dataset.virtual_sources()}
        seen.append(f"{name} is a virtual dataset of {_listed(sources)}")
    return seen


def _listed(names: set[str]) -> str:
    first = sorted(names)[:5]
    return ", ".join(printable(name, 200) for name in first) + (" and others" if len(names) > 5 else "")


def _check_sources(dataset: h5py.Dataset, depth: int) -> None:
    """A source that is missing would read as zeros: refuse it."""
    folder = Path(dataset.file.filename).parent
    for name, *_ in dataset.external or ():
        if not (folder / name).is_file():
            raise UserError(f"{dataset.file.filename}: {dataset.name} needs the file {folder / name}, which is missing")
    if not dataset.is_virtual:
        return
    if depth == 0:
        raise UserError(f"{dataset.file.filename}: virtual datasets are nested deeper than 8 files")
    for source in dataset.virtual_sources():
        path = Path(dataset.file.filename) if source.file_name == "." else folder / source.file_name
        try:
            with h5py.File(path, "r") as other:
                _check_sources(other[source.dset_name], depth - 1)
        except (OSError, KeyError) as error:
            where = f"{printable(source.dset_name)} of {path}"
            raise UserError(f"{dataset.file.filename}: {dataset.name} needs {where}, which cannot be read") from error
