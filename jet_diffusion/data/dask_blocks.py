"""Convert blocks of a source file on the workers of a Dask cluster; each reads the source and writes its shards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tqdm import tqdm

from jet_diffusion.data.encoding import encode_jets
from jet_diffusion.data.hdf5 import QuarkGluonFile
from jet_diffusion.data.shards import PartialDataset
from jet_diffusion.parallel import dask_client, run_in_order


def write_blocks_on_dask(
    source: Path, splits: NDArray[np.int64], todo: list[tuple[int, int, int]], dataset: PartialDataset, address: str
) -> None:
    """Write the blocks that are left; the files are the same as one process writes.

    Args:
        source: The quark/gluon HDF5 file, which every worker sees under this name.
        splits: Position of each jet's split in `SPLITS`.
        todo: Number, first jet and end of each block.
        dataset: Where the shards go; every worker sees its folder.
        address: Of the Dask cluster.

    Raises:
        ConnectionError: No scheduler answers, or it went away; finished blocks are kept.
    """
    left = sum(stop - start for _, start, stop in todo)
    with (
        tqdm(total=len(splits), initial=len(splits) - left, unit=" jets", desc="convert") as progress,
        dask_client(address) as client,
    ):
        calls = ((source.absolute(), splits[start:stop], dataset, block, start, stop) for block, start, stop in todo)
        for jets in run_in_order(client, write_block, calls):
            progress.update(jets)


def write_block(
    source: Path, splits: NDArray[np.int64], dataset: PartialDataset, block: int, start: int, stop: int
) -> int:
    """Read, encode and write one block.

    Returns:
        Its jets.
    """
    with QuarkGluonFile(source) as file:
        dataset.write(block, pa.concat_tables(_encoded(file, start, stop)), splits)
    return stop - start


def _encoded(file: QuarkGluonFile, start: int, stop: int) -> Iterator[pa.Table]:
    for first, end in file.slices(start=start, stop=stop):
        columns = file.labels[first:end], file.pt[first:end], file.m0[first:end]
        yield encode_jets(file.energies(first, end), *columns, first, file.simulated is not None)
