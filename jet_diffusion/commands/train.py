"""`jet-diffusion train --data DATA --run-dir RUN`."""

from __future__ import annotations

from jet_diffusion.renames import convert_arguments
from jet_diffusion.training.settings import TrainSettings

__all__ = ["Options", "convert_arguments", "main"]

Options = TrainSettings


def main(options: TrainSettings) -> None:
    """Train, or go on with a run."""
    from jet_diffusion.training.train import train

    train(options)
