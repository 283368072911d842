"""In what precision networks compute: bf16 where the device has instructions for it, else float32."""

from __future__ import annotations

import logging

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import is_bf16_available

logger = logging.getLogger(__name__)

PRECISIONS = ("auto", "no", "bf16")
"""What can be asked for: bf16 where it is fast, float32 (accelerate's name for it), bf16."""


def make_accelerator(precision: str, *, cpu: bool = False, **settings: object) -> Accelerator:
    """The accelerator that computes in the precision asked for.

    Args:
        precision: One of PRECISIONS.
        cpu: Stay on the CPU even if there is a GPU.
        settings: Further arguments of the accelerator.
    """
    device = PartialState(cpu=cpu).device
    return Accelerator(cpu=cpu, mixed_precision=resolve(precision, device), **settings)


def resolve(precision: str, device: torch.device) -> str:
    """The precision to compute in on the device: "no" or "bf16".

    Raises:
        ValueError: If it is not one of PRECISIONS.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, got {precision!r}")
    fast = has_bf16(device)
    if precision == "auto":
        return "bf16" if fast else "no"
    if precision == "bf16" and not fast:
        logger.warning("this %s has no instructions for bf16 and emulates it, many times slower than float32: "
                       "precision auto chooses", device.type)  # fmt: skip
    return precision


def has_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for products of bf16.

    A CPU without them (x86 before AVX-512 BF16 and AMX, ARM before its BF16 extension) has torch emulate each product.
    """
    if device.type == "cpu":
        return any(found for name, found in torch.cpu.get_capabilities().items() if name.endswith("bf16"))
    return bool(is_bf16_available(ignore_tpu=False))
