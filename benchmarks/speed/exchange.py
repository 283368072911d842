"""What the exchange of gradients costs in a step: an all-reduce of as many numbers as a model has parameters.

    torchrun --standalone --nproc_per_node 2 -m benchmarks.speed.exchange [--parameters 1070000 7200000]

DistributedDataParallel begins to exchange before the backward pass has ended, so a step loses this time at most.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from accelerate import PartialState
from torch import distributed

REPEATS = 9


def main() -> None:
    """Measure every size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = [1_070_000, 3_600_000, 7_200_000, 62_000_000]
    parser.add_argument("--parameters", type=int, nargs="+", default=default)
    options = parser.parse_args()
    state = PartialState(cpu=not torch.cuda.is_available())
    state.print(f"{state.num_processes} processes, {state.backend}\n{'parameters':>12} {'fastest':>10} {'median':>10}")
    for count in options.parameters:
        gradients, seconds = torch.ones(count, device=state.device), []
        for _ in range(REPEATS):
            state.wait_for_everyone()
            begun = time.perf_counter()
            distributed.all_reduce(gradients)
            state.wait_for_everyone()
            seconds.append(time.perf_counter() - begun)
        state.print(f"{count:>12,} {1e3 * min(seconds):>7.1f} ms {1e3 * statistics.median(seconds):>7.1f} ms")
    state.destroy_process_group()


if __name__ == "__main__":
    main()
