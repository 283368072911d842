"""A signal ends training after the step that is under way, in all processes after the same one."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Self

import torch
from accelerate import Accelerator

from jet_diffusion.signals import on_signals


class Interruption:
    """Remembers a signal while steps are done; a second one ends the process at once.

    Args:
        accelerator: Of the run.

    Attributes:
        number: The signal this process got, 0 for none.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator, self.number = accelerator, 0
        self._handlers = ExitStack()

    def __enter__(self) -> Self:
        self._handlers.enter_context(on_signals(self._remember))
        return self

    def __exit__(self, *_: object) -> None:
        self._handlers.close()

    def agreed(self) -> int:
        """The signal that any process got, 0 for none; all processes must ask after the same step."""
        if self.accelerator.num_processes == 1:
            return self.number
        mine = torch.tensor([self.number], device=self.accelerator.device)
        return int(self.accelerator.gather(mine).max())

    def _remember(self, number: int) -> None:
        self.number = number
