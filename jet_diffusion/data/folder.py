"""A converted dataset on disk or on the Hub: where it is, and whether it is whole.

`jet_diffusion.json` names every shard with its rows and digest. A dataset with a shard too many or too few, or of
another content, is refused by name before a jet of it is used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from jet_diffusion.data.files.kinds import kind_of
from jet_diffusion.errors import UserError, printable
from jet_diffusion.repositories import fetch

logger = logging.getLogger(__name__)

METADATA_FILE = "jet_diffusion.json"
"""Lies beside the data: sources, split, seed, shards with their digests, findings, simulated marker."""

DATASET_FILES = [METADATA_FILE, "README.md", "data/*.parquet"]
"""What is downloaded of a dataset."""

HUB_PREFIX = "hf://"

VERIFY_BYTES = 2_000_000_000
"""Shards that take no more than this together are digested at every load, in about a second a GB."""

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def locate(path_or_repo: str | Path) -> Path:
    """Find the folder of a converted dataset; one on the Hub is downloaded.

    Args:
        path_or_repo: A folder; or `user/name` or `hf://user/name` of a dataset on the Hub. What exists on disk is
            never looked up on the Hub.

    Raises:
        FileNotFoundError: There is neither such a folder nor such a dataset.
        PermissionError: The Hub refuses access, and the cache has no copy.
        ConnectionError: The Hub cannot be asked, and the cache has no copy.
        UserError: It is a file: a file of jets has to be converted first.
    """
    name = str(path_or_repo)
    if name.startswith(HUB_PREFIX):
        return fetch(name.removeprefix(HUB_PREFIX).removeprefix("datasets/"), "dataset", DATASET_FILES)
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        kind = {"hdf5": "an HDF5 file", "parquet": "a Parquet file"}[kind_of(path)]
        raise UserError(f"{path} is {kind}: convert it first: jet-diffusion convert {path} FOLDER")
    if isinstance(path_or_repo, str) and _HUB_NAME.fullmatch(name) and not name.startswith("."):
        return fetch(name, "dataset", DATASET_FILES)
    raise FileNotFoundError(
        f"there is no folder {name}; a dataset on the Hub is named user/name or {HUB_PREFIX}user/name"
    )


def read_metadata(folder: Path) -> dict[str, Any]:
    """The metadata of a converted dataset in a folder.

    Raises:
        FileNotFoundError: The folder holds no converted dataset; those in its subfolders are named.
        UserError: The metadata file is damaged.
    """
    file = folder / METADATA_FILE
    if not file.is_file():
        inner = sorted(path.parent.name for path in folder.glob(f"*/{METADATA_FILE}")) if folder.is_dir() else []
        hint = f"; it holds the datasets {', '.join(inner)}: name one of them" if inner else ""
        raise FileNotFoundError(f"{folder} is no converted dataset: it holds no {METADATA_FILE}{hint}")
    return parse_metadata(file.read_bytes(), str(file))


def parse_metadata(text: bytes, file: str) -> dict[str, Any]:
    """What a metadata file says.

    Raises:
        UserError: The file, which is called `file` in the message, is damaged.
    """
    try:
        metadata = json.loads(text.decode())
    except ValueError as error:
        raise UserError(f"{file} is damaged: {error}; convert again or copy the folder again") from error
    if not isinstance(metadata, dict) or not isinstance(metadata.get("splits"), dict):
        raise UserError(f"{file} is damaged: it does not name the splits; convert again or copy the folder again")
    return metadata


def check_whole(folder: Path, verify: bool | None = None) -> dict[str, Any]:
    """Refuse a converted dataset that is not whole.

    Args:
        folder: The dataset.
        verify: Whether to compare the digests of the shards too; by default if they take 2 GB at most together.

    Returns:
        Its metadata.

    Raises:
        FileNotFoundError: It is no converted dataset, or shards are missing.
        UserError: A shard is foreign or has other rows or another digest; metadata or README.md are damaged.
    """
    metadata = read_metadata(folder)
    _check_readme(folder / "README.md")
    if "shards" not in metadata:
        logger.warning("%s was converted before shards had digests: it is not checked whether it is whole", folder)
        return metadata
    expected = metadata["shards"]
    found = {f"data/{path.name}": path for path in (folder / "data").glob("*.parquet") if path.name[0] != "."}
    missing, foreign = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing:
        raise FileNotFoundError(f"{folder} is not whole: {_listed(missing)} missing; copy or convert it again")
    if foreign:
        raise UserError(f"{folder}: {_listed(foreign)} not of this dataset; move them away")
    if verify is None:
        verify = sum(path.stat().st_size for path in found.values()) <= VERIFY_BYTES
    for name, shard in expected.items():
        _check_shard(found[name], shard, verify)
    return metadata


def _check_shard(path: Path, expected: dict[str, Any], verify: bool) -> None:
    try:
        rows = pq.read_metadata(path).num_rows
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is damaged: {printable(error, 200)}; copy or convert the dataset again") from error
    if rows != expected["rows"]:
        seen = f"holds {rows} jets and should hold {expected['rows']}"
        raise UserError(f"{path} {seen}: it is of another dataset; copy or convert the dataset again")
    if verify and digest_of_shard(path) != expected["sha256"]:
        raise UserError(
            f"{path} was changed after the conversion or is damaged: its digest differs; copy or convert it again"
        )


def digest_of_shard(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_readme(file: Path) -> None:
    """Refuse a card whose YAML is cut: it was copied in part, and other programs load by it."""
    if not file.is_file():
        return
    text = file.read_text(encoding="utf-8", errors="replace")
    header = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    try:
        whole = header is not None and isinstance(yaml.safe_load(header[1]), dict)
    except yaml.YAMLError:
        whole = False
    if not whole:
        raise UserError(
            f"{file} is damaged: its YAML header is cut or changed; copy the dataset again or delete the file"
        )


def _listed(names: list[str]) -> str:
    verb = "is" if len(names) == 1 else "are"
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''} {verb}"
