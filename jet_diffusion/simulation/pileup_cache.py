"""The pile-up pool on disk: made once by whoever needs it first, and read by every later run.

It lies in a folder named by the simulation's sources and the versions of its libraries, so that a changed
simulation makes a pool of its own. Its shards are files that appear whole or not at all and do not depend on who
makes them: two runs that need the pool at once only do some of the work twice.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import Executor
from functools import lru_cache
from pathlib import Path

from tqdm.auto import tqdm

from jet_diffusion.errors import UserError
from jet_diffusion.simulation import libraries
from jet_diffusion.simulation.compiled import source_digest, user_cache
from jet_diffusion.simulation.pileup import (
    POOL_SHARDS,
    SHARD_EVENTS,
    PileupPool,
    join_pools,
    load_pool,
    make_shard,
    save_pool,
)

FOLDER_VARIABLE = "JET_DIFFUSION_PILEUP"
"""Environment variable that names the folder of pools; without it, they lie in the user's cache."""


def pool_folder() -> Path:
    """Folder of this simulation's pool."""
    pools = Path(os.environ.get(FOLDER_VARIABLE) or user_cache() / "pileup")
    made_by = f"{source_digest()} {libraries.versions()}"
    return pools / hashlib.sha256(made_by.encode()).hexdigest()[:16]


def prepare_pool(executor: Executor, progress: bool = False) -> tuple[Path, ...]:
    """Make the shards of the pool that are missing.

    Args:
        executor: Makes them, several at a time if it can.
        progress: Whether to show a bar while they are made.

    Returns:
        The shards' files, for `read_pool`.

    Raises:
        UserError: The folder of pools cannot be written.
    """
    folder = pool_folder()
    paths = tuple(folder / f"shard-{number}.npz" for number in range(POOL_SHARDS))
    missing = [(number, path) for number, path in enumerate(paths) if not path.is_file()]
    if not missing:
        return paths
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the pile-up pool cannot be kept in {folder} ({error.strerror}): name another folder in {FOLDER_VARIABLE}"
        ) from error
    with tqdm(total=len(missing), desc="pile-up pool, made once", unit="shard", disable=not progress) as bar:
        under_way = []
        for number, path in missing:
            under_way.append(executor.submit(_write_shard, number, SHARD_EVENTS, path))
            under_way[-1].add_done_callback(lambda _: bar.update())
        for shard in under_way:
            shard.result()
    return paths


def _write_shard(number: int, num_events: int, path: Path) -> None:
    if not path.is_file():
        save_pool(make_shard(number, num_events), path)


@lru_cache(maxsize=1)
def read_pool(paths: tuple[Path, ...]) -> PileupPool:
    """The pool in these files, kept for the next call."""
    return join_pools([load_pool(path) for path in paths])
