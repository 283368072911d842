"""`jet-diffusion simulate FILE`."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jet_diffusion.errors import UserError, checking, require_least


@dataclass
class Options:
    """Make quark and gluon jets from physics: the event generator Pythia 8 and a fast model of the detector.

    The same command continues an interrupted file. --validate makes nothing: it compares a file of jets with the
    published facts of the real one, and ignores all other options.

    Attributes:
        output: HDF5 file to write, with the columns and units of the real file.
        num_jets: Jets to make.
        seed: Seed of all random numbers; the same seed gives the same jets.
        workers: Processes; the jets do not depend on their number.
        pileup: Mean number of other collisions in the same bunch crossing.
        pt_min: Lowest transverse momentum of a jet, GeV.
        process: qg makes pairs of gluons or of light quarks, half of the jets each; dijet makes every QCD scatter, and
            labels a jet by its parton.
        validate: Compare this file with the published facts, and make nothing.
    """

    output: Path | None = field(default=None, metadata={"positional": True})
    num_jets: int = 2048
    seed: int = 1
    workers: int = 1
    pileup: float = 22.5
    pt_min: float = 70.0
    process: Literal["qg", "dijet"] = "qg"
    validate: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        require_least(self, num_jets=1, seed=0, workers=1)
        if (self.output is None) == (self.validate is None):
            raise UserError("give a file to write, or --validate FILE to check one")


def main(options: Options) -> None:
    """Simulate, or compare a file with the published facts."""
    output = options.output
    if output is None or options.validate is not None:
        from jet_diffusion.simulation.validation import validate

        sys.stdout.write(validate(options.validate or Path(), progress=True))
        return
    from jet_diffusion.simulation import libraries
    from jet_diffusion.simulation.settings import SimulationSettings

    with checking():
        settings = SimulationSettings(
            num_jets=options.num_jets,
            seed=options.seed,
            pileup=options.pileup,
            pt_min=options.pt_min,
            process=options.process,
        )
    libraries.require()  # before numba is imported
    from jet_diffusion.simulation.generate import simulate

    start = time.monotonic()
    simulate(settings, output, options.workers, progress=True)
    seconds, size = time.monotonic() - start, output.stat().st_size
    sys.stdout.write(
        f"{output}: {settings.num_jets} jets, {size / settings.num_jets / 1e3:.2f} kB a jet, "
        f"made in {seconds:.0f} s on {options.workers} processes\n"
    )
