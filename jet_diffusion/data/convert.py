"""Convert files of quark/gluon jets to a Hugging Face dataset: Parquet shards, a dataset card, metadata.

One thread reads the file and others encode and compress: HDF5, numpy and Arrow release the interpreter while
they work. Shards are finished block by block of the source, so an interrupted conversion goes on with the
block it was in.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tqdm.auto import tqdm

from jet_diffusion import __version__
from jet_diffusion.data.checks import Finding, JetCheck, refuse
from jet_diffusion.data.encoding import encode_jets
from jet_diffusion.data.files.many import JetFiles, joined
from jet_diffusion.data.folder import check_whole
from jet_diffusion.data.hdf5 import QuarkGluonFile
from jet_diffusion.data.shards import AppendedDataset, PartialDataset, summed
from jet_diffusion.data.splits import SPLITS, assign_splits
from jet_diffusion.errors import UserError
from jet_diffusion.io import differences
from jet_diffusion.locks import hold
from jet_diffusion.parallel import dask_client, run_in_order

BLOCK_JETS = 12_800
"""Jets of the source, about, that make one shard of each split: 18 MB of Parquet."""

CHECKED_JETS = 512
"""Unit and order of channels are judged by so many jets of each file before the work begins."""

FRACTIONS = (0.8, 0.1, 0.1)
"""Default shares of train, validation and test."""


def convert(
    source: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
    max_jets: int | None = None,
    workers: int = 2,
    license_name: str = "unknown",
    drop_bad: bool = False,
    dask: str | None = None,
    append: bool = False,
    **reading: Any,
) -> dict[str, Any]:
    """Convert files of jets to a dataset folder that `datasets.load_dataset` and `JetDataset.load` read.

    Args:
        source: The quark/gluon file, HDF5 or Parquet; or several, whose jets are put one after the other.
        out: The folder to make.
        seed: Seed of the split.
        fractions: Shares of train, validation and test.
        max_jets: Convert only the first jets.
        workers: Threads that encode, beside the one that reads.
        license_name: Licence for the dataset card, as the Hub names it.
        drop_bad: Leave out faulty, empty and repeated jets, and count them on the card. Without it faulty jets are
            refused, once all of them are counted.
        dask: Address of a Dask cluster whose workers convert instead: a scheduler's, or `local:N`. They see the files
            and `out` under the same names, and cannot drop jets.
        append: Add the jets to the dataset `out`. The jets that it has keep their split and their shards.
        **reading: How to read the files: `columns`, `channels_first`, `unit` and `follow_links` of `QuarkGluonFile`.

    Returns:
        The metadata: settings, sources, jets and classes of each split, shards, findings, the simulated marker.

    Raises:
        ConnectionError: No Dask scheduler answers, or it went away.
        FileExistsError: `out` exists and nothing is to be appended to it.
        FileNotFoundError: There is no source, or no dataset to append to.
        BlockingIOError: Another process converts to `out`.
        UserError: The source breaks the schema or holds what no model should be trained on, an argument is out of
            range, an interrupted conversion to `out` had other settings, or nothing can be appended to `out`.
    """
    _check_work(workers, dask, drop_bad)
    with ExitStack() as stack:
        files = _open(source, reading, stack)
        settings, sources = _describe_source(files, seed, fractions, max_jets, license_name, drop_bad, reading)
        splits = assign_splits(files.labels[: settings["num_jets"]], fractions, seed)
        _check_beginning(files, settings)
        out = Path(out).resolve() if append else Path(out)  # a link to a dataset stays one
        with hold(out, "convert"):
            dataset = AppendedDataset(out, settings, sources) if append else PartialDataset(out, settings)
            try:
                if dask is None:
                    doomed = _write_blocks(files, splits, dataset, workers)
                else:
                    doomed = _write_blocks_on_dask(files, reading, splits, dataset, dask)
                return dataset.complete(_judge(files, dataset, doomed), sources=sources, **_counts(dataset.notes()))
            except ValueError:
                dataset.discard()
                raise


def _judge(files: JetFiles, dataset: PartialDataset, doomed: list[dict[str, Any]]) -> list[Finding]:
    """What is found in all blocks. Refusals number the jets as the files do, findings as the dataset does."""
    check = summed([*dataset.notes(), *doomed])
    stated, dropped = _unit_is_stated(files), dataset.settings["drop_bad"]
    refuse(_names(files), check.findings(stated, dropped))
    return check.shifted(dataset.first_row).findings(stated, dropped)


def _check_work(workers: int, dask: str | None, drop_bad: bool) -> None:
    """Refuse ways of sharing the work that cannot be had."""
    if workers < 1:
        raise UserError(f"workers must be positive, not {workers}")
    if dask is not None and drop_bad:
        raise UserError(
            "drop_bad finds repeated jets in one process, which Dask's workers cannot do; leave out one of the two"
        )


def converted_before(
    source: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
    max_jets: int | None = None,
    license_name: str = "unknown",
    drop_bad: bool = False,
    append: bool = False,
    **reading: Any,
) -> dict[str, Any] | None:
    """The metadata of a finished dataset, if it was made from these files with these settings.

    Args: as of `convert`.

    Returns:
        The metadata; with `append`, None if other files were appended last, or none.

    Raises:
        FileNotFoundError: `out` is no converted folder, or shards or a source are missing.
        UserError: It was made from other files or with other settings, or is not whole; names what differs.
    """
    metadata = check_whole(Path(out))
    with ExitStack() as stack:
        files = _open(source, reading, stack)
        settings, _ = _describe_source(files, seed, fractions, max_jets, license_name, drop_bad, reading)
    appended = metadata.get("appended", [])
    if append and (not appended or appended[-1]["digest"] != settings["digest"]):
        return None
    if appended and not append:
        last = appended[-1]["source"]
        raise UserError(f"{out} was appended to; to push it, give --append and what was appended last: {last}")
    before = appended[-1] if append else metadata
    named = [name for name in settings if name != "jet_diffusion_version"]
    if seen := differences({name: before.get(name) for name in named}, {name: settings[name] for name in named}):
        remedy = "give the same options" if append else "choose another name, or delete it"
        raise UserError(f"{out} was converted otherwise: {seen}; {remedy}")
    return metadata


def _describe_source(
    files: JetFiles,
    seed: int,
    fractions: Sequence[float],
    max_jets: int | None,
    license_name: str,
    drop_bad: bool,
    reading: dict[str, Any],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What determines the dataset, and where its jets come from; the digest tells files of one name and size apart."""
    if max_jets is not None and max_jets < 1:
        raise UserError(f"max_jets must be positive, not {max_jets}")
    sources = files.provenance()
    described = joined(sources)
    settings = {
        "format": 2,
        "jet_diffusion_version": __version__,
        "source": described["source"],
        "digest": described["digest"],
        "reading": {name: value for name, value in reading.items() if value not in (None, False)},
        "drop_bad": drop_bad,
        "simulated": described["simulated"],
        "num_jets": min(files.num_jets, max_jets or files.num_jets),
        "seed": seed,
        "fractions": dict(zip(SPLITS, map(float, fractions), strict=True)),
        "license": license_name,
    }
    return json.loads(json.dumps(settings)), sources


def _open(source: str | Path | Sequence[str | Path], reading: dict[str, Any], stack: ExitStack) -> JetFiles:
    paths = [source] if isinstance(source, str | Path) else list(source)
    if not paths:
        raise UserError("name at least one file to convert")
    return JetFiles([stack.enter_context(QuarkGluonFile(path, check=False, **reading)) for path in paths])


def _names(files: JetFiles) -> str:
    return ", ".join(str(file.path) for file in files.files)


def _unit_is_stated(files: JetFiles) -> bool:
    return all(file.unit_is_stated for file in files.files)


def _check_beginning(files: JetFiles, settings: dict[str, Any]) -> None:
    """Refuse another unit or order of channels by the first jets of each file, before any work."""
    for file, first in zip(files.files, files.starts, strict=False):
        stop = min(file.num_jets, settings["num_jets"] - first, CHECKED_JETS)
        check = JetCheck()
        for start, end in file.slices(stop=max(0, stop)):
            energies = file.energies(start, end, check=False)
            check.add(energies, file.labels[start:end], file.pt[start:end], file.m0[start:end], start)
        wrong = [finding for finding in check.findings(_unit_is_stated(files)) if not finding.count]
        refuse(str(file.path), wrong)
        file.suppressed[:] = 0, 0


class _Slice(NamedTuple):
    """What became of some consecutive jets: the check, the good ones encoded unless all are refused, counts."""

    check: JetCheck
    table: pa.Table | None
    num_read: int
    suppressed: NDArray[np.int64]


def _encode(
    energies: NDArray[np.float32],
    columns: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    first: int,
    simulated: bool,
    drop_bad: bool,
    suppressed: NDArray[np.int64],
) -> _Slice:
    """Check jets and encode those that stay."""
    check = JetCheck()
    faulty = check.add(energies, *columns, first)
    refused = any(check.counts[name] for name in check.rows if name != "empty")
    if refused and not drop_bad:
        return _Slice(check, None, len(energies), suppressed)
    rows = first + np.arange(len(energies))
    if drop_bad and faulty.any():
        energies, rows = energies[~faulty], rows[~faulty]
        labels, pt, m0 = columns
        columns = labels[~faulty], pt[~faulty], m0[~faulty]
    return _Slice(check, encode_jets(energies, *columns, first, simulated, rows), int(check.counts["jets"]), suppressed)


def _write_blocks(
    files: JetFiles, splits: NDArray[np.int64], dataset: PartialDataset, workers: int
) -> list[dict[str, Any]]:
    """Read, encode and write every block that an earlier run has not finished.

    From the first refused jet on nothing is written any more: the rest is only counted.

    Returns:
        The notes of blocks that were not written for that reason.
    """
    todo = _todo(files, len(splits), dataset)
    done = len(splits) - sum(stop - start for _, start, stop in todo)
    drop_bad = dataset.settings["drop_bad"]
    seen = dataset.hashes() if drop_bad else None
    doomed: list[dict[str, Any]] = []
    writing: Future[None] | None = None
    with (
        tqdm(total=len(splits), initial=done, unit=" jets", desc="convert") as progress,
        ThreadPoolExecutor(workers) as pool,
    ):
        for block, start, stop in todo:
            slices = []
            for part in _encoded_slices(files, start, stop, pool, workers + 1, drop_bad):
                slices.append(part)
                progress.update(part.num_read)
            note = _note(slices)
            tables = [part.table for part in slices if part.table is not None]
            if writing is not None:  # one block at a time: an error surfaces soon and memory stays bounded
                writing.result()
                writing = None
            if doomed or len(tables) < len(slices):
                doomed.append(note)
                continue
            table = pa.concat_tables(tables)
            if seen is not None:
                table, seen, note["repeats"] = _without_repeats(table, seen)
            rows = table["row"].to_numpy().astype(np.int64)
            writing = pool.submit(dataset.write, block, table, splits[rows], note)
            del part, slices, tables, table  # so that the writer alone holds the block
        if writing is not None:
            writing.result()
    return doomed


def _todo(files: JetFiles, num_jets: int, dataset: PartialDataset) -> list[tuple[int, int, int]]:
    """Number, first jet and end of each block that is left to do."""
    blocks = enumerate(files.slices(BLOCK_JETS, stop=num_jets))
    return [(block, start, stop) for block, (start, stop) in blocks if not dataset.has(block)]


def _write_blocks_on_dask(
    files: JetFiles, reading: dict[str, Any], splits: NDArray[np.int64], dataset: PartialDataset, address: str
) -> list[dict[str, Any]]:
    """What `_write_blocks` does, on the workers of a Dask cluster; each reads the sources and writes its shards."""
    todo = _todo(files, len(splits), dataset)
    paths = [file.path.absolute() for file in files.files]
    done = len(splits) - sum(stop - start for _, start, stop in todo)
    doomed = []
    with (
        tqdm(total=len(splits), initial=done, unit=" jets", desc="convert") as progress,
        dask_client(address) as client,
    ):
        calls = ((paths, reading, splits[block[1] : block[2]], dataset, *block) for block in todo)
        for (_, start, stop), note in zip(todo, run_in_order(client, _write_block, calls), strict=True):
            doomed += [] if note is None else [note]
            progress.update(stop - start)
    return doomed


def _write_block(
    paths: list[Path],
    reading: dict[str, Any],
    splits: NDArray[np.int64],
    dataset: PartialDataset,
    block: int,
    start: int,
    stop: int,
) -> dict[str, Any] | None:
    """Read, encode and write one block.

    Returns:
        Its note, if it has refused jets and was not written.
    """
    with ExitStack() as stack:
        files, pool = _open(paths, reading, stack), stack.enter_context(ThreadPoolExecutor(1))
        slices = list(_encoded_slices(files, start, stop, pool, ahead=1, drop_bad=False))
    note = _note(slices)
    tables = [part.table for part in slices if part.table is not None]
    if len(tables) < len(slices):
        return note
    dataset.write(block, pa.concat_tables(tables), splits, note)
    return None


def _encoded_slices(
    files: JetFiles, start: int, stop: int, pool: ThreadPoolExecutor, ahead: int, drop_bad: bool
) -> Iterator[_Slice]:
    """Read slices in this thread and encode them in the pool, at most `ahead` of them waiting."""
    pending: deque[Future[_Slice]] = deque()
    for first, end in files.slices(start=start, stop=stop):
        columns = files.labels[first:end], files.pt[first:end], files.m0[first:end]
        before = files.suppressed
        energies = files.energies(first, end, check=False)
        simulated = files.file_of(first).simulated is not None
        pending.append(pool.submit(_encode, energies, columns, first, simulated, drop_bad, files.suppressed - before))
        if len(pending) > ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _note(slices: list[_Slice]) -> dict[str, Any]:
    suppressed = np.sum([part.suppressed for part in slices], axis=0).tolist()
    check = sum((part.check for part in slices), JetCheck())
    return {"check": check.to_json(), "suppressed": suppressed, "repeats": 0}


def _counts(notes: list[dict[str, Any]]) -> dict[str, Any]:
    """What the notes of all blocks add to the metadata."""
    small, negative = np.sum([note["suppressed"] for note in notes], axis=0).tolist()
    return {
        "suppressed": {"energies": small, "negative": negative},
        "dropped_repeats": sum(note["repeats"] for note in notes),
    }


def _without_repeats(table: pa.Table, seen: NDArray[np.uint64]) -> tuple[pa.Table, NDArray[np.uint64], int]:
    """The rows whose image was not seen before, what is seen now, and how many rows went."""
    hashes = table["content_hash"].to_numpy()
    _, first = np.unique(hashes, return_index=True)
    keep = np.sort(first[~np.isin(hashes[first], seen)])
    return table.take(keep), np.union1d(seen, hashes), len(hashes) - len(keep)
