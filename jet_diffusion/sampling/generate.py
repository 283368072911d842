"""Sample jets into an HDF5 file of the original schema, in one process, several, or many jobs.

Jet i of a seed is the same whatever the number of processes and jobs. Each process writes its own jets as parts of the
file, so none gathers those of others. An interrupted run goes on where it stopped, with any number of processes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from tqdm.auto import tqdm

from jet_diffusion.data.files.parts import PartialFile
from jet_diffusion.data.writer import PartWriter
from jet_diffusion.errors import UserError, checking
from jet_diffusion.locks import hold, lock_file
from jet_diffusion.parallel import shard_of
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline, batch_size_on
from jet_diffusion.runs import versions
from jet_diffusion.sampling.batches import Conditioned, JetBatch, sample_batches
from jet_diffusion.sampling.sample import describe_sampler

MAX_SEED = 2**63 - 1
"""Largest seed: what a file's attribute and the generators take."""

PATIENCE = 60.0
"""Seconds a job waits for others that begin or end at the same time."""

NOTABLE_CLIPPING = 1e-3
"""Share of clipped values above which a user is told: trained models stay far below."""


def generate(  # noqa: PLR0913
    pipeline: JetImagePipeline,
    out: str | Path,
    num_jets: int,
    *,
    seed: int = 0,
    steps: int | None = None,
    batch_size: int | None = None,
    conditions: dict[str, Any] | None = None,
    like: Conditioned | None = None,
    attrs: dict[str, Any] | None = None,
    shard: tuple[int, int] = (1, 1),
    accelerator: Accelerator | None = None,
) -> None:
    """Fill a file with generated jets, in as many processes as there are.

    Args:
        pipeline: The model. An unconditional one fills the schema's label, pt and m0 from `like`, and the file's
            attribute `conditional` says that they mean nothing.
        out: The file, which gets its name when all jets are in it.
        num_jets: How many.
        seed: Jet i of a seed is always the same.
        steps: Solver steps; by default the model's own number.
        batch_size: Jets a process denoises at once; by default as suits the device.
        conditions: Labels, pt, m0 for all jets; what is left out is drawn.
        like: Take the conditions of jet i from jet i of these: an HDF5 file or a dataset.
        attrs: Further root attributes.
        shard: (i, n) to make the i-th of n shares of the jets, i from 1 on. Jobs that make the others may run at the
            same time on a file system that all share; whichever is the last puts the file together.
        accelerator: Of this process; its mixed precision is that of the networks.

    Raises:
        UserError: For bad arguments, or an interrupted run with other settings.
        FileExistsError: If the file exists.
        FileNotFoundError: If its folder does not exist on all machines.
        BlockingIOError: If another process makes it or this share.
    """
    accelerator = accelerator or Accelerator()
    steps = pipeline.config.default_steps if steps is None else steps
    batch_size = batch_size_on(accelerator.device, batch_size)
    _check(pipeline, num_jets, seed, steps, batch_size, conditions, like)
    pipeline.to(accelerator.device)
    made = {**generation_attrs(pipeline, seed, steps, batch_size), "mixed_precision": accelerator.mixed_precision}
    settings = {**made, **condition_attrs(conditions, like), **(attrs or {})}
    wanted = shard_jets(num_jets, batch_size, *shard)
    asked = conditions if like is None else like
    sampler = {"seed": seed, "steps": steps, "batch_size": batch_size, "progress": accelerator.is_main_process}
    clipped: list[float] = []
    with _file_being_made(accelerator, out, num_jets, settings, shard) as file, accelerator.autocast():
        left = broadcast_object_list([file.missing(wanted)])[0]
        for jets in _share(left, batch_size, accelerator.process_index, accelerator.num_processes):
            clipped += _sample_into(file, jets, pipeline, asked, sampler)
        accelerator.wait_for_everyone()
    if clipped and (share := sum(clipped) / len(clipped)) > NOTABLE_CLIPPING and accelerator.is_main_process:
        tqdm.write(
            f"{share:.1%} of the pixels that the model estimated lay outside the range of its training jets, and were "
            "set to its ends: the model may need more training"
        )


def _sample_into(
    file: PartialFile,
    jets: range,
    pipeline: JetImagePipeline,
    asked: dict[str, Any] | Conditioned | None,
    sampler: dict[str, Any],
) -> Iterator[float]:
    """Sample these jets, write each batch while the next is sampled, and yield what share of its values was clipped."""
    writer = PartWriter(file, jets)

    def write(batch: JetBatch) -> None:
        columns = [column.cpu().numpy() for column in (batch.labels, batch.pt, batch.m0)]
        if pipeline.conditioner is None and not (asked is None or isinstance(asked, dict)):  # which borrows its columns
            rows = slice(writer.num_written, writer.num_written + len(batch))
            columns = [asked.labels[rows], asked.pt[rows], asked.m0[rows]]
        writer.append(batch.energies.cpu().numpy(), *columns)
        writer.flush()

    with ThreadPoolExecutor(max_workers=1) as thread:
        written: Future[None] | None = None
        for batch in sample_batches(pipeline, jets.stop, asked, first_jet=jets.start, **sampler):
            if written is not None:
                written.result()
            written = thread.submit(write, batch)
            yield batch.clipped_fraction
        if written is not None:
            written.result()


def shard_jets(num_jets: int, batch_size: int, number: int, shards: int) -> range:
    """Jets of shard `number` of `shards`, counted from 1; sizes differ by one batch at most.

    Raises:
        UserError: There is no such shard, or there are fewer batches than shards.
    """
    batches = shard_of(num_jets, batch_size, "batches", number, shards)
    return range(batches.start * batch_size, min(batches.stop * batch_size, num_jets))


def _share(left: list[range], batch_size: int, process: int, processes: int) -> list[range]:
    """Runs of the missing jets that a process makes; all processes get equally many batches, or one less."""
    batches = [
        range(max(first, jets.start), min(first + batch_size, jets.stop))
        for jets in left
        for first in range(jets.start // batch_size * batch_size, jets.stop, batch_size)
    ]
    runs: list[range] = []
    for batch in batches[process * len(batches) // processes : (process + 1) * len(batches) // processes]:
        if runs and runs[-1].stop == batch.start:
            runs[-1] = range(runs[-1].start, batch.stop)
        else:
            runs.append(batch)
    return runs


def _check(
    pipeline: JetImagePipeline,
    num_jets: int,
    seed: int,
    steps: int,
    batch_size: int,
    conditions: dict[str, Any] | None,
    like: Conditioned | None,
) -> None:
    """Refuse what cannot be generated, before any file is made.

    Raises:
        UserError: Saying what is wrong.
    """
    if pipeline.conditioner is None and like is None:
        raise UserError(
            "the model is unconditional: its jets have no label, pt and m0 for the file's schema; name jets to take "
            "these columns from (--like), which the file will then mark as meaningless"
        )
    if like is not None and conditions:
        raise UserError("give conditions (--label, --pt, --m0) or jets to take them from (--like), not both")
    if like is not None and len(like.labels) < num_jets:
        raise UserError(f"there are {len(like.labels)} jets to take conditions from, {num_jets} are asked for")
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"seed must lie in 0 to {MAX_SEED}, got {seed}")
    given = {name: (conditions or {}).get(name) for name in ("labels", "pt", "m0")}
    with checking():
        pipeline.check_inputs(num_jets, **given, num_inference_steps=steps, batch_size=batch_size, output_type="pt")


def generation_attrs(pipeline: JetImagePipeline, seed: int, steps: int, batch_size: int) -> dict[str, Any]:
    """Root attributes that say how the jets were made."""
    made = f"generated by {type(pipeline).__name__} of jet-diffusion"
    if pipeline.config.provenance:
        made += f", trained on: {pipeline.config.provenance}"
    return {
        "simulated": made,
        "conditional": pipeline.conditioner is not None,
        "seed": seed,
        **describe_sampler(pipeline, steps),
        "batch_size": batch_size,
        "versions": " ".join(f"{name}={version}" for name, version in versions().items()),
    }


def condition_attrs(conditions: dict[str, Any] | None, like: Conditioned | None) -> dict[str, Any]:
    """The requested conditions: those given for all jets, or a digest of those taken from other jets."""
    if like is None:
        return {"conditions": json.dumps(conditions or {}, sort_keys=True)}
    digest = hashlib.sha256()
    for column in (like.labels, like.pt, like.m0):
        digest.update(np.ascontiguousarray(column).tobytes())
    return {"conditions": f"those of the jets {digest.hexdigest()[:16]}"}


@contextmanager
def _file_being_made(
    accelerator: Accelerator, out: str | Path, num_jets: int, attrs: dict[str, Any], shard: tuple[int, int]
) -> Iterator[PartialFile]:
    """The parts of the file, held by the main process; errors of the beginning reach every process.

    When the block is left, the file is put together if all its jets are there.
    """
    with ExitStack() as stack:
        news: list[Any] = [None]
        if accelerator.is_main_process:
            try:
                news = [_claim(stack, out, num_jets, attrs, shard)]
            except (ValueError, OSError) as error:
                news = [error]
        broadcast_object_list(news)
        if isinstance(news[0], Exception):
            raise news[0]
        file: PartialFile = news[0]
        if not all(gather_object([file.folder.is_dir()])):
            raise FileNotFoundError(f"{file.folder} is not on all machines; choose a folder that all of them share")
        try:
            yield file
        except BaseException:
            if accelerator.is_main_process and shard == (1, 1):
                file.discard_if_empty()
            raise
        if accelerator.is_main_process and shard == (1, 1):
            file.complete()
    if accelerator.is_main_process and shard != (1, 1):
        _complete_if_last(file)


def _claim(
    stack: ExitStack, out: str | Path, num_jets: int, attrs: dict[str, Any], shard: tuple[int, int]
) -> PartialFile:
    """Begin a file or go on with it, and hold it, or this shard of it, until the stack is left."""
    if shard == (1, 1):
        stack.enter_context(hold(out, "generate"))
        file = PartialFile(out, num_jets, attrs, resume=True)
        for lock in file.folder.glob(lock_file(Path("shard-*")).name):  # those of jobs that were killed are stale
            name = lock.name.removeprefix(".").removesuffix(".lock")
            stack.enter_context(hold(file.folder / name, "generate"))
        return file
    with hold(out, "generate", patience=PATIENCE):
        file = PartialFile(out, num_jets, attrs, resume=True)
        stack.enter_context(hold(file.folder / "shard-{}-of-{}".format(*shard), "generate"))
        return file


def _complete_if_last(file: PartialFile) -> None:
    """Put the file together, if no other job has jets to make and none does it already."""
    with suppress(BlockingIOError, FileExistsError), hold(file.path, "generate", patience=PATIENCE / 6):
        if file.folder.is_dir() and not file.missing():
            file.complete()
