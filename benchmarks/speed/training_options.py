"""What makes a training step faster on a CPU, each option beside the step as the trainer takes it.

    python -m benchmarks.speed.training_options [--preset small] [--batch-size 64] [--only channels_last compile]

Every variant is the bare step (forward, squared error, backward, AdamW) of the same UNet, in turn. An allocator that
is chosen by the environment is measured by starting this command in that environment:

    LD_PRELOAD=libjemalloc.so.2 python -m benchmarks.speed.training_options --only
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python -m benchmarks.speed.training_options --only
"""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from benchmarks.speed.contest import Contender, Stopwatch, begin, parser, race, ratio, spread
from jet_diffusion.training.build import build_unet
from jet_diffusion.training.runtime import M_MMAP_MAX, M_TOP_PAD, M_TRIM_THRESHOLD, keep_freed_memory
from jet_diffusion.training.settings import UNetSettings

CHANNELS, GRID = (102, 102), (28, 28)
"""Input and output channels and grid of the default denoiser and representation."""

M_MMAP_THRESHOLD = -3
GLIBC_DEFAULTS = {M_MMAP_MAX: 65536, M_MMAP_THRESHOLD: 128 * 2**10, M_TRIM_THRESHOLD: 128 * 2**10, M_TOP_PAD: 0}


class Step:
    """A bare training step of a variant.

    Args:
        preset, batch_size: Of the network and its input.
        bf16: Whether the forward pass is autocast.
        channels_last: Memory format of the weights.
        compile: Compile the network.
        fused: AdamW's implementation, fused or one operation for each tensor.
        around: Context of every step.
    """

    def __init__(
        self,
        preset: str,
        batch_size: int,
        *,
        bf16: bool,
        channels_last: bool = False,
        compile: bool = False,
        fused: bool = True,
        around: Callable[[], Any] = nullcontext,
    ) -> None:
        self.unet = build_unet(UNetSettings(preset=preset), CHANNELS, GRID)
        if channels_last:
            self.unet.to(memory_format=torch.channels_last)
        if compile:
            self.unet.compile()
        self.optimizer = torch.optim.AdamW(self.unet.parameters(), lr=1e-4, fused=fused)
        self.inputs, self.target = (torch.randn(batch_size, channels, *GRID) for channels in CHANNELS)
        self.timesteps = torch.randint(0, 1000, (batch_size,))
        self.embedding = torch.randn(batch_size, 4 * self.unet.config.block_out_channels[0])
        self.bf16, self.around, self.faults, self.steps = bf16, around, 0, 0

    def __call__(self) -> float:
        """Take the step and count its page faults."""
        with self.around():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                predicted = self.unet(self.inputs, self.timesteps, class_labels=self.embedding).sample
            torch.nn.functional.mse_loss(predicted.float(), self.target).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.faults += resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
            self.steps += 1
        return len(self.inputs)


@contextmanager
def glibc_defaults() -> Any:
    """Give freed memory back to the kernel, as glibc does unless told otherwise."""
    libc = ctypes.CDLL(None)
    for parameter, value in GLIBC_DEFAULTS.items():
        libc.mallopt(parameter, value)
    libc.malloc_trim(0)
    try:
        yield
    finally:
        keep_freed_memory()


@contextmanager
def bf16_products() -> Any:
    """Let float32 convolutions and matrix products multiply in bfloat16."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def two_threads() -> Any:
    """Let torch use one thread more."""
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def main() -> None:
    """Measure and print."""
    made = parser(__doc__, seconds=0.01)
    made.add_argument("--batch-size", type=int, default=64)
    made.add_argument(
        "--only", nargs="*", help="variants to measure beside the trainer's own (default: all but compile)"
    )
    options = made.parse_args()
    size, bf16 = options.batch_size, begin(options).mixed_precision == "bf16"
    variants: dict[str, dict[str, Any]] = {
        "memory given back": {"around": glibc_defaults},
        "float32" if bf16 else "bf16": {"bf16": not bf16},
        "bf16 products": {"bf16": False, "around": bf16_products},
        "channels_last": {"channels_last": True},
        "unfused AdamW": {"fused": False},
        "a quarter of the batch": {"batch_size": size // 4},
        "another thread": {"around": two_threads},
        "compile": {"compile": True},
    }
    chosen = [name for name in variants if name != "compile"] if options.only is None else options.only
    if unknown := set(chosen) - set(variants):
        raise SystemExit(f"no variant {', '.join(unknown)}; there are {', '.join(variants)}")
    trained = {"preset": options.preset, "batch_size": size, "bf16": bf16}
    steps = {"as trained": Step(**trained)} | {name: Step(**trained | variants[name]) for name in chosen}
    contenders = [Contender(name, step) for name, step in steps.items()]
    race(contenders, Stopwatch(torch.device("cpu"), options.clock), options.rounds, options.seconds)
    print(f"{options.preset}, batch {size}: jets/s, of the trainer's own, page faults a step")
    for contender in contenders:
        step = steps[contender.name]
        print(
            f"{contender.name:<24}{spread(contender.rates):<26}{ratio(contender, contenders[0]):<26}"
            f"{step.faults / step.steps:8.0f}"
        )


if __name__ == "__main__":
    main()
