"""Batches of the converted dataset on one core, beside the training rate they have to feed.

    python -m benchmarks.speed.loader [--data jets] [--preset small] [--batch-size 64]

Contenders in turn: a loader process's whole work (random rows decoded, encoded, noised), each of its parts alone, and
the training loop. The goal is twenty times the training rate of the small preset on one core.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle

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
from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.training.batches import NoisyJets, Position, keyed_generator
from jet_diffusion.training.build import build_pipeline
from jet_diffusion.training.loop import TrainingLoop
from jet_diffusion.training.train import make_state


def loader_parts(noisy: NoisyJets, batches: list[list[Position]]) -> list[Contender]:
    """The whole work of a loader process, then each part of it."""
    size = noisy.batch_size
    turns: Iterator[list[Position]] = cycle(batches)
    energies = torch.from_numpy(noisy.jets.energies([position.jet for position in batches[0]]))
    noise = torch.empty(noisy.representation.shape)

    def whole() -> float:
        noisy.__getitems__(next(turns))
        return size

    def decode() -> float:
        noisy.jets.energies([position.jet for position in next(turns)])
        return size

    def encode() -> float:
        noisy.representation.encode(energies)
        return size

    def draw() -> float:
        for position in next(turns):
            noise.normal_(generator=keyed_generator(0, "noise", position.step, position.slot))
        return size

    names = {"loader, one core": whole, "  decode": decode, "  encode": encode, "  noise": draw}
    return [Contender(name, work) for name, work in names.items()]


def main() -> None:
    """Measure and print."""
    made = parser(__doc__)
    made.add_argument("--batch-size", type=int, default=64)
    options = made.parse_args()
    accelerator = begin(options)
    with dataset_folder(options.data) as data:
        settings = training_settings(options, data, f"--batch_size={options.batch_size}", "--max_steps=1000000")
        jets = JetDataset.load(data, "train")
        pipeline = build_pipeline(settings, jets, train_first_stage=False)
        loop = TrainingLoop(settings, accelerator, pipeline, make_state(settings, pipeline), jets)
        positions = iter(loop.loader.batch_sampler)
        parts = loader_parts(loop.loader.dataset, [next(positions) for _ in range(20)])

        def train() -> float:
            loop.step()
            return settings.batch_size

        training = Contender("training", train)
        race([*parts, training], Stopwatch(accelerator.device, options.clock), options.rounds, options.seconds)
        print(f"jets/s, median of {options.rounds} (lowest to highest)")
        for contender in (*parts, training):
            print(f"{contender.name:<20}{spread(contender.rates)}")
        print(f"loader / training: {ratio(parts[0], training)}")


if __name__ == "__main__":
    main()
