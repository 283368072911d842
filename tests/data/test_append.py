"""Files added to a converted dataset: what is there stays, what is new is told of, and a kill loses nothing."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from fakehub import FakeHub
from sample_jets import Jets, same_bits

from jet_diffusion import cli, io
from jet_diffusion.data import convert as conversion
from jet_diffusion.data import shards
from jet_diffusion.data.convert import convert, converted_before
from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.data.folder import METADATA_FILE, check_whole, digest_of_shard

pytestmark = pytest.mark.integration

SPLITS = ("train", "validation", "test")
SHARES = {"fractions": (0.6, 0.2, 0.2), "workers": 1}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr("jet_diffusion.data.hdf5.SLICE_JETS", 4)
    monkeypatch.setattr("jet_diffusion.data.files.hdf5.SLICE_JETS", 4)
    monkeypatch.setattr(conversion, "BLOCK_JETS", 16)


def part(jets, start, stop):
    return Jets(*(column[start:stop] for column in jets))


@pytest.fixture
def files(jets, write_file):
    """Jets 0 to 39 and jets 40 to 63 in two files."""
    return [write_file(part(jets, 0, 40), "a.hdf5"), write_file(part(jets, 40, 64), "b.hdf5")]


@pytest.fixture
def begun(files, tmp_path):
    """The first file, converted."""
    convert(files[0], tmp_path / "jets", **SHARES)
    return tmp_path / "jets"


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read_back(folder):
    """Rows and images of each split."""
    parts = {split: JetDataset.load(folder, split, verify=True, check=False) for split in SPLITS}
    return {name: (np.asarray(each.dataset["row"]), each.energies(slice(None))) for name, each in parts.items()}


def test_what_is_there_stays_and_what_is_new_is_split_by_itself(begun, files, jets, tmp_path):
    before, old = contents(begun), read_back(begun)
    alone = convert(files[1], tmp_path / "alone", **SHARES)
    metadata = convert(files[1], begun, append=True, **SHARES)
    shards_before = {name: raw for name, raw in before.items() if name.endswith(".parquet")}
    assert shards_before.items() <= contents(begun).items()
    assert set(metadata["shards"]) - set(shards_before) == {
        f"data/{name}-{block:05d}.parquet" for block in (3, 4) for name in SPLITS
    }
    assert all(digest_of_shard(begun / name) == shard["sha256"] for name, shard in metadata["shards"].items())
    new, added = read_back(begun), read_back(tmp_path / "alone")
    for name, (rows, energies) in new.items():
        assert rows.tolist() == [*old[name][0], *(40 + added[name][0])]
        assert same_bits(energies, jets.energies[rows])
        assert metadata["splits"][name]["num_jets"] == len(rows)
        assert alone["splits"][name]["num_jets"] == len(rows) - len(old[name][0])
    assert sorted(np.concatenate([rows for rows, _ in new.values()])) == list(range(64))
    assert JetDataset.load(begun, f"train[:{len(old['train'][0])}]").fingerprint == json.loads(before[METADATA_FILE])[
        "splits"]["train"]["fingerprint"]  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {"a.hdf5", "b.hdf5", "jets", "alone"}


def test_the_metadata_is_that_of_all_files(jets, write_file, tmp_path):
    jets.energies[5] = jets.energies[50] = 0
    jets.energies[45] = jets.energies[3]
    jets.energies[7, 2, 60, 60] += 1
    jets.energies[47, 2, 60, 60] += 1
    one, two = write_file(part(jets, 0, 40), "a.hdf5"), write_file(part(jets, 40, 64), "b.hdf5", {"simulated": "a toy"})
    old = convert(one, tmp_path / "jets", max_jets=36, **SHARES)
    metadata = convert(two, tmp_path / "jets", append=True, **SHARES)
    assert json.loads((tmp_path / "jets" / METADATA_FILE).read_text()) == metadata
    assert [(row["name"], row["first_row"], row["num_jets"]) for row in metadata["sources"]] == [
        ("a.hdf5", 0, 40), ("b.hdf5", 40, 24)]  # fmt: skip
    assert metadata["source"] == "a.hdf5, b.hdf5"
    assert metadata["digest"].split() == [row["digest"] for row in metadata["sources"]]
    assert (metadata["num_jets"], metadata["num_hcal_not_in_towers"]) == (60, 2)
    assert metadata["simulated"] == "a toy"
    assert metadata["duplicates"]["jets"] == 2
    (last,) = metadata["appended"]
    assert (last["source"], last["num_jets"], last["first_row"], last["seed"]) == ("b.hdf5", 24, 40, 0)
    texts = [finding["text"] for finding in metadata["findings"] if finding["check"] != "towers"]
    assert texts[0].startswith("rows 0 to 35: 1 jet without a hit of 36 (first: 5)")
    assert texts[1].startswith("rows 40 to 63: 1 jet without a hit of 24 (first: 50)")
    assert "2 jets of b.hdf5 (its rows 5, 10) are in a.hdf5 too" in texts[2]
    assert len(texts) == 3
    flags = [JetDataset.load(tmp_path / "jets", name).dataset.with_format("numpy")[:] for name in SPLITS]
    assert all(np.array_equal(each["simulated"], each["row"] >= 40) for each in flags)
    card = (tmp_path / "jets" / "README.md").read_text()
    assert "**Not collision data.** a toy." in card
    assert "Jets from row 40 on were added later." in card
    assert old["simulated"] is None


def test_a_third_file_is_added_like_the_second(begun, files, jets, write_file):
    convert(files[1], begun, append=True, max_jets=20, **SHARES)
    jets.energies[:32] *= 2
    metadata = convert(write_file(part(jets, 0, 32), "c.hdf5"), begun, append=True, **SHARES)
    assert [row["first_row"] for row in metadata["sources"]] == [0, 40, 64]
    assert [each["num_jets"] for each in metadata["appended"]] == [20, 32]
    assert metadata["num_jets"] == 92
    rows = np.concatenate([rows for rows, _ in read_back(begun).values()])
    assert sorted(rows) == [*range(60), *range(64, 96)]


def flip_a_bit(folder):
    raw = bytearray((folder / "data" / "train-00000.parquet").read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / "data" / "train-00000.parquet").write_bytes(raw)


def forget_digests(folder):
    metadata = json.loads((folder / METADATA_FILE).read_text())
    del metadata["shards"]
    (folder / METADATA_FILE).write_text(json.dumps(metadata))


REFUSED = {
    r"jets was converted otherwise: seed was 0 and is now 1; append with": {"seed": 1},
    r"fractions was \{'train': 0\.6.* and is now \{'train': 0\.8": {"fractions": (0.8, 0.1, 0.1)},
    r"license was 'unknown' and is now 'mit'": {"license_name": "mit"},
    r"drop_bad was False and is now True": {"drop_bad": True},
    r"train-00000\.parquet was changed after the conversion": flip_a_bit,
    r"of an older format, without digests of its shards; convert its files again": forget_digests,
    r"there is no dataset .*jets to append to; leave out --append": shutil.rmtree,
    r"jets is no converted dataset: it holds no jet_diffusion\.json": lambda folder: (folder / METADATA_FILE).unlink(),
}


@pytest.mark.parametrize("message", REFUSED)
def test_other_settings_and_damaged_datasets_are_refused(begun, files, tmp_path, message):
    given = REFUSED[message]
    if callable(given):
        given(begun)
    before = contents(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        convert(files[1], begun, append=True, **(SHARES | ({} if callable(given) else given)))
    assert contents(tmp_path) == before


def test_a_file_is_added_once(begun, files, tmp_path):
    copy = shutil.copy(files[1], tmp_path / "copy.hdf5")
    before = contents(tmp_path)
    for sources, message in (
        ([files[0]], r"a\.hdf5 is in .*jets already, as a\.hdf5; leave it out"),
        ([files[1], files[0]], r"a\.hdf5 is in .*jets already"),
        ([files[1], copy], r"copy\.hdf5 is in .*jets already, as b\.hdf5"),
        ([files[1], files[1]], "is named twice"),
    ):
        with pytest.raises(ValueError, match=message):
            convert(sources, begun, append=True, **SHARES)
    assert contents(tmp_path) == before
    with pytest.raises(FileExistsError, match="or add to it with --append"):
        convert(files[1], begun, **SHARES)


def test_a_refused_file_leaves_the_dataset_as_it_was(begun, jets, write_file, tmp_path):
    jets.energies[55, 0, 0, 0] = -1
    bad = write_file(part(jets, 40, 64), "bad.hdf5")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"1 jet with an energy below 0 of 24 \(first: 15\)"):
        convert(bad, begun, append=True, **SHARES)
    assert contents(tmp_path) == before


def test_repeats_of_old_and_new_jets_are_left_out(jets, write_file, tmp_path):
    jets.energies[[42, 43]] = jets.energies[[3, 44]]
    jets.energies[50] = np.nan
    one, two = write_file(part(jets, 0, 40), "a.hdf5"), write_file(part(jets, 38, 64), "b.hdf5")
    convert(one, tmp_path / "jets", drop_bad=True, **SHARES)
    metadata = convert(two, tmp_path / "jets", append=True, drop_bad=True, **SHARES)
    rows = np.concatenate([rows for rows, _ in read_back(tmp_path / "jets").values()])
    gone = {40, 41, 44, 46, 52}  # rows of b.hdf5 begin at 40: jets 38 and 39 again, 42, the second of 43 and 44, 50
    assert sorted(rows) == [row for row in range(66) if row not in gone]
    assert (metadata["dropped_repeats"], metadata["duplicates"]["jets"]) == (4, 0)


class Killed(BaseException):
    """What no handler of errors sees, as a process that is gone."""


def kill(*_arguments, **_options):
    raise Killed


def kill_at_a_block(patch, _folder):
    encode = conversion.encode_jets  # the second of two blocks begins with jet 16
    patch.setattr(conversion, "encode_jets", lambda *given: kill() if given[4] >= 20 else encode(*given))


def kill_before_the_name(patch, _folder):
    patch.setattr(shards, "replace_folder", kill)


def kill_between_the_names(patch, folder):
    replace = os.replace
    patch.setattr(io.os, "replace", lambda old, new: kill() if new == folder else replace(old, new))


@pytest.mark.parametrize("moment", [kill_at_a_block, kill_before_the_name, kill_between_the_names])
def test_a_killed_append_goes_on(begun, files, tmp_path, moment):
    shutil.copytree(begun, tmp_path / "whole" / "jets")
    convert(files[1], tmp_path / "whole" / "jets", append=True, **SHARES)
    before = contents(begun)
    with pytest.MonkeyPatch.context() as patch:
        moment(patch, begun)
        with pytest.raises(Killed):
            convert(files[1], begun, append=True, **SHARES)
    left = tmp_path / ".jets.replaced" if moment is kill_between_the_names else begun
    assert contents(left) == before
    with pytest.raises(ValueError, match=r"interrupted run in .* differs: num_jets was 24 and is now 20; delete it"):
        convert(files[1], begun, append=True, max_jets=20, **SHARES)
    assert contents(begun) == before
    convert(files[1], begun, append=True, **SHARES)
    assert contents(begun) == contents(tmp_path / "whole" / "jets")
    assert {path.name for path in tmp_path.iterdir()} == {"a.hdf5", "b.hdf5", "whole", "jets"}


def test_a_process_killed_when_all_is_done_leaves_nothing_in_the_way(begun, files, jets, write_file, tmp_path):
    remove = shutil.rmtree

    def remove_or_die(path, **how):
        return kill() if path.suffix == ".replaced" else remove(path, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "rmtree", remove_or_die)
        with pytest.raises(Killed):
            convert(files[1], begun, append=True, **SHARES)
    assert (tmp_path / ".jets.partial").is_dir()
    assert (tmp_path / ".jets.replaced").is_dir()
    with pytest.raises(ValueError, match=r"is in .* already"):
        convert(files[1], begun, append=True, **SHARES)
    jets.energies[...] *= 2
    assert convert(write_file(jets), begun, append=True, **SHARES)["num_jets"] == 128
    assert {path.name for path in tmp_path.iterdir()} == {"a.hdf5", "b.hdf5", "jets.hdf5", "jets"}


def test_other_files_in_the_folder_stay(begun, files):
    (begun / "notes").mkdir()
    for name in ("notes/mine.txt", "data/.mine", "data/mine.txt"):
        (begun / name).write_text("mine")
    os.rename(begun / "data" / "test-00000.parquet", begun / "notes" / "shard")
    (begun / "data" / "test-00000.parquet").symlink_to("../notes/shard")
    before = contents(begun)
    convert(files[1], begun, append=True, **SHARES)
    assert {name for name, raw in before.items() if contents(begun)[name] != raw} == {"README.md", METADATA_FILE}
    assert check_whole(begun, verify=True)["num_jets"] == 64


def test_shards_are_copied_where_there_are_no_links_and_a_link_to_a_dataset_stays(begun, files, tmp_path, monkeypatch):
    def refuse(*_names):
        raise OSError("no links here")

    monkeypatch.setattr(shards.os, "link", refuse)
    before = contents(begun)
    (tmp_path / "elsewhere").mkdir()
    os.rename(begun, tmp_path / "elsewhere" / "jets")
    begun.symlink_to(tmp_path / "elsewhere" / "jets")
    convert(files[1], begun, append=True, **SHARES)
    assert begun.is_symlink()
    assert {name: raw for name, raw in before.items() if name.endswith("parquet")}.items() <= contents(begun).items()
    assert check_whole(begun, verify=True)["num_jets"] == 64
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["jets"]


def test_only_what_was_appended_last_is_taken_for_done(begun, files):
    assert converted_before(files[1], begun, append=True, fractions=SHARES["fractions"]) is None
    metadata = convert(files[1], begun, append=True, **SHARES)
    given = {"fractions": SHARES["fractions"]}
    assert converted_before(files[1], begun, append=True, **given) == metadata
    with pytest.raises(ValueError, match="num_jets was 24 and is now 9; give the same options"):
        converted_before(files[1], begun, append=True, max_jets=9, **given)
    for sources in (files, files[0]):
        with pytest.raises(ValueError, match=r"give --append and what was appended last: b\.hdf5"):
            converted_before(sources, begun, **given)


def test_the_command_appends_and_pushes_and_the_second_time_only_pushes(begun, files, tmp_path, capsys):
    options = ["--append", "--val", "0.2", "--test", "0.2"]
    command = [sys.executable, "-m", "jet_diffusion", "convert", str(files[1]), str(begun), *options]
    with FakeHub() as hub:
        for _ in range(2):
            subprocess.run(
                [*command, "--push-to", "user/jets"], check=True, cwd=tmp_path, env=hub.environment(tmp_path / "home")
            )
        on_hub = hub.repo("datasets", "user/jets").files()
    here = contents(begun)
    assert {name for name in on_hub if name.startswith("data/")} == {name for name in here if name.startswith("data/")}
    assert json.loads(on_hub[METADATA_FILE].data) == json.loads(here[METADATA_FILE])
    with pytest.raises(ValueError, match=r"is in .* already"):
        cli.run("convert", [*command[4:]])
    assert "Traceback" not in capsys.readouterr().err
