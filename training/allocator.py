"""Keep freed memory in the process, so that a training step on a CPU does not fetch it anew from the kernel.

Every activation of a batch is larger than what glibc keeps when it is freed: it is given back to the kernel and
fetched again page by page, in each step. docs/speed.md has what that costs.
"""

from __future__ import annotations

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Parameters of glibc's mallopt, from malloc.h."""

USERS_OWN = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
"""Beginnings of environment variables by which users choose an allocator's settings themselves."""


def keep_freed_memory() -> bool:
    """Tell glibc to take large blocks from the heap and never to give the heap back; the process-wide peak stays.

    Does nothing on other C libraries, nor where the environment already has an allocator or settings for one.

    Returns:
        Whether it was done.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith(USERS_OWN) for name in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 64 * 2**20}
    return all([bool(mallopt(parameter, value)) for parameter, value in settings.items()])
