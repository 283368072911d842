"""A quark/gluon tagger: a transformers image classifier trained from scratch on jet images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.errors import UserError
from jet_diffusion.metrics.networks import (
    ClassifierLogit,
    convnext_config,
    logits_of,
    resnet_config,
    tower_images,
    tower_inputs,
    train_binary,
)
from jet_diffusion.observables.hits import Array
from jet_diffusion.schema import CLASS_NAMES

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

ARCHITECTURES: dict[str, Callable[[], PretrainedConfig]] = {"resnet": resnet_config, "convnextv2": convnext_config}
"""Name -> configuration, all for 75 channels of 25x25 towers."""

STEPS = 1250
LEAST_JETS = 200


@dataclass(frozen=True)
class TaggerScores:
    """How well a tagger recognises the class of labelled jets.

    Attributes:
        auc: area under the ROC curve, quark against gluon.
        accuracy: fraction of jets called what they are.
        by_class: that fraction within each class, by name.
        jets: jets tested on.
    """

    auc: float
    accuracy: float
    by_class: dict[str, float]
    jets: int


def train_tagger(
    train: JetSample,
    validation: JetSample,
    architecture: str = "resnet",
    *,
    steps: int = STEPS,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
    seed: int = 0,
) -> PreTrainedModel:
    """Train a tagger and leave it in its best state on the validation jets.

    Args:
        train: labelled jets.
        validation: labelled jets that choose the state.
        architecture: name from `ARCHITECTURES`.
        steps: optimiser steps.
        batch_size: jets a step.
        learning_rate: peak of a one-cycle schedule.
        seed: of the weights and the order of the jets.

    Returns:
        A transformers model with labels 0 gluon and 1 quark; its inputs are `JetImageProcessor`'s.

    Raises:
        UserError: for an unknown architecture, too few jets, or jets of one class only.
    """
    if architecture not in ARCHITECTURES:
        raise UserError(f"no architecture {architecture!r}; there are {', '.join(ARCHITECTURES)}")
    for name, sample in (("training", train), ("validation", validation)):
        if set(np.unique(sample.labels)) != set(range(len(CLASS_NAMES))):
            raise UserError(f"the {name} jets must be of both classes, got labels {np.unique(sample.labels)}")
    if len(train) < LEAST_JETS:
        raise UserError(f"a tagger needs {LEAST_JETS} training jets, got {len(train)}")
    torch.manual_seed(seed)
    config = ARCHITECTURES[architecture]()
    config.id2label = dict(enumerate(CLASS_NAMES))
    config.label2id = {name: label for label, name in enumerate(CLASS_NAMES)}
    network = ClassifierLogit(config)
    train_binary(
        network,
        tower_images,
        (tower_inputs(train), train.labels),
        (tower_inputs(validation), validation.labels),
        steps=steps,
        least_epochs=1,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
    )
    network.eval()
    return network.model


def quark_scores(model: PreTrainedModel, jets: JetSample) -> Array:
    """(N,) log odds that a jet is a quark's."""
    return logits_of(ClassifierLogit(model), tower_images, tower_inputs(jets))


def score_tagger(model: PreTrainedModel, jets: JetSample) -> TaggerScores:
    """AUC and accuracy on labelled jets of both classes."""
    scores = quark_scores(model, jets)
    right = (scores > 0) == (jets.labels == 1)
    by_class = {name: float(right[jets.labels == label].mean()) for label, name in enumerate(CLASS_NAMES)}
    return TaggerScores(float(roc_auc_score(jets.labels, scores)), float(right.mean()), by_class, len(jets))
