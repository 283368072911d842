"""From the HDF5 file to a dataset: lossless, atomic, resumable, and readable without the package."""

import io
import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from fakehub import FakeHub
from huggingface_hub import DatasetCard
from PIL import Image
from sample_jets import Jets, same_bits

from jet_diffusion import cli
from jet_diffusion.data import convert as conversion
from jet_diffusion.data.bundled import sample_path
from jet_diffusion.data.convert import convert
from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.data.dataset_card import push
from jet_diffusion.data.encoding import encode_jets
from jet_diffusion.data.hdf5 import QuarkGluonFile

pytestmark = pytest.mark.integration

SPLITS = ("train", "validation", "test")


@pytest.fixture
def odd_jets(jets):
    """Jets with duplicates, HCAL that is not constant, a negative zero and a denormal."""
    jets.energies[20], jets.energies[21], jets.energies[40] = jets.energies[[3, 3, 5]]
    jets.energies[7, 2, 60, 60] += 1
    jets.energies[8, 0, 0, 0], jets.energies[9, 2, 0, 0] = -0.0, 1e-45
    return jets


def read_back(folder):
    """All jets of a dataset in the order of the file."""
    parts = [JetDataset.load(folder, split) for split in SPLITS]
    order = np.argsort(np.concatenate([np.asarray(part.dataset["row"]) for part in parts]))
    energies = np.concatenate([part.energies(slice(None)) for part in parts])
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in ("labels", "pt", "m0")]
    return Jets(energies[order], *(column[order] for column in columns))


def rows_of(folder):
    """Rows of each split, with all their columns."""
    return {split: load_dataset(str(folder), split=split).with_format("arrow")[:] for split in SPLITS}


def test_folders_of_one_name_are_told_apart(tmp_path, jets, write_file):
    """`datasets` caches a local folder under its name."""
    source = write_file(jets)
    for seed in (1, 2):
        (tmp_path / str(seed)).mkdir()
        convert(source, tmp_path / str(seed) / "out", seed=seed)
    first, second = (set(rows_of(tmp_path / seed / "out")["train"]["row"].to_pylist()) for seed in "12")
    assert first != second


@pytest.mark.parametrize("workers", [1, 3])
def test_nothing_is_lost(tmp_path, odd_jets, write_file, workers):
    source = write_file(odd_jets, chunks=(10, 125, 125, 3), compression="lzf")
    convert(source, tmp_path / "out", workers=workers)
    for before, after in zip(odd_jets, read_back(tmp_path / "out"), strict=True):
        assert np.array_equal(before, after)
    assert same_bits(odd_jets.energies, read_back(tmp_path / "out").energies)


def test_metadata_tells_what_was_done(tmp_path, odd_jets, write_file):
    source = write_file(odd_jets, attrs={"simulated": "a toy"})
    metadata = convert(source, tmp_path / "out", seed=5, fractions=(0.5, 0.25, 0.25))
    assert json.loads((tmp_path / "out" / "jet_diffusion.json").read_text()) == metadata
    (origin,) = metadata["sources"]
    assert (origin["name"], origin["num_jets"], origin["first_row"]) == ("jets.hdf5", 64, 0)
    assert origin["size"] == source.stat().st_size
    assert (metadata["seed"], metadata["num_jets"], metadata["simulated"]) == (5, 64, "a toy")
    assert metadata["fractions"] == {"train": 0.5, "validation": 0.25, "test": 0.25}
    assert metadata["num_hcal_not_in_towers"] == 2
    assert metadata["duplicates"]["jets"] == 3
    for split, counts in metadata["splits"].items():
        part = JetDataset.load(tmp_path / "out", split)
        assert [counts["gluon"], counts["quark"]] == np.bincount(part.labels).tolist()
        assert (counts["num_jets"], counts["fingerprint"]) == (len(part), part.fingerprint)
    assert abs(metadata["splits"]["train"]["num_jets"] - 32) <= 1
    shard = next((tmp_path / "out" / "data").glob("train-*.parquet"))
    assert json.loads(pq.read_schema(shard).metadata[b"jet_diffusion"])["simulated"] == "a toy"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "**Not collision data.** a toy." in card
    assert f"in another split: {metadata['duplicates']['jets_across_splits']}\n" in card


def test_duplicates_across_splits_are_those_of_the_rows(tmp_path, odd_jets, write_file):
    odd_jets.energies[30:50] = odd_jets.energies[0]
    metadata = convert(write_file(odd_jets), tmp_path / "out", fractions=(0.4, 0.3, 0.3))
    hashes = {split: rows["content_hash"].to_pylist() for split, rows in rows_of(tmp_path / "out").items()}
    shared = 0
    for split in SPLITS:
        elsewhere = [image for other in SPLITS if other != split for image in hashes[other]]
        shared += sum(image in elsewhere for image in hashes[split])
    assert metadata["duplicates"]["jets_across_splits"] == shared >= 20


def test_the_card_decodes_a_row_in_five_lines_of_numpy(tmp_path, odd_jets, write_file):
    convert(write_file(odd_jets), tmp_path / "out")
    blocks = (tmp_path / "out" / "README.md").read_text().split("```python\n")[1:]
    code = next(block.split("```")[0] for block in blocks if "np.zeros" in block)
    given, five_lines = code.strip().split("\n\n")
    assert given == "import numpy as np"
    first, *rest = five_lines.splitlines()
    assert first == "row = dataset[0]"
    assert len(rest) == 5
    for split in SPLITS:
        for row in load_dataset(str(tmp_path / "out"), split=split):
            scope = {"dataset": [row]}
            exec(code, scope)
            assert same_bits(scope["energies"], odd_jets.energies[row["row"]])


def test_an_interrupted_conversion_goes_on(tmp_path, jets, write_file, monkeypatch):
    source = write_file(jets, chunks=(4, 125, 125, 3), compression="lzf")
    monkeypatch.setattr("jet_diffusion.data.hdf5.SLICE_JETS", 4)
    monkeypatch.setattr("jet_diffusion.data.files.hdf5.SLICE_JETS", 4)
    monkeypatch.setattr(conversion, "BLOCK_JETS", 16)
    convert(source, tmp_path / "whole")
    encoded = []

    def failing(energies, labels, pt, m0, first_row, simulated, rows):
        if first_row >= 44 and len(encoded) < 20:
            raise OSError("no space left on device")
        encoded.append(first_row)
        return encode_jets(energies, labels, pt, m0, first_row, simulated, rows)

    monkeypatch.setattr(conversion, "encode_jets", failing)
    with pytest.raises(OSError, match="no space left"):
        convert(source, tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="seed was 0 and is now 1; delete it to start anew"):
        convert(source, tmp_path / "out", seed=1)

    encoded[:] = [None] * 20
    convert(source, tmp_path / "out")
    assert sorted(encoded[20:]) == list(range(32, 64, 4))
    assert {path.name for path in tmp_path.iterdir()} == {"jets.hdf5", "whole", "out"}
    for rows, wanted in zip(rows_of(tmp_path / "out").values(), rows_of(tmp_path / "whole").values(), strict=True):
        assert rows.combine_chunks().equals(wanted.combine_chunks())
    names = [sorted(path.name for path in (tmp_path / out).rglob("*")) for out in ("out", "whole")]
    assert names[0] == names[1]


def test_bad_arguments_are_refused_before_any_work(tmp_path, jets, write_file):
    source, out = write_file(jets), tmp_path / "out"
    for options, message in (
        ({"workers": 0}, "workers must be positive, not 0"),
        ({"max_jets": 0}, "max_jets must be positive, not 0"),
        ({"max_jets": 3}, "3 jets are too few"),
        ({"fractions": (0.5, 0.5, 0.5)}, "add up to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            convert(source, out, **options)
    with pytest.raises(FileNotFoundError):
        convert(tmp_path / "missing.hdf5", out)
    assert [path.name for path in tmp_path.iterdir()] == ["jets.hdf5"]
    with pytest.raises(FileExistsError, match=r"jets\.hdf5 exists"):
        convert(source, source)
    with pytest.raises(FileNotFoundError, match="no converted dataset"):
        push(tmp_path, "user/jets")


def test_the_command_converts_and_says_what_it_did(tmp_path, capsys):
    out = tmp_path / "out"
    cli.run(
        "convert", [str(sample_path()), str(out), "--max-jets", "200", "--seed", "3", "--val", "0.2", "--test", "0.2"]
    )
    text = capsys.readouterr().out
    assert "NOT COLLISION DATA: Simulated stand-in jets" in text
    assert "duplicate images: 0" in text
    assert len(JetDataset.load(out, "train")) == 120
    with QuarkGluonFile(sample_path()) as file:
        assert same_bits(read_back(out).energies, file.energies(0, 200))


def test_parquet_is_a_third_of_the_original_compression(tmp_path, write_file):
    with QuarkGluonFile(sample_path()) as file:
        jets = Jets(file.energies(0, 600), file.labels[:600], file.pt[:600], file.m0[:600])
    source = write_file(jets, chunks=(600, 125, 125, 3), compression="lzf")
    convert(source, tmp_path / "out", fractions=(1, 0, 0))
    parquet = sum(path.stat().st_size for path in (tmp_path / "out" / "data").iterdir())
    arrow = sum(table.nbytes for table in [load_dataset(str(tmp_path / "out"), split="train").data])
    assert parquet < 0.35 * source.stat().st_size
    assert arrow < 0.5 * source.stat().st_size


@pytest.mark.integration
def test_conversion_does_not_load_torch(tmp_path):
    code = "import sys, jet_diffusion.data.convert; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


CLIENT = """
import sys
from datasets import get_dataset_config_names, load_dataset
from jet_diffusion.data.dataset import JetDataset, decode_energies
local, repo = sys.argv[1:]
hub, folder = JetDataset.load(repo, "test"), JetDataset.load(local, "test")
assert hub.fingerprint == folder.fingerprint and (hub.energies([0, 5]) == folder.energies([0, 5])).all()
assert hub.metadata == folder.metadata and hub.metadata["seed"] == 0, hub.metadata
stream = load_dataset(repo, split="test", streaming=True).with_format("arrow")
assert (decode_energies(next(stream.iter(batch_size=8))) == folder.energies(range(8))).all()
assert get_dataset_config_names(repo) == ["default"]
load_dataset(repo).push_to_hub("user/again")
again = JetDataset(load_dataset("user/again", split="test"))  # without metadata it is nothing that `load` takes
assert again.fingerprint == folder.fingerprint and "not collision data" in again.simulated, again.simulated
"""


@pytest.mark.integration
def test_a_pushed_dataset_is_the_same_from_the_hub(tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "jet_diffusion", "convert", str(sample_path()), str(out)]
    with FakeHub() as hub:
        environment = hub.environment(tmp_path / "home")
        options = ["--max-jets", "300", "--push-to", "user/jets", "--private"]
        for _ in range(2):  # the second time only pushes
            subprocess.run([*command, *options], check=True, env=environment, cwd=tmp_path)
        repo = hub.repo("datasets", "user/jets")
        assert repo.private
        assert {path.split("/")[0] for path in repo.files()} >= {"data", "README.md", "jet_diffusion.json"}
        card = repo.files()["README.md"].data.decode()
        assert 'load_dataset("user/jets", split="train")' in card
        lines = [line for line in DatasetCard(card).text.splitlines() if line]
        assert lines[1].startswith("![") and lines[1].endswith("(jets.png)")
        with Image.open(io.BytesIO(repo.files()["jets.png"].data)) as picture:
            assert picture.width > picture.height > 700  # two jets
        subprocess.run([sys.executable, "-c", CLIENT, str(out), "user/jets"], check=True, env=environment, cwd=tmp_path)
