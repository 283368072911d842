"""A full disk is told before training where it can be known, and never costs the last good checkpoint."""

from __future__ import annotations

import errno
import re
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError

from jet_diffusion.data.hdf5 import JetWriter
from jet_diffusion.hub import load_pipeline
from jet_diffusion.io import explaining_full_disk
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.training import checkpoints, runtime
from jet_diffusion.workflows.stage import stage

Usage = namedtuple("Usage", "total used free")


@pytest.mark.integration
def test_what_checkpoints_take_is_said_before_the_first_step(run, go_on, monkeypatch):
    monkeypatch.setattr(runtime.shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(ValueError, match=r"for checkpoints of .* MB each .*0\.001 MB are free") as said:
        go_on(run, "--max_steps=50", "--keep_checkpoints=3")
    needed, each = map(float, re.findall(r"([\d.]+) MB (?:more|each)", str(said.value)))
    assert needed == pytest.approx(2 * each, rel=0.01)  # 3, the best and the one being written, of which 3 are there
    whole = sum(file.stat().st_size for file in run.checkpoint(3).iterdir()) / 1e6
    assert each == pytest.approx(whole, rel=0.3)  # tiny tensors have long headers
    assert run.checkpoint_steps() == [1, 2, 3]


FULL = [
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
]


JETS = (np.zeros((3, 3, 125, 125), np.float32), [0, 1, 0], [90.0, 91, 92], [9.0, 10, 11])


def test_a_disk_that_gets_full_keeps_the_jets_before(tmp_path, monkeypatch):
    def half(path, content):
        with path.open("wb") as file:
            file.write(bytes(content[:100]))
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "out.hdf5"
    full = pytest.raises(OSError, match=r"is full, .* MB are free: the jets before stay\. Make room")
    with full, JetWriter(out, 6, {}) as writer:
        writer.append(*JETS)
        writer.flush()
        monkeypatch.setattr(Path, "write_bytes", half)
        writer.append(*JETS)
        writer.flush()
    monkeypatch.undo()
    assert not out.exists()
    with JetWriter.resume(out, 6, {}) as writer:
        assert writer.num_written == 3
        writer.append(*JETS)
    assert [path.name for path in tmp_path.iterdir()] == ["out.hdf5"]


def test_a_disk_without_room_for_the_whole_file_is_told_before_it_is_written(tmp_path, monkeypatch):
    out = tmp_path / "out.hdf5"
    writer = JetWriter(out, 3, {})
    writer.append(*JETS)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(OSError, match=r"is full, 0\.001 MB are free: the file takes .* MB, and all its jets stay"):
        writer.complete()
    monkeypatch.undo()
    JetWriter.resume(out, 3, {}).complete()
    assert [path.name for path in tmp_path.iterdir()] == ["out.hdf5"]


@pytest.mark.parametrize("error", FULL)
def test_a_disk_that_gets_full_leaves_no_half_of_what_is_published(run, tmp_path, monkeypatch, error):
    written = JetImagePipeline.save_pretrained

    def half(pipeline, folder):
        written(pipeline, folder)
        raise error

    monkeypatch.setattr(JetImagePipeline, "save_pretrained", half)
    with pytest.raises(OSError, match=r"disk of .* is full, .* MB are free\. Make room and give the same"):
        stage(run, tmp_path / "model", "user/jets")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.integration
@pytest.mark.parametrize("error", FULL)
def test_a_disk_that_gets_full_costs_no_checkpoint(run, go_on, monkeypatch, error):
    written = checkpoints.save_file

    def half(tensors, path):
        if path.name == checkpoints.OPTIMIZER:
            path.write_bytes(b"half")
            raise error
        written(tensors, path)

    monkeypatch.setattr(checkpoints, "save_file", half)
    with pytest.raises(OSError, match=r"disk of .* is full, .*: a checkpoint takes .* the checkpoint of step 3 stays"):
        go_on(run, "--max_steps=4", "--keep_checkpoints=1")
    assert run.checkpoint_steps() == [1, 2, 3]
    assert not list(run.checkpoints.glob(".tmp-*"))
    load_pipeline(run.path)


def test_other_errors_stay_what_they_are(run):
    with pytest.raises(PermissionError), explaining_full_disk(run.path):
        raise PermissionError(errno.EACCES, "Permission denied")
