"""Jets a second that the loader gives, beside what the device makes of them and the training rate they have to feed.

    python -m benchmarks.speed.loader [--data jets] [--preset small] [--batch-size 64]

Contenders in turn: a worker process as training uses it, its work in this process, what the device does with a batch
(on a CPU by one thread), each of its parts, and the training loop. The goal is 20,000 jets/s from one worker.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import torch

from benchmarks.speed.contest import (
    Contender,
    Stopwatch,
    begin,
    dataset_folder,
    parser,
    race,
    ratio,
    spread,
    training_settings,
)
from jet_diffusion.data.files.streamed import open_split
from jet_diffusion.pipelines.random_numbers import RandomNumbers
from jet_diffusion.training.batches import SparseBatch, batch_loader
from jet_diffusion.training.build import build_pipeline
from jet_diffusion.training.loop import TrainingLoop
from jet_diffusion.training.train import make_state

BATCHES_A_TURN = 10
"""Batches that a contender other than training makes at once."""


def loader_parts(loop: TrainingLoop) -> list[Contender]:
    """A worker, its work, the device's work, and each part of that."""
    dataset, representation = loop.loader.dataset, loop.noiser.representation
    numbers, size = count(), loop.batches.micro_batch
    sparse: SparseBatch = dataset[0].to(loop.device)
    hits, slots = sparse.hits(), sparse.slots_and_conditions()[0]
    random = RandomNumbers(torch.full_like(slots, 1), slots)
    steps = range(loop.state.step, loop.settings.max_steps)
    given = iter(batch_loader(loop.jets, loop.batches, steps, 1, pin=loop.device.type == "cuda"))
    works: dict[str, Callable[[], object]] = {
        "one loader process": lambda: next(given),
        "its work": lambda: dataset[next(numbers)],
        "the device's work": lambda: loop.noiser(sparse),
        "  encode": lambda: representation.encode_hits(hits),
        "  ring sums": lambda: representation.ring_sums_of_hits(hits),
        "  noise": lambda: random.normal("noise", representation.shape),
    }

    def repeated(work: Callable[[], object]) -> Callable[[], float]:
        def turn() -> float:
            for _ in range(BATCHES_A_TURN):
                work()
            return BATCHES_A_TURN * size

        return turn

    return [Contender(name, repeated(work)) for name, work in works.items()]


def main() -> None:
    """Measure and print."""
    made = parser(__doc__)
    made.add_argument("--batch-size", type=int, default=64)
    options = made.parse_args()
    accelerator = begin(options)
    with dataset_folder(options.data) as data:
        settings = training_settings(options, data, f"--batch_size={options.batch_size}", "--max_steps=1000000")
        jets = open_split(data, "train")
        pipeline = build_pipeline(settings, jets, train_first_stage=False)
        loop = TrainingLoop(settings, accelerator, pipeline, make_state(settings, pipeline), jets)
        parts = loader_parts(loop)

        def train() -> float:
            loop.step()
            return settings.batch_size

        training = Contender("training", train)
        race([*parts, training], Stopwatch(accelerator.device, options.clock), options.rounds, options.seconds)
        print(f"jets/s, median of {options.rounds} (lowest to highest)")
        for contender in (*parts, training):
            print(f"{contender.name:<20}{spread(contender.rates)}")
        print(f"one loader process / training: {ratio(parts[0], training)}")


if __name__ == "__main__":
    main()
