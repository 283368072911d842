from __future__ import annotations

import logging

import pytest
import torch
from accelerate.state import AcceleratorState

from jet_diffusion import precision
from jet_diffusion.precision import has_bf16, make_accelerator


@pytest.fixture(autouse=True)
def fresh_state():
    """There is one state of accelerators a process; begin without one and leave none behind."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def capabilities(monkeypatch, **found):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", "avx2": True, **found})


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16", "bf16", "sve_bf16"])
def test_bf16_is_chosen_where_it_is_an_instruction(monkeypatch, name):
    capabilities(monkeypatch, **{name: True})
    assert make_accelerator("auto", cpu=True).mixed_precision == "bf16"
    AcceleratorState._reset_state(reset_partial_state=True)
    capabilities(monkeypatch, **{name: False})
    assert make_accelerator("auto", cpu=True).mixed_precision == "no"


def test_one_process_without_bf16_is_enough_for_float32(monkeypatch):
    capabilities(monkeypatch, avx512_bf16=True)
    monkeypatch.setattr(precision, "gather", lambda mine: torch.cat([mine, 0 * mine]))
    assert make_accelerator("auto", cpu=True).mixed_precision == "no"


def test_the_environment_may_keep_it_on_the_cpu(monkeypatch):
    asked = []
    state = precision.PartialState
    monkeypatch.setattr(precision, "PartialState", lambda cpu: asked.append(cpu) or state(cpu=True))
    for value in ("true", "false"):
        monkeypatch.setenv("ACCELERATE_USE_CPU", value)
        make_accelerator("auto")
        AcceleratorState._reset_state(reset_partial_state=True)
    assert asked == [True, False]


def test_float32_is_had_anywhere_without_asking_other_processes(monkeypatch):
    def asked(tensor):
        raise AssertionError("float32 needs no answer of other processes")

    capabilities(monkeypatch, avx512_bf16=True)
    monkeypatch.setattr("jet_diffusion.precision.gather", asked)
    assert make_accelerator("no", cpu=True).mixed_precision == "no"


@pytest.mark.parametrize("fast", [True, False])
def test_emulated_bf16_is_done_as_asked_with_a_warning(monkeypatch, caplog, fast):
    capabilities(monkeypatch, avx512_bf16=fast)
    with caplog.at_level(logging.WARNING):
        assert make_accelerator("bf16", cpu=True).mixed_precision == "bf16"
    assert ("cpu has no instructions for bf16" in caplog.text) == (not fast)


def test_a_gpu_that_emulates_bf16_has_none(monkeypatch):
    """torch's own answer counts emulation."""
    for capability in (7, 8):
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True, c=capability: including_emulation or c > 7
        )
        assert has_bf16(torch.device("cuda")) == (capability > 7)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match=r"one of \('auto', 'no', 'bf16'\), got 'fp16'"):
        make_accelerator("fp16", cpu=True)
