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
        dask: Let the workers of a Dask cluster make the jets: the address of its scheduler, or local:N for N processes.
        shard: For example 3/16: make only the third of 16 files, which together hold all jets.
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
    dask: str | None = None
    shard: str = "1/1"
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
    from jet_diffusion.arguments import parse_shard
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
    shard = parse_shard(options.shard)
    num_jets = simulate(settings, output, options.workers, progress=True, dask=options.dask, shard=shard)
    seconds, size = time.monotonic() - start, output.stat().st_size
    sys.stdout.write(
        f"{output}: {num_jets} jets, {size / num_jets / 1e3:.2f} kB a jet, "
        f"made in {seconds:.0f} s on {options.dask or f'{options.workers} processes'}\n"
    )
