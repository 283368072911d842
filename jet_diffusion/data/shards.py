"""The Parquet shards of a dataset being converted, in a hidden folder until it is complete."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from jet_diffusion.data.dataset import FINGERPRINTED, METADATA_FILE, fingerprint
from jet_diffusion.data.dataset_card import make_dataset_card
from jet_diffusion.data.encoding import has_hcal_among_crystals
from jet_diffusion.data.splits import SPLITS, count_duplicates
from jet_diffusion.io import partial_folder, sync, write_atomically, write_text_atomically
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
        FileExistsError: The destination exists.
        ValueError: An interrupted conversion to it had other settings.
    """

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        if out.exists():
            raise FileExistsError(f"{out} exists; delete it or choose another name")
        self.out = out
        self.settings = settings
        self._folder = partial_folder(out)
        self._data = self._folder / "dataset" / "data"
        stored = self._folder / "settings.json"
        if stored.exists():
            self._compare(json.loads(stored.read_text()))
        else:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._data.mkdir(parents=True)
            write_text_atomically(stored, json.dumps(settings))

    def _compare(self, before: dict[str, Any]) -> None:
        changed = [name for name in self.settings if self.settings[name] != before.get(name)]
        if changed:
            seen = [f"{name} was {before.get(name)!r} and is now {self.settings[name]!r}" for name in changed]
            where = f"the interrupted conversion in {self._folder}"
            raise ValueError(f"{where} differs: {', '.join(seen)}; delete it to start anew")

    def has(self, block: int) -> bool:
        """Tell whether all shards of a block are written."""
        return self._note(block).exists()

    def write(self, block: int, table: pa.Table, splits: NDArray[np.int64]) -> None:
        """Write a block's shard of each split that has jets in it.

        Args:
            block: Number of the block.
            table: Its encoded jets.
            splits: Position of each jet's split in `SPLITS`.
        """
        metadata = {**(table.schema.metadata or {}), "jet_diffusion": json.dumps(self.settings)}
        table = table.replace_schema_metadata(metadata)
        for split, name in enumerate(SPLITS):
            shard = table.take(np.flatnonzero(splits == split))
            if shard.num_rows:
                write_atomically(self._data / f"{name}-{block:05d}.parquet", partial(_write_parquet, shard))
        counts = {"num_hcal_not_in_towers": int(has_hcal_among_crystals(table).sum())}
        write_text_atomically(self._note(block), json.dumps(counts))

    def complete(self) -> dict[str, Any]:
        """Add the metadata and the card, and give the dataset its name.

        Returns:
            The metadata.
        """
        metadata = self.settings | self._summary()
        dataset = self._folder / "dataset"
        for half_written in self._data.glob(".*.partial.parquet"):  # of processes that were killed
            half_written.unlink()
        write_text_atomically(dataset / METADATA_FILE, json.dumps(metadata, indent=2) + "\n")
        write_text_atomically(dataset / "README.md", str(make_dataset_card(metadata, self.out.name)))
        os.rename(dataset, self.out)
        sync(self.out.parent)
        shutil.rmtree(self._folder)
        return metadata

    def _note(self, block: int) -> Path:
        return self._folder / f"block-{block:05d}.json"

    def _summary(self) -> dict[str, Any]:
        """Counts over all shards."""
        counts: Counter[str] = Counter()
        for note in self._folder.glob("block-*.json"):
            counts.update(json.loads(note.read_text()))
        splits, hashes = {}, []
        for name in SPLITS:
            shards = sorted(self._data.glob(f"{name}-*.parquet"))
            if shards:
                table = pa.concat_tables(pq.read_table(path, columns=list(FINGERPRINTED)) for path in shards)
                per_class = np.bincount(table["y"].to_numpy(), minlength=len(CLASS_NAMES)).tolist()
                splits[name] = {
                    "num_jets": table.num_rows,
                    **dict(zip(CLASS_NAMES, per_class, strict=True)),
                    "fingerprint": fingerprint(table),
                }
                hashes.append(table["content_hash"].to_numpy())
        return {"splits": splits, "duplicates": count_duplicates(hashes), **counts}


def _write_parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd", use_dictionary=False, column_encoding=ENCODINGS)
