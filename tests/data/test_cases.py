"""Files as people have them: what each of them gets from inspect and convert."""

import gzip
import json
import os
import pickle
import re
import zipfile

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sample_jets import Jets, same_bits

from jet_diffusion import cli
from jet_diffusion.data.bundled import sample_path
from jet_diffusion.data.checks import JetCheck
from jet_diffusion.data.convert import convert
from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.data.hdf5 import QuarkGluonFile
from jet_diffusion.data.load import load_jets
from jet_diffusion.errors import UserError

pytestmark = pytest.mark.integration


@pytest.fixture
def columns(jets):
    """The columns of 64 jets as a file has them: channels last, all float32."""
    pixels = np.ascontiguousarray(np.moveaxis(jets.energies, 1, -1))
    return {"X_jets": pixels, "y": jets.labels.astype("f4"), "pt": jets.pt, "m0": jets.m0}


@pytest.fixture
def put(tmp_path):
    """A function that writes columns into an HDF5 file."""

    def write(columns, name="jets.hdf5"):
        with h5py.File(tmp_path / name, "w") as file:
            for key, values in columns.items():
                file[key] = values
        return tmp_path / name

    return write


def pixels_set(place, value):
    def change(columns):
        columns["X_jets"][place] = value

    return change


def column_set(name, place, value):
    def change(columns):
        columns[name][place] = value

    return change


def scaled(function):
    def change(columns):
        columns["X_jets"] = function(columns["X_jets"]).astype("f4")

    return change


REFUSED = {
    r"m0: 1 jet whose m0 is not between 0 and 7000 GeV of 64 \(first: 10\)": column_set("m0", 10, 0),
    r"pt: 1 jet whose pt .* \(first: 7\)": column_set("pt", 7, -1),
    r"m0: 2 jets whose m0 .* \(first: 7, 9\)": column_set("m0", [7, 9], np.nan),
    r"add up to 209 of pt .*as if the unit were GeV: state it with --unit GeV$": scaled(lambda x: 100 * x),
    r"as if divided by 255: state it with --unit GeV/25500$": scaled(lambda x: x / 255),
    r"looks normalised jet by jet": scaled(lambda x: x / np.maximum(x.max((1, 2), keepdims=True), 1e-30)),
    r"negative: 1 jet with an energy below 0 of 64 \(first: 3\)": pixels_set((3, 60, 60, 1), -0.217),
    r"not finite: 27 jets .* of 64 \(first: 10, 11, 12\)": pixels_set(slice(10, 37), np.nan),
    r"too large: 1 jet with an energy above 1e\+06 GeV": pixels_set((5, 60, 60, 0), 3e38),
    r"channel 1, not 2, is constant in towers in all jets: another order\?": scaled(lambda x: x[..., [1, 2, 0]]),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_right_is_refused_and_leaves_nothing(columns, put, tmp_path, capsys, message):
    REFUSED[message](columns)
    path = put(columns)
    with pytest.raises(ValueError, match=message):
        convert(path, tmp_path / "out", workers=1)
    assert [item.name for item in tmp_path.iterdir()] == ["jets.hdf5"]
    with pytest.raises(ValueError, match=message):
        load_jets(path, None, np.random.default_rng(0))
    cli.run("inspect", [str(path), "--out", str(tmp_path / "pictures")])
    assert "  refused" in capsys.readouterr().out


def test_everything_wrong_is_counted_in_one_go(columns, put, tmp_path):
    columns["X_jets"][[1, 60]] = np.nan
    columns["X_jets"][[5, 6, 50, 63], 0, 0, 0] = -1
    columns["pt"][63] = 0
    with pytest.raises(ValueError, match="cannot be used as it is") as error:
        convert(put(columns), tmp_path / "out", workers=1)
    lines = str(error.value).splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == ["negative", "not finite", "pt"]
    assert "4 jets with an energy below 0 of 64 (first: 5, 6, 50)" in lines[0]
    assert "2 jets with an energy that is not finite of 64 (first: 1, 60)" in lines[1]


def test_bad_jets_can_be_left_out_and_are_counted(columns, put, tmp_path):
    columns["X_jets"][[1, 60]] = np.nan
    columns["X_jets"][2] = 0
    columns["X_jets"][9] = columns["X_jets"][8]
    columns["m0"][3] = 0
    metadata = convert(put(columns), tmp_path / "out", drop_bad=True, fractions=(0.5, 0.25, 0.25), workers=1)
    parts = [JetDataset.load(tmp_path / "out", split) for split in ("train", "validation", "test")]
    rows = sorted(row for part in parts for row in part.dataset["row"])
    assert rows == [row for row in range(64) if row not in (1, 60, 2, 9, 3)]
    assert metadata["dropped_repeats"] == 1
    counts = {finding["check"]: finding["count"] for finding in metadata["findings"]}
    assert counts == {"m0": 1, "not finite": 2, "empty": 1}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "2 jets with an energy that is not finite of 64 (first: 1, 60); they are left out" in card
    assert "1 jets that repeat an image were left out" in card


ODD = {
    r"27 jets without a hit of 64 \(first: 10, 11, 12\)": pixels_set(slice(10, 37), 0),
    r"channel 2 \(HCAL\) is empty in all jets": pixels_set((Ellipsis, 2), 0),
    r"all jets are quark jets": column_set("y", slice(None), 1),
    r"7 jets repeat the image of a jet before them \(first: 21, 22, 23\); one image occurs 8 times": lambda columns: (
        pixels_set(slice(20, 28), columns["X_jets"][20].copy())(columns)
    ),
}


@pytest.mark.parametrize("message", ODD)
def test_what_is_odd_is_said_by_inspect_and_on_the_card(columns, put, tmp_path, capsys, message):
    ODD[message](columns)
    path = put(columns)
    metadata = convert(path, tmp_path / "out", workers=1)
    assert any(_matches(message, finding["text"]) for finding in metadata["findings"])
    cli.run("inspect", [str(path), "--out", str(tmp_path / "pictures")])
    assert _matches(message, capsys.readouterr().out)


def _matches(pattern, text):
    return re.search(pattern, text) is not None


@pytest.fixture(scope="module")
def sample():
    with QuarkGluonFile(sample_path()) as file:
        return Jets(file.energies(0, 1200), file.labels[:1200], file.pt[:1200], file.m0[:1200])


def findings(jets, **changed):
    check = JetCheck()
    check.add(**{**dict(zip(("energies", "labels", "pt", "m0"), jets, strict=True)), **changed})
    return {finding.check: finding for finding in check.findings()}


def test_good_jets_get_no_finding(sample):
    assert findings(sample) == {}


def test_swapped_classes_columns_and_logarithms_are_noticed(sample):
    assert "are the classes swapped" in findings(sample, labels=1 - sample.labels)["classes"].text
    assert "was a logarithm taken" in findings(sample, energies=np.log1p(sample.energies))["units"].text
    swapped = findings(sample, pt=sample.m0, m0=sample.pt)
    assert "m0 is above pt in 1200 jets" in swapped["m0"].text


def test_checks_of_parts_add_up(sample):
    whole, parts = JetCheck(), []
    whole.add(*sample)
    for start in range(0, 1200, 300):
        parts.append(JetCheck())
        parts[-1].add(*(column[start : start + 300] for column in sample), start)
    stored = [JetCheck.from_json(json.loads(json.dumps(part.to_json()))) for part in parts]
    total = sum(stored, JetCheck())
    assert total.counts == whole.counts
    assert (total.histogram == whole.histogram).all()
    assert total.median_response() == pytest.approx(2.07, rel=0.02)


ACCEPTED = {
    "as published": (lambda columns: None, {}),
    "no suffix": (lambda columns: None, {}),
    "columns (N, 1)": (lambda c: c.update({k: c[k][:, None] for k in ("y", "pt", "m0")}), {}),
    "float64": (lambda c: c.update(X_jets=c["X_jets"].astype("f8"), pt=c["pt"].astype("f8")), {}),
    "channels first": (lambda c: c.update(X_jets=c["X_jets"].transpose(0, 3, 1, 2)), {"channels_first": True}),
    "other names": (
        lambda c: c.update(jetPt=c.pop("pt"), jetM=c.pop("m0")),
        {"columns": "pt=jetPt,m0=jetM"},
    ),
    "images": (lambda c: c.update(images=c.pop("X_jets")), {"columns": {"X_jets": "images"}}),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_near_layouts_are_read_bit_for_bit(jets, columns, put, name):
    change, options = ACCEPTED[name]
    change(columns)
    path = put(columns, "no_suffix" if name == "no suffix" else "jets.HDF5")
    with QuarkGluonFile(path, **options) as file:
        assert same_bits(file.energies(0, 64), jets.energies)
        assert same_bits(file.pt, jets.pt)
        assert file.remarks == []
    if not options:
        assert len(load_jets(path, None, np.random.default_rng(0))) == 64


def test_a_stated_unit_is_converted_and_said_on_the_card(jets, columns, put, tmp_path):
    columns["X_jets"] = 100 * columns["X_jets"]
    metadata = convert(put(columns), tmp_path / "out", unit="GeV", fractions=(1, 0, 0), workers=1)
    train = JetDataset.load(tmp_path / "out", "train")
    np.testing.assert_allclose(train.energies(slice(None)), jets.energies, rtol=1e-6)
    assert metadata["reading"] == {"unit": "GeV"}
    assert "in the unit GeV (as stated)" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(ValueError, match="the unit 'parsec' is none; accepted are GeV/100"):
        QuarkGluonFile(tmp_path / "jets.hdf5", unit="parsec")


def test_integers_are_read(columns, put):
    columns["pt"] = columns["pt"].astype("i4")
    with QuarkGluonFile(put(columns)) as file:
        assert np.array_equal(file.pt, columns["pt"])


def as_parquet(path, columns, rows_a_group=1):
    """The nested lists of the public Parquet files: float64, GeV, HCAL over 25, channels first."""
    images = columns["X_jets"].astype("f8").transpose(0, 3, 1, 2) * 100
    images[:, 2] /= 25
    images[3, 1, 7, 7] = -0.2  # not zero-suppressed
    table = pa.table(
        {"X_jets": images.tolist()} | {key: [[float(value)] for value in columns[key]] for key in ("pt", "m0", "y")}
    )
    pq.write_table(table, path, row_group_size=rows_a_group, compression="snappy")


@pytest.mark.parametrize("rows_a_group", [1, 50])
def test_nested_parquet_is_the_hdf5_file(columns, jets, tmp_path, rows_a_group, monkeypatch):
    monkeypatch.setattr("jet_diffusion.data.files.parquet.SLICE_JETS", 9)
    monkeypatch.setattr("jet_diffusion.data.hdf5.SLICE_JETS", 9)
    path = tmp_path / "QCDToGGQQ_run0_n64.test.snappy.parquet"
    as_parquet(path, columns, rows_a_group)
    with QuarkGluonFile(path) as file:
        assert (file.kind, file.unit.name, file.unit_is_stated) == ("Parquet", "raw", False)
        read = np.concatenate([file.energies(*span) for span in file.slices()])
        assert same_bits(read, jets.energies)
        assert file.suppressed == [1, 1]
        assert same_bits(file.energies(40, 47), jets.energies[40:47])  # back and forth
        assert same_bits(file.energies(3, 30), jets.energies[3:30])
        assert same_bits(file.pt, jets.pt)
        assert file.labels.tolist() == jets.labels.tolist()
    metadata = convert(path, tmp_path / "out", fractions=(1, 0, 0), workers=1)
    assert metadata["suppressed"] == {"energies": 1, "negative": 1}
    assert "inferred from the energies over pT, not proven" in (tmp_path / "out" / "README.md").read_text()
    with QuarkGluonFile(path, unit="GeV") as file:
        assert file.energies(3, 4, check=False).min() == np.float32(-0.002)


def test_a_parquet_column_whose_name_is_no_text_is_refused(tmp_path):
    path = tmp_path / "jets.parquet"
    pq.write_table(pa.table({"extra": [1.0, 2.0]}), path)
    path.write_bytes(path.read_bytes().replace(b"extra", b"\x83xtra"))
    with pytest.raises(UserError, match=r"jets\.parquet is a damaged or truncated Parquet file: .*codec"):
        QuarkGluonFile(path)


def test_parquet_of_another_form_is_refused(columns, tmp_path):
    path = tmp_path / "jets.parquet"
    scalars = {key: [[float(value)] for value in columns[key]][:3] for key in ("pt", "m0", "y")}
    for images, message in (
        ([[[0.0, 1.0], [2.0, 3.0]]] * 3, r"X_jets has shape \(3, 2, 2\), expected"),
        ([[[0.0, 1.0], [2.0]]] * 3, "X_jets of row 0 holds lists of 1 to 2 items"),
        ([[[None, 1.0], [2.0, 1.0]]] * 3, r"holds 1 missing \(null\) values"),
    ):
        pq.write_table(pa.table({"X_jets": images} | scalars), path)
        with pytest.raises(ValueError, match=message):
            QuarkGluonFile(path)
    pq.write_table(pa.table({"jets": [[0.0] * 1_000_001]} | {k: v[:1] for k, v in scalars.items()}), path)
    with pytest.raises(ValueError, match="holds 1000001 values in 1 rows; the limit is 1000000 a row"):
        QuarkGluonFile(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged or truncated Parquet file"):
        QuarkGluonFile(path)


MISSING = {
    "no pt": (("X_jets", "y"), "without pt, m0; it holds X_jets (64, 125, 125, 3) float32, y (64,) float32"),
    "renamed": (("X_jets", "y", "jetPt", "jetM"), "--columns pt=jetPt,m0=jetM"),
    "images": (("images",), "--columns X_jets=images --channels-first\ny, pt, m0 of each jet are needed too"),
    "photons": (("X", "y"), "it holds X (64, 32, 32, 2) float32, y (64,) float32\nthis package reads HDF5 and Parquet"),
}


@pytest.mark.parametrize("name", MISSING)
def test_what_is_missing_and_what_is_there_is_said_in_three_lines(columns, put, name):
    keys, message = MISSING[name]
    other = {
        "jetPt": columns["pt"],
        "jetM": columns["m0"],
        "images": columns["X_jets"].transpose(0, 3, 1, 2),
        "X": columns["X_jets"][:, :32, :32, :2],
    }
    with pytest.raises(ValueError, match="is an HDF5 file without") as error:
        QuarkGluonFile(put({key: (columns | other)[key] for key in keys}))
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) <= 3


def npz(path):
    np.savez(path.with_suffix(".npz"), X=np.zeros((5, 3)), y=np.zeros(5))
    os.replace(path.with_suffix(".npz"), path)


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("sample.hdf5", b"jets")


def objects(path):
    with path.open("wb") as stream:
        np.save(stream, np.array([{}], dtype=object), allow_pickle=True)


KINDS = {
    "a web page, perhaps a login": lambda path: path.write_text("<!DOCTYPE html><html>Sign in</html>"),
    "a Git LFS pointer .*git lfs pull --include jets.hdf5": lambda path: path.write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    ),
    "empty \\(0 bytes\\)": lambda path: path.write_bytes(b""),
    "all zeros": lambda path: path.write_bytes(bytes(5000)),
    "a zip archive of sample.hdf5; unpack it: unzip": zipped,
    r"a numpy archive \(.npz\) of X \(5, 3\) float64, y \(5,\) float64": npz,
    "compressed with gzip; unpack it": lambda path: path.write_bytes(gzip.compress(b"jets")),
    "a numpy file of Python objects": objects,
    "a Python pickle": lambda path: path.write_bytes(pickle.dumps([1])),
    "a text file: it begins with 'pt,m0": lambda path: path.write_text("pt,m0\n1,2\n"),
    "of an unknown kind: it begins with the bytes ff 00 fe 01": lambda path: path.write_bytes(b"\xff\0\xfe\1"),
}


@pytest.mark.parametrize("message", KINDS)
def test_the_kind_of_another_file_is_named(tmp_path, message):
    path = tmp_path / "jets.hdf5"
    KINDS[message](path)
    for use in (QuarkGluonFile, lambda source: convert(source, tmp_path / "out")):
        with pytest.raises(ValueError, match=f"jets.hdf5 is {message}") as error:
            use(path)
        assert len(str(error.value).splitlines()) <= 3
    assert [item.name for item in tmp_path.iterdir()] == ["jets.hdf5"]


def test_near_names_are_offered(put, columns, tmp_path):
    put(columns, "quark_gluon.hdf5")
    with pytest.raises(FileNotFoundError, match=r"did you mean quark_gluon\.hdf5\?"):
        QuarkGluonFile(tmp_path / "quark_gluons.hdf5")


def test_a_file_whose_tail_is_zeros_is_refused_and_leaves_nothing(tmp_path):
    raw = sample_path().read_bytes()
    path = tmp_path / "jets.hdf5"
    path.write_bytes(raw[: len(raw) // 2] + bytes(len(raw) - len(raw) // 2))
    with pytest.raises(ValueError, match=r"jets\.hdf5: .*damaged"):
        convert(path, tmp_path / "out")
    assert [item.name for item in tmp_path.iterdir()] == ["jets.hdf5"]


def test_three_jets_are_too_few_and_it_is_said_how_many_it_takes(columns, put, tmp_path):
    path = put({key: values[:3] for key, values in columns.items()})
    with pytest.raises(ValueError, match=r"3 jets are too few .* about 10 of each class are enough"):
        convert(path, tmp_path / "out")
    assert len(convert(path, tmp_path / "out", fractions=(1, 0, 0))["splits"]) == 1


def test_parts_are_merged_and_jets_in_both_are_named(columns, put, jets, tmp_path):
    first = put({key: values[:40] for key, values in columns.items()}, "a.hdf5")
    second = put({key: values[30:] for key, values in columns.items()}, "b.hdf5")
    metadata = convert([first, second], tmp_path / "out", workers=1)
    (finding,) = metadata["findings"]
    assert "10 jets of b.hdf5 (its rows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9) are in a.hdf5 too" in finding["text"]
    assert [(row["name"], row["first_row"]) for row in metadata["sources"]] == [("a.hdf5", 0), ("b.hdf5", 40)]
    parts = [JetDataset.load(tmp_path / "out", split) for split in ("train", "validation", "test")]
    rows = np.concatenate([part.dataset["row"] for part in parts])
    energies = np.concatenate([part.energies(slice(None)) for part in parts])[np.argsort(rows)]
    assert same_bits(energies, np.concatenate([jets.energies[:40], jets.energies[30:]]))
    merged = convert([first, second], tmp_path / "clean", drop_bad=True, workers=1)
    assert sum(split["num_jets"] for split in merged["splits"].values()) == 64
    with pytest.raises(ValueError, match="is named twice"):
        convert([first, first], tmp_path / "twice")
