"""`jet-diffusion reconstruct MODEL REAL --out FOLDER`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from jet_diffusion.errors import UserError, require_least


@dataclass
class Options:
    """Add noise to real jets, denoise them, and compare each with its original.

    The report shows scores at several noise levels. For comparison it scores the noisy input, a blank image and the
    best denoiser that looks at one pixel alone. It can also sample the HCAL that belongs to given tracks and ECAL.

    Attributes:
        model: A training run, a pipeline folder, or user/name on the Hub.
        real: HDF5 file of real jets, or a converted dataset (folder or Hub name).
        out: Folder of the report.
        overwrite: Replace an existing report.
        split: Split of REAL, if it is a dataset.
        num_jets: Jets to reconstruct.
        timesteps: Training timesteps up to which noise is added.
        steps: Solver steps from pure noise to a jet; the model's own number if you omit it.
        draws: Samples of the HCAL for each jet, 2 or more; 0 for none.
        seed: Seed of the noise and of the choice of jets.
        checkpoint: Checkpoint of a training run: last, best or a step; the last if you omit it.
        allow_training_jets: Accept jets that were used in training.
    """

    model: str
    real: str
    out: Path = Path("reconstruction")
    overwrite: bool = False
    split: str = "test"
    num_jets: int = 64
    timesteps: list[int] = field(default_factory=lambda: [100, 250, 400, 550, 700, 850])
    steps: int | None = None
    draws: int = 0
    seed: int = 0
    checkpoint: str | None = None
    allow_training_jets: bool = False

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        require_least(self, num_jets=1, steps=1, draws=0, seed=0)
        if not self.timesteps:
            raise UserError("--timesteps must name one timestep at least")
        if self.draws and (self.draws < 2 or self.num_jets < 3):
            raise UserError(
                f"--draws must be 0, or at least 2 of at least 3 jets, got {self.draws} of {self.num_jets} jets"
            )


def main(options: Options) -> None:
    """Reconstruct and say where the report is."""
    from jet_diffusion.workflows.reconstruct import reconstruct

    report = reconstruct(options)
    for notice in report.notices:
        sys.stdout.write(f"! {notice}\n")
    sys.stdout.write(f"report: {(options.out / 'report.html').absolute()}\n")
