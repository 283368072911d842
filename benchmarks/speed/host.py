"""What the host does while a device computes: its time a jet, copies between the two, and where it waits.

    python -m benchmarks.speed.host [MODEL] [--batch 64 1024]

No device is needed: torch's `meta` stands for it, which takes every operation and computes nothing. MODEL is as in
`benchmarks.speed.sampling`. Copies and waits are counted with the whole model. Time is taken with the denoiser and its
network replaced by constants, which leaves drawing conditions and noise, the solver's steps, and decoding. The work is
done once and then replayed: each operation costs handing it over and nothing else, some microseconds, as the start of
a kernel does.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.speed.contest import Contender, Stopwatch, parser, race, spread
from benchmarks.speed.sampling import our_pipeline
from jet_diffusion.pipelines.denoiser import DenoiserOutput
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline

DEVICE = torch.device("meta")

STEPS = (4, 8)
"""Solver steps in which copies and waits are counted: what grows from one to the other grows with the steps."""

aten = torch.ops.aten

WAITS = {aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default}
"""Operations whose result the host reads."""


class Traffic(TorchDispatchMode):
    """Counts what passes between the host and the device, and gives zeros where the host reads from it.

    Args:
        replayed: Results of the same work done before, which stand for the device's this time.

    Attributes:
        to_device, to_host: Bytes of each copy.
        waits: Operations other than copies that the host waits for.
        results: Of all operations, in order.
    """

    def __init__(self, replayed: Iterable[Any] | None = None) -> None:
        super().__init__()
        self.to_device: list[int] = []
        self.to_host: list[int] = []
        self.waits: list[str] = []
        self.results: list[Any] = []
        self._replayed = None if replayed is None else iter(replayed)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation, or what stands for it."""
        kwargs = kwargs or {}
        if self._replayed is not None and not func.is_view:
            result = next(self._replayed)
            written = kwargs.get("out", args[0] if args else None) if func._schema.is_mutable else result
            first = next((value for value in args if isinstance(value, torch.Tensor)), written)
            if isinstance(written, torch.Tensor) and DEVICE in {written.device, first.device}:
                return written
        result = self._run(func, args, kwargs)
        if not func.is_view:
            self.results.append(result)
        return result

    def _run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        first = next((value for value in args if isinstance(value, torch.Tensor)), None)
        on_device = first is not None and first.device == DEVICE
        if func in WAITS and on_device:
            self.waits.append(str(func))
            return 0 if func is aten._local_scalar_dense.default else torch.zeros(0, first.ndim, dtype=torch.int64)
        if func is aten.index.Tensor and on_device:
            indices = [index for index in args[1] if index is not None]
            self.to_device += [index.nbytes for index in indices if index.device != DEVICE]
            if any(index.dtype is torch.bool for index in indices):
                self.waits.append("index by a mask")
                return first.new_empty(0)
        if func is aten._to_copy.default and torch.device(kwargs.get("device") or first.device) != first.device:
            (self.to_host if on_device else self.to_device).append(first.nbytes)
            return torch.zeros(first.shape, dtype=kwargs.get("dtype") or first.dtype, device=kwargs["device"])
        if func is aten.copy_.default and first.device != args[1].device:
            (self.to_device if on_device else self.to_host).append(args[1].nbytes)
            return first
        return func(*args, **kwargs)

    def made(self, make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        """`torch.tensor`, whose copy to the device is no operation of its own."""

        def counted(data: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
            made = make(data, *args, **kwargs)
            if made.device == DEVICE and not isinstance(data, torch.Tensor):
                self.to_device.append(made.nbytes)
            return made

        return counted


def on_stand_in(pipeline: JetImagePipeline) -> JetImagePipeline:
    """The pipeline on the stand-in for a device, with what is copied once a process copied already."""
    _ = pipeline.denoiser.alphas_on_host
    if pipeline.first_stage is not None:
        _ = pipeline.first_stage.limits_on_host
    pipeline.to(DEVICE)
    pipeline.set_progress_bar_config(disable=True)
    count(pipeline, 1, 1)
    return pipeline


@contextmanager
def without_model(pipeline: JetImagePipeline) -> Iterator[None]:
    """The denoiser gives back what it is given."""

    def same(unet: Any, x_t: torch.Tensor, *_: Any, **__: Any) -> DenoiserOutput:
        return DenoiserOutput(x_t, x_t)

    guidance = pipeline.config.moment_guidance
    pipeline.register_to_config(moment_guidance=None)
    with mock.patch.object(pipeline.denoiser, "forward", same):
        yield
    pipeline.register_to_config(moment_guidance=guidance)


@contextmanager
def watched(replayed: Iterable[Any] | None = None) -> Iterator[Traffic]:
    """Count, or replay, what is done on the device."""
    traffic = Traffic(replayed)
    without_autocast = {"is_autocast_enabled": lambda *_: False, "autocast": lambda *_, **__: nullcontext()}
    counted = {name: traffic.made(getattr(torch, name)) for name in ("tensor", "as_tensor")}
    with mock.patch.multiple(torch, **without_autocast, **counted), traffic:  # autocast knows no meta device
        yield traffic


def count(pipeline: JetImagePipeline, batch: int, steps: int | None = None, **conditions: Any) -> Traffic:
    """What passes between host and device for one batch."""
    with watched() as traffic:
        pipeline(batch, num_inference_steps=steps, batch_size=batch, **conditions)
    return traffic


def sampling(options: argparse.Namespace) -> None:
    """Print the host's part in sampling."""
    pipeline = on_stand_in(our_pipeline(options))
    print("sampling: copies and waits a batch")
    pt = torch.full((max(options.batch),), 110.0).tolist()
    for name, conditions in (("conditions drawn", {}), ("pT given", {"pt": pt[: options.batch[0]]})):
        for steps in STEPS:
            traffic = count(pipeline, options.batch[0], steps, **conditions)
            sent, back = (math.fsum(sizes) / options.batch[0] for sizes in (traffic.to_device, traffic.to_host))
            print(
                f"  {name}, {steps} steps: {len(traffic.to_device)} copies to the device ({sent:,.0f} bytes a jet), "
                f"{len(traffic.to_host)} to the host ({back:,.0f} bytes a jet), other waits {traffic.waits or 'none'}"
            )
    print(f"sampling: host time in {pipeline.config.default_steps} steps")
    watch = Stopwatch(torch.device("cpu"), options.clock)
    with without_model(pipeline):
        for batch in options.batch:
            results = count(pipeline, batch).results

            def work(batch: int = batch, results: list[Any] = results) -> float:
                with watched(results):
                    pipeline(batch, batch_size=batch)
                return batch

            contender = Contender(f"batch {batch}, {len(results):,} operations", work)
            race([contender], watch, options.rounds, options.seconds)
            print(f"  {contender.name}: {spread([1 / rate for rate in contender.rates], 1000)} ms a jet")


def parsed(made: argparse.ArgumentParser) -> argparse.Namespace:
    """The options, with those of every measurement of the host; sets the number of threads."""
    made.add_argument("--batch", type=int, nargs="+", default=[64, 1024], help="jets at once (default 64 1024)")
    options = made.parse_args()
    torch.set_num_threads(options.threads)
    return options


def main() -> None:
    """Measure and print."""
    made = parser(__doc__, rounds=3, seconds=1.0)
    made.add_argument("model", nargs="?", help="run folder, model folder or name on the Hub")
    sampling(parsed(made))


if __name__ == "__main__":
    main()
