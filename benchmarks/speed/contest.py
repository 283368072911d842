"""What the speed benchmarks share: contenders that take turns, the options they all have, the device.

Contenders take turns round by round, so that whatever else the machine does disturbs all of them alike; a ratio is
the median over the rounds, with the lowest and the highest beside it.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode

from jet_diffusion.data.bundled import sample_path
from jet_diffusion.data.convert import convert
from jet_diffusion.precision import PRECISIONS, make_accelerator
from jet_diffusion.training.runtime import keep_freed_memory
from jet_diffusion.training.settings import TrainSettings, parse_settings

MATRIX_SIDE = {"cpu": 2048, "cuda": 8192}
"""Side of the square matrices whose product measures what a device can do."""


"""What is fitted before the race is no part of it."""


@dataclass(eq=False)
class Contender:
    """One of those that take turns.

    Attributes:
        name: In the table.
        work: Does a piece of work and returns how much it was (jets, evaluations).
        rates: Amount a second, one a round; filled by `race`.
    """

    name: str
    work: Callable[[], float]
    rates: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Median amount a second."""
        return statistics.median(self.rates)


class Stopwatch:
    """Seconds of work on a device.

    Args:
        device: What is waited for before the clock is read.
        clock: "wall", or "cpu" for the CPU time of this process, which a busy machine disturbs less; only for work
            done by one thread of this process.
    """

    def __init__(self, device: torch.device, clock: str = "wall") -> None:
        self.device, self.read = device, {"wall": time.perf_counter, "cpu": time.process_time}[clock]

    def now(self) -> float:
        """The clock, once the device has done all it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self.read()


def race(contenders: Sequence[Contender], watch: Stopwatch, rounds: int, seconds: float) -> None:
    """Warm every contender up, then let each work for so many seconds (at least once) a round, in turn."""
    for contender in contenders:
        contender.work()
    for _ in range(rounds):
        for contender in contenders:
            amount, begun = 0.0, watch.now()
            while True:
                amount += contender.work()
                elapsed = watch.now() - begun
                if elapsed >= seconds:
                    break
            contender.rates.append(amount / elapsed)


def ratio(fast: Contender, slow: Contender, factor: float = 1.0) -> str:
    """How many times the other's rate, times a factor: median over the rounds (lowest to highest)."""
    ratios = sorted(factor * one / other for one, other in zip(fast.rates, slow.rates, strict=True))
    return f"{statistics.median(ratios):.3g} ({ratios[0]:.3g} to {ratios[-1]:.3g})"


def spread(rates: Sequence[float], factor: float = 1.0) -> str:
    """Median (lowest to highest) of some rates."""
    values = sorted(factor * rate for rate in rates)
    return f"{statistics.median(values):.3g} ({values[0]:.3g} to {values[-1]:.3g})"


def matrix_product(device: torch.device, dtype: torch.dtype) -> Contender:
    """The physical limit: a large product of random matrices; its rate is in floating-point operations a second."""
    side = MATRIX_SIDE.get(device.type, 2048)
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))

    def work() -> float:
        torch.mm(left, right)
        return 2.0 * side**3

    return Contender(f"matrix product {side}, {dtype}".replace("torch.", ""), work)


def count_flops(work: Callable[[], Any]) -> float:
    """Floating-point operations of convolutions, matrix products and attention in some work, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def parser(description: str | None, *, rounds: int = 5, seconds: float = 2.0) -> argparse.ArgumentParser:
    """Options that every speed benchmark has."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", help="folder made by `jet-diffusion convert` (default: the bundled sample)")
    made.add_argument("--config", help="configuration of a training run to take the other settings from")
    made.add_argument("--preset", default="small", help="size of the network (default small), without --config")
    made.add_argument("--precision", choices=PRECISIONS, default="auto")
    made.add_argument("--compile", action="store_true", help="compile the networks, ours and the peers'")
    made.add_argument("--rounds", type=int, default=rounds)
    made.add_argument("--seconds", type=float, default=seconds, help="of work a contender's turn takes at least")
    made.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: of this process, for busy machines"
    )
    made.add_argument("--cpu", action="store_true", help="stay on the CPU even if there is a GPU")
    made.add_argument("--threads", type=int, default=1, help="of torch, on the CPU (default 1)")
    return made


def begin(options: argparse.Namespace) -> Accelerator:
    """The accelerator the options ask for; prints what is measured on what."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    accelerator = make_accelerator(options.precision, cpu=options.cpu)
    if accelerator.device.type == "cpu":
        keep_freed_memory()  # as training does; it serves all contenders
    precision = accelerator.mixed_precision
    print(f"{device_name(accelerator.device)}; torch {torch.__version__}; precision {precision}; {options.clock} time")
    if accelerator.device.type == "cuda" and options.clock == "cpu":
        raise SystemExit("--clock cpu says nothing about a GPU")
    return accelerator


def device_name(device: torch.device) -> str:
    """What the figures are of."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} thread(s)"


@contextmanager
def dataset_folder(data: str | None) -> Iterator[str]:
    """The dataset asked for, or the bundled sample, converted for as long as it is needed."""
    if data is not None:
        yield data
        return
    with tempfile.TemporaryDirectory() as folder:
        convert(sample_path(), Path(folder) / "jets")
        yield str(Path(folder) / "jets")


def training_settings(options: argparse.Namespace, data: str, *more: str) -> TrainSettings:
    """Settings of a training run as a user would give them, without trackers."""
    chosen = [f"--config={options.config}"] if options.config else [f"--unet.preset={options.preset}"]
    fixed = [f"--data={data}", "--run-dir=none", f"--precision={options.precision}", "--trackers=[]"]
    fixed += [f"--compile={str(options.compile).lower()}", "--optimizer.lr_schedule=constant_with_warmup"]
    return parse_settings([*chosen, *fixed, *more])
