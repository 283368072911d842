"""Work for Dask's workers, in a file they import quickly."""

from __future__ import annotations

import os
import time


def number_and_process(number):
    time.sleep(0.3)
    return number, os.getpid()


def raise_for(number):
    raise FileNotFoundError(f"no file {number}")
