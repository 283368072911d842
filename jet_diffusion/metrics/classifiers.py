"""The classifiers of the two-sample tests: on observables, on voxels, and on images."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array, vstack
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import nn

from jet_diffusion.hits import Array
from jet_diffusion.jet_sample import VOXELS, JetSample
from jet_diffusion.metrics.two_sample import Classifier, Labelled

TYPICAL_HIT = 0.01
"""Energy (GeV/100) at which voxel inputs turn from linear to logarithmic."""


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


class _VoxelNetwork(nn.Module):
    """A multilayer perceptron whose first layer reads only the hits.

    Each voxel has two weight vectors: one for being hit, one times the logarithm of its energy.
    """

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.hit = nn.EmbeddingBag(VOXELS, hidden, mode="sum")
        self.energy = nn.EmbeddingBag(VOXELS, hidden, mode="sum")
        for layer in (self.hit, self.energy):
            nn.init.normal_(layer.weight, std=0.02)
        self.head = nn.Sequential(
            nn.LayerNorm(hidden),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, 1),
        )

    def forward(self, voxels: torch.Tensor, values: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        """(N,) logits from the hits' voxel numbers, their values, and where each jet's hits begin."""
        summed = self.hit(voxels, offsets) + self.energy(voxels, offsets, per_sample_weights=values)
        return self.head(summed)[:, 0]


@dataclass
class VoxelClassifier:
    """A perceptron on all 46,875 voxels ("low level")."""

    name: str = "voxels"
    description: str = "perceptron on hit voxels and the logarithm of their energies, best of 12 epochs"
    hidden: int = 64
    dropout: float = 0.2
    epochs: int = 12
    batch_size: int = 64
    learning_rate: float = 1e-3

    def prepare(self, sample: JetSample) -> csr_array:
        """Voxels with the logarithm of the energy over a typical hit's."""
        voxels = sample.voxels.copy()
        voxels.data = (np.sign(voxels.data) * np.log1p(np.abs(voxels.data) / TYPICAL_HIT)).astype(np.float32)
        return voxels

    def stack(self, parts: list[csr_array]) -> csr_array:
        """Join along the jets."""
        return vstack(parts, format="csr")

    def scores(self, train: Labelled, validation: Labelled, test_inputs: csr_array, seed: int) -> Array:
        """See `Classifier`."""
        torch.manual_seed(seed)
        network = _VoxelNetwork(self.hidden, self.dropout)
        return fit_and_score(network, _hit_arguments, self, train, validation, test_inputs, seed)


def _hit_arguments(voxels: csr_array) -> tuple[torch.Tensor, ...]:
    return (
        torch.from_numpy(voxels.indices.astype(np.int64)),
        torch.from_numpy(voxels.data),
        torch.from_numpy(voxels.indptr[:-1].astype(np.int64)),
    )


def fit_and_score(network, arguments, settings, train, validation, test_inputs, seed):
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=0.01)
    loss_function = nn.BCEWithLogitsLoss()
    best, state = np.inf, None
    for epoch in range(settings.epochs):
        network.train()
        order = rng.permutation(len(train.labels))
        for start in range(0, len(order), settings.batch_size):
            rows = order[start : start + settings.batch_size]
            loss = loss_function(network(*arguments(train.inputs[rows])), torch.as_tensor(train.labels[rows], dtype=torch.float32))
            optimizer.zero_grad(); loss.backward(); optimizer.step()
        scores = predict(network, arguments, validation.inputs, settings.batch_size)
        value = float(loss_function(torch.as_tensor(scores), torch.as_tensor(validation.labels, dtype=torch.float32)))
        if value < best:
            best, state, be = value, {k: v.clone() for k, v in network.state_dict().items()}, epoch
    network.load_state_dict(state)
    print('best epoch', be, best, end=' ')
    return predict(network, arguments, test_inputs, settings.batch_size)


def predict(network, arguments, inputs, batch_size):
    network.eval()
    with torch.inference_mode():
        return np.concatenate([network(*arguments(inputs[i : i + 256])).numpy() for i in range(0, inputs.shape[0], 256)])
