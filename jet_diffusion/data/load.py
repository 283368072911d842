"""Read jets to evaluate: from a file of jets or from a converted dataset."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from jet_diffusion.data.checks import JetCheck, refuse
from jet_diffusion.data.dataset import JetDataset, content_hashes
from jet_diffusion.data.hdf5 import QuarkGluonFile
from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.observables.hits import Array
from jet_diffusion.observables.table import BATCH_SIZE


def is_jet_file(source: str | Path) -> bool:
    """Whether a path or name is a file of jets rather than a converted dataset; files on disk are opened to see."""
    path = Path(source).expanduser()
    return path.is_file() or (not path.exists() and path.suffix.lower() in (".hdf5", ".h5", ".parquet"))


def load_jets(
    source: str | Path,
    num_jets: int | None = None,
    rng: np.random.Generator | None = None,
    *,
    split: str = "test",
    generated: bool = False,
    progress: bool = False,
    **reading: Any,
) -> JetSample:
    """Read jets drawn at random, in their order in the source.

    Args:
        source: a file of jets, HDF5 or Parquet; or the folder or Hub name of a converted dataset.
        num_jets: how many; all when None or when there are fewer.
        rng: draws the jets; the same ones every time if None.
        split: split of a dataset; a file has none.
        generated: whether the jets are a generator's: negative and non-finite energies of a file are then
            read as they are, to be counted, instead of refused. Real jets get content hashes.
        progress: whether to show a bar.
        **reading: `columns`, `channels_first`, `unit` and `follow_links` of `QuarkGluonFile`, for a file.

    Returns:
        The jets. Those of an unconditional generator have labels -1 and no pT and mass (NaN).

    Raises:
        FileNotFoundError: there is no such file, folder or dataset.
        ValueError: what is there breaks the schema, or holds real jets that no model should be judged on.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    if is_jet_file(source):
        with QuarkGluonFile(Path(source).expanduser(), check=generated, **reading) as file:
            return _load_file(file, num_jets, rng, generated, progress)
    dataset = JetDataset.load(source, split)
    rows = _draw(len(dataset), num_jets, rng)
    batches = (dataset.energies(part) for part in _parts(rows, progress))
    return JetSample.from_batches(
        batches,
        dataset.labels[rows],
        dataset.pt[rows],
        dataset.m0[rows],
        source=f"{source} ({split})",
        simulated=dataset.simulated,
        content_hash=dataset.content_hash[rows],
    )


def _load_file(
    file: QuarkGluonFile, num_jets: int | None, rng: np.random.Generator, generated: bool, progress: bool
) -> JetSample:
    rows = _draw(file.num_jets, num_jets, rng)
    hashes: list[Array] = []
    check = JetCheck()

    def batches() -> Iterator[Array]:
        for start, stop in tqdm(list(file.slices()), desc="reading", unit="slice", disable=not progress):
            wanted = rows[(rows >= start) & (rows < stop)] - start
            if len(wanted):
                energies = file.energies(start, stop, check=False)[wanted]
                if not generated:
                    jets = wanted + start
                    faulty = check.add(energies, file.labels[jets], file.pt[jets], file.m0[jets], jets)
                    energies[faulty] = 0  # refused below, unless it is empty
                    hashes.append(content_hashes(energies))
                yield energies

    sample = JetSample.from_batches(
        batches(),
        file.labels[rows],
        file.pt[rows],
        file.m0[rows],
        source=str(file.path),
        simulated=file.simulated,
    )
    if not generated:
        refuse(str(file.path), check.findings(file.unit_is_stated))
    if file.attrs.get("conditional", True) is False:  # the columns are filled, but the images know nothing of them
        nothing = np.full(len(rows), np.nan)
        sample = replace(sample, labels=np.full(len(rows), -1), pt=nothing, m0=nothing)
    sample.content_hash = np.concatenate(hashes) if hashes else None
    return sample


def _draw(available: int, num_jets: int | None, rng: np.random.Generator) -> Array:
    if num_jets is None or num_jets >= available:
        return np.arange(available)
    return np.sort(rng.choice(available, size=num_jets, replace=False))


def _parts(rows: Array, progress: bool) -> Iterator[Array]:
    starts = range(0, len(rows), BATCH_SIZE)
    for start in tqdm(starts, desc="reading", unit="batch", disable=not progress):
        yield rows[start : start + BATCH_SIZE]
