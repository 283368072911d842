from __future__ import annotations

import logging

import pytest
import torch
from accelerate.state import AcceleratorState

from jet_diffusion.precision import make_accelerator, resolve

CPU = torch.device("cpu")


@pytest.fixture
def fresh_accelerator():
    """There is one state of accelerators a process; leave none behind."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def capabilities(monkeypatch, **found):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", "avx2": True, **found})


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16", "bf16", "sve_bf16"])
def test_bf16_is_chosen_where_it_is_an_instruction(monkeypatch, fresh_accelerator, name):
    capabilities(monkeypatch, **{name: True})
    assert resolve("auto", CPU) == "bf16"
    assert make_accelerator("auto", cpu=True).mixed_precision == "bf16"
    assert resolve("no", CPU) == "no"
    capabilities(monkeypatch, **{name: False})
    assert resolve("auto", CPU) == "no"


def test_emulated_bf16_is_done_as_asked_with_a_warning(monkeypatch, caplog):
    capabilities(monkeypatch)
    with caplog.at_level(logging.WARNING):
        assert resolve("bf16", CPU) == "bf16"
    assert "cpu has no instructions for bf16" in caplog.text
    caplog.clear()
    capabilities(monkeypatch, avx512_bf16=True)
    assert resolve("bf16", CPU) == "bf16"
    assert not caplog.text


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match=r"one of \('auto', 'no', 'bf16'\), got 'fp16'"):
        resolve("fp16", CPU)
