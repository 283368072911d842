"""Reading of quark/gluon files: every layout, each chunk once, and what is refused."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_jets import same_bits

from jet_diffusion.data.bundled import sample_path
from jet_diffusion.data.hdf5 import QuarkGluonFile, hcal_is_constant_in_towers

LAYOUTS = {
    "contiguous": {},
    "auto": {"chunks": True, "compression": "gzip"},
    "one jet": {"chunks": (1, 125, 125, 3), "compression": "lzf"},
    "ten jets": {"chunks": (10, 125, 125, 3), "compression": "lzf"},
    "all jets": {"chunks": (64, 125, 125, 3), "compression": "lzf"},
    "parts of images": {"chunks": (40, 30, 50, 2), "compression": "lzf"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_reads_back_bit_for_bit(jets, write_file, layout):
    with QuarkGluonFile(write_file(jets, **LAYOUTS[layout])) as file:
        slices = list(file.slices(size=9, start=3, stop=61))
        energies = np.concatenate([file.energies(*span) for span in slices])
        assert same_bits(energies, jets.energies[3:61])
        assert same_bits(file.energies(0, 64), jets.energies)
        assert np.array_equal(file.labels, jets.labels)
        assert same_bits(file.pt, jets.pt)
        assert same_bits(file.m0, jets.m0)
        assert (file.num_jets, file.labels.dtype, energies.dtype) == (64, np.int64, np.float32)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts read bytes in Linux's way")
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "contiguous"])
def test_a_sequential_pass_reads_each_chunk_once(jets, write_file, layout):
    path = write_file(jets, **LAYOUTS[layout])

    def bytes_read():
        return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])

    with QuarkGluonFile(path) as file:
        before = bytes_read()
        for span in file.slices(size=5):
            file.energies(*span)
        read = bytes_read() - before
    assert read < 1.2 * path.stat().st_size + 50_000


@pytest.fixture(scope="module")
def sample():
    with QuarkGluonFile(sample_path()) as file:
        yield file


@given(
    size=st.none() | st.integers(1, 3000),
    ends=st.tuples(st.integers(0, 2048), st.integers(0, 2048)).map(sorted),
)
def test_slices_tile_the_range_and_keep_to_chunks(sample, size, ends):
    start, stop = ends
    slices = list(sample.slices(size, start, stop))
    edges = [start, *(end for _, end in slices)]
    assert [first for first, _ in slices] == edges[:-1]
    assert edges[-1] == stop
    assert all(0 < end - first <= (size or 200) for first, end in slices)
    if size is None or size >= 200:  # 200 jets: two chunks of the sample, the least that make a slice
        assert all(end % 100 == 0 for end in edges[1:-1])


def test_bad_ranges_are_refused(sample):
    for start, stop in ((-1, 5), (0, 2049), (5, 3)):
        with pytest.raises(ValueError, match=r"lie outside .* holds 2048"):
            sample.energies(start, stop)
    with pytest.raises(ValueError, match="at least 1 jet, not 0"):
        list(sample.slices(0))


def test_the_sample_is_marked_as_simulated(sample):
    assert "not CMS data" in sample.simulated
    assert np.bincount(sample.labels).tolist() == [1024, 1024]
    assert hcal_is_constant_in_towers(sample.energies(0, 100)).all()


def replace(file, key, values):
    del file[key]
    file[key] = values


BREAKAGES = {
    r"without pt; it holds X_jets \(64, 125, 125, 3\) float32, m0": lambda f: f.__delitem__("pt"),
    "the channels stand first: --channels-first": lambda f: replace(f, "X_jets", np.zeros((64, 3, 125, 125), "f4")),
    r"shape \(64, 25, 25, 3\), expected \(N, 125, 125, 3\); this package reads": lambda f: replace(
        f, "X_jets", np.zeros((64, 25, 25, 3), "f4")
    ),
    "X_jets has dtype complex64, expected float32": lambda f: replace(f, "X_jets", np.zeros((64, 125, 125, 3), "c8")),
    "holds no jets": lambda f: replace(f, "X_jets", np.zeros((0, 125, 125, 3), "f4")),
    r"m0 has shape \(63,\), expected \(64,\)": lambda f: replace(f, "m0", np.ones(63, "f4")),
    r"y has shape \(64, 2\)": lambda f: replace(f, "y", np.ones((64, 2), "f4")),
    "y of jet 5 is 2.0, as are 58 others": lambda f: f["y"].__setitem__(slice(5, None), 2),
    "y of jet 0 is nan": lambda f: f["y"].__setitem__(0, np.nan),
    "y has dtype object": lambda f: replace(f, "y", ["gluon"] * 64),
    "pt of jet 7 is inf, expected a finite number": lambda f: f["pt"].__setitem__(7, np.inf),
    "pt has dtype object, expected numbers": lambda f: replace(f, "pt", ["100"] * 64),
    r"m0 of jet 0 is 0.1 .*float32 cannot hold exactly\n.*values.astype\('float32'\)": lambda f: replace(
        f, "m0", np.full(64, 0.1)
    ),
    r"pt of jet 0 is 16777217 \(int64\), which float32 cannot": lambda f: replace(f, "pt", np.full(64, 2**24 + 1)),
    "attribute `simulated` holds True, expected a text": lambda f: f.attrs.__setitem__("simulated", True),
}


@pytest.mark.parametrize("message", BREAKAGES)
def test_a_broken_schema_is_named(jets, write_file, message):
    path = write_file(jets)
    with h5py.File(path, "r+") as file:
        BREAKAGES[message](file)
    with pytest.raises(ValueError, match=message):
        QuarkGluonFile(path)


def test_number_types_that_lose_nothing_are_accepted(jets, write_file):
    path = write_file(jets)
    with h5py.File(path, "r+") as file:
        replace(file, "y", jets.labels.astype(np.uint8)[:, None])
        replace(file, "pt", jets.pt.astype(np.float64)[:, None])
        replace(file, "m0", np.arange(1, 65))
        replace(file, "X_jets", np.moveaxis(jets.energies, 1, -1).astype(">f8"))
    with QuarkGluonFile(path) as file:
        assert np.array_equal(file.labels, jets.labels)
        assert same_bits(file.pt, jets.pt)
        assert np.array_equal(file.m0, np.arange(1, 65))
        assert same_bits(file.energies(0, 64), jets.energies)


def test_pixels_that_float32_rounds_are_named(jets, write_file):
    path = write_file(jets)
    with h5py.File(path, "r+") as file:
        pixels = np.moveaxis(jets.energies, 1, -1).astype(np.float64)
        pixels[40, 1, 2, 0] = 0.1
        replace(file, "X_jets", pixels)
    with QuarkGluonFile(path) as file, pytest.raises(ValueError, match=r"X_jets of jet 40 is 0.1 \(float64\), which"):
        file.energies(32, 64)


def test_files_that_are_no_hdf5_are_refused(tmp_path, jets, write_file):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        QuarkGluonFile(tmp_path / "missing.hdf5")
    with pytest.raises(ValueError, match="is a folder"):
        QuarkGluonFile(tmp_path)
    text = tmp_path / "text.hdf5"
    text.write_text("no jets here")
    with pytest.raises(ValueError, match="is a text file: it begins with 'no jets here'"):
        QuarkGluonFile(text)
    whole = write_file(jets, compression="gzip").read_bytes()
    text.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="truncated"):
        QuarkGluonFile(text)


def test_a_damaged_chunk_is_reported(jets, write_file):
    path = write_file(jets, chunks=(32, 125, 125, 3), compression="gzip")
    with h5py.File(path) as file:
        chunk = file["X_jets"].id.get_chunk_info(1)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset + 100)
        raw.write(b"\xff" * 200)
    with QuarkGluonFile(path) as file:
        file.energies(0, 32)
        with pytest.raises(ValueError, match="jets 32 to 64 of X_jets cannot be read, the file is damaged"):
            file.energies(32, 64)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.5])
def test_a_bad_energy_is_named(jets, write_file, value):
    jets.energies[40, 1, 3, 4] = value
    jets.energies[10] = -0.0
    with QuarkGluonFile(write_file(jets)) as file:
        assert np.signbit(file.energies(10, 11)).all()
        with pytest.raises(ValueError, match=f"jet 40, channel ecal, row 3, column 4 holds {value}"):
            file.energies(32, 64)


def test_a_file_is_not_modified(jets, write_file):
    path = write_file(jets, compression="lzf")
    before = path.read_bytes(), path.stat().st_mtime_ns
    with QuarkGluonFile(path) as file:
        file.energies(0, 64)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


PEAK_MEMORY = """
import re, sys
from pathlib import Path
from jet_diffusion.data.hdf5 import QuarkGluonFile
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
before = peak()
with QuarkGluonFile(sys.argv[1]) as file:
    for span in file.slices():
        file.energies(*span)
print(peak() - before)
"""


@pytest.mark.integration
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="takes the peak from Linux")
def test_memory_holds_one_chunk_at_a_time(tmp_path):
    path, count = tmp_path / "large.hdf5", 1000
    with h5py.File(path, "w") as file:
        shape, chunks = (3 * count, 125, 125, 3), (count, 125, 125, 3)
        pixels = file.create_dataset("X_jets", shape, "f4", chunks=chunks, compression="lzf")
        for start in range(0, 3 * count, count):
            pixels[start : start + count] = np.float32(start + 1)
        for key in ("y", "pt", "m0"):
            file[key] = np.ones(3 * count, "f4")
    output = subprocess.run(
        [sys.executable, "-c", PEAK_MEMORY, path], check=True, capture_output=True, text=True
    ).stdout
    megabytes_of_a_chunk = count * 125 * 125 * 3 * 4 / 2**20
    assert float(output) < 1.5 * megabytes_of_a_chunk
