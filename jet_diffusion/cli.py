"""The `jet-diffusion` command and the table of its subcommands.

Each subcommand is a dataclass of options and a `main` that takes them. Its module imports what is heavy
(torch, diffusers, matplotlib ...) in `main` alone, so that `--help` is quick.
"""

from __future__ import annotations

import importlib
import sys
from functools import partial

from jet_diffusion import __version__
from jet_diffusion.errors import UserError, run_command

COMMANDS: dict[str, dict[str, str]] = {
    "See it work": {"demo": "run every step on the bundled sample of simulated jets, in minutes"},
    "Prepare jets": {
        "inspect": "look into a quark/gluon HDF5 file: shapes, tables, pictures",
        "simulate": "make jets from physics: Pythia 8 and a fast model of the detector",
        "convert": "turn the HDF5 file into a Hugging Face dataset",
    },
    "Train": {
        "train": "train a diffusion model (several processes: accelerate launch)",
        "fit-guidance": "fit moment guidance, which corrects the shapes of generated jets",
        "train-tagger": "train a quark/gluon image classifier",
    },
    "Generate and judge": {
        "generate": "sample jets into an HDF5 file of the original schema",
        "evaluate": "compare generated jets with real ones: a report with errors and baselines",
        "reconstruct": "add noise to real jets, denoise them, and compare each with its original",
        "serve": "open a page in the browser: make jets, look at them, download them",
        "plot-steps": "draw how jets are noised and denoised, step by step",
    },
    "Publish": {"publish": "write a run's model, card and report as a Hub repository, and push it"},
    "Studies": {
        "notebook-artefacts": "draw the pictures that the original notebooks made",
        "quantum-report": "train quantum models and their controls, and compare them in one table",
    },
}
"""Heading -> subcommand -> one line of help, in the order of use."""

RENAMED = {"fit-shapes": "fit-guidance"}
"""Old name -> new name; the old one is still accepted."""


def names() -> list[str]:
    """All subcommands."""
    return [name for group in COMMANDS.values() for name in group]


def usage() -> str:
    """The command's help text."""
    lines = ["usage: jet-diffusion COMMAND ...", ""]
    for heading, group in COMMANDS.items():
        lines += [f"{heading}:", *(f"  {name:<20}{text}" for name, text in group.items()), ""]
    return "\n".join(
        [*lines, "`jet-diffusion COMMAND --help` explains a command; `jet-diffusion --version` prints the version.\n"]
    )


def main(argv: list[str] | None = None) -> None:
    """Run one subcommand; a mistake that the user can mend ends in one line and exit code 2."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(usage())
        return
    if arguments[0] == "--version":
        sys.stdout.write(f"jet-diffusion {__version__}\n")
        return
    name, rest = arguments[0], arguments[1:]
    if name in RENAMED:
        sys.stderr.write(f"jet-diffusion: {name} is now called {RENAMED[name]}\n")
        name = RENAMED[name]
    run_command(name, partial(run, name), rest)


def run(name: str, argv: list[str]) -> None:
    """Run one subcommand; errors are not caught.

    Raises:
        UserError: If there is no such command, or for its arguments.
    """
    from jet_diffusion.arguments import nearest, parse_options

    if name not in names():
        raise UserError(f"there is no such command{nearest(name, names())} `jet-diffusion --help` lists all")
    module = importlib.import_module(f"jet_diffusion.commands.{name.replace('-', '_')}")
    if hasattr(module, "convert_arguments"):  # of earlier versions
        argv = module.convert_arguments(argv)
    module.main(parse_options(f"jet-diffusion {name}", module.Options, argv))
