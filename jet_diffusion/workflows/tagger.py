"""Train, score and save a quark/gluon image classifier: what `jet-diffusion train-tagger` does."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from huggingface_hub import ModelCard, ModelCardData

from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.data.load import is_jet_file, load_jets
from jet_diffusion.evaluation.result import describe
from jet_diffusion.io import explaining_full_disk, partial_folder
from jet_diffusion.metrics.networks import load_transformers
from jet_diffusion.metrics.tagger import TaggerScores, score_tagger, train_tagger
from jet_diffusion.report.render import render_markdown
from jet_diffusion.runs import versions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from jet_diffusion.commands.train_tagger import Options

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
    if out.exists():
        raise FileExistsError(f"{out} exists; choose another folder")
    work = partial_folder(out)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    from jet_diffusion.pipelines.jet_image_processor import JetImageProcessor

    try:
        with explaining_full_disk(out.parent):
            model.save_pretrained(work)
            JetImageProcessor().save_pretrained(work)
            (work / SCORES_FILE).write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
            _card(scores, name).save(work / "README.md")
        os.replace(work, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


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


def make_tagger(options: Options) -> TaggerScores:
    """Load, train, score and save.

    Raises:
        UserError: for bad input.
        FileNotFoundError: for what is not there.
        FileExistsError: the output folder exists.
    """
    load_transformers()  # where it is missing, say so before the jets are read
    train, validation, test = load_splits(options.data, options.num_jets, options.seed)
    model = train_tagger(
        train,
        validation,
        options.architecture,
        steps=options.steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        seed=options.seed,
    )
    found = score_tagger(model, test)
    scores = {
        "test": asdict(found),
        "architecture": options.architecture,
        "steps": options.steps,
        "seed": options.seed,
        "trained_on": describe(train),
        "tested_on": describe(test),
        "simulated": train.simulated,
        "versions": versions(),
    }
    save_tagger(model, scores, options.out, options.repo or options.out.name)
    return found
