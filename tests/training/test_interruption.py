from __future__ import annotations

import signal

import pytest
import torch

from jet_diffusion.training.signals import AGREE_SECONDS, Interruption


class TwoProcesses:
    """This process, and another one that takes a step in `seconds` and got the signal `number`."""

    num_processes, device = 2, torch.device("cpu")
    number, seconds, asked = 0, AGREE_SECONDS / 4, 0

    def gather(self, mine):
        self.asked += 1
        return torch.cat([mine, torch.tensor([[self.number, self.seconds]])])


@pytest.fixture
def two():
    return TwoProcesses()


def test_processes_ask_one_another_every_few_steps(two):
    interruption = Interruption(two)
    assert interruption.agreed(1) == 0
    two.number = signal.SIGTERM
    assert [interruption.agreed(step) for step in range(2, 6)] == [0, 0, 0, signal.SIGTERM]
    assert two.asked == 2


def test_slow_steps_are_asked_about_each_time(two):
    two.seconds = 100.0
    interruption = Interruption(two)
    for step in range(1, 4):
        assert interruption.agreed(step) == 0
    assert two.asked == 3


def test_the_last_step_is_always_asked_about(two):
    interruption = Interruption(two)
    interruption.agreed(1)
    interruption.number = signal.SIGINT
    assert interruption.agreed(2) == 0
    assert interruption.agreed(2, now=True) == signal.SIGINT
