"""A split of a dataset on the Hub whose images stay there: what `train --data hf://user/name` reads.

Labels, pT, masses and hashes are read when the split is opened. Images are read shard by shard when they are asked for:
each shard is compared with its digest, and few of them are kept in memory.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import HfApi, HfFileSystem
from numpy.typing import NDArray
from tqdm.auto import tqdm

from jet_diffusion.data.checks import refuse
from jet_diffusion.data.dataset import SCALARS, JetDataset, check_dataset
from jet_diffusion.data.encoding import IMAGE_COLUMNS
from jet_diffusion.data.folder import HUB_PREFIX, METADATA_FILE, parse_metadata
from jet_diffusion.errors import UserError, printable
from jet_diffusion.repositories import ask

LANES = 8
"""Shards that a training batch draws its jets from."""

SHARDS_HELD = 2 * LANES
"""Most shards in the memory of a process: while lanes go on to their next shards, a step reads up to so many."""

READERS = 8
"""Shards whose columns are read at once."""

JETS_OF_A_SHARD = 1250
"""Most jets that a fit takes from one shard, if there are enough shards."""

_SPLIT = re.compile(r"(\w+)(?:\[:(\d+)\])?")


def open_split(data: str, split: str) -> JetDataset:
    """A split of what `--data` names: streamed if it begins with `hf://`, else as `JetDataset.load` gives it."""
    return (StreamedJets if data.startswith(HUB_PREFIX) else JetDataset).load(data, split)


class StreamedJets(JetDataset):
    """One split of a dataset on the Hub, at one commit.

    All is as in `JetDataset`, except that there is no `dataset` and that jets are best asked for shard after shard.

    Args:
        repo: `user/name`.
        commit: What is read, whatever is pushed later.
        metadata: What the metadata file says.
        scalars: The columns other than images, of all jets of the split.
        names: The split's shards.

    Attributes:
        shards: Jets of the split in each of its shards.
    """

    def __init__(
        self, repo: str, commit: str, metadata: dict[str, Any], scalars: pa.Table, names: Sequence[str]
    ) -> None:
        self.metadata = metadata
        self._keep(scalars)
        self.all_hcal_in_towers = metadata["num_hcal_not_in_towers"] == 0
        self._repo, self._commit, self._names = repo, commit, list(names)
        ends = np.cumsum([metadata["shards"][name]["rows"] for name in names]).clip(max=len(self))
        self._starts: NDArray[np.int64] = np.concatenate([[0], ends])
        self.shards = tuple(np.diff(self._starts).tolist())
        self._held: OrderedDict[int, pa.Table] = OrderedDict()

    @classmethod
    def load(cls, path_or_repo: object, split: str, *, verify: bool | None = None, check: bool = True) -> Self:
        """Open a split on the Hub.

        Args:
            path_or_repo: `hf://user/name`.
            split: Its name, or `train[:1000]` for the first jets.
            verify: Without effect: the digest of each shard is compared when it is read.
            check: Whether to refuse jets that no model should be trained on: every pT and mass is looked at, and the
                images of some jets of the first shard.

        Raises:
            FileNotFoundError: There is no such dataset, or shards are missing.
            PermissionError: The Hub refuses access.
            ConnectionError: The Hub cannot be reached or has an error.
            UserError: There is no such split, it is no converted jet dataset, or its jets are refused.
        """
        repo = str(path_or_repo).removeprefix(HUB_PREFIX).removeprefix("datasets/")
        info = ask(lambda: HfApi().dataset_info(repo), repo, "dataset", f"{repo} cannot be streamed: {{}}")
        commit, files = str(info.sha), {file.rfilename for file in info.siblings or ()}
        if METADATA_FILE not in files:
            raise FileNotFoundError(f"{repo} on the Hub is no converted dataset: it holds no {METADATA_FILE}")
        metadata = parse_metadata(_read(repo, commit, METADATA_FILE), f"{METADATA_FILE} of {repo}")
        names, count = _shards_of(repo, metadata, split)
        if missing := [name for name in names if name not in files]:
            raise FileNotFoundError(f"{repo} on the Hub is not whole: it lacks {', '.join(missing[:3])}; push it again")
        scalars = _read_scalars(repo, commit, {name: metadata["shards"][name]["rows"] for name in names})
        jets = cls(repo, commit, metadata, scalars.slice(0, count), names)
        if check:
            refuse(f"{path_or_repo} ({split})", check_dataset(jets))
        return jets

    def spread(self, count: int) -> NDArray[np.int64]:
        """Rows of about so many jets, from no more shards than needed."""
        if count >= len(self):
            return super().spread(count)
        shards = len(self.shards)
        wanted = max(math.ceil(count / JETS_OF_A_SHARD), math.ceil(count * shards / len(self)))
        chosen = np.unique(np.linspace(0, shards - 1, min(wanted, shards)).round().astype(int))
        rows = np.concatenate([np.arange(self._starts[shard], self._starts[shard + 1]) for shard in chosen])
        return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)]

    def _rows(self, indices: Sequence[int] | NDArray[np.integer] | slice) -> pa.Table:
        rows = np.arange(len(self))[indices if isinstance(indices, slice) else np.asarray(indices, np.int64)]
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        parts = [
            self._shard(shard).take(rows[shards == shard] - self._starts[shard])
            for shard in (np.unique(shards).tolist() or [0])
        ]
        back = np.argsort(np.argsort(shards, kind="stable"))
        return parts[0] if len(parts) == 1 else pa.concat_tables(parts).take(back)

    def _shard(self, shard: int) -> pa.Table:
        """The images of a shard, from memory or from the Hub."""
        if shard not in self._held:
            name = self._names[shard]
            data = _read(self._repo, self._commit, name)
            if hashlib.sha256(data).hexdigest() != self.metadata["shards"][name]["sha256"]:
                raise UserError(f"{name} of {self._repo} is not what was converted: its digest differs; push it again")
            while len(self._held) >= SHARDS_HELD:
                self._held.popitem(last=False)
            self._held[shard] = pq.read_table(io.BytesIO(data), columns=IMAGE_COLUMNS)
        self._held.move_to_end(shard)
        return self._held[shard]

    def __getstate__(self) -> dict[str, Any]:
        """Another process reads its own shards."""
        return self.__dict__ | {"_held": OrderedDict()}


def _shards_of(repo: str, metadata: dict[str, Any], split: str) -> tuple[list[str], int | None]:
    """The shards of a split in their order, and how many jets of them are asked for.

    Raises:
        UserError: There is no such split, or the dataset does not name its shards.
    """
    named = _SPLIT.fullmatch(split)
    if named is None or named[1] not in metadata["splits"]:
        known = ", ".join(metadata["splits"])
        raise UserError(f"{repo} has no split {split}; it has {known}, and train[:1000] names the first jets of one")
    if "shards" not in metadata:
        raise UserError(
            f"{repo} was converted before shards had digests: convert and push it again, or leave out hf://"
        )
    names = sorted(name for name in metadata["shards"] if name.startswith(f"data/{named[1]}-"))
    if named[2] is None:
        return names, None
    before = np.cumsum([0, *(metadata["shards"][name]["rows"] for name in names)])[:-1]
    return [name for name, start in zip(names, before, strict=True) if start < int(named[2])], int(named[2])


def _read(repo: str, commit: str, name: str) -> bytes:
    """A file of the repository."""
    path = f"datasets/{repo}@{commit}/{name}"
    return ask(lambda: bytes(HfFileSystem().cat_file(path)), repo, "dataset", f"{name} of {repo} cannot be read: {{}}")


def _read_scalars(repo: str, commit: str, shards: dict[str, int]) -> pa.Table:
    """The columns of all jets that are no images; of each shard no more than its end travels.

    Args:
        repo: `user/name`.
        commit: What is read.
        shards: The jets that each shard should have, by its name.

    Raises:
        UserError: A shard is damaged or has other jets.
    """
    hub = HfFileSystem()

    def read(name: str) -> pa.Table:
        def columns() -> pa.Table:
            with hub.open(f"datasets/{repo}@{commit}/{name}", cache_type="none") as file:
                return pq.read_table(file, columns=SCALARS)

        try:
            table = ask(columns, repo, "dataset", f"{name} of {repo} cannot be read: {{}}")
        except pa.ArrowException as error:
            raise UserError(f"{name} of {repo} is damaged: {printable(error, 200)}; push it again") from error
        if table.num_rows != shards[name]:
            seen = f"{table.num_rows} jets, {shards[name]} by {METADATA_FILE}"
            raise UserError(f"{name} of {repo} is of another dataset ({seen}); push it again")
        return table

    with ThreadPoolExecutor(READERS) as pool:
        tables = pool.map(read, shards)
        return pa.concat_tables(tqdm(tables, "labels", len(shards), unit="shard", leave=False, disable=None))
