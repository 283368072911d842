"""Files and folders that appear under their name whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary sibling of `path`, make it durable and give it the name, replacing a file.

    Args:
        path: The file to write.
        write: Called with the temporary path, which keeps the suffix of `path`.

    Raises:
        FileNotFoundError: The folder of `path` does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent}")
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        write(temporary)
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text_atomically(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def file_stem(name: str) -> str:
    """A name as a file's: small letters and digits, one dash for what lies between."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def partial_folder(path: str | Path) -> Path:
    """The hidden sibling in which work on `path` waits until it is complete."""
    path = Path(path)
    return path.with_name(f".{path.name}.partial")


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
