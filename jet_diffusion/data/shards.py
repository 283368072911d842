"""The Parquet shards of a dataset being converted, in a hidden folder until it is complete."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from jet_diffusion.data.checks import Finding, JetCheck, repeated
from jet_diffusion.data.dataset_card import make_dataset_card
from jet_diffusion.data.encoding import FINGERPRINTED, fingerprint, has_hcal_among_crystals
from jet_diffusion.data.files.many import joined
from jet_diffusion.data.folder import METADATA_FILE, check_whole, digest_of_shard, read_metadata
from jet_diffusion.data.splits import SPLITS, count_duplicates
from jet_diffusion.errors import UserError
from jet_diffusion.io import (
    claim_partial_folder,
    differences,
    partial_folder,
    replace_folder,
    restore_folder,
    sync,
    write_atomically,
    write_text_atomically,
)
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

    Attributes:
        first_row: Added to the number of each jet of the source.
        first_block: Added to the number of each block in the names of its shards.

    Raises:
        FileExistsError: The destination exists, or the hidden folder is not of a conversion.
        UserError: An interrupted conversion to it had other settings.
    """

    first_row = first_block = 0

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        if out.exists():
            raise FileExistsError(f"{out} exists; delete it, choose another name, or add to it with --append")
        self._claim(out, settings)

    def _claim(self, out: Path, settings: dict[str, Any]) -> None:
        """Make the hidden folder, or go on in it."""
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
        place = table.column_names.index("row")
        rows = pc.add_checked(table["row"], pa.scalar(self.first_row, pa.uint32()))
        table = table.set_column(place, table.schema.field(place), rows).replace_schema_metadata(metadata)
        for split, name in enumerate(SPLITS):
            shard = table.take(np.flatnonzero(splits == split))
            if shard.num_rows:
                path = self._data / f"{name}-{self.first_block + block:05d}.parquet"
                write_atomically(path, partial(_write_parquet, shard))
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
        for stray in self._data.glob(".*.partial.parquet"):  # the temporary file of a killed process
            stray.unlink()
        splits, columns = self._splits()
        empty = [name for name in SPLITS if self.settings["fractions"][name] and name not in splits]
        if empty:
            raise UserError(f"no jets are left for {', '.join(empty)}; choose other shares")
        hashes = [columns[name]["content_hash"].to_numpy() for name in splits]
        rows = np.concatenate([columns[name]["row"].to_numpy() for name in splits])
        facts["num_hcal_not_in_towers"] = sum(note["num_hcal_not_in_towers"] for note in self.notes())
        metadata = self._describe([asdict(finding) for finding in findings], facts)
        again = repeated(np.concatenate(hashes)[np.argsort(rows)], np.sort(rows), metadata["sources"])
        metadata |= {
            "splits": splits,
            "duplicates": count_duplicates(hashes),
            "findings": metadata["findings"] + ([asdict(again)] if again else []),
            "shards": self._shards(metadata.get("shards", {})),
        }
        metadata = json.loads(json.dumps(metadata))
        dataset = self._folder / "dataset"
        write_text_atomically(dataset / METADATA_FILE, json.dumps(metadata, indent=2) + "\n")
        write_text_atomically(dataset / "README.md", str(make_dataset_card(metadata, self.out.name)))
        self._name(dataset)
        shutil.rmtree(self._folder)
        return dict(metadata)

    def _name(self, dataset: Path) -> None:
        """Give the finished folder its name."""
        os.rename(dataset, self.out)  # fails if somebody else has made a folder of that name
        sync(self.out.parent)

    def _describe(self, findings: list[dict[str, Any]], facts: dict[str, Any]) -> dict[str, Any]:
        """The metadata, but for what is read from the shards."""
        return self.settings | facts | {"findings": findings}

    def _note(self, block: int) -> Path:
        return self._folder / f"block-{block:05d}.json"

    def _shards(self, known: dict[str, Any]) -> dict[str, Any]:
        """Rows and digest of each shard, by its path in the dataset; those that are known are not read again."""
        paths = {f"data/{path.name}": path for path in sorted(self._data.glob("[!.]*.parquet"))}
        return {
            name: known.get(name) or {"rows": pq.read_metadata(path).num_rows, "sha256": digest_of_shard(path)}
            for name, path in paths.items()
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


class AppendedDataset(PartialDataset):
    """A finished dataset that jets are added to; those it has keep their split, shards and rows.

    The longer dataset is made in the hidden folder, with links to the old shards, and takes the old one's place at
    the end.

    Args:
        out: The finished dataset.
        settings: What determines the jets that are added.
        sources: Where they come from.

    Raises:
        FileNotFoundError: There is no dataset, or shards are missing.
        UserError: The dataset is not whole or has other settings, it holds one of the files, or an interrupted
            conversion to it had other settings.
    """

    def __init__(self, out: Path, settings: dict[str, Any], sources: Sequence[dict[str, Any]]) -> None:
        restore_folder(out)
        if not out.exists():
            raise FileNotFoundError(f"there is no dataset {out} to append to; leave out --append to make it")
        old = check_whole(out, verify=True)
        if "shards" not in old:
            raise UserError(f"{out} is of an older format, without digests of its shards; convert its files again")
        names = ("format", "seed", "fractions", "license", "drop_bad")
        if seen := differences({name: old.get(name) for name in names}, {name: settings[name] for name in names}):
            raise UserError(f"{out} was converted otherwise: {seen}; append with the options it was converted with")
        held = {row["digest"]: row["name"] for row in old["sources"]}
        for row in sources:
            if row["digest"] in held:
                raise UserError(f"{row['name']} is in {out} already, as {held[row['digest']]}; leave it out")
            held[row["digest"]] = row["name"]
        if (work := partial_folder(out)).exists() and {path.suffix for path in work.iterdir()} == {".json"}:
            shutil.rmtree(work)  # left by a process that was killed when all was done
        self.first_row = max(row["first_row"] + row["num_jets"] for row in old["sources"])
        self.first_block = 1 + max(int(Path(name).stem.rpartition("-")[2]) for name in old["shards"])
        self._claim(out, settings | {"appended_to": digest_of_shard(out / METADATA_FILE)})
        shutil.copytree(out, self._data.parent, copy_function=_link, dirs_exist_ok=True)  # a user's own files too
        sync(self._data)

    def _name(self, dataset: Path) -> None:
        """Put the longer dataset in the old one's place."""
        replace_folder(dataset, self.out)

    def _describe(self, findings: list[dict[str, Any]], facts: dict[str, Any]) -> dict[str, Any]:
        """The old metadata with what is new."""
        old, new = read_metadata(self.out), super()._describe(findings, facts)
        del new["appended_to"]
        sources = old["sources"] + [row | {"first_row": self.first_row + row["first_row"]} for row in new["sources"]]
        said = [finding for finding in old["findings"] if finding["check"] != "repeats"]
        if "appended" not in old:
            said = _of_rows(0, old["num_jets"], said)
        part = {name: new[name] for name in self.settings if name in new} | {"first_row": self.first_row}
        return old | {
            "jet_diffusion_version": new["jet_diffusion_version"],
            **joined(sources),
            "num_jets": old["num_jets"] + new["num_jets"],
            "sources": sources,
            "suppressed": {name: count + new["suppressed"][name] for name, count in old["suppressed"].items()},
            "dropped_repeats": old["dropped_repeats"] + new["dropped_repeats"],
            "num_hcal_not_in_towers": old["num_hcal_not_in_towers"] + new["num_hcal_not_in_towers"],
            "findings": said + _of_rows(self.first_row, new["num_jets"], new["findings"]),
            "appended": [*old.get("appended", []), part],
        }


def _of_rows(first: int, count: int, findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Findings that say which rows of a longer dataset they are about."""
    return [finding | {"text": f"rows {first} to {first + count - 1}: {finding['text']}"} for finding in findings]


def _link(file: str, name: str) -> None:
    """Give a file a second name, unless it has it; where the file system has no such links, copy it."""
    if os.path.exists(name):
        return
    try:
        os.link(os.path.realpath(file), name)
    except OSError:
        write_atomically(name, partial(shutil.copyfile, file))


def summed(notes: list[dict[str, Any]]) -> JetCheck:
    """Add up the checks of all blocks."""
    return sum((JetCheck.from_json(note["check"]) for note in notes), JetCheck())


def _write_parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd", use_dictionary=False, column_encoding=ENCODINGS)
