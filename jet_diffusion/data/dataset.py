"""A split of a converted dataset, from a folder or the Hub, as arrays for training and evaluation.

`jet_diffusion.data.encoding` says what the columns hold; `jet_diffusion.data.convert` makes such datasets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, load_dataset
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from numpy.typing import NDArray

from jet_diffusion.data.encoding import (
    FEATURES,
    IMAGE_COLUMNS,
    content_hashes,
    decode_energies,
    encode_jets,
    has_hcal_among_crystals,
)

__all__ = ["JetDataset", "content_hashes", "decode_energies", "encode_jets"]

METADATA_FILE = "jet_diffusion.json"
"""Lies beside the data: source file, split, seed, duplicates, simulated marker."""

FINGERPRINTED = ("content_hash", "y", "pt", "m0")
"""The columns that make a split's fingerprint."""

SIMULATED = "Simulated stand-in jets, not collision data"
"""Said of simulated jets whose metadata file did not travel with them."""


class JetDataset:
    """One split of a converted dataset.

    Everything but the images is held in memory; images are decoded from the memory-mapped Arrow files.

    Args:
        dataset: Rows with the columns of `jet_table.FEATURES`.
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

    Raises:
        ValueError: A column is missing or of another type, or there are no rows.
    """

    def __init__(self, dataset: Dataset, metadata: dict[str, Any] | None = None) -> None:
        wrong = [name for name, kind in FEATURES.items() if dataset.features.get(name) != kind]
        if wrong:
            seen = {name: dataset.features.get(name) for name in wrong}
            raise ValueError(f"not a converted jet dataset; columns missing or of another type: {seen}")
        if len(dataset) == 0:
            raise ValueError("the dataset holds no jets")
        self.dataset = dataset
        self.metadata = metadata or {}
        self._images = dataset.select_columns(IMAGE_COLUMNS).with_format("arrow")
        scalars = dataset.select_columns([*FINGERPRINTED, "simulated"]).with_format("arrow")[:]
        self.labels: NDArray[np.int64] = scalars["y"].to_numpy()
        self.pt: NDArray[np.float32] = scalars["pt"].to_numpy()
        self.m0: NDArray[np.float32] = scalars["m0"].to_numpy()
        self.content_hash: NDArray[np.uint64] = scalars["content_hash"].to_numpy()
        self.fingerprint = fingerprint(scalars)
        any_simulated = pc.any(scalars["simulated"]).as_py()
        self.simulated: str | None = (self.metadata.get("simulated") or SIMULATED) if any_simulated else None
        self.all_hcal_in_towers = not _any_hcal_among_crystals(dataset)

    @classmethod
    def load(cls, path_or_repo: str | Path, split: str) -> Self:
        """Load a split of a converted folder or of a dataset on the Hub.

        Args:
            path_or_repo: A folder, or `user/name`.
            split: `train`, `validation` or `test`; the slicing of `datasets` works (`train[:1000]`).

        Raises:
            FileNotFoundError: There is neither such a folder nor such a dataset on the Hub.
            ValueError: There is no such split, or it is no converted jet dataset.
        """
        metadata = _metadata_of_folder(Path(path_or_repo))
        dataset = load_dataset(str(path_or_repo), split=split)
        if metadata is None:
            metadata = _metadata_of_repo(str(path_or_repo))
        return cls(dataset, metadata)

    def __len__(self) -> int:
        return len(self.labels)

    def energies(self, indices: Sequence[int] | NDArray[np.integer] | slice) -> NDArray[np.float32]:
        """Decode the images of the jets at `indices`, in that order.

        Returns:
            (n, 3, 125, 125) float32.

        Raises:
            IndexError: An index lies outside the split.
        """
        table: pa.Table = self._images[indices if isinstance(indices, slice) else np.asarray(indices)]
        return decode_energies(table)


def fingerprint(columns: Mapping[str, Any]) -> str:
    """Hash the content of encoded jets in their order.

    Args:
        columns: The Arrow columns named in `FINGERPRINTED`.

    Returns:
        32 hexadecimal digits.
    """
    digest = blake2b(digest_size=16)
    for name in FINGERPRINTED:
        digest.update(columns[name].to_numpy().tobytes())
    return digest.hexdigest()


def _any_hcal_among_crystals(dataset: Dataset) -> bool:
    batches = dataset.select_columns(["index", "value"]).with_format("arrow").iter(batch_size=10_000)
    return any(has_hcal_among_crystals(batch).any() for batch in batches)


def _metadata_of_folder(folder: Path) -> dict[str, Any] | None:
    """The metadata file of a folder, empty where it has none; None where there is no folder."""
    if not folder.is_dir():
        return None
    file = folder / METADATA_FILE
    return json.loads(file.read_text()) if file.is_file() else {}


def _metadata_of_repo(repo: str) -> dict[str, Any]:
    try:
        file = hf_hub_download(repo, METADATA_FILE, repo_type="dataset")
    except (EntryNotFoundError, LocalEntryNotFoundError):
        return {}
    return dict(json.loads(Path(file).read_text()))
