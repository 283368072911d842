"""The process a run lives in: its accelerator, how many processes take part, and how it keeps memory."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
from collections.abc import Callable, Sequence

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedDataParallelKwargs, ProjectConfiguration, broadcast_object_list

from jet_diffusion import precision
from jet_diffusion.errors import UserError
from jet_diffusion.io import megabytes
from jet_diffusion.runs import RunFolder
from jet_diffusion.training.processes import check_processes, join_processes
from jet_diffusion.training.settings import TrainSettings

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Parameters of glibc's mallopt, from malloc.h."""

USERS_OWN = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
"""Beginnings of environment variables by which users choose an allocator's settings themselves."""


def make_accelerator(settings: TrainSettings, run: RunFolder) -> Accelerator:
    """The accelerator of these settings; loads nothing and refuses a launch that lost processes.

    Raises:
        ConnectionError: If the processes do not meet.
        UserError: If fewer processes run than were asked for, or a tracker is not installed.
    """
    check_trackers(settings.trackers)
    join_processes(cpu=settings.cpu)
    accelerator = precision.make_accelerator(
        settings.precision,
        cpu=settings.cpu,
        gradient_accumulation_steps=settings.accumulation,
        log_with=list(settings.trackers) or None,
        project_config=ProjectConfiguration(project_dir=str(run.path), logging_dir=str(run.logs)),
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=settings.unet.network != "unet2d")],
    )
    check_processes(accelerator.num_processes, settings.expect_processes, os.environ)
    return accelerator


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are not installed.

    Raises:
        UserError: With the command that installs them.
    """
    installed = [str(tracker.value) for tracker in get_available_trackers()]
    if missing := ",".join(name for name in names if name not in installed):
        raise UserError(f"no tracker {missing} is installed: run `pip install 'jet-diffusion[{missing}]'`")


def in_main_process(accelerator: Accelerator, work: Callable[[], object]) -> None:
    """Do something in the main process; what it raises is raised in all, or the others would wait for ever."""
    failure: list[Exception | None] = [None]
    if accelerator.is_main_process:
        try:
            work()
        except Exception as error:
            failure = [error]
    broadcast_object_list(failure)
    if failure[0] is not None:
        raise failure[0]


def check_memory(
    losses: Callable[[int], torch.Tensor],
    parameters: Sequence[torch.nn.Parameter],
    jets: int,
    accelerator: Accelerator,
) -> None:
    """Refuse a step that takes more memory than the device has.

    What a jet takes is the difference between two jets and one in what autograd keeps for the backward pass.

    Args:
        losses: Gives the loss of so many jets.
        parameters: What is trained: weights, gradients, averages and AdamW's two moments take five times their size.
        jets: Jets in a micro-batch of a process.
        accelerator: Of the run.

    Raises:
        UserError: With both sizes.
    """
    a_jet = kept_for_backward(losses, 2) - kept_for_backward(losses, 1)
    needed = 5 * sum(parameter.nbytes for parameter in parameters) + jets * a_jet
    if accelerator.device.type == "cuda":
        memory, where = torch.cuda.mem_get_info(accelerator.device)[1], "the GPU"
    else:
        needed *= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        memory, where = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "this machine"
    if needed > memory:
        raise UserError(
            f"a step of {jets} jets in each process needs about {needed / 2**30:.3g} GiB ({a_jet / 2**20:.3g} MiB a "
            f"jet), and {where} has {memory / 2**30:.3g} GiB; set a smaller batch_size, a larger accumulation, or "
            "unet.gradient_checkpointing: true"
        )


def kept_for_backward(losses: Callable[[int], torch.Tensor], jets: int) -> int:
    """Bytes that autograd keeps until the backward pass of so many jets."""
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        losses(jets)
    return sum(kept.values())


def check_disk(run: RunFolder, checkpoint_bytes: int, settings: TrainSettings, step: int) -> None:
    """Refuse to train where the checkpoints that are kept, and the one being written, do not fit.

    Args:
        run: Where they go.
        checkpoint_bytes: Size of one.
        settings: Of the run.
        step: Where it goes on.

    Raises:
        UserError: With both sizes.
    """
    there = len(run.checkpoint_steps())
    to_come = -(-(settings.max_steps - step) // settings.checkpoint_every)
    most = settings.keep_checkpoints + 2  # the best, and the one being written
    needed = max(0, min(most, there + to_come) - there) * checkpoint_bytes
    free = shutil.disk_usage(run.path).free
    if needed > free:
        raise UserError(
            f"{run.path} needs {megabytes(needed)} more for checkpoints of {megabytes(checkpoint_bytes)} each "
            f"(the last {settings.keep_checkpoints}, the best, and the one being written), and {megabytes(free)} are "
            "free; make room, or set a smaller keep_checkpoints"
        )


def keep_freed_memory() -> bool:
    """Keep freed memory in the process, so that a training step on a CPU does not fetch it anew.

    glibc is told to take large blocks from the heap and never to give the heap back; the process-wide peak stays.
    Nothing is done on other C libraries, nor where the environment already has an allocator or settings for one.

    Returns:
        Whether it was done.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith(USERS_OWN) for name in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 64 * 2**20}
    return all([bool(mallopt(parameter, value)) for parameter, value in settings.items()])
