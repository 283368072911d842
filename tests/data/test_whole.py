"""A dataset that is not whole is refused by name; conversions do not get in each other's way."""

import json
import logging
import os
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jet_diffusion import cli
from jet_diffusion.data import convert as conversion
from jet_diffusion.data import folder as folders
from jet_diffusion.data.bundled import sample_path
from jet_diffusion.data.convert import convert
from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.data.dataset_card import push
from jet_diffusion.data.folder import METADATA_FILE
from jet_diffusion.locks import hold


@pytest.fixture
def copied(converted_folder, tmp_path):
    """A copy of the converted sample, to be damaged."""
    shutil.copytree(converted_folder, tmp_path / "jets")
    return tmp_path / "jets"


def flip_a_bit(folder):
    path = folder / "data" / "train-00000.parquet"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def cut_the_readme(folder):
    text = (folder / "README.md").read_text()
    (folder / "README.md").write_text(text[: text.index("\n---\n", 4) - 20])


DAMAGES = {
    r"train-00000\.parquet was changed after the conversion or is damaged: its digest differs": flip_a_bit,
    r"is not whole: data/train-00000\.parquet is missing": lambda f: (f / "data" / "train-00000.parquet").unlink(),
    r": data/train-00001\.parquet is not of this dataset": lambda f: shutil.copy(
        f / "data" / "train-00000.parquet", f / "data" / "train-00001.parquet"
    ),
    r"holds 40 jets and should hold 320: it is of another dataset": lambda f: shutil.copy(
        f / "data" / "test-00000.parquet", f / "data" / "train-00000.parquet"
    ),
    r"it holds no jet_diffusion\.json": lambda f: (f / METADATA_FILE).unlink(),
    r"jet_diffusion\.json is damaged": lambda f: (f / METADATA_FILE).write_text('{"splits":'),
    r"README\.md is damaged: its YAML header is cut": cut_the_readme,
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_dataset_that_is_not_whole_is_refused(copied, message):
    DAMAGES[message](copied)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        JetDataset.load(copied, "validation")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        push(copied, "user/jets")


def test_digests_of_large_datasets_are_an_option(copied, monkeypatch):
    monkeypatch.setattr(folders, "VERIFY_BYTES", 0)
    metadata = json.loads((copied / METADATA_FILE).read_text())
    metadata["shards"]["data/train-00000.parquet"]["sha256"] = "0" * 64
    (copied / METADATA_FILE).write_text(json.dumps(metadata))
    assert len(JetDataset.load(copied, "validation")) == 40
    with pytest.raises(ValueError, match="its digest differs"):
        JetDataset.load(copied, "validation", verify=True)
    path = copied / "data" / "train-00000.parquet"
    path.write_bytes(path.read_bytes()[:100] + b"?????" + path.read_bytes()[105:])
    with pytest.raises(ValueError, match=r"a shard of .*jets is damaged .*verify=True names it"):
        JetDataset.load(copied, "validation")


def test_an_older_dataset_loads_with_one_line(copied, caplog):
    metadata = json.loads((copied / METADATA_FILE).read_text())
    del metadata["shards"]
    (copied / METADATA_FILE).write_text(json.dumps(metadata))
    with caplog.at_level(logging.WARNING):
        assert len(JetDataset.load(copied, "test")) == 40
    assert [record.message.split(": ")[1] for record in caplog.records] == ["it is not checked whether it is whole"]


def test_a_folder_of_datasets_names_them(copied, tmp_path):
    shutil.copytree(copied, tmp_path / "other")
    with pytest.raises(FileNotFoundError, match="it holds the datasets jets, other: name one of them"):
        JetDataset.load(tmp_path, "train")


def test_what_is_no_folder_is_said_to_be_none(tmp_path, monkeypatch, copied):
    monkeypatch.chdir(tmp_path)
    assert len(JetDataset.load("jets", "test")) == 40
    shutil.rmtree(copied)  # `datasets` still has it in its cache
    with pytest.raises(FileNotFoundError, match=r"there is no folder jets; a dataset on the Hub is named user/name"):
        JetDataset.load("jets", "test")
    with pytest.raises(ConnectionError, match=r"there is no folder user/jets; HF_HUB_OFFLINE is set"):
        JetDataset.load("user/jets", "test")
    with pytest.raises(ConnectionError, match=r"no folder user/jets; .*; the cache has no copy of it either"):
        JetDataset.load("hf://user/jets", "test")
    with pytest.raises(ValueError, match="is an HDF5 file: convert it first: jet-diffusion convert"):
        JetDataset.load(sample_path(), "test")


def test_conditions_that_no_model_takes_are_refused_before_training(copied):
    path = copied / "data" / "train-00000.parquet"
    table = pq.read_table(path)
    pt = table["pt"].to_numpy().copy()
    pt[5] = -1
    pq.write_table(table.set_column(table.column_names.index("pt"), "pt", pa.array(pt)), path)
    metadata = json.loads((copied / METADATA_FILE).read_text())
    metadata["shards"]["data/train-00000.parquet"]["sha256"] = folders.digest_of_shard(path)
    (copied / METADATA_FILE).write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match=r"pt: 1 jet whose pt is not between 0 and 7000 GeV"):
        JetDataset.load(copied, "train")


@pytest.fixture
def interrupted(jets, write_file, tmp_path, monkeypatch):
    """A source, and a conversion of it to `out` that stopped after two blocks with a stray temporary file."""
    source = write_file(jets, chunks=(4, 125, 125, 3))
    monkeypatch.setattr("jet_diffusion.data.hdf5.SLICE_JETS", 4)
    monkeypatch.setattr("jet_diffusion.data.files.hdf5.SLICE_JETS", 4)
    monkeypatch.setattr(conversion, "BLOCK_JETS", 16)
    encode = conversion.encode_jets

    def failing(energies, labels, pt, m0, first_row, *rest):
        if first_row >= 40:
            raise OSError("no space left on device")
        return encode(energies, labels, pt, m0, first_row, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(conversion, "encode_jets", failing)
        with pytest.raises(OSError, match="no space"):
            convert(source, tmp_path / "out", workers=1)
    stray = tmp_path / ".out.partial" / "dataset" / "data" / ".train-00002.123.partial.parquet"
    stray.write_bytes(b"half")
    return source


def test_a_source_mended_in_place_is_not_mixed_with_the_old(interrupted, tmp_path):
    times = interrupted.stat()
    with h5py.File(interrupted, "r+") as file:
        file["X_jets"][40] = file["X_jets"][40] * 2
    os.utime(interrupted, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(ValueError, match=r"interrupted run in .* differs: digest was .* delete it to start anew"):
        convert(interrupted, tmp_path / "out")


def test_no_temporary_file_stays_in_a_finished_dataset(interrupted, tmp_path):
    metadata = convert(interrupted, tmp_path / "out")
    names = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert names == {"README.md", METADATA_FILE, *metadata["shards"]}
    assert {path.name for path in tmp_path.iterdir()} == {"jets.hdf5", "out"}


def test_two_conversions_to_one_folder(jets, write_file, tmp_path):
    source = write_file(jets)
    with hold(tmp_path / "out", "convert"), pytest.raises(BlockingIOError, match="in use by `convert`"):
        convert(source, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"jets.hdf5"}


def test_another_file_is_not_pushed_in_place_of_the_one_named(jets, write_file, tmp_path):
    source = write_file(jets)
    convert(source, tmp_path / "out", workers=1)
    jets.pt[3] += 1
    other = write_file(jets, "other.hdf5")
    with pytest.raises(ValueError, match=r"out was converted otherwise: source was 'jets\.hdf5'"):
        cli.run("convert", [str(other), str(tmp_path / "out"), "--push-to", "user/jets"])
    with pytest.raises(ValueError, match="out was converted otherwise: seed was 0 and is now 3"):
        cli.run("convert", [str(source), str(tmp_path / "out"), "--seed", "3", "--push-to", "user/jets"])


def test_text_from_a_file_is_harmless_on_the_card(jets, write_file, tmp_path):
    text = "a toy\n---\n# Real CMS data\n<script>alert(1)</script>\x1b[31m"
    convert(write_file(jets, attrs={"simulated": text}), tmp_path / "out", workers=1)
    card = (tmp_path / "out" / "README.md").read_text()
    body = card.split("\n---\n", 1)[1]
    assert "<script>" not in body and "\n# Real" not in body and "\x1b" not in body
    assert len(JetDataset.load(tmp_path / "out", "train")) > 0


KILLED = """
import os, signal, sys
from jet_diffusion.data import convert as conversion, hdf5
from jet_diffusion.data.files import hdf5 as storage
hdf5.SLICE_JETS = storage.SLICE_JETS = 100
conversion.BLOCK_JETS = 200
encode = conversion.encode_jets
def killing(energies, labels, pt, m0, first_row, *rest):
    if len(sys.argv) > 3 and first_row >= int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return encode(energies, labels, pt, m0, first_row, *rest)
conversion.encode_jets = killing
print(conversion.convert(sys.argv[1], sys.argv[2], max_jets=800)["splits"]["train"]["fingerprint"])
"""


@pytest.mark.slow
def test_a_killed_conversion_goes_on_to_the_same_data(tmp_path):
    def run(out, *stop):
        command = [sys.executable, "-c", KILLED, str(sample_path()), str(tmp_path / out), *stop]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    for stop in ("300", "500"):
        assert run("out", stop).returncode == -9
        assert not (tmp_path / "out").exists()
    finished, whole = run("out"), run("whole")
    assert finished.returncode == whole.returncode == 0, finished.stderr
    assert finished.stdout == whole.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"out", "whole"}
    assert np.array_equal(*(sorted(os.listdir(tmp_path / name / "data")) for name in ("out", "whole")))
