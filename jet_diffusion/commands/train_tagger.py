"""Train a quark/gluon image classifier: `jet-diffusion train-tagger DATA --out FOLDER [--repo user/name]`.

DATA is an HDF5 file (split here into 80 % training, 10 % validation, 10 % test) or a converted dataset with its own
splits. The folder loads with transformers and can be pushed to the Hub.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from huggingface_hub import HfApi, ModelCard, ModelCardData

from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.data.load import is_jet_file, load_jets
from jet_diffusion.evaluation.result import describe
from jet_diffusion.io import partial_folder
from jet_diffusion.metrics.networks import load_transformers
from jet_diffusion.metrics.tagger import ARCHITECTURES, STEPS, TaggerScores, score_tagger, train_tagger
from jet_diffusion.report.render import render_markdown
from jet_diffusion.runs import versions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHARES = (0.8, 0.1, 0.1)
SCORES_FILE = "scores.json"


def load_splits(data: str, num_jets: int | None, seed: int) -> list[JetSample]:
    """Training, validation and test jets of a file or dataset.

    Args:
        data: HDF5 file, or folder or Hub name of a converted dataset.
        num_jets: most jets of a file, or of a dataset's training split; all when None.
        seed: of the draw and of a file's split.
    """
    rng = np.random.default_rng(seed)
    if is_jet_file(data):
        jets = load_jets(data, num_jets, rng, progress=True)
        held = [int(share * len(jets)) for share in SHARES[1:]]
        return jets.split([len(jets) - sum(held), *held], rng)
    return [
        load_jets(data, num_jets if split == "train" else None, rng, split=split, progress=True)
        for split in ("train", "validation", "test")
    ]


def save_tagger(model: PreTrainedModel, scores: dict[str, Any], out: Path, name: str) -> None:
    """Write weights, image processor, scores and card; the folder appears whole or not at all.

    Args:
        model: the trained tagger.
        scores: what `train-tagger` measured and on what.
        out: the folder, which must not exist.
        name: of the model, for its card.

    Raises:
        FileExistsError: there is such a folder.
    """
    from jet_diffusion.pipelines.jet_image_processor import JetImageProcessor

    if out.exists():
        raise FileExistsError(f"{out} exists; choose another folder")
    work = partial_folder(out)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    model.save_pretrained(work)
    JetImageProcessor().save_pretrained(work)
    (work / SCORES_FILE).write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    _card(scores, name).save(work / "README.md")
    os.replace(work, out)


def _card(scores: dict[str, Any], name: str) -> ModelCard:
    data = ModelCardData(
        model_name=name.rsplit("/", maxsplit=1)[-1],
        library_name="transformers",
        license="apache-2.0",
        pipeline_tag="image-classification",
        tags=["physics", "jets", "calorimeter", "jet-diffusion"],
    )
    content = render_markdown("tagger_card.md", card_data=data.to_yaml(), name=name, scores=scores, test=scores["test"])
    return ModelCard(content)


def run(arguments: argparse.Namespace) -> TaggerScores:
    """Load, train, score and save.

    Raises:
        ValueError: for bad input.
        FileNotFoundError: for what is not there.
        FileExistsError: the output folder exists.
    """
    if arguments.out.exists():
        raise FileExistsError(f"{arguments.out} exists; choose another folder")
    load_transformers()  # where it is missing, say so before the jets are read
    train, validation, test = load_splits(arguments.data, arguments.num_jets, arguments.seed)
    model = train_tagger(
        train,
        validation,
        arguments.architecture,
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        seed=arguments.seed,
    )
    found = score_tagger(model, test)
    scores = {
        "test": asdict(found),
        "architecture": arguments.architecture,
        "steps": arguments.steps,
        "seed": arguments.seed,
        "trained_on": describe(train),
        "tested_on": describe(test),
        "simulated": train.simulated,
        "versions": versions(),
    }
    save_tagger(model, scores, arguments.out, arguments.repo or arguments.out.name)
    return found


def main(argv: list[str] | None = None) -> None:
    """Train as the command line says, print the scores, push if asked to."""
    arguments = _parser().parse_args(argv)
    scores = run(arguments)
    by_class = ", ".join(f"{100 * value:.1f} % of {name} jets" for name, value in scores.by_class.items())
    sys.stdout.write(f"AUC {scores.auc:.4f}, right on {by_class}, {scores.jets} test jets\n")
    if arguments.repo:
        hub = HfApi()
        address = hub.create_repo(arguments.repo, private=arguments.private, exist_ok=True)
        hub.upload_folder(repo_id=arguments.repo, folder_path=arguments.out, commit_message="Publish jet tagger")
        sys.stdout.write(f"pushed to {address}\n")
    sys.stdout.write(f"tagger: {arguments.out.absolute()}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jet-diffusion train-tagger", description=__doc__)
    parser.add_argument("data", help="HDF5 file of jets, or a converted dataset (folder or Hub name)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the tagger; must not exist")
    parser.add_argument("--architecture", choices=list(ARCHITECTURES), default="resnet")
    parser.add_argument("--num-jets", type=int, help="most jets to use (default all)")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"optimiser steps (default {STEPS})")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repo", help="push to this repository on the Hub (user/name)")
    parser.add_argument("--private", action="store_true", help="make the repository private")
    return parser
