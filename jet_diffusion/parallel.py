"""Work shared out: into shards for jobs of their own, or over a Dask cluster, which starts and replaces the workers.

What is shared out depends on its arguments alone, so results do not depend on the number of workers, nor on which
of them died. Workers see the same files under the same names.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Executor, Future
from contextlib import contextmanager, nullcontext
from threading import Lock
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from jet_diffusion.errors import UserError, require

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from distributed import Client

LOCAL = "local:"
"""Begins an address that asks for so many processes on this machine."""

AHEAD = 2
"""Tasks under way for each worker: one it does and one that waits for it."""

_ALONE = Lock()


def shard_of(num_jets: int, size: int, noun: str, number: int, shards: int) -> range:
    """The pieces of `size` jets that shard `number` of `shards`, counted from 1, is made of.

    The numbers of pieces of two shards differ by one at most.

    Args:
        num_jets: Jets of all shards together.
        size: Jets of a piece; the last may have fewer.
        noun: What a piece is called in messages, in the plural.
        number, shards: Which shard of how many.

    Raises:
        UserError: There is no such shard, or there are fewer pieces than shards.
    """
    if not 1 <= number <= shards:
        raise UserError(f"shard {number}/{shards}: write i/n with i from 1 to n")
    pieces = -(-num_jets // size)
    if shards > pieces:
        raise UserError(
            f"{num_jets} jets are {pieces} {noun} of {size}, which make {pieces} shards at most, not {shards}"
        )
    return range((number - 1) * pieces // shards, number * pieces // shards)


@contextmanager
def dask_client(address: str) -> Iterator[Client]:
    """A client of a Dask cluster for as long as the context lasts.

    Args:
        address: Of a scheduler, as `tcp://host:8786`; or `local:N` for N processes of this machine, which end with the
            context.

    Raises:
        UserError: Dask is not installed, or N is no positive number.
        ConnectionError: There is no scheduler at the address, it went away, or a task ended every worker it was given.
    """
    require("distributed", "dask", "--dask")
    import dask
    from distributed import KilledWorker
    from distributed.comm import CommClosedError

    quiet = {"distributed.admin.large-graph-warning-threshold": "1GB"}  # a sample of jets travels with its task
    with dask.config.set(quiet), _cluster(address) as cluster:
        client = _connect(cluster, address)
        if not client.nthreads():
            sys.stderr.write(f"waiting for the first worker of the Dask scheduler at {address}\n")
        try:
            with client:
                yield client
        except KilledWorker as error:
            raise ConnectionError(
                f"Dask gave up on a task that ended {error.allowed_failures + 1} workers, the last at "
                f"{error.last_worker.address}; see that worker's log, often for its memory; the same command goes on"
            ) from error
        except (CancelledError, CommClosedError) as error:
            raise ConnectionError(
                f"the Dask scheduler at {address} went away; what was finished is kept, and the same command goes on "
                "once a scheduler runs there"
            ) from error


def run_in_order(client: Client, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
    """Results of calls on the workers, in the order of the calls; a few are under way at a time.

    Args:
        client: From `dask_client`.
        function: A module's function, whose result depends on its arguments alone.
        calls: Arguments of each call; among them may be futures of the client.
    """
    under_way: deque[Any] = deque()
    for arguments in calls:
        under_way.append(client.submit(run_alone, function, *arguments, pure=False))
        if len(under_way) >= AHEAD * max(1, len(client.nthreads())):
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def run_alone(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a function while no other call runs in this process, for torch's random state belongs to all threads."""
    with _ALONE:
        return function(*arguments, **options)


class DaskExecutor(Executor):
    """Does what is submitted on the workers of a Dask cluster, one call at a time in each.

    Args:
        client: From `dask_client`.
    """

    def __init__(self, client: Client) -> None:
        self._executor = client.get_executor(pure=False)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call a module's function with the arguments."""
        future: Future[Any] = self._executor.submit(run_alone, fn, *args, **kwargs)
        return future


class Workers:
    """Processes of this machine or of a Dask cluster; made by `workers`.

    joblib has a backend for Dask, which waits for ever once the scheduler is gone; so Dask is asked itself.

    Args:
        jobs: Processes of this machine; 1 does all in this one.
        client: Of a Dask cluster, in place of them.
        progress: Whether to show a bar of the calls that are done.
    """

    def __init__(self, jobs: int = 1, client: Client | None = None, *, progress: bool = False) -> None:
        self._jobs, self._client, self._progress = jobs, client, progress

    def run(self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Results of calls of a module's function, in the order of the calls."""
        calls = list(calls)
        client = self._client
        results = self._run_here(function, calls) if client is None else run_in_order(client, function, calls)
        return list(tqdm(results, total=len(calls), unit="task", leave=False, disable=not self._progress))

    def _run_here(self, function: Callable[..., Any], calls: list[tuple[Any, ...]]) -> Iterator[Any]:
        from joblib import Parallel, delayed

        with warnings.catch_warnings():
            # joblib starts a process anew that has grown much, and loses nothing by it
            warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
            yield from Parallel(n_jobs=self._jobs, return_as="generator")(delayed(function)(*call) for call in calls)


@contextmanager
def workers(jobs: int | str, *, progress: bool = False) -> Iterator[Workers]:
    """Workers for as long as the context lasts.

    Args:
        jobs: Processes of this machine, or the address of a Dask cluster, as of `dask_client`.
        progress: Whether to show a bar of the calls that are done.

    Raises:
        UserError, ConnectionError: As `dask_client`.
    """
    if isinstance(jobs, int):
        yield Workers(jobs, progress=progress)
        return
    with dask_client(jobs) as client:
        yield Workers(client=client, progress=progress)


def _connect(cluster: Any, address: str) -> Client:
    from distributed import Client

    # Dask logs what is raised here in one sentence.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        return Client(cluster)
    except OSError as error:
        raise ConnectionError(
            f"no Dask scheduler answers at {address}: start `dask scheduler` there and `dask worker` on the machines "
            "that are to work"
        ) from error


def _cluster(address: str) -> AbstractContextManager[Any]:
    """Processes of this machine, or the address as it is."""
    if not address.startswith(LOCAL):
        return nullcontext(address)
    number = address.removeprefix(LOCAL)
    if not number.isdecimal() or int(number) < 1:
        raise UserError(f"--dask {address}: write a scheduler's address or local:N, N processes of this machine")
    from distributed import LocalCluster

    return LocalCluster(n_workers=int(number), threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0")
