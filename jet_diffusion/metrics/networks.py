"""The neural networks of the two-sample tests: their tower inputs, a perceptron, and the training loop."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import nn

from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.errors import UserError, require
from jet_diffusion.observables.hits import TOWERS, Array
from jet_diffusion.schema import CHANNELS, CRYSTALS_PER_TOWER, IMAGE_SHAPE, NUM_TOWERS

if TYPE_CHECKING:
    from transformers import ConvNextV2Config, PretrainedConfig, PreTrainedModel, ResNetConfig

TYPICAL_HIT = (3e-3, 1e-3, 3e-4)
"""Energy (GeV/100) of an ordinary hit in each channel, where inputs turn from linear to logarithmic."""

TOWER_VOXELS = len(CHANNELS) * CRYSTALS_PER_TOWER**2
"""Values of one tower: 5x5 crystals in three channels."""

TYPICAL_TOWERS = 30.0
"""Brings a sum over a jet's towers to order one."""

_VOXEL_ORDER = (
    np.arange(np.prod(IMAGE_SHAPE))
    .reshape(len(CHANNELS), NUM_TOWERS, CRYSTALS_PER_TOWER, NUM_TOWERS, CRYSTALS_PER_TOWER)
    .transpose(1, 3, 0, 2, 4)
    .reshape(-1)
)
"""Voxels tower by tower: eta, phi of the tower, then channel, eta, phi within it."""

_EVALUATION_BATCH = 256


def load_transformers() -> ModuleType:
    """The library of the image classifiers; ValueError names the extra where it is missing."""
    return require("transformers", "tagger", "an image classifier")


def tower_inputs(sample: JetSample) -> csr_array:
    """(N, 625 * 75) sparse logarithms of the energies, tower by tower, signs kept."""
    voxels = sample.voxels[:, _VOXEL_ORDER]
    voxels.sort_indices()
    channel = voxels.indices % TOWER_VOXELS // CRYSTALS_PER_TOWER**2
    scale = np.array(TYPICAL_HIT, np.float32)[channel]
    voxels.data = (np.sign(voxels.data) * np.log1p(np.abs(voxels.data) / scale)).astype(np.float32)
    return voxels


class FilledTowers(NamedTuple):
    """The towers with hits of a batch of jets.

    Attributes:
        values: (T, 75) inputs of each tower.
        jet: (T,) index of its jet.
        tower: (T,) its number 0..624.
        num_jets: jets in the batch.
    """

    values: torch.Tensor
    jet: torch.Tensor
    tower: torch.Tensor
    num_jets: int


def filled_towers(inputs: csr_array) -> FilledTowers:
    """Gather the towers that hold any hit."""
    jet = np.repeat(np.arange(inputs.shape[0]), np.diff(inputs.indptr))
    tower, voxel = np.divmod(inputs.indices.astype(np.int64), TOWER_VOXELS)
    starts = np.diff(jet * TOWERS + tower, prepend=-1) != 0
    values = np.zeros((np.count_nonzero(starts), TOWER_VOXELS), np.float32)
    values[np.cumsum(starts) - 1, voxel] = inputs.data
    return FilledTowers(
        torch.from_numpy(values), torch.from_numpy(jet[starts]), torch.from_numpy(tower[starts]), inputs.shape[0]
    )


def tower_images(inputs: csr_array) -> torch.Tensor:
    """(N, 75, 25, 25) dense images of the towers."""
    dense = inputs.toarray().reshape(-1, NUM_TOWERS, NUM_TOWERS, TOWER_VOXELS)
    return torch.from_numpy(dense).permute(0, 3, 1, 2).contiguous()


class TowerPerceptron(nn.Module):
    """A perceptron reads each filled tower's 75 voxels and its place; another reads their sum and mean.

    Sharing the first one between towers is what lets a few thousand jets train it; a perceptron on all 46,875
    voxels of a jet side by side learnt nothing from 3,300 of them.

    Args:
        hidden: width.
        dropout: fraction dropped before each layer of the second perceptron.
    """

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.hidden = hidden
        self.per_tower = nn.Sequential(
            nn.Linear(TOWER_VOXELS + 2, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()
        )
        self.per_jet = nn.Sequential(
            nn.LayerNorm(2 * hidden),
            nn.Dropout(dropout),
            nn.Linear(2 * hidden, hidden),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, 1),
        )
        side = torch.linspace(-1, 1, NUM_TOWERS)
        places = torch.stack(torch.meshgrid(side, side, indexing="ij"), dim=-1).reshape(TOWERS, 2)
        self.register_buffer("places", places)

    def forward(self, towers: FilledTowers) -> torch.Tensor:
        """(N,) logits."""
        places = self.get_buffer("places")[towers.tower]
        features = self.per_tower(torch.cat([towers.values, places], dim=1))
        total = features.new_zeros(towers.num_jets, self.hidden).index_add_(0, towers.jet, features)
        number = torch.bincount(towers.jet, minlength=towers.num_jets).clamp(min=1)[:, None]
        return self.per_jet(torch.cat([total / TYPICAL_TOWERS, total / number], dim=1))[:, 0]


def resnet_config() -> ResNetConfig:
    """A small ResNet on tower images of 75 channels."""
    return load_transformers().ResNetConfig(
        num_channels=TOWER_VOXELS,
        embedding_size=32,
        hidden_sizes=[32, 64, 128],
        depths=[1, 1, 1],
        layer_type="basic",
    )


def convnext_config() -> ConvNextV2Config:
    """A small ConvNeXtV2 on tower images of 75 channels."""
    return load_transformers().ConvNextV2Config(
        num_channels=TOWER_VOXELS,
        patch_size=1,
        num_stages=3,
        hidden_sizes=[32, 64, 128],
        depths=[1, 1, 1],
        image_size=NUM_TOWERS,
    )


class ClassifierLogit(nn.Module):
    """A transformers image classifier of two labels as a map from images to one logit a jet.

    Args:
        model: a model, or a configuration for one with new weights.

    Attributes:
        model: the transformers model.
    """

    def __init__(self, model: PreTrainedModel | PretrainedConfig) -> None:
        super().__init__()
        transformers = load_transformers()
        fresh = isinstance(model, transformers.PretrainedConfig)
        self.model = transformers.AutoModelForImageClassification.from_config(model) if fresh else model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 75, 25, 25) -> (N,) log odds of the second label."""
        logits = self.model(pixel_values=images).logits
        return logits[:, 1] - logits[:, 0]


def train_binary(
    network: nn.Module,
    collate: Callable[[Any], Any],
    train: tuple[Any, Array],
    validation: tuple[Any, Array],
    *,
    steps: int,
    least_epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> None:
    """Train on the cross-entropy and leave the network in its best state on the validation jets.

    Args:
        network: collated inputs -> (N,) logits.
        collate: rows of the inputs -> what the network takes.
        train: inputs and labels 0 or 1.
        validation: inputs and labels that choose the epoch.
        steps: optimiser steps, so that few jets get as many as many jets do.
        least_epochs: passes over the training jets at least, even if that makes more steps.
        batch_size: jets a step.
        learning_rate: peak of a one-cycle schedule of AdamW.
        seed: order of the jets.
    """
    inputs, labels = train
    batches = -(-len(labels) // batch_size)
    epochs = max(least_epochs, round(steps / batches))
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * batches)
    loss_function = nn.BCEWithLogitsLoss()
    rng = np.random.default_rng(seed)
    best, best_state = np.inf, {}
    for _ in range(epochs):
        network.train()
        for rows in np.array_split(rng.permutation(len(labels)), batches):
            loss = loss_function(network(collate(inputs[rows])), torch.as_tensor(labels[rows], dtype=torch.float32))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        logits = torch.from_numpy(logits_of(network, collate, validation[0]))
        loss_value = loss_function(logits, torch.as_tensor(validation[1], dtype=torch.float32)).item()
        if loss_value < best:
            best = loss_value
            best_state = {name: value.clone() for name, value in network.state_dict().items()}
    if not best_state:
        raise UserError("the classifier's validation loss was never finite: are the inputs?")
    network.load_state_dict(best_state)


@torch.inference_mode()
def logits_of(network: nn.Module, collate: Callable[[Any], Any], inputs: Any) -> Array:
    """(N,) logits of all inputs."""
    network.eval()
    starts = range(0, inputs.shape[0], _EVALUATION_BATCH)
    return np.concatenate([network(collate(inputs[start : start + _EVALUATION_BATCH])).numpy() for start in starts])
