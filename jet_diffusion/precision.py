"""In what precision networks compute: bf16 where the device has instructions for it, else float32."""

from __future__ import annotations

import logging

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import gather, is_bf16_available, parse_flag_from_env

from jet_diffusion.errors import UserError

logger = logging.getLogger(__name__)

PRECISIONS = ("auto", "no", "bf16")
"""What can be asked for: bf16 where it is fast, float32 (accelerate's name for it), bf16."""


def make_accelerator(precision: str, *, cpu: bool = False, **settings: object) -> Accelerator:
    """The accelerator that computes in the precision asked for, the same in all processes.

    Args:
        precision: One of PRECISIONS; with "auto" in bf16 if every process's device has instructions for it.
        cpu: Stay on the CPU even if there is a GPU, as ACCELERATE_USE_CPU does.
        settings: Further arguments of the accelerator.

    Raises:
        UserError: If the precision is not one of PRECISIONS.
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision must be one of {PRECISIONS}, got {precision!r}")
    if precision != "no":
        state = PartialState(cpu=cpu or parse_flag_from_env("ACCELERATE_USE_CPU"))
        fast = bool(gather(torch.tensor([int(has_bf16(state.device))], device=state.device)).all())
        if precision == "auto":
            precision = "bf16" if fast else "no"
        elif not fast and state.is_main_process:
            logger.warning(
                "this %s has no instructions for bf16 and emulates it, many times slower than float32, which precision "
                "auto chooses",
                state.device.type,
            )
    return Accelerator(cpu=cpu, mixed_precision=precision, **settings)


def has_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for products of bf16 (on Apple's GPUs: whether the system offers bf16).

    CPUs without them (x86 before AVX-512 BF16 and AMX, ARM before its BF16 extension) and GPUs before Ampere emulate
    each product.
    """
    if device.type == "cpu":
        return any(found for name, found in torch.cpu.get_capabilities().items() if name.endswith("bf16"))
    if device.type in {"cuda", "xpu"}:
        return bool(getattr(torch, device.type).is_bf16_supported(including_emulation=False))
    return bool(is_bf16_available())
