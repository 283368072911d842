"""The classifiers of the two-sample tests: on observables, on voxels, and on images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse import csr_array, vstack
from sklearn.ensemble import HistGradientBoostingClassifier

from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.metrics.networks import (
    ClassifierLogit,
    TowerPerceptron,
    convnext_config,
    filled_towers,
    logits_of,
    resnet_config,
    tower_images,
    tower_inputs,
    train_binary,
)
from jet_diffusion.metrics.two_sample import Classifier, Labelled
from jet_diffusion.observables.hits import Array
from jet_diffusion.observables.table import IMAGE_ONLY

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass
class ObservableClassifier:
    """Gradient boosting on the table of observables ("high level"), or on some of its columns."""

    name: str = "observables"
    description: str = "histogram gradient boosting on all observables, stopped early"
    max_iter: int = 300
    columns: Array | None = None

    def prepare(self, sample: JetSample) -> Array:
        """(N, K) observables."""
        return sample.observables if self.columns is None else sample.observables[:, self.columns]

    def stack(self, parts: list[Array]) -> Array:
        """Join along the jets."""
        return np.concatenate(parts)

    def scores(self, train: Labelled, validation: Labelled, test_inputs: Array, seed: int) -> Array:
        """See `Classifier`."""
        model = HistGradientBoostingClassifier(
            learning_rate=0.06,
            max_iter=self.max_iter,
            max_leaf_nodes=15,
            l2_regularization=1.0,
            early_stopping=True,
            n_iter_no_change=15,
            random_state=seed,
        )
        model.fit(train.inputs, train.labels, X_val=validation.inputs, y_val=validation.labels)
        return np.asarray(model.decision_function(test_inputs))


class _TowerClassifier:
    """What the two neural classifiers share: sparse tower inputs."""

    def prepare(self, sample: JetSample) -> csr_array:
        """Logarithms of the voxels, tower by tower."""
        return tower_inputs(sample)

    def stack(self, parts: list[csr_array]) -> csr_array:
        """Join along the jets."""
        return vstack(parts, format="csr")


@dataclass
class VoxelClassifier(_TowerClassifier):
    """A perceptron on voxels ("low level")."""

    name: str = "voxels"
    description: str = "perceptron on the voxels of each tower and their sum, best state of 832 steps"
    hidden: int = 48
    dropout: float = 0.1
    steps: int = 832
    least_epochs: int = 8
    batch_size: int = 64
    learning_rate: float = 4e-3

    def scores(self, train: Labelled, validation: Labelled, test_inputs: csr_array, seed: int) -> Array:
        """See `Classifier`."""
        torch.manual_seed(seed)
        network = TowerPerceptron(self.hidden, self.dropout)
        train_binary(
            network,
            filled_towers,
            train,
            validation,
            steps=self.steps,
            least_epochs=self.least_epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=seed,
        )
        return logits_of(network, filled_towers, test_inputs)


@dataclass
class ImageClassifier(_TowerClassifier):
    """A transformers image classifier, trained from scratch."""

    name: str = "resnet"
    description: str = "transformers ResNet (basic, 3 stages) on 75x25x25 tower images, best state of 1,250 steps"
    config: Callable[[], PretrainedConfig] = resnet_config
    steps: int = 1250
    least_epochs: int = 6
    batch_size: int = 32
    learning_rate: float = 2e-3

    def scores(self, train: Labelled, validation: Labelled, test_inputs: csr_array, seed: int) -> Array:
        """See `Classifier`."""
        torch.manual_seed(seed)
        network = ClassifierLogit(self.config())
        train_binary(
            network,
            tower_images,
            train,
            validation,
            steps=self.steps,
            least_epochs=self.least_epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=seed,
        )
        return logits_of(network, tower_images, test_inputs)


CLASSIFIERS: dict[str, Callable[[], Classifier]] = {
    "observables": ObservableClassifier,
    "image": lambda: ObservableClassifier(
        "image",
        "histogram gradient boosting on the observables that the first stage does not fix, stopped early",
        columns=IMAGE_ONLY,
    ),
    "voxels": VoxelClassifier,
    "resnet": ImageClassifier,
    "convnextv2": lambda: ImageClassifier(
        "convnextv2",
        "transformers ConvNeXtV2 (3 stages) on 75x25x25 tower images, best state of 1,250 steps",
        convnext_config,
    ),
}
"""Name -> constructor; the first three are cheap, the others classify images."""
