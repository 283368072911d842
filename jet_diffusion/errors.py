"""Errors a user can mend end in one line; any other keeps its traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable


def run_command(name: str, command: Callable[[list[str]], object], argv: list[str]) -> None:
    """Run one command's `main`, here or as a script by its path."""
    try:
        command(argv)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"jet-diffusion {name}: {error}\n")
        raise SystemExit(2) from error
