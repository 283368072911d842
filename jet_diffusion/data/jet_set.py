"""A set of jets held sparsely in memory: 5,000 jets take 30 MB instead of 940."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

import numpy as np
from scipy.sparse import csr_array, vstack

from jet_diffusion.errors import UserError
from jet_diffusion.observables.hits import PIXELS, TOWERS, Array
from jet_diffusion.observables.table import BATCH_SIZE, OBSERVABLES, compute_observables
from jet_diffusion.schema import CHANNELS, CLASS_NAMES, CRYSTAL_TO_TOWER, GEV_PER_UNIT, IMAGE_SHAPE, check_energies

VOXELS = int(np.prod(IMAGE_SHAPE))
"""Values of one jet image, all channels."""

BATCH_HITS = 2**18
"""Hits a batch holds at most: jets of a generator that fills every pixel come in smaller batches."""


@dataclass
class JetSample:
    """Jets with their labels and conditions, kept sparsely in memory.

    Attributes:
        voxels: (N, 46875) sparse float32, each row one jet's `energies` (GeV/100) flattened.
        labels: (N,) int64, 0 gluon, 1 quark.
        pt: (N,) jet pT in GeV.
        m0: (N,) jet mass in GeV.
        source: where the jets come from, for reports.
        simulated: the text that marks simulated or generated jets, or None.
        content_hash: (N,) uint64 hashes of the images, or None where they were not needed.
    """

    voxels: csr_array
    labels: Array
    pt: Array
    m0: Array
    source: str = ""
    simulated: str | None = None
    content_hash: Array | None = None
    _observables: Array | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check that all parts speak of the same number of jets."""
        lengths = {name: len(getattr(self, name)) for name in ("labels", "pt", "m0")}
        wrong = {name: length for name, length in lengths.items() if length != len(self)}
        if wrong:
            raise UserError(f"{len(self)} jets, but {', '.join(f'{n} {k}' for k, n in wrong.items())}")

    def __len__(self) -> int:
        return int(self.voxels.shape[0])

    @classmethod
    def from_batches(
        cls, batches: Iterable[Array], labels: Array, pt: Array, m0: Array, **description: Any
    ) -> JetSample:
        """Collect `energies` that come in batches.

        Args:
            batches: arrays (n, 3, 125, 125) in GeV/100.
            labels: (N,) classes of all jets.
            pt: (N,) GeV.
            m0: (N,) GeV.
            **description: further attributes.

        Raises:
            UserError: for a wrong shape, or jets and labels of different number.
        """
        rows = []
        for batch in batches:
            check_energies(batch, physical=False)
            rows.append(csr_array(batch.reshape(len(batch), VOXELS)))
        voxels = vstack(rows, format="csr") if rows else csr_array((0, VOXELS), dtype=np.float32)
        return cls(voxels, np.asarray(labels), np.asarray(pt), np.asarray(m0), **description)

    @classmethod
    def join(cls, samples: list[JetSample]) -> JetSample:
        """The jets of several samples, one after the other, with their observables."""
        return cls(
            vstack([sample.voxels for sample in samples], format="csr"),
            np.concatenate([sample.labels for sample in samples]),
            np.concatenate([sample.pt for sample in samples]),
            np.concatenate([sample.m0 for sample in samples]),
            source=samples[0].source,
            _observables=np.concatenate([sample.observables for sample in samples]),
        )

    def take(self, rows: Array) -> JetSample:
        """The jets of an index array or mask, in its order."""
        rows = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows)
        return replace(
            self,
            voxels=self.voxels[rows],
            labels=self.labels[rows],
            pt=self.pt[rows],
            m0=self.m0[rows],
            content_hash=None if self.content_hash is None else self.content_hash[rows],
            _observables=None if self._observables is None else self._observables[rows],
        )

    def split(self, sizes: Iterable[int], rng: np.random.Generator) -> list[JetSample]:
        """Draw disjoint samples of the given sizes.

        Raises:
            UserError: if they add up to more jets than there are.
        """
        sizes = list(sizes)
        if sum(sizes) > len(self):
            raise UserError(f"{sum(sizes)} jets asked of {self.source or 'a sample'}, which holds {len(self)}")
        order = rng.permutation(len(self))
        ends = np.cumsum(sizes)
        return [self.take(order[end - size : end]) for size, end in zip(sizes, ends, strict=True)]

    def of_class(self, label: int) -> JetSample:
        """The jets of one class."""
        if label not in range(len(CLASS_NAMES)):
            raise UserError(f"no class {label}; there are {dict(enumerate(CLASS_NAMES))}")
        return self.take(self.labels == label)

    def with_voxels(self, voxels: csr_array) -> JetSample:
        """Jets with the same labels and conditions, but other energies."""
        return replace(self, voxels=voxels, content_hash=None, _observables=None)

    def with_labels(self, labels: Array) -> JetSample:
        """The same images, labelled otherwise."""
        return replace(self, labels=labels)

    def map(self, function: Callable[[Array], Array]) -> JetSample:
        """Jets whose `energies` a function of a batch has changed."""
        rows = [csr_array(function(batch).reshape(len(batch), VOXELS)) for batch in self.batches()]
        return self.with_voxels(vstack(rows, format="csr") if rows else self.voxels)

    def energies(self, rows: slice | Array = slice(None)) -> Array:
        """Dense `energies` (n, 3, 125, 125) of some rows, GeV/100."""
        return self.voxels[rows].toarray().reshape(-1, *IMAGE_SHAPE)

    def batches(self) -> Iterator[Array]:
        """Dense `energies` of all jets, in order."""
        hits_per_jet = max(1, self.voxels.nnz // max(1, len(self)))
        size = int(np.clip(BATCH_HITS // hits_per_jet, 1, BATCH_SIZE))
        for start in range(0, len(self), size):
            yield self.energies(slice(start, start + size))

    @property
    def tower_energies(self) -> csr_array:
        """(N, 3 * 625) sparse energy in each tower of each channel, GeV."""
        voxel = np.arange(VOXELS)
        tower = voxel // PIXELS * TOWERS + CRYSTAL_TO_TOWER[voxel % PIXELS]
        weights = np.full(VOXELS, GEV_PER_UNIT, dtype=np.float64)
        return csr_array(self.voxels @ csr_array((weights, (voxel, tower)), shape=(VOXELS, len(CHANNELS) * TOWERS)))

    @property
    def observables(self) -> Array:
        """(N, K) all rows of `OBSERVABLES` in the table's order, computed once."""
        if self._observables is None:
            columns = [compute_observables(batch) for batch in self.batches()]
            parts = [np.column_stack([part[name] for name in OBSERVABLES]) for part in columns]
            self._observables = np.concatenate(parts) if parts else np.empty((0, len(OBSERVABLES)))
        return self._observables

    def observable(self, name: str) -> Array:
        """(N,) one observable."""
        return self.observables[:, list(OBSERVABLES).index(name)]

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that change with any jet, label or condition."""
        voxels = self.voxels
        digest = blake2b(digest_size=16)
        for part in (voxels.indptr.astype(np.int64), voxels.indices.astype(np.int32), voxels.data):
            digest.update(part.tobytes())
        for column in (self.labels.astype(np.int64), self.pt.astype(np.float32), self.m0.astype(np.float32)):
            digest.update(column.tobytes())
        return digest.hexdigest()
