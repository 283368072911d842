"""The `jet-diffusion` command: a table of subcommands, each the `main` of the module that does the work."""

from __future__ import annotations

import importlib
import sys

from jet_diffusion.errors import run_command

COMMANDS = {
    "inspect": ("jet_diffusion.commands.inspect", "look into a quark/gluon HDF5 file: shapes, tables, pictures"),
    "convert": ("jet_diffusion.commands.convert", "turn the HDF5 file into a Hugging Face dataset"),
    "train": ("jet_diffusion.training.train", "train a diffusion model (processes: `accelerate launch`)"),
    "fit-guidance": ("jet_diffusion.commands.fit_guidance", "make a model's jets differ in shape as training jets do"),
    "generate": ("jet_diffusion.commands.generate", "sample jets into an HDF5 file of the original schema"),
    "evaluate": (
        "jet_diffusion.commands.evaluate",
        "judge generated jets: a report with errors and baselines",
    ),
    "reconstruct": ("jet_diffusion.commands.reconstruct", "noise real jets, denoise them, and score the pairs"),
    "train-tagger": ("jet_diffusion.commands.train_tagger", "train a quark/gluon image classifier"),
    "plot-steps": ("jet_diffusion.commands.plot_steps", "draw the noising and denoising of jets as strips"),
    "publish": ("jet_diffusion.commands.publish", "stage a run for the Hub and push it"),
    "simulate": ("jet_diffusion.commands.simulate", "make jets from physics: Pythia 8 and a fast detector"),
    "notebook-artefacts": ("jet_diffusion.commands.notebook_artefacts", "the pictures that the notebooks made"),
    "quantum-report": ("jet_diffusion.commands.quantum_report", "quantum models and their controls in one table"),
    "demo": ("jet_diffusion.commands.demo", "the whole line on the bundled sample"),
}
"""Subcommand -> (module with `main(argv) -> None`, one line of help)."""


def usage() -> str:
    """The command's help text."""
    rows = "\n".join(f"  {name:<14} {text}" for name, (_, text) in COMMANDS.items())
    return f"usage: jet-diffusion COMMAND ...\n\n{rows}\n\n`jet-diffusion COMMAND --help` explains one.\n"


def main(argv: list[str] | None = None) -> None:
    """Run one subcommand; errors a user can mend end in one line and exit code 2."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(usage())
        return
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        sys.stderr.write(f"jet-diffusion: no command {name!r}; there are {', '.join(COMMANDS)}\n")
        raise SystemExit(2)
    run_command(name, importlib.import_module(COMMANDS[name][0]).main, rest)
