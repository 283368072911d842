"""`jet-diffusion plot-steps MODEL --out FOLDER`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from jet_diffusion.arguments import Scheduler
from jet_diffusion.errors import UserError, require_least


@dataclass
class Options:
    """Draw how a jet is noised and how one is denoised, as strips of pictures.

    All strips share one fixed logarithmic colour scale. Values below the smallest hit are drawn faintly, so that noise
    and unfinished jets can be seen.

    Attributes:
        model: A training run, a pipeline folder, or user/name on the Hub.
        out: Folder for the pictures.
        data: HDF5 file with the jet to noise; the bundled sample if you omit it.
        jet: Number of that jet in the file, from 0.
        columns: Pictures in a strip.
        steps: Solver steps; the model's own number if you omit it.
        scheduler: Solver; the model's own if you omit it.
        seed: Seed of the noise.
        checkpoint: Checkpoint of a training run: last, best or a step; the last if you omit it.
    """

    model: str
    out: Path = Path("steps")
    data: Path | None = None
    jet: int = 0
    columns: int = 10
    steps: int | None = None
    scheduler: Scheduler | None = None
    seed: int = 0
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        require_least(self, jet=0, columns=2, steps=1, seed=0)


def main(options: Options) -> None:
    """Draw, and print where the pictures are."""
    import torch

    from jet_diffusion.data.bundled import sample_path
    from jet_diffusion.data.hdf5 import QuarkGluonFile
    from jet_diffusion.hub import load_pipeline
    from jet_diffusion.plotting.jets import save_figure
    from jet_diffusion.plotting.steps import plot_denoising, plot_forward
    from jet_diffusion.sampling.sample import set_sampler

    with QuarkGluonFile(options.data or sample_path()) as file:
        if options.jet >= file.num_jets:
            raise UserError(f"--jet must be 0 to {file.num_jets - 1}, got {options.jet}")
        energies = torch.from_numpy(file.energies(options.jet, options.jet + 1)[0])
    pipeline = load_pipeline(options.model, checkpoint=options.checkpoint)
    pipeline.set_progress_bar_config(disable=True)
    set_sampler(pipeline, options.scheduler, options.steps)
    options.out.mkdir(parents=True, exist_ok=True)
    states, estimates = plot_denoising(pipeline, options.columns, pipeline.config.default_steps, options.seed)
    noising = plot_forward(pipeline, energies, options.columns, options.seed)
    for name, figure in {"noising": noising, "denoising": states, "estimates": estimates}.items():
        save_figure(figure, options.out / f"{name}.png")
        sys.stdout.write(f"{options.out / name}.png\n")
