"""A split of a converted dataset, from a folder or the Hub, as arrays for training and evaluation.

`jet_diffusion.data.encoding` says what the columns hold; `jet_diffusion.data.convert` makes such datasets.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetGenerationError
from numpy.typing import NDArray

from jet_diffusion.data.checks import MAX_GEV, Finding, JetCheck, refuse
from jet_diffusion.data.encoding import (
    FEATURES,
    FINGERPRINTED,
    IMAGE_COLUMNS,
    StoredHits,
    content_hashes,
    decode_energies,
    encode_jets,
    fingerprint,
    has_hcal_among_crystals,
    read_hits,
)
from jet_diffusion.data.files.stored import SLICE_JETS
from jet_diffusion.data.folder import check_whole, locate
from jet_diffusion.errors import UserError, printable

__all__ = ["JetDataset", "content_hashes", "decode_energies", "encode_jets"]

SCALARS = [*FINGERPRINTED, "simulated"]
"""The columns that are held in memory."""

SIMULATED = "Simulated stand-in jets, not collision data"
"""Said of simulated jets whose metadata file did not travel with them."""


class JetDataset:
    """One split of a converted dataset.

    Everything but the images is held in memory; images are decoded from the memory-mapped Arrow files.

    Args:
        dataset: Rows with the columns of `encoding.FEATURES`.
        metadata: What the metadata file says; may be empty.

    Attributes:
        dataset: The rows, encoded.
        metadata: What the metadata file says.
        labels: (N,) int64, 0 gluon and 1 quark.
        pt: (N,) float32, GeV.
        m0: (N,) float32, GeV.
        content_hash: (N,) uint64, equal for images that are equal bit for bit.
        fingerprint: Hexadecimal hash of the content hashes, labels, pt and m0 in their order.
        simulated: The text that marks simulated stand-in jets, or None.
        all_hcal_in_towers: Whether every jet's HCAL is constant in 5x5 towers.
        shards: Jets in each shard, if jets are best read shard after shard; else empty.

    Raises:
        UserError: A column is missing or of another type, or there are no rows.
    """

    shards: tuple[int, ...] = ()

    def __init__(self, dataset: Dataset, metadata: dict[str, Any] | None = None) -> None:
        wrong = [name for name, kind in FEATURES.items() if dataset.features.get(name) != kind]
        if wrong:
            seen = {name: dataset.features.get(name) for name in wrong}
            raise UserError(f"not a converted jet dataset; columns missing or of another type: {seen}")
        if len(dataset) == 0:
            raise UserError("the dataset holds no jets")
        self.dataset = dataset
        self.metadata = metadata or {}
        self._images = dataset.select_columns(IMAGE_COLUMNS).with_format("arrow")
        self._keep(dataset.select_columns(SCALARS).with_format("arrow")[:])
        self.all_hcal_in_towers = not _any_hcal_among_crystals(dataset)

    def _keep(self, scalars: pa.Table) -> None:
        """Hold the columns other than images."""
        self.labels: NDArray[np.int64] = scalars["y"].to_numpy()
        self.pt: NDArray[np.float32] = scalars["pt"].to_numpy()
        self.m0: NDArray[np.float32] = scalars["m0"].to_numpy()
        self.content_hash: NDArray[np.uint64] = scalars["content_hash"].to_numpy()
        self.fingerprint = fingerprint(scalars)
        any_simulated = pc.any(scalars["simulated"]).as_py()
        self.simulated: str | None = (self.metadata.get("simulated") or SIMULATED) if any_simulated else None

    @classmethod
    def load(cls, path_or_repo: str | Path, split: str, *, verify: bool | None = None, check: bool = True) -> Self:
        """Load a split of a converted folder or of a dataset on the Hub.

        Args:
            path_or_repo: A folder; or `user/name` or `hf://user/name` on the Hub.
            split: `train`, `validation` or `test`; the slicing of `datasets` works (`train[:1000]`).
            verify: Whether to compare the digests of all shards; by default if they take 2 GB at most together.
            check: Whether to refuse jets that no model should be trained or judged on: every pT and mass is looked
                at, and the images of some jets spread over the split.

        Raises:
            FileNotFoundError: There is neither such a folder nor such a dataset on the Hub, or shards are missing.
            UserError: There is no such split, it is no converted jet dataset or not whole, or its jets are refused.
        """
        folder = locate(path_or_repo)
        metadata = check_whole(folder, verify)
        files = {name: sorted(map(str, (folder / "data").glob(f"{name}-*.parquet"))) for name in metadata["splits"]}
        try:
            dataset = load_dataset("parquet", data_files=files, split=split)
        except DatasetGenerationError as error:
            where = f"a shard of {folder} is damaged ({printable(error.__cause__ or error, 200)})"
            raise UserError(f"{where}; loading with verify=True names it; copy or convert it again") from error
        jets = cls(dataset, metadata)
        if check:
            refuse(f"{path_or_repo} ({split})", check_dataset(jets))
        return jets

    def __len__(self) -> int:
        return len(self.labels)

    def energies(self, indices: Sequence[int] | NDArray[np.integer] | slice) -> NDArray[np.float32]:
        """Decode the images of the jets at `indices`, in that order.

        Returns:
            (n, 3, 125, 125) float32.

        Raises:
            IndexError: An index lies outside the split.
        """
        return decode_energies(self._rows(indices))

    def hits(self, indices: Sequence[int] | NDArray[np.integer] | slice) -> StoredHits:
        """The hits of the jets at `indices`, in that order; some 3 kB a jet, where `energies` takes 190.

        Raises:
            IndexError: An index lies outside the split.
        """
        return read_hits(self._rows(indices))

    def spread(self, count: int) -> NDArray[np.int64]:
        """Rows of at most so many jets, spread evenly over the split."""
        return np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(np.int64)

    def _rows(self, indices: Sequence[int] | NDArray[np.integer] | slice) -> pa.Table:
        table: pa.Table = self._images[indices if isinstance(indices, slice) else np.asarray(indices)]
        return table


def check_dataset(jets: JetDataset, num_images: int = 256) -> list[Finding]:
    """Look for what no model should be trained or judged on: all conditions, and images spread over the split.

    Args:
        jets: The split.
        num_images: So many images are looked at.
    """
    check = JetCheck()
    wrong = [~((column > 0) & (column < MAX_GEV)) for column in (jets.pt, jets.m0)]
    rows = np.union1d(jets.spread(num_images), np.flatnonzero(np.logical_or(*wrong)))
    for start in range(0, len(rows), SLICE_JETS):
        part = rows[start : start + SLICE_JETS]
        check.add(jets.energies(part), jets.labels[part], jets.pt[part], jets.m0[part], part)
    parts = [jets.metadata, *jets.metadata.get("appended", [])]
    stated = any(part.get("reading", {}).get("unit") is not None for part in parts)
    return check.findings(unit_is_stated=stated)


def _any_hcal_among_crystals(dataset: Dataset) -> bool:
    batches = dataset.select_columns(["index", "value"]).with_format("arrow").iter(batch_size=10_000)
    return any(has_hcal_among_crystals(batch).any() for batch in batches)
