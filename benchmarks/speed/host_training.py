"""What training asks of the host: a step's copies and waits, and the host's time a jet.

    python -m benchmarks.speed.host_training [--config configs/reference-tiny.yaml] [--batch 64 1024]

Time includes that of waiting for a loader process, if that is slower.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from accelerate import Accelerator

from benchmarks.speed.contest import Contender, Stopwatch, dataset_folder, parser, race, spread, training_settings
from benchmarks.speed.host import DEVICE, parsed, watched
from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.pipelines.denoiser import DenoiserOutput
from jet_diffusion.training import loop as training_loop
from jet_diffusion.training.build import build_pipeline
from jet_diffusion.training.loop import TrainingLoop
from jet_diffusion.training.train import make_state


def loop_on_stand_in(options: argparse.Namespace, data: str, batch: int) -> TrainingLoop:
    """The loop of a fresh run on the stand-in for a device, after its first step, with one loader process."""
    more = (f"--batch_size={batch}", "--max_steps=1000000", "--precision=no")
    settings = training_settings(options, data, *more)
    jets = JetDataset.load(data, "train")
    accelerator = Accelerator(cpu=True, mixed_precision="no")
    pipeline = build_pipeline(settings, jets, train_first_stage=False)
    state = make_state(settings, pipeline)
    accelerator.state.device = DEVICE
    with mock.patch.object(training_loop, "check_memory"), watched():
        loop = TrainingLoop(settings, accelerator, pipeline, state, jets)
        loop.step()
    return loop


@contextmanager
def without_model(loop: TrainingLoop) -> Iterator[None]:
    """The model gives back what it is given and its gradients are zeros; each batch is loaded, and the first one used.

    Losses, clipping, optimiser and averages are what they are.
    """
    first, load = loop._next_batch(), loop._next_batch
    zeros = [torch.zeros_like(parameter) for parameter in loop.parameters]

    def same(x_t: torch.Tensor, *_: Any) -> DenoiserOutput:
        return DenoiserOutput(x_t, x_t, x_t, x_t, x_t)

    def backward(_: torch.Tensor) -> None:
        for parameter, zero in zip(loop.parameters, zeros, strict=True):
            parameter.grad = zero

    with (
        mock.patch.object(loop, "model", same),
        mock.patch.object(loop, "_next_batch", lambda: (load(), first)[1]),
        mock.patch.object(loop.accelerator, "backward", backward),
    ):
        yield


def training(options: argparse.Namespace) -> None:
    """Print the host's part in training."""
    print("training: copies and waits a step, host time")
    with dataset_folder(options.data) as data:
        for batch in options.batch:
            loop = loop_on_stand_in(options, data, batch)
            with watched() as traffic:
                loop.step()
            print(
                f"  batch {batch}: {len(traffic.to_device)} copies to the device "
                f"({sum(traffic.to_device) / batch:,.0f} bytes a jet), {len(traffic.to_host)} to the host, "
                f"other waits {traffic.waits or 'none'}"
            )
            with without_model(loop):
                with watched() as traffic:
                    loop.step()

                def work(loop: TrainingLoop = loop, results: list[Any] = traffic.results, batch: int = batch) -> float:
                    with watched(results):
                        loop.step()
                    return batch

                contender = Contender(f"batch {batch}, {len(traffic.results):,} operations", work)
                race([contender], Stopwatch(torch.device("cpu"), options.clock), options.rounds, options.seconds)
            print(f"  {contender.name}: {spread([1 / rate for rate in contender.rates], 1000)} ms a jet")


def main() -> None:
    """Measure and print."""
    training(parsed(parser(__doc__, rounds=3, seconds=1.0)))


if __name__ == "__main__":
    main()
