"""What commands do when a user or a scheduler asks them to end: one line, and exit code 128 + signal."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = ("SIGTERM", "SIGINT", "SIGUSR1")
"""A scheduler's signal to end, Ctrl-C, and what schedulers can be told to send before the time limit."""

SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
"""Those of them that the system has."""

SAME_SIGNAL = 1.0
"""Seconds in which a second signal is the first once more: launchers pass on what their processes got as well."""


class Interrupted(KeyboardInterrupt):
    """A signal asked this process to end.

    Args:
        number: The signal.
        kept: What stays, for the line that the command ends with; "" for what the command says by default.
    """

    def __init__(self, number: int, kept: str = "") -> None:
        super().__init__(number, kept)
        self.number, self.kept = number, kept


@contextmanager
def on_signals(act: Callable[[int], object]) -> Iterator[None]:
    """While the block runs, answer the first signal with `act(number)`; a second one ends the process at once.

    Only the main thread may handle signals; in others nothing changes.

    Args:
        act: Called in the main thread, between any two instructions.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    first: list[float] = []

    def handle(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not first:
            first.append(now)
            act(number)
        elif now - first[0] > SAME_SIGNAL:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def interrupt(number: int) -> None:
    """Raise Interrupted: what commands do that leave nothing half done."""
    raise Interrupted(number)


def ignore_signals(*_: object) -> None:
    """Leave signals to the main process: what helper processes do when they start."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def end_helpers_at_exit() -> None:
    """Kill helper processes when this one ends: it would ask them by SIGTERM, which they leave to it, and wait."""
    atexit.register(_kill_children)


def _kill_children() -> None:
    for child in multiprocessing.active_children():
        child.kill()
