"""A signal ends training: at once after a step, and in several processes a few seconds later, after the same step."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Self

import torch
from accelerate import Accelerator

from jet_diffusion.signals import on_signals

AGREE_SECONDS = 2.0
"""Seconds after which processes ask one another for signals: far below the 30 that schedulers leave for an end, and
long beside a step, since all wait for each other and for their devices."""


class Interruption:
    """Remembers a signal while steps are done; a second one ends the process at once.

    Args:
        accelerator: Of the run.

    Attributes:
        number: The signal this process got, 0 for none.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator, self.number = accelerator, 0
        self._asked = self._next = 0  # after which steps
        self._time = time.perf_counter()
        self._handlers = ExitStack()

    def __enter__(self) -> Self:
        self._handlers.enter_context(on_signals(self._remember))
        return self

    def __exit__(self, *_: object) -> None:
        self._handlers.close()

    def agreed(self, step: int, *, now: bool = False) -> int:
        """The signal that any process got, 0 for none.

        Several processes ask one another about every AGREE_SECONDS, by the slowest's clock; else the answer is 0.

        Args:
            step: Steps done, the same in all processes.
            now: Whether to ask at this step in any case; the same in all processes.
        """
        if self.accelerator.num_processes == 1:
            return self.number
        if step < self._next and not now:
            return 0
        seconds = (time.perf_counter() - self._time) / max(1, step - self._asked)
        mine = torch.tensor([[self.number, seconds]], device=self.accelerator.device)
        number, seconds = self.accelerator.gather(mine).amax(0).tolist()
        self._asked, self._time = step, time.perf_counter()
        self._next = step + max(1, int(AGREE_SECONDS / seconds))
        return int(number)

    def _remember(self, number: int) -> None:
        self.number = number
