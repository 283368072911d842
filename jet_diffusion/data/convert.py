"""Convert a quark/gluon HDF5 file to a Hugging Face dataset: Parquet shards, a dataset card, metadata.

One thread reads the file and others encode and compress: HDF5, numpy and Arrow release the interpreter while
they work. Shards are finished block by block of the source, so an interrupted conversion goes on with the
block it was in.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from huggingface_hub import HfApi
from numpy.typing import NDArray
from tqdm import tqdm

from jet_diffusion import __version__
from jet_diffusion.data.dask_blocks import write_blocks_on_dask
from jet_diffusion.data.dataset import METADATA_FILE
from jet_diffusion.data.dataset_card import make_dataset_card
from jet_diffusion.data.encoding import encode_jets
from jet_diffusion.data.hdf5 import QuarkGluonFile
from jet_diffusion.data.shards import PartialDataset
from jet_diffusion.data.splits import SPLITS, assign_splits
from jet_diffusion.io import write_text_atomically

BLOCK_JETS = 12_800
"""Jets of the source, about, that make one shard of each split: 18 MB of Parquet."""

FRACTIONS = (0.8, 0.1, 0.1)
"""Default shares of train, validation and test."""


def convert(
    source: str | Path,
    out: str | Path,
    *,
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
    max_jets: int | None = None,
    workers: int = 2,
    license_name: str = "unknown",
    dask: str | None = None,
) -> dict[str, Any]:
    """Convert an HDF5 file to a dataset folder that `datasets.load_dataset` and `JetDataset.load` read.

    Args:
        source: The quark/gluon HDF5 file.
        out: The folder to make.
        seed: Seed of the split.
        fractions: Shares of train, validation and test.
        max_jets: Convert only the file's first jets.
        workers: Threads that encode, beside the one that reads.
        license_name: Licence for the dataset card, as the Hub names it.
        dask: Address of a Dask cluster whose workers to use instead: a scheduler's, or `local:N`.

    Returns:
        The metadata: settings, source, jets and classes of each split, duplicates, the simulated marker.

    Raises:
        ConnectionError: No Dask scheduler answers, or it went away.
        FileExistsError: `out` exists.
        FileNotFoundError: There is no source.
        ValueError: The source breaks the schema, an argument is out of range, or an interrupted conversion
            to `out` had other settings.
    """
    if workers < 1:
        raise ValueError(f"workers must be positive, not {workers}")
    with QuarkGluonFile(source) as file:
        settings = _settings(file, seed, fractions, max_jets, license_name)
        splits = assign_splits(file.labels[: settings["num_jets"]], fractions, seed)
        dataset = PartialDataset(Path(out), settings)
        _write_blocks(file, splits, dataset, workers, dask)
    return dataset.complete()


def push(out: str | Path, repo: str, private: bool = False) -> str:
    """Upload a converted folder to the Hub, with a card that names the repository.

    Args:
        out: A folder made by `convert`.
        repo: `user/name`; made if it does not exist.
        private: Whether a repository made now is private.

    Returns:
        Address of the dataset.

    Raises:
        FileNotFoundError: `out` is no converted folder.
    """
    out = Path(out)
    metadata = read_metadata(out)
    write_text_atomically(out / "README.md", str(make_dataset_card(metadata, repo)))
    api = HfApi()
    address = api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
    api.upload_folder(
        repo_id=address.repo_id,
        folder_path=out,
        repo_type="dataset",
        commit_message=f"Convert {metadata['source']['name']}",
        delete_patterns="data/*.parquet",
    )
    return str(address)


def read_metadata(out: Path) -> dict[str, Any]:
    """The metadata of a converted dataset in folder `out`."""
    file = out / METADATA_FILE
    if not file.is_file():
        raise FileNotFoundError(f"{out} is no converted dataset: it holds no {METADATA_FILE}")
    return dict(json.loads(file.read_text()))


def _settings(
    file: QuarkGluonFile, seed: int, fractions: Sequence[float], max_jets: int | None, license_name: str
) -> dict[str, Any]:
    """What determines the dataset; the columns' hash tells files of one name and size apart."""
    if max_jets is not None and max_jets < 1:
        raise ValueError(f"max_jets must be positive, not {max_jets}")
    digest = blake2b(digest_size=16)
    for column in (file.labels, file.pt, file.m0):
        digest.update(column.tobytes())
    return {
        "format": 1,
        "jet_diffusion_version": __version__,
        "source": {
            "name": file.path.name,
            "size": file.path.stat().st_size,
            "num_jets": file.num_jets,
            "columns_hash": digest.hexdigest(),
        },
        "simulated": file.simulated,
        "num_jets": min(file.num_jets, max_jets or file.num_jets),
        "seed": seed,
        "fractions": dict(zip(SPLITS, map(float, fractions), strict=True)),
        "license": license_name,
    }


def _write_blocks(
    file: QuarkGluonFile, splits: NDArray[np.int64], dataset: PartialDataset, workers: int, dask: str | None
) -> None:
    """Read, encode and write every block that an earlier run has not finished."""
    blocks = enumerate(file.slices(BLOCK_JETS, stop=len(splits)))
    todo = [(block, start, stop) for block, (start, stop) in blocks if not dataset.has(block)]
    if dask is not None:
        write_blocks_on_dask(file.path, splits, todo, dataset, dask)
        return
    done = len(splits) - sum(stop - start for _, start, stop in todo)
    writing: Future[None] | None = None
    with (
        tqdm(total=len(splits), initial=done, unit=" jets", desc="convert") as progress,
        ThreadPoolExecutor(workers) as pool,
    ):
        for block, start, stop in todo:
            tables = []
            for table in _encoded_slices(file, start, stop, pool, workers + 1):
                tables.append(table)
                progress.update(table.num_rows)
            if writing is not None:  # one block at a time: an error surfaces soon and memory stays bounded
                writing.result()
            writing = pool.submit(dataset.write, block, pa.concat_tables(tables), splits[start:stop])
        if writing is not None:
            writing.result()


def _encoded_slices(
    file: QuarkGluonFile, start: int, stop: int, pool: ThreadPoolExecutor, ahead: int
) -> Iterator[pa.Table]:
    """Read slices in this thread and encode them in the pool, at most `ahead` of them waiting."""
    pending: deque[Future[pa.Table]] = deque()
    simulated = file.simulated is not None
    for first, end in file.slices(start=start, stop=stop):
        columns = file.labels[first:end], file.pt[first:end], file.m0[first:end]
        pending.append(pool.submit(encode_jets, file.energies(first, end), *columns, first, simulated))
        if len(pending) > ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
