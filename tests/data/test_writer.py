"""Writing files of the original schema: whole or not at all, and going on after an interruption."""

import os
import signal
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_jets import same_bits

from jet_diffusion.data.bundled import sample_path
from jet_diffusion.data.files.parts import PartialFile
from jet_diffusion.data.hdf5 import JetWriter, QuarkGluonFile
from jet_diffusion.data.writer import PartWriter

pytestmark = pytest.mark.integration

ATTRS = {"simulated": "made up", "seed": 3, "guidance": 1.5, "final": True, "steps": [1, 2]}


def spots(start, stop):
    """Jets of a single hit each, told apart by its energy, with labels, pt and m0."""
    number = np.arange(start, stop, dtype=np.float32)
    energies = np.zeros((len(number), 3, 125, 125), np.float32)
    energies[:, 1, 62, 62] = number + 0.5
    return energies, number % 2, number + 100, number + 10


def read(path):
    with QuarkGluonFile(path) as file:
        return file.energies(0, file.num_jets)[:, 1, 62, 62] - 0.5, file.labels, file.pt, file.m0


def test_the_written_file_has_the_original_schema(tmp_path, jets):
    path = tmp_path / "jets.hdf5"
    with JetWriter(path, 64, ATTRS) as writer:
        writer.append(*(column[:50] for column in jets))
        writer.append(*(column[50:] for column in jets))
    assert list(tmp_path.iterdir()) == [path]
    with h5py.File(path) as file:
        assert same_bits(np.moveaxis(file["X_jets"][:], -1, 1), jets.energies)
        assert {key: data.dtype for key, data in file.items()} == dict.fromkeys(file, np.float32)
        assert set(file) == {"X_jets", "y", "pt", "m0"}
        pixels = file["X_jets"]
        assert (pixels.compression, pixels.compression_opts, pixels.shuffle) == ("gzip", 4, False)
    with QuarkGluonFile(path) as file:
        assert file.attrs == ATTRS
        assert file.simulated == "made up"
        assert np.array_equal(file.labels, jets.labels)
        assert same_bits(file.pt, jets.pt)
        assert same_bits(file.m0, jets.m0)


@settings(max_examples=10)
@given(
    num_jets=st.integers(1, 230),
    batches=st.lists(st.tuples(st.integers(1, 120), st.booleans(), st.booleans()), min_size=1, max_size=6),
)
def test_any_batches_flushes_and_interruptions_give_the_same_file(num_jets, batches):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "jets.hdf5"
        writer = JetWriter.resume(path, num_jets, ATTRS)
        for size, flush, interrupt in batches:
            start = writer.num_written
            writer.append(*spots(start, min(start + size, num_jets)))
            if flush:
                writer.flush()
                durable = writer.num_written
            if interrupt:
                kept = writer.num_written
                writer = JetWriter.resume(path, num_jets, ATTRS)
                assert writer.num_written <= kept
                assert not flush or writer.num_written == durable
            assert not path.exists()
        with writer:
            writer.append(*spots(writer.num_written, num_jets))
        assert os.listdir(folder) == ["jets.hdf5"]
        number = np.arange(num_jets)
        for column, wanted in zip(read(path), (number, number % 2, number + 100, number + 10), strict=True):
            assert np.array_equal(column, wanted)


@settings(max_examples=10)
@given(num_jets=st.integers(1, 330), cuts=st.sets(st.integers(1, 329), max_size=4), data=st.data())
def test_parts_written_in_any_order_give_the_same_file(num_jets, cuts, data):
    ends = [0, *sorted(cut for cut in cuts if cut < num_jets), num_jets]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "jets.hdf5"
        file = PartialFile(path, num_jets, ATTRS)
        runs, made = data.draw(st.permutations([range(*pair) for pair in pairwise(ends)])), set()
        for run in runs:
            assert set(file.missing()[0]) <= set(range(num_jets)) - made
            writer = PartWriter(file, run)
            middle = data.draw(st.integers(run.start, run.stop))
            for start, stop in ((run.start, middle), (middle, run.stop)):
                writer.append(*spots(start, stop))
                writer.flush()
                made |= set(range(start, stop))
                assert [jet for jets in file.missing() for jet in jets] == sorted(set(range(num_jets)) - made)
        file.complete()
        assert os.listdir(folder) == ["jets.hdf5"]
        number = np.arange(num_jets)
        for column, wanted in zip(read(path), (number, number % 2, number + 100, number + 10), strict=True):
            assert np.array_equal(column, wanted)


def test_an_interrupted_run_goes_on_only_with_its_own_settings(tmp_path):
    path = tmp_path / "jets.hdf5"
    with pytest.raises(KeyboardInterrupt), JetWriter(path, 20, ATTRS) as writer:
        writer.append(*spots(0, 8))
        writer.flush()
        raise KeyboardInterrupt
    assert not path.exists()
    with pytest.raises(FileExistsError, match="left of an interrupted run"):
        JetWriter(path, 20, ATTRS)
    with pytest.raises(ValueError, match="seed was 3 and is now 4"):
        JetWriter.resume(path, 20, ATTRS | {"seed": 4})
    with pytest.raises(ValueError, match="num_jets was 20 and is now 21"):
        JetWriter.resume(path, 21, ATTRS)
    with JetWriter.resume(path, 20, ATTRS) as writer:
        assert writer.num_written == 8
        writer.append(*spots(8, 20))
    with pytest.raises(FileExistsError, match="exists; delete it"):
        JetWriter.resume(path, 20, ATTRS)


def test_too_few_jets_leave_no_file(tmp_path):
    path = tmp_path / "jets.hdf5"
    with pytest.raises(ValueError, match="only 5 of 9 jets were written"), JetWriter(path, 9, {}) as writer:
        writer.append(*spots(0, 5))
    assert not path.exists()
    assert JetWriter.resume(path, 9, {}).num_written == 5


def test_bad_arguments_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        JetWriter(tmp_path / "missing" / "jets.hdf5", 3, {})
    with pytest.raises(ValueError, match="num_jets must be positive, not 0"):
        JetWriter(tmp_path / "jets.hdf5", 0, {})
    with pytest.raises(ValueError, match=r"attribute config = \{\} cannot be stored"):
        JetWriter(tmp_path / "jets.hdf5", 3, {"config": {}})
    writer = JetWriter(tmp_path / "jets.hdf5", 3, {})
    energies, labels, pt, m0 = spots(0, 2)
    for arguments, message in (
        ((-energies, labels, pt, m0), "jet 0, channel ecal, row 62, column 62 holds -0.5"),
        ((energies.astype(np.float64), labels, pt, m0), "must be float32 .*, not float64"),
        ((np.moveaxis(energies, 1, -1), labels, pt, m0), r"not float32 of shape \(2, 125, 125, 3\)"),
        ((energies, labels + 1, pt, m0), r"labels must be 0 \(gluon\) or 1 \(quark\)"),
        ((energies, labels, pt[:1], m0), r"pt must be 2 finite numbers, one a jet, not shape \(1,\)"),
        ((energies, labels, pt, m0 * np.nan), "m0 must be 2 finite numbers"),
        (spots(0, 4), "0 \\+ 4 jets are more than the 3 announced"),
    ):
        with pytest.raises(ValueError, match=message):
            writer.append(*arguments)
    assert writer.num_written == 0


KILLED = """
import os, signal, sys
from jet_diffusion.data.hdf5 import JetWriter, QuarkGluonFile
source = QuarkGluonFile(sys.argv[2])
with JetWriter.resume(sys.argv[1], 350, {"seed": 1}) as writer:
    for start, stop in source.slices(30, writer.num_written, 350):
        writer.append(source.energies(start, stop), *(c[start:stop] for c in (source.labels, source.pt, source.m0)))
        writer.flush()
        if len(sys.argv) > 3 and stop > int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.integration
def test_a_killed_process_goes_on(tmp_path):
    path = tmp_path / "jets.hdf5"
    command = [sys.executable, "-c", KILLED, str(path), str(sample_path())]
    for stop in ("80", "200"):
        assert subprocess.run([*command, stop], check=False).returncode == -signal.SIGKILL
        assert not path.exists()
    subprocess.run(command, check=True)
    with QuarkGluonFile(path) as written, QuarkGluonFile(sample_path()) as source:
        assert written.num_jets == 350
        assert same_bits(written.energies(0, 350), source.energies(0, 350))
        assert same_bits(written.m0, source.m0[:350])
