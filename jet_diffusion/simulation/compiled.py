"""The decorator of this package's compiled functions: numba, with a cache that knows when it is stale.

Numba's own cache looks at the file of a function alone, and keeps using it when a constant or a function from
another file changes. Here the cache lies in a folder named by the contents of the whole package.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba

_config: Any = numba.config

NOT_PHYSICS = ("facts", "generate", "libraries", "pileup_cache", "validation")
"""Modules that do not change the jets."""


@cache
def source_digest() -> str:
    """Digest of the package's sources, which with the settings and the libraries fix the jets."""
    package = Path(__file__).parent
    sources = [path for path in sorted(package.rglob("*.py")) if path.stem not in NOT_PHYSICS]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]


def user_cache() -> Path:
    """The folder of this package in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jet-diffusion"


@cache
def _cache_folder() -> Path | None:
    """Folder for this state of the package's sources, or None where it cannot be made."""
    folder = Path(_config.CACHE_DIR or user_cache() / "numba") / source_digest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function on its first call, and keep the machine code for the next process."""
    folder = _cache_folder()
    if folder is None:
        return numba.njit(function)
    previous, _config.CACHE_DIR = _config.CACHE_DIR, str(folder)
    try:
        return numba.njit(cache=True)(function)
    finally:
        _config.CACHE_DIR = previous
