"""HDF5 that points elsewhere, or would fill the memory, is refused before it is read."""

import fcntl

import h5py
import numpy as np
import pytest
from sample_jets import same_bits

from jet_diffusion.data.convert import convert
from jet_diffusion.data.files import hdf5, stored
from jet_diffusion.data.hdf5 import QuarkGluonFile

SHAPE = (64, 125, 125, 3)


@pytest.fixture
def secret(jets, write_file):
    """A file whose images are not to be read through another."""
    return write_file(jets, "secret.hdf5")


@pytest.fixture
def pointing(jets, tmp_path, secret):
    """A function that writes a file whose images are what `make` puts there."""

    def write(make):
        with h5py.File(tmp_path / "jets.hdf5", "w") as file:
            make(file)
            for key, column in (("y", jets.labels), ("pt", jets.pt), ("m0", jets.m0)):
                file[key] = column.astype(np.float32)
        return tmp_path / "jets.hdf5"

    return write


def external_link(file):
    file["X_jets"] = h5py.ExternalLink("secret.hdf5", "/X_jets")


def link_in_a_group(file):
    file["inner"] = h5py.ExternalLink("secret.hdf5", "/")
    file["X_jets"] = h5py.SoftLink("/inner/X_jets")


def virtual(file):
    layout = h5py.VirtualLayout(SHAPE, "f4")
    layout[:] = h5py.VirtualSource("secret.hdf5", "X_jets", SHAPE)
    file.create_virtual_dataset("X_jets", layout)


def raw_bytes(file):
    file.create_dataset("X_jets", SHAPE, "f4", external=[("raw.bin", 0, h5py.h5f.UNLIMITED)])


ELSEWHERE = {
    "X_jets is a link to /X_jets in secret.hdf5": external_link,
    "X_jets is a link to / in secret.hdf5": link_in_a_group,
    "X_jets is a virtual dataset of secret.hdf5": virtual,
    "X_jets lies as raw bytes in raw.bin": raw_bytes,
}


@pytest.mark.parametrize("message", ELSEWHERE)
def test_content_of_other_files_is_refused_and_read_only_if_meant(pointing, jets, tmp_path, monkeypatch, message):
    monkeypatch.chdir(tmp_path)
    np.ascontiguousarray(np.moveaxis(jets.energies, 1, -1)).tofile(tmp_path / "raw.bin")
    path = pointing(ELSEWHERE[message])
    with pytest.raises(ValueError, match=f"{message}; .*only if you mean it: --follow-links"):
        convert(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with QuarkGluonFile(path, follow_links=True) as file:
        assert same_bits(file.energies(0, 64), jets.energies)
        assert any(message in remark for remark in file.remarks)


def test_followed_links_are_on_the_card(pointing, tmp_path):
    metadata = convert(pointing(external_link), tmp_path / "out", follow_links=True, workers=1)
    assert metadata["reading"] == {"follow_links": True}
    assert "in secret.hdf5 (links were followed)" in (tmp_path / "out" / "README.md").read_text()


def test_a_missing_source_never_reads_as_zeros(pointing, secret):
    path = pointing(virtual)
    secret.unlink()
    with pytest.raises(ValueError, match=r"X_jets needs X_jets of .*secret\.hdf5, which cannot be read"):
        QuarkGluonFile(path, follow_links=True)


def test_a_circle_of_links_is_one_line(pointing):
    def circle(file):
        file["X_jets"] = h5py.SoftLink("/again")
        file["again"] = h5py.SoftLink("/X_jets")

    with pytest.raises(ValueError, match="the link X_jets goes in a circle") as error:
        QuarkGluonFile(pointing(circle))
    assert "\n" not in str(error.value)


def test_soft_links_within_the_file_are_followed(pointing, jets):
    def inner(file):
        file.create_group("group")["pixels"] = np.moveaxis(jets.energies, 1, -1)
        file["X_jets"] = h5py.SoftLink("group/pixels")

    with QuarkGluonFile(pointing(inner)) as file:
        assert same_bits(file.energies(0, 64), jets.energies)


def never_written(file):
    file.create_dataset("X_jets", SHAPE, "f4")


def half_written(file):
    file.create_dataset("X_jets", SHAPE, "f4", chunks=(32, 125, 125, 3))[:32] = 1


def many_jets(file):
    file.create_dataset("X_jets", (2 * 10**9, 125, 125, 3), "f4", chunks=(1, 125, 125, 3))


def large_image(file):
    file.create_dataset("X_jets", (64, 31623, 31623, 3), "f4", chunks=(1, 125, 125, 3))


LIMITS = {
    "X_jets was never written: it would read as 0.0": never_written,
    "1 of 2 chunks were never written and would read as zeros": half_written,
    "X_jets claims 2000000000 jets; the limit is 1000000000": many_jets,
    r"X_jets has shape \(64, 31623, 31623, 3\), expected": large_image,
}


@pytest.mark.parametrize("message", LIMITS)
def test_limits_are_stated(pointing, message):
    with pytest.raises(ValueError, match=message):
        QuarkGluonFile(pointing(LIMITS[message]))


def test_chunks_that_fill_the_memory_are_refused(jets, write_file, monkeypatch):
    monkeypatch.setattr(hdf5, "MAX_BAND_BYTES", 2_000_000)
    path = write_file(jets, chunks=(32, 125, 125, 3), compression="gzip")
    with pytest.raises(ValueError, match=r"take 6.0 MB to read, more than 2.0 MB; rewrite them smaller: h5repack"):
        QuarkGluonFile(path)
    assert stored.MAX_BAND_BYTES == 4 * 2**30


def test_a_bomb_is_refused(pointing, monkeypatch):
    monkeypatch.setattr(hdf5, "MAX_RATIO", 500)

    def bomb(file):
        file.create_dataset("X_jets", SHAPE, "f4", chunks=SHAPE, compression="gzip", compression_opts=9)[:] = 0

    with pytest.raises(ValueError, match=r"X_jets holds 12.0 MB in 0.0 MB on disk, more than 500 to 1"):
        QuarkGluonFile(pointing(bomb))


def test_a_filter_that_is_not_there_is_named(pointing):
    def filtered(file):
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((32, 125, 125, 3))
        plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple(SHAPE)
        pixels = h5py.Dataset(h5py.h5d.create(file.id, b"X_jets", h5py.h5t.NATIVE_FLOAT, space, plist))
        pixels[:] = np.ones(SHAPE, np.float32)  # a scalar is written value by value

    with pytest.raises(ValueError, match=r"filter 32015 .*which h5py lacks; install hdf5plugin"):
        QuarkGluonFile(pointing(filtered))


def test_a_locked_file_is_said_to_be_locked(jets, write_file):
    path = write_file(jets)
    with path.open("r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="is locked: another process has it open for writing; wait"):
            QuarkGluonFile(path)


def test_a_damaged_column_is_named(jets, write_file):
    path = write_file(jets)
    with h5py.File(path, "r+") as file:
        del file["pt"]
        file.create_dataset("pt", data=jets.pt, chunks=(64,), compression="gzip")
        place = file["pt"].id.get_chunk_info(0).byte_offset
    with path.open("r+b") as raw:
        raw.seek(place)
        raw.write(b"\xff" * 40)
    with pytest.raises(ValueError, match=r"jets\.hdf5: the column pt cannot be read, the file is damaged"):
        QuarkGluonFile(path)
