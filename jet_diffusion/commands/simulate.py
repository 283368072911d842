"""`jet-diffusion simulate`: make quark and gluon jets, or compare a file of jets with the real one's facts."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from jet_diffusion.simulation.settings import PROCESSES, SimulationSettings


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    result = argparse.ArgumentParser(prog="jet-diffusion simulate", description=__doc__)
    default = SimulationSettings(num_jets=1, seed=1)
    result.add_argument("output", type=Path, nargs="?", help="HDF5 file to write, in the real file's schema")
    result.add_argument("--num-jets", type=int, default=2048, help="jets to make (default: %(default)s)")
    result.add_argument("--seed", type=int, default=default.seed, help="same seed, same jets (default: %(default)s)")
    result.add_argument("--workers", type=int, default=1, help="processes; the jets do not depend on it")
    result.add_argument("--dask", metavar="ADDRESS", help="a Dask scheduler whose workers simulate, or local:N")
    result.add_argument(
        "--shard", metavar="I/N", default="1/1", help="make only the I-th of N files that hold all jets"
    )
    result.add_argument(
        "--pileup",
        type=float,
        metavar="MU",
        default=default.pileup,
        help="mean number of further collisions in a crossing (default: %(default)s)",
    )
    result.add_argument(
        "--pt-min", type=float, metavar="GEV", default=default.pt_min, help="lowest jet pT (default: %(default)s)"
    )
    result.add_argument(
        "--process",
        choices=PROCESSES,
        default=default.process,
        help="qg: dijets of two gluons or two light quarks, half the jets each; dijet: every QCD scatter, "
        "labelled by the parton of the jet (default: %(default)s)",
    )
    result.add_argument(
        "--validate", type=Path, metavar="FILE", help="compare FILE with the published facts, and make nothing"
    )
    return result


def main(argv: list[str]) -> None:
    """Run the command."""
    command = parser()
    arguments = command.parse_args(argv)
    if (arguments.output is None) == (arguments.validate is None):
        command.error("give a file to write, or --validate FILE")
    if arguments.validate is not None:
        from jet_diffusion.simulation.validation import validate

        sys.stdout.write(validate(arguments.validate, progress=True))
        return
    _simulate(arguments)


def _simulate(arguments: argparse.Namespace) -> None:
    names = ("num_jets", "seed", "pileup", "pt_min", "process")
    settings = SimulationSettings(**{name: getattr(arguments, name) for name in names})
    from jet_diffusion.simulation import libraries

    libraries.require()  # before numba is imported
    from jet_diffusion.simulation.generate import parse_shard, simulate

    start = time.monotonic()
    shard = parse_shard(arguments.shard)
    num_jets = simulate(settings, arguments.output, arguments.workers, progress=True, dask=arguments.dask, shard=shard)
    seconds, size = time.monotonic() - start, arguments.output.stat().st_size
    where, size_of_jet = arguments.dask or f"{arguments.workers} processes", size / num_jets / 1e3
    sys.stdout.write(
        f"{arguments.output}: {num_jets} jets, {size_of_jet:.2f} kB a jet, made in {seconds:.0f} s on {where}\n"
    )
