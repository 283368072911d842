"""Errors a user can mend end in one line; any other keeps its traceback."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

from jet_diffusion.signals import Interrupted, interrupt, on_signals

GO_ON = ("convert", "generate", "simulate", "train")
"""Commands that go on where they were stopped."""


class UserError(ValueError):
    """A mistake in what the user gave; its message says what was wrong, what was seen and what is accepted."""


def printable(text: object, limit: int | None = 60) -> str:
    """Text from outside as one harmless line: control characters, which a terminal may obey, are made visible.

    Args:
        text: Any object; its text is taken.
        limit: Most characters; None for all.
    """
    spaced = " ".join(str(text).split())
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in spaced)
    return shown if limit is None or len(shown) <= limit else shown[: limit - 3] + "..."


def in_one_line(error: Exception) -> str:
    """An error's message, whose lines are set apart by semicolons where no mark of their own ends them."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable(" ".join(line if line[-1] in ".:;," else f"{line};" for line in lines), None).removesuffix(";")


@contextmanager
def checking(what: str = "") -> Iterator[None]:
    """Turn a ValueError of the enclosed check into a UserError.

    The files of `pipelines/` import nothing of this package, so they raise ValueError for a bad argument. Enclose the
    checking call alone, so that a bug in what follows keeps its traceback.

    Args:
        what: Opens the message: what was checked.
    """
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{what}: {error}" if what else str(error)) from error


def require_least(values: object, **least: float) -> None:
    """Refuse numbers that are too small; None passes, NaN does not.

    Args:
        values: Has the numbers as attributes.
        least: Attribute -> smallest accepted value.

    Raises:
        UserError: Naming the option, the smallest accepted value and what was given.
    """
    for name, smallest in least.items():
        value = getattr(values, name)
        if value is not None and not value >= smallest:
            raise UserError(f"--{name.replace('_', '-')} must be at least {smallest}, got {value}")


def run_command(name: str, command: Callable[[list[str]], object], argv: list[str]) -> None:
    """Run one command, here or as a script by its path.

    A user's mistake ends in one line and exit code 2, a signal in one line and exit code 128 + signal.

    Args:
        name: Of the command, for the line.
        command: Called with the arguments.
        argv: The arguments.
    """
    try:
        with on_signals(interrupt):
            command(argv)
    except Interrupted as stop:
        kept = "what is done is kept, and the same command goes on" if name in GO_ON else "the same command starts anew"
        sys.stderr.write(f"jet-diffusion {name}: stopped by {signal.Signals(stop.number).name}; {stop.kept or kept}\n")
        raise SystemExit(128 + stop.number) from None
    except (UserError, OSError) as error:  # OSError: a file that is missing, exists, is not allowed, does not fit
        sys.stderr.write(f"jet-diffusion {name}: {in_one_line(error)}\n")
        raise SystemExit(2) from error


def require(module: str, extra: str, what: str) -> ModuleType:
    """Import a module that an extra of this package brings.

    Args:
        module: its name.
        extra: the extra in pyproject.toml.
        what: what needs it, as the error's first words.

    Raises:
        UserError: the module is not installed; the message holds the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{what} needs {error.name}, which is not installed: run `pip install 'jet-diffusion[{extra}]'`"
        ) from error
