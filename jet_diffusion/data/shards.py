"""The Parquet shards of a dataset being converted, in a hidden folder until it is complete."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from jet_diffusion.data.checks import Finding, JetCheck, repeated
from jet_diffusion.data.dataset_card import make_dataset_card
from jet_diffusion.data.encoding import FINGERPRINTED, fingerprint, has_hcal_among_crystals
from jet_diffusion.data.folder import METADATA_FILE, digest_of_shard
from jet_diffusion.data.splits import SPLITS, count_duplicates
from jet_diffusion.errors import UserError
from jet_diffusion.io import claim_partial_folder, partial_folder, sync, write_atomically, write_text_atomically
from jet_diffusion.schema import CLASS_NAMES

_RISING = ("index.list.element", "tower_index.list.element", "row")
_FLOATS = ("value.list.element", "tower_value.list.element", "pt", "m0")
ENCODINGS = dict.fromkeys(_RISING, "DELTA_BINARY_PACKED") | dict.fromkeys(_FLOATS, "BYTE_STREAM_SPLIT")
"""Places rise within a jet; floats of like size share their upper bytes."""


class PartialDataset:
    """A dataset being converted.

    The folder `.{name}.partial` beside the destination holds the settings, a note for each block of the
    source whose shards are all written, and the folder `dataset` that becomes the destination.

    Args:
        out: The destination.
        settings: What determines the dataset.

    Raises:
        FileExistsError: The destination exists, or the hidden folder is not of a conversion.
        UserError: An interrupted conversion to it had other settings.
    """

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        if out.exists():
            raise FileExistsError(f"{out} exists; delete it or choose another name")
        self.out = out.absolute()  # Dask's workers have working directories of their own
        self.settings = settings
        self._folder = partial_folder(self.out)
        self._data = self._folder / "dataset" / "data"
        claim_partial_folder(self._folder, "convert", settings)
        self._data.mkdir(parents=True, exist_ok=True)

    def discard(self) -> None:
        """Remove what was written so far, because the source is refused."""
        shutil.rmtree(self._folder)

    def has(self, block: int) -> bool:
        """Tell whether all shards of a block are written."""
        return self._note(block).exists()

    def hashes(self) -> NDArray[np.uint64]:
        """Content hashes of the jets of all finished blocks."""
        tables = [pq.read_table(path, columns=["content_hash"]) for path in self._data.glob("[!.]*.parquet")]
        parts = [table["content_hash"].to_numpy() for table in tables]
        return np.concatenate(parts) if parts else np.empty(0, np.uint64)

    def write(self, block: int, table: pa.Table, splits: NDArray[np.int64], note: dict[str, Any]) -> None:
        """Write a block's shard of each split that has jets in it.

        Args:
            block: Number of the block.
            table: Its encoded jets.
            splits: Position of each jet's split in `SPLITS`.
            note: What the block adds to the metadata: `check` (a `JetCheck` as JSON) and counts.
        """
        metadata = {**(table.schema.metadata or {}), "jet_diffusion": json.dumps(self.settings)}
        table = table.replace_schema_metadata(metadata)
        for split, name in enumerate(SPLITS):
            shard = table.take(np.flatnonzero(splits == split))
            if shard.num_rows:
                write_atomically(self._data / f"{name}-{block:05d}.parquet", partial(_write_parquet, shard))
            del shard
            pa.default_memory_pool().release_unused()
        note = note | {"num_hcal_not_in_towers": int(has_hcal_among_crystals(table).sum())}
        write_text_atomically(self._note(block), json.dumps(note))

    def notes(self) -> list[dict[str, Any]]:
        """The notes of all finished blocks."""
        return [json.loads(path.read_text()) for path in sorted(self._folder.glob("block-*.json"))]

    def complete(self, findings: list[Finding], **facts: Any) -> dict[str, Any]:
        """Add the metadata and the card, and give the dataset its name.

        Args:
            findings: What the checks said.
            **facts: Further metadata.

        Returns:
            The metadata.

        Raises:
            UserError: A split that should have jets has none left.
        """
        for stray in self._data.glob(".*"):  # the temporary file of a killed process
            stray.unlink()
        splits, columns = self._splits()
        empty = [name for name in SPLITS if self.settings["fractions"][name] and name not in splits]
        if empty:
            raise UserError(f"no jets are left for {', '.join(empty)}; choose other shares")
        hashes = [columns[name]["content_hash"].to_numpy() for name in splits]
        rows = np.concatenate([columns[name]["row"].to_numpy() for name in splits])
        again = repeated(np.concatenate(hashes)[np.argsort(rows)], np.sort(rows), facts["sources"])
        metadata = self.settings | facts
        metadata |= {
            "splits": splits,
            "duplicates": count_duplicates(hashes),
            "num_hcal_not_in_towers": sum(note["num_hcal_not_in_towers"] for note in self.notes()),
            "findings": [asdict(finding) for finding in [*findings, *([again] if again else [])]],
            "shards": self._shards(),
        }
        metadata = json.loads(json.dumps(metadata))
        dataset = self._folder / "dataset"
        write_text_atomically(dataset / METADATA_FILE, json.dumps(metadata, indent=2) + "\n")
        write_text_atomically(dataset / "README.md", str(make_dataset_card(metadata, self.out.name)))
        os.rename(dataset, self.out)
        sync(self.out.parent)
        shutil.rmtree(self._folder)
        return dict(metadata)

    def _note(self, block: int) -> Path:
        return self._folder / f"block-{block:05d}.json"

    def _shards(self) -> dict[str, Any]:
        """Rows and digest of each shard, by its path in the dataset."""
        return {
            f"data/{path.name}": {"rows": pq.read_metadata(path).num_rows, "sha256": digest_of_shard(path)}
            for path in sorted(self._data.iterdir())
        }

    def _splits(self) -> tuple[dict[str, Any], dict[str, pa.Table]]:
        """Counts of each split, and its columns."""
        splits, columns = {}, {}
        for name in SPLITS:
            shards = sorted(self._data.glob(f"{name}-*.parquet"))
            if shards:
                table = pa.concat_tables(pq.read_table(path, columns=[*FINGERPRINTED, "row"]) for path in shards)
                per_class = np.bincount(table["y"].to_numpy(), minlength=len(CLASS_NAMES)).tolist()
                splits[name] = {
                    "num_jets": table.num_rows,
                    **dict(zip(CLASS_NAMES, per_class, strict=True)),
                    "fingerprint": fingerprint(table),
                }
                columns[name] = table
        return splits, columns


def summed(notes: list[dict[str, Any]]) -> JetCheck:
    """Add up the checks of all blocks."""
    return sum((JetCheck.from_json(note["check"]) for note in notes), JetCheck())


def _write_parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd", use_dictionary=False, column_encoding=ENCODINGS)
