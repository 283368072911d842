"""What sampling and training ask of the host: nothing waits for the device, and jets cross in one transfer a batch."""

from __future__ import annotations

import argparse

import pytest
import torch
from models import small_pipeline

from benchmarks.speed.host import count, on_stand_in, watched
from benchmarks.speed.host_training import loop_on_stand_in

pytestmark = pytest.mark.integration

JET = 4 * (125 * 125 * 3 + 4)
"""Bytes of a jet with its class, pT, mass and clipped share."""


@pytest.fixture(scope="module")
def pipeline(converted_folder):
    return on_stand_in(small_pipeline(converted_folder, "--unet.conditioning=rings"))


def test_jets_leave_the_device_in_one_transfer_whatever_the_steps(pipeline):
    few, many = (count(pipeline, 3, steps) for steps in (2, 4))
    assert few.to_host == many.to_host == [3 * JET]
    assert few.waits == many.waits == []
    assert few.to_device == many.to_device
    assert len(many.results) > len(few.results)


def test_given_conditions_are_sent_in_one_piece(pipeline):
    drawn, given = (count(pipeline, 3, 1, **asked) for asked in ({}, {"labels": 1, "pt": [90.0, 95.0, 99.0]}))
    assert sorted(given.to_device) == sorted([*drawn.to_device, 3 * 8 * (3 + 6)])
    assert given.to_host == drawn.to_host
    assert given.waits == []


def test_what_waits_for_the_device_is_counted():
    with watched() as traffic:
        on_device = torch.ones(3, device="meta")
        assert not on_device.sum().item()
        on_device[on_device > 0]
        on_device[torch.tensor([0, 2])]
        torch.tensor([1.0, 2.0], device="meta")
        torch.ones(5).to("meta").cpu()
    assert len(traffic.waits) == 2
    assert sorted(traffic.to_device) == [8, 16, 20]
    assert traffic.to_host == [20]


def test_a_step_of_training_copies_its_batch_once_and_waits_for_nothing(converted_folder):
    options = argparse.Namespace(config=None, preset="tiny", precision="no", compile=False)
    loop = loop_on_stand_in(options, str(converted_folder), 8)
    with watched() as traffic:
        loop.step()
    assert len(traffic.to_device) == 1
    assert traffic.to_device[0] < 8 * 5_000
    assert traffic.to_host == traffic.waits == []
