"""The process a run lives in: its accelerator, how many processes take part, and how it keeps memory."""

from __future__ import annotations

import ctypes
import os
import platform

from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, ProjectConfiguration

from jet_diffusion import precision
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
        UserError: If fewer processes run than were asked for.
    """
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
