"""`jet-diffusion demo`."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jet_diffusion.errors import UserError, require_least

LEAST_JETS, MOST_JETS = 100, 300
"""The report needs the first number at least, and the test split has twice the last."""


@dataclass
class Options:
    """Run every step on the bundled sample of simulated jets: convert, train, generate, evaluate, prepare for the Hub.

    It takes minutes on one CPU. It ends with the path of a picture of real and generated jets.

    Attributes:
        out: Folder for everything; anything that an earlier demo left there is replaced.
        max_steps: Training steps; those of the bundled configuration if you omit it.
        num_jets: Jets to generate, 100 to 300.
        reference: A trained model to draw and evaluate beside the short training's.
    """

    out: Path = Path("demo")
    max_steps: int | None = None
    num_jets: int = 300
    reference: str | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        require_least(self, max_steps=1)
        if not LEAST_JETS <= self.num_jets <= MOST_JETS:
            raise UserError(f"--num-jets must be {LEAST_JETS} to {MOST_JETS}, got {self.num_jets}")


def main(options: Options) -> None:
    """Run the demo and end with where the picture is."""
    from jet_diffusion.workflows.demo import run_demo

    started = time.perf_counter()
    picture = run_demo(options.out, options.max_steps, options.num_jets, options.reference, _evaluate)
    seconds = time.perf_counter() - started
    sys.stdout.write(f"\n== done in {seconds:.0f} s; everything is in {options.out}\npicture: {picture.absolute()}\n")


def _evaluate(generated: Path, real: Path, **options: Any) -> None:
    from jet_diffusion.commands import evaluate

    evaluate.main(evaluate.Options(str(generated), str(real), classifiers=["observables"], **options))
