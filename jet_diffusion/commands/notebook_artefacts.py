"""`jet-diffusion notebook-artefacts RUN`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from jet_diffusion.errors import require_least


@dataclass
class Options:
    """Draw the pictures that the original notebooks made, and write their scores, for a run of a notebook's model.

    Attributes:
        run: Folder of a training run.
        data: The dataset; the run's own if you omit it.
        split: Split of the original jets.
        out: Folder to write; RUN/artefacts if you omit it.
        num_jets: Jets to compare.
        seed: Seed of the noise.
    """

    run: Path
    data: str | None = None
    split: str = "test"
    out: Path | None = None
    num_jets: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        require_least(self, num_jets=1, seed=0)


def main(options: Options) -> None:
    """Write the artefacts and print the scores."""
    from jet_diffusion.runs import RunFolder

    run = RunFolder.open(options.run)
    from jet_diffusion.data.dataset import JetDataset
    from jet_diffusion.workflows.notebook import describe, make_artefacts

    jets = JetDataset.load(options.data or run.read_config()["data"], options.split)
    out = options.out or run.path / "artefacts"
    results = make_artefacts(run, out, jets, options.num_jets, options.seed)
    sys.stdout.write(f"{describe(results)}artefacts: {out}\n")
