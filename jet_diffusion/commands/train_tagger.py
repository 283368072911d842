"""`jet-diffusion train-tagger DATA --out FOLDER`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jet_diffusion.commands import require_repo
from jet_diffusion.errors import UserError, require_least


@dataclass
class Options:
    """Train a quark/gluon image classifier, which loads with transformers.

    An HDF5 file is split into 80 % training, 10 % validation and 10 % test jets; a dataset has its own splits.

    Attributes:
        data: HDF5 file of jets, or a converted dataset (folder or Hub name).
        out: Folder of the tagger, which must not exist.
        architecture: Architecture of the network.
        num_jets: Use at most this many jets of a file, or of a dataset's training split; all if you omit it.
        steps: Optimiser steps.
        batch_size: Jets of each step.
        learning_rate: Peak learning rate.
        seed: Seed of weights, order and split.
        repo: Push to this repository on the Hub, user/name.
        private: Make the repository private, if --repo makes one.
    """

    data: str
    out: Path = field(kw_only=True)
    architecture: Literal["resnet", "convnextv2"] = "resnet"
    num_jets: int | None = None
    steps: int = 1250
    batch_size: int = 32
    learning_rate: float = 2e-3
    seed: int = 0
    repo: str | None = None
    private: bool = False

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        require_least(self, num_jets=1, steps=1, batch_size=1, seed=0)
        require_repo("--repo", self.repo)
        if not 0 < self.learning_rate < float("inf"):
            raise UserError(f"--learning-rate must be positive and finite, got {self.learning_rate}")
        if self.private and self.repo is None:
            raise UserError("--private is of the repository that --repo makes; give both or neither")
        if self.out.exists():
            raise FileExistsError(f"{self.out} exists; choose another folder")


def main(options: Options) -> None:
    """Train, print the scores, and push if asked to."""
    from jet_diffusion.repositories import push_folder, require_writable
    from jet_diffusion.workflows.tagger import make_tagger

    if options.repo is not None:
        require_writable(options.repo, "model", "leave out --repo to train now")
    scores = make_tagger(options)
    by_class = ", ".join(f"{100 * value:.1f} % of {name} jets" for name, value in scores.by_class.items())
    sys.stdout.write(f"AUC {scores.auc:.4f}, right on {by_class}, {scores.jets} test jets\n")
    if options.repo is not None:
        address = push_folder(options.out, options.repo, "model", "Publish jet tagger", private=options.private)
        sys.stdout.write(f"pushed to {address}\n")
    sys.stdout.write(f"tagger: {options.out.absolute()}\n")
