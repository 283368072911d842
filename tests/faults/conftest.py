"""A tiny run of three checkpoints, copies of it to damage, and processes to interrupt."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from faulty_runs import STEPS, train_here

from jet_diffusion.runs import RunFolder


@pytest.fixture(scope="session")
def whole_run(converted_folder, tmp_path_factory):
    return train_here(converted_folder, tmp_path_factory.mktemp("runs") / "run", *STEPS)


@pytest.fixture
def run(whole_run, tmp_path):
    """A copy of the run, which its own command goes on with."""
    return RunFolder(shutil.copytree(whole_run.path, tmp_path / "run"))


@pytest.fixture
def go_on(converted_folder):
    """A function that gives the run's command again."""

    def give(run, *options):
        return train_here(converted_folder, run.path, *STEPS, *options)

    return give


@pytest.fixture
def start():
    """A function that starts a command in a process group of its own; whatever is left at the end is killed."""
    started = []

    def begin(*arguments, launcher=("-m", "jet_diffusion")):
        process = subprocess.Popen(
            [sys.executable, *launcher, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.communicate()
