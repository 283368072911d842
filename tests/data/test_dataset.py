"""Jets as table rows: every float back bit for bit, and splits as arrays."""

from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_jets import same_bits

from jet_diffusion.data.bundled import sample_path
from jet_diffusion.data.dataset import JetDataset, content_hashes, decode_energies, encode_jets
from jet_diffusion.data.encoding import FEATURES, has_hcal_among_crystals
from jet_diffusion.data.hdf5 import QuarkGluonFile, hcal_is_constant_in_towers

VALUES = st.sampled_from([-0.0, 1e-45, 1.1754944e-38, 1.07e-5, 0.25, 757.0, 3.4028235e38]) | st.floats(
    0, 1e3, width=32, allow_subnormal=True
)
SIDE, GRID = st.integers(0, 124), st.integers(0, 24)


@st.composite
def images(draw, max_jets=3):
    """Jets of a few hits and towers; some crystals of some towers are disturbed."""
    energies = np.zeros((draw(st.integers(1, max_jets)), 3, 125, 125), np.float32)
    for jet in energies:
        for eta, phi, value in draw(st.lists(st.tuples(GRID, GRID, VALUES), max_size=4)):
            jet[2, 5 * eta : 5 * eta + 5, 5 * phi : 5 * phi + 5] = value
        hits = st.tuples(st.sampled_from([0, 0, 1, 1, 2]), SIDE, SIDE, VALUES)
        for *place, value in draw(st.lists(hits, max_size=5)):
            jet[tuple(place)] = value
    return energies


def encode(energies, **options):
    ones = np.ones(len(energies))
    return encode_jets(energies, ones.astype(np.int64), ones * 100, ones * 20, first_row=0, **options)


@settings(max_examples=150)
@given(energies=images())
def test_encoding_loses_no_bit(energies):
    table = encode(energies)
    assert table.schema == FEATURES.arrow_schema
    assert same_bits(decode_energies(table), energies)


@settings(max_examples=150)
@given(energies=images())
def test_hcal_is_stored_in_towers_exactly_where_it_is_constant(energies):
    constant = hcal_is_constant_in_towers(energies)
    table = encode(energies)
    assert np.array_equal(has_hcal_among_crystals(table), ~constant)
    bits = energies.view(np.uint32).reshape(len(energies), 3, 25, 5, 25, 5)
    towers = (bits[:, 2, :, 0, :, 0] != 0).sum(axis=(1, 2))
    stored = [len(towers) for towers in table["tower_index"].to_pylist()]
    assert np.array_equal(stored, towers * constant)


@settings(max_examples=150)
@given(energies=images())
def test_memory_layout_changes_nothing(energies):
    channels_last = np.moveaxis(np.ascontiguousarray(np.moveaxis(energies, 1, -1)), -1, 1)
    doubled = np.repeat(energies, 2, axis=0)[::2]
    assert encode(channels_last).equals(encode(energies))
    assert encode(doubled).equals(encode(energies))


@given(energies=images(), place=st.tuples(st.integers(0, 2), SIDE, SIDE), bit=st.integers(0, 30))
def test_the_content_hash_knows_every_bit(energies, place, bit):
    flat = energies[0].reshape(-1).view("<u4")
    places = np.flatnonzero(flat)
    digest = blake2b(places.astype("<u2").tobytes() + flat[places].tobytes(), digest_size=8).digest()
    assert content_hashes(energies)[0] == int.from_bytes(digest, "little")
    assert np.array_equal(encode(energies)["content_hash"].to_numpy(), content_hashes(energies))
    changed = energies.copy()
    changed.view(np.uint32)[(0, *place)] ^= np.uint32(1 << bit)
    if np.isfinite(changed).all() and (changed >= 0).all():
        assert content_hashes(changed)[0] != content_hashes(energies)[0]


def test_scalars_and_rows_are_kept(jets):
    table = encode_jets(*jets, first_row=1000, simulated=True)
    assert table["y"].to_pylist() == jets.labels.tolist()
    assert same_bits(table["pt"].to_numpy(), jets.pt)
    assert same_bits(table["m0"].to_numpy(), jets.m0)
    assert table["row"].to_pylist() == list(range(1000, 1064))
    assert table["simulated"].to_pylist() == [True] * 64


def test_bad_jets_are_not_encoded(jets):
    with pytest.raises(ValueError, match="there are 64 jets but columns of length"):
        encode_jets(jets.energies, jets.labels, jets.pt[:9], jets.m0, first_row=0)
    jets.energies[3, 0, 1, 2] = np.nan
    with pytest.raises(ValueError, match="jet 103, channel tracks, row 1, column 2 holds nan"):
        encode_jets(*jets, first_row=100)


def test_damaged_rows_are_not_decoded(jets):
    columns = {name: encode(jets.energies)[name] for name in ("index", "value", "tower_index", "tower_value")}
    for name, lists, message in (
        ("index", [[46875] * len(row) for row in columns["index"].to_pylist()], "index holds 46875"),
        ("tower_index", [[625] * len(row) for row in columns["tower_index"].to_pylist()], "tower_index holds"),
        ("value", [[]] * 64, "index and value differ in length"),
    ):
        column = pa.chunked_array([pa.array(lists, columns[name].type)])
        with pytest.raises(ValueError, match=message):
            decode_energies(pa.table(columns | {name: column}))


@pytest.fixture
def dataset(jets):
    return Dataset(encode_jets(*jets, first_row=0, simulated=True))


def test_energies_come_in_the_order_asked_for(jets, dataset):
    split = JetDataset(dataset)
    order = [63, 0, 7, 7, 12]
    assert len(split) == 64
    assert same_bits(split.energies(order), jets.energies[order])
    assert same_bits(split.energies(np.array(order)), jets.energies[order])
    assert same_bits(split.energies(slice(10, 20)), jets.energies[10:20])
    assert split.energies([]).shape == (0, 3, 125, 125)
    with pytest.raises(IndexError):
        split.energies([64])
    assert np.array_equal(split.labels, jets.labels)
    assert split.labels.dtype == np.int64
    assert same_bits(split.pt, jets.pt)
    assert same_bits(split.m0, jets.m0)
    assert np.array_equal(split.content_hash, content_hashes(jets.energies))


def test_a_selection_is_a_split_of_its_own(jets, dataset):
    chosen = JetDataset(dataset.select([5, 3, 60]))
    assert same_bits(chosen.energies([0, 1, 2]), jets.energies[[5, 3, 60]])
    assert np.array_equal(chosen.labels, jets.labels[[5, 3, 60]])


def test_the_fingerprint_is_of_the_content(jets, dataset):
    fingerprint = JetDataset(dataset).fingerprint
    assert JetDataset(Dataset(encode_jets(*jets, first_row=500))).fingerprint == fingerprint
    others = [JetDataset(dataset.select(range(1, 64))), JetDataset(dataset.select([1, 0, *range(2, 64)]))]
    for column in (1, 2, 3):
        changed = [values.copy() for values in jets]
        changed[column][0] = 1 - changed[column][0]
        others.append(JetDataset(Dataset(encode_jets(*changed, first_row=0))))
    jets.energies[0, 0, 0, 0] = 1e-45
    others.append(JetDataset(Dataset(encode_jets(*jets, first_row=0))))
    assert len({fingerprint, *(other.fingerprint for other in others)}) == 7


def test_a_split_knows_whether_hcal_is_in_towers(jets):
    assert JetDataset(Dataset(encode(jets.energies))).all_hcal_in_towers
    jets.energies[9, 2, 60, 60] += 1
    assert not JetDataset(Dataset(encode(jets.energies))).all_hcal_in_towers


def test_simulated_jets_say_so_even_without_metadata(jets, dataset):
    assert "not collision data" in JetDataset(dataset).simulated
    assert JetDataset(dataset, {"simulated": "a toy"}).simulated == "a toy"
    assert JetDataset(Dataset(encode_jets(*jets, first_row=0))).simulated is None


def test_other_datasets_are_refused(dataset):
    with pytest.raises(ValueError, match=r"columns missing or of another type: \{'pt': None\}"):
        JetDataset(dataset.remove_columns("pt"))
    with pytest.raises(ValueError, match="holds no jets"):
        JetDataset(dataset.select([]))


def test_a_converted_folder_loads(converted_folder):
    split = JetDataset.load(converted_folder, "validation")
    assert len(split) == 40
    assert split.metadata["seed"] == 0
    assert "not CMS data" in split.simulated
    rows = np.asarray(split.dataset["row"])
    with QuarkGluonFile(sample_path()) as file:
        assert same_bits(split.energies(slice(None)), file.energies(0, 400)[rows])
    assert len(JetDataset.load(str(converted_folder), "train[:50]")) == 50
    with pytest.raises(ValueError, match="nosuch"):
        JetDataset.load(converted_folder, "nosuch")
    with pytest.raises(FileNotFoundError):
        JetDataset.load(converted_folder / "data" / "missing", "train")


def test_a_stream_decodes_in_batches(converted_folder):
    stream = load_dataset(str(converted_folder), split="test", streaming=True).with_format("arrow")
    energies = np.concatenate([decode_energies(batch) for batch in stream.iter(batch_size=16)])
    assert same_bits(energies, JetDataset.load(converted_folder, "test").energies(slice(None)))
