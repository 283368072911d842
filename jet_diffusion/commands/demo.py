"""`jet-diffusion demo`."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from jet_diffusion.errors import UserError, require_least

LEAST_JETS, MOST_JETS = 10, 300
"""Averages of fewer say nothing, and the test split has twice the last number."""


@dataclass
class Options:
    """See the package work on the bundled sample of simulated jets, in four minutes on two CPU cores.

    The reference model samples first. A short training of your own follows, whose model is sampled and prepared for
    the Hub. The demo ends with a table of averages, the paths of the pictures, and what to do next.

    Attributes:
        out: Folder for everything; anything that an earlier demo left there is replaced.
        quick: Only sample the reference model; one minute.
        reference: A trained model to sample first: a folder, or user/name on the Hub; that of the source tree if you
            omit it. An installed package has none.
        max_steps: Training steps; those of the bundled configuration if you omit it.
        num_jets: Jets of each model, 10 to 300.
    """

    out: Path = Path("demo")
    quick: bool = False
    reference: str | None = None
    max_steps: int | None = None
    num_jets: int = 96

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        require_least(self, max_steps=1)
        if not LEAST_JETS <= self.num_jets <= MOST_JETS:
            raise UserError(f"--num-jets must be {LEAST_JETS} to {MOST_JETS}, got {self.num_jets}")
        if self.quick and self.max_steps is not None:
            raise UserError("--quick trains nothing, so --max-steps is of no use; give one of them")


def main(options: Options) -> None:
    """Run the demo and end with where the pictures are and what to do next."""
    started = time.perf_counter()
    sys.stdout.write("loading libraries, about 10 s\n")
    sys.stdout.flush()
    from jet_diffusion.workflows.demo import NEXT, run_demo

    pictures = run_demo(
        options.out,
        reference=options.reference,
        quick=options.quick,
        max_steps=options.max_steps,
        num_jets=options.num_jets,
    )
    seconds = time.perf_counter() - started
    shown = "".join(f"picture ({model}): {picture.absolute()}\n" for model, picture in pictures.items())
    sys.stdout.write(f"\n{shown}done in {seconds:.0f} s; {NEXT}")
