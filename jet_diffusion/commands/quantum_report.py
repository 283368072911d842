"""`jet-diffusion quantum-report DATA --out FOLDER`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from jet_diffusion.errors import require_least


@dataclass
class Options:
    """Train quantum models and their classical controls, and compare them in one table with pictures.

    Each row is a run of the ordinary trainer in OUT/runs. The same command continues an interrupted report.

    Attributes:
        data: Folder made by `jet-diffusion convert`.
        out: Folder of the report, its runs and pictures.
        iterations: Optimiser steps of every row.
        seeds: Repetitions of each row, with other weights, order of jets and noise.
        num_jets: Jets generated for each row and seed.
        no_quddpm: Leave out model C (QuDDPM), which takes some minutes.
    """

    data: Path
    out: Path = field(kw_only=True)
    iterations: int = 800
    seeds: int = 3
    num_jets: int = 1000
    no_quddpm: bool = False

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        require_least(self, iterations=1, seeds=1, num_jets=2)


def main(options: Options) -> None:
    """Train, judge and write the report."""
    from jet_diffusion.workflows.quantum_report import report

    report(
        str(options.data),
        options.out,
        iterations=options.iterations,
        seeds=options.seeds,
        jets=options.num_jets,
        quddpm=not options.no_quddpm,
    )
    sys.stdout.write(f"report: {options.out / 'report.md'}\n")
