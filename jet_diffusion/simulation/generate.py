"""Make a file of simulated jets block by block, on any number of processes; an interrupted file is continued."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from jet_diffusion import __version__
from jet_diffusion.data.hdf5 import JetWriter
from jet_diffusion.errors import UserError
from jet_diffusion.locks import hold
from jet_diffusion.parallel import DaskExecutor, dask_client, run_in_order, shard_of
from jet_diffusion.signals import ignore_signals
from jet_diffusion.simulation import libraries
from jet_diffusion.simulation.block import JETS_PER_BLOCK, PackedBlock, make_block
from jet_diffusion.simulation.compiled import source_digest
from jet_diffusion.simulation.pileup import empty_pool
from jet_diffusion.simulation.pileup_cache import prepare_pool, read_pool
from jet_diffusion.simulation.settings import SimulationSettings


def simulate(
    settings: SimulationSettings,
    path: str | Path,
    workers: int = 1,
    progress: bool = False,
    *,
    dask: str | None = None,
    shard: tuple[int, int] = (1, 1),
) -> int:
    """Write `settings.num_jets` simulated jets, or a shard of them, to an HDF5 file of the real one's schema.

    The jets depend on the settings alone: not on `workers`, `dask` and `shard`, nor on how often the run was stopped.
    A run that was stopped goes on where it was when it is started again with the same settings.

    Args:
        settings: What to simulate.
        path: The file to write; it gets its name when it is complete.
        workers: Processes to use.
        progress: Whether to show a bar with jets/s and the time left.
        dask: Address of a Dask cluster whose workers to use instead: a scheduler's, or `local:N`.
        shard: (i, n) for the i-th of n files, i from 1 on, that hold all jets one after another.

    Returns:
        The file's jets.

    Raises:
        ConnectionError: No Dask scheduler answers, or it went away.
        FileExistsError: `path` exists.
        FileNotFoundError: The folder of `path` does not exist.
        BlockingIOError: Another process makes it.
        UserError: A library is missing, `workers` is not positive, there is no such shard, or an interrupted run had
            other settings.
    """
    libraries.require()
    if workers < 1:
        raise UserError(f"workers must be at least 1, got {workers}")
    numbers = shard_blocks(settings.num_jets, *shard)
    num_jets = min(numbers.stop * JETS_PER_BLOCK, settings.num_jets) - numbers.start * JETS_PER_BLOCK
    attrs = attributes(settings) | ({} if shard == (1, 1) else {"simulation_shard": f"{shard[0]}/{shard[1]}"})
    with (
        hold(path, "simulate"),
        JetWriter.resume(path, num_jets, attrs) as writer,
        tqdm(total=num_jets, unit="jet", disable=not progress, initial=writer.num_written) as bar,
        ExitStack() as stack,
    ):
        numbers = numbers[writer.num_written // JETS_PER_BLOCK :]
        if dask is None:
            made = _packed_blocks(settings, numbers, workers, progress)
        else:
            made = _blocks_on_dask(settings, numbers, dask, progress)
        blocks = stack.enter_context(closing(made))
        for packed in blocks:
            block = packed.unpack()
            count = min(len(block.labels), num_jets - writer.num_written)
            writer.append(*(column[:count] for column in block))
            writer.flush()
            bar.update(count)
    return num_jets


def shard_blocks(num_jets: int, number: int, shards: int) -> range:
    """Blocks of shard `number` of `shards`, counted from 1; sizes differ by one block at most.

    Raises:
        UserError: There is no such shard, or there are fewer blocks than shards.
    """
    return shard_of(num_jets, JETS_PER_BLOCK, "blocks", number, shards)


def attributes(settings: SimulationSettings) -> dict[str, Any]:
    """The attributes that tell how a file was made, `simulated` first of all."""
    versions = libraries.versions()
    made_by = ", ".join(f"{name} {version}" for name, version in versions.items())
    return {
        "simulated": "Simulated stand-in jets, not CMS data: Pythia 8 events in a parametrised detector "
        f"(jet-diffusion {__version__}, {made_by})",
        "simulation_sources": source_digest(),
        **{f"simulation_{name}": value for name, value in settings.attributes().items()},
    }


def _packed_blocks(
    settings: SimulationSettings, numbers: range, workers: int, progress: bool
) -> Generator[PackedBlock, None, None]:
    """Blocks in order; a few are under way at a time."""
    under_way: deque[Future[PackedBlock]] = deque()
    with _executor(workers) as executor:
        pool = prepare_pool(executor, progress) if settings.pileup > 0 else ()
        for number in numbers:
            under_way.append(executor.submit(_make_packed, settings, number, pool))
            if len(under_way) > 2 * (workers - 1):
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def _blocks_on_dask(
    settings: SimulationSettings, numbers: range, address: str, progress: bool
) -> Generator[PackedBlock, None, None]:
    """Blocks in order, made by Dask's workers."""
    with dask_client(address) as client:
        pool = prepare_pool(DaskExecutor(client), progress) if settings.pileup > 0 else ()
        yield from run_in_order(client, _make_packed, ((settings, number, pool) for number in numbers))


def _make_packed(settings: SimulationSettings, number: int, pool: tuple[Path, ...]) -> PackedBlock:
    return PackedBlock.pack(make_block(settings, number, read_pool(pool) if pool else empty_pool()))


class _ThisProcess(Executor):
    """Does what is submitted at once, in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextmanager
def _executor(workers: int) -> Iterator[Executor]:
    """Makes blocks; when it is left by an error or a signal, nobody waits for those under way."""
    if workers == 1:
        yield _ThisProcess()
        return
    others = multiprocessing.active_children()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=ignore_signals) as executor:
        try:
            yield executor
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                if child not in others:
                    child.kill()
            raise
