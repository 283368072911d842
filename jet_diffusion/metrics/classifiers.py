"""The classifiers of the two-sample tests: on observables, on voxels, and on images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array, vstack
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import nn
from transformers import AutoModelForImageClassification, ConvNextV2Config, PretrainedConfig, ResNetConfig

from jet_diffusion.hits import Array
from jet_diffusion.jet_sample import JetSample
from jet_diffusion.metrics.networks import (
    TOWER_VOXELS,
    TowerPerceptron,
    filled_towers,
    logits_of,
    tower_images,
    tower_inputs,
    train_binary,
)
from jet_diffusion.metrics.two_sample import Classifier, Labelled
from jet_diffusion.schema import NUM_TOWERS


@dataclass
class ObservableClassifier:
    """Gradient boosting on the table of observables ("high level")."""

    name: str = "observables"
    description: str = "histogram gradient boosting on all observables, stopped early"
    max_iter: int = 300

    def prepare(self, sample: JetSample) -> Array:
        """(N, K) observables."""
        return sample.observables

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


def resnet_config() -> ResNetConfig:
    """A small ResNet on tower images of 75 channels."""
    return ResNetConfig(
        num_channels=TOWER_VOXELS,
        embedding_size=32,
        hidden_sizes=[32, 64, 128],
        depths=[1, 1, 1],
        layer_type="basic",
    )


def convnext_config() -> ConvNextV2Config:
    """A small ConvNeXtV2 on tower images of 75 channels."""
    return ConvNextV2Config(
        num_channels=TOWER_VOXELS,
        patch_size=1,
        num_stages=3,
        hidden_sizes=[32, 64, 128],
        depths=[1, 1, 1],
        image_size=NUM_TOWERS,
    )


class _OneLogit(nn.Module):
    """A transformers image classifier with one label, as a map from images to (N,) logits."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        config.num_labels = 1
        self.model = AutoModelForImageClassification.from_config(config)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 75, 25, 25) -> (N,)."""
        return self.model(pixel_values=images).logits[:, 0]


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
        network = _OneLogit(self.config())
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
    "voxels": VoxelClassifier,
    "resnet": ImageClassifier,
    "convnextv2": lambda: ImageClassifier(
        "convnextv2",
        "transformers ConvNeXtV2 (3 stages) on 75x25x25 tower images, best state of 1,250 steps",
        convnext_config,
    ),
}
"""Name -> constructor; the first two are cheap, the others classify images."""
