"""Files of simulated jets: the schema, reproducibility, going on, and the command."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_jets import same_bits

pytest.importorskip("numba")
pytest.importorskip("pythia8mc")
pytest.importorskip("fastjet")

from jet_diffusion.cli import main
from jet_diffusion.data.hdf5 import QuarkGluonFile
from jet_diffusion.simulation import block as block_module
from jet_diffusion.simulation import generate
from jet_diffusion.simulation.block import Block, PackedBlock, make_block
from jet_diffusion.simulation.generate import shard_blocks, simulate
from jet_diffusion.simulation.pileup import empty_pool, load_pool, make_shard
from jet_diffusion.simulation.pileup_cache import prepare_pool
from jet_diffusion.simulation.settings import SimulationSettings

FEW = 10
"""Jets of a block in these tests."""


@pytest.fixture(scope="module")
def small_blocks():
    with pytest.MonkeyPatch.context() as patch:
        for module in (block_module, generate):
            patch.setattr(module, "JETS_PER_BLOCK", FEW)
        yield


@pytest.fixture(scope="module")
def file(small_blocks, tmp_path_factory):
    """Two blocks, the second cut."""
    path = tmp_path_factory.mktemp("simulated") / "jets.hdf5"
    simulate(settings(), path)
    return path


def settings(num_jets=15, seed=4, **others):
    return SimulationSettings(num_jets, seed, **{"pileup": 0.0, **others})


def read(path):
    with QuarkGluonFile(path) as file:
        return file.energies(0, file.num_jets), file.labels, file.pt, file.m0, file.attrs, file.simulated


@given(st.integers(0, 4), st.integers(0, 2**32 - 1))
def test_a_packed_block_is_unpacked_bit_for_bit(number, seed):
    rng = np.random.default_rng(seed)
    energies = np.where(rng.random((number, 3, 125, 125)) < 0.01, rng.random((number, 3, 125, 125)), 0)
    columns = rng.random((3, number)).astype(np.float32)
    block = Block(energies.astype(np.float32), *columns)
    for written, again in zip(block, PackedBlock.pack(block).unpack(), strict=True):
        assert same_bits(written, again)


def test_a_file_has_the_schema_says_it_is_simulated_and_holds_both_classes(file):
    energies, labels, pt, m0, attrs, simulated = read(file)
    assert energies.shape == (15, 3, 125, 125)
    assert np.bincount(labels[:FEW]).tolist() == [5, 5]
    assert pt.min() > 70
    assert np.all((m0 > 0) & (m0 < pt))
    assert np.all(energies.reshape(15, -1).max(axis=1) > 0.01)
    blocks = energies[:, 2].reshape(15, 25, 5, 25, 5)
    assert np.all(blocks == blocks[:, :, :1, :, :1])
    assert simulated.startswith("Simulated stand-in jets, not CMS data: Pythia 8")
    assert "pythia8mc 8.317" in simulated
    assert (attrs["simulation_seed"], attrs["simulation_process"]) == (4, "qg")
    assert [path.name for path in file.parent.iterdir()] == ["jets.hdf5"]


def test_a_block_does_not_depend_on_what_else_is_made(file, small_blocks):
    alone = make_block(settings(), 1, empty_pool())
    assert same_bits(alone.energies[:5], read(file)[0][FEW:])
    other = make_block(settings(seed=5), 1, empty_pool())
    assert not np.array_equal(alone.energies, other.energies)


@pytest.mark.integration
def test_a_stopped_run_goes_on_where_it_was(file, tmp_path, monkeypatch):
    make, made = generate.make_block, []

    def stopping(chosen, number, pool):
        if number == 1 and len(made) < 2:
            made.append("stopped")
            raise KeyboardInterrupt
        made.append(number)
        return make(chosen, number, pool)

    monkeypatch.setattr(generate, "make_block", stopping)
    with pytest.raises(KeyboardInterrupt):
        simulate(settings(), tmp_path / "stopped.hdf5")
    assert not (tmp_path / "stopped.hdf5").exists()
    with pytest.raises(ValueError, match="simulation_seed was 4 and is now 9"):
        simulate(settings(seed=9), tmp_path / "stopped.hdf5")
    simulate(settings(), tmp_path / "stopped.hdf5")
    assert made == [0, "stopped", 1]
    assert (tmp_path / "stopped.hdf5").read_bytes() == file.read_bytes()


@pytest.mark.integration
def test_shards_hold_the_jets_of_the_whole(file, small_blocks, tmp_path):
    parts = []
    for number in (1, 2):
        simulate(settings(), tmp_path / f"{number}.hdf5", shard=(number, 2))
        parts.append(read(tmp_path / f"{number}.hdf5"))
        assert parts[-1][4]["simulation_shard"] == f"{number}/2"
    for whole, first, second in zip(read(file)[:4], *(part[:4] for part in parts), strict=True):
        assert same_bits(whole.astype(np.float32), np.concatenate([first, second]).astype(np.float32))


def test_shards_that_cannot_be_are_refused(monkeypatch):
    monkeypatch.setattr(generate, "JETS_PER_BLOCK", 500)
    assert [len(shard_blocks(5001, number, 3)) for number in (1, 2, 3)] == [3, 4, 4]
    with pytest.raises(ValueError, match="i from 1 to n"):
        shard_blocks(5000, 0, 4)
    with pytest.raises(ValueError, match="600 jets are 2 blocks of 500, which make 2 shards at most, not 4"):
        shard_blocks(600, 1, 4)


@pytest.mark.integration
def test_every_qcd_scatter_can_be_had(tmp_path, small_blocks):
    simulate(settings(20, process="dijet"), tmp_path / "jets.hdf5")
    assert set(read(tmp_path / "jets.hdf5")[1]) == {0, 1}


@pytest.mark.integration
def test_other_thresholds_move_the_jets(tmp_path, small_blocks):
    simulate(settings(10, pt_min=200.0), tmp_path / "jets.hdf5")
    assert read(tmp_path / "jets.hdf5")[2].min() > 200


@pytest.mark.integration
def test_pileup_adds_tracks_everywhere():
    pool = make_shard(0, 40)
    with_pileup, without = make_block(settings(pileup=22.0), 0, pool), make_block(settings(), 0, empty_pool())
    corner = np.s_[:, 0, :30, :30]
    assert np.count_nonzero(with_pileup.energies[corner]) > 5 * np.count_nonzero(without.energies[corner])
    assert with_pileup.pt.min() > 70


@pytest.mark.integration
def test_files_of_all_seeds_share_a_pool_that_is_made_once(tmp_path, small_blocks, small_pool):
    simulate(settings(10, pileup=22.0), tmp_path / "one.hdf5")
    shards = prepare_pool(None)  # nothing is left to make
    assert [np.diff(load_pool(shard).track_offsets).size for shard in shards] == [20, 20]
    written = [shard.stat().st_mtime_ns for shard in shards]
    simulate(settings(10, seed=5, pileup=22.0), tmp_path / "other.hdf5")
    assert [shard.stat().st_mtime_ns for shard in shards] == written
    one, other = (read(tmp_path / name)[0] for name in ("one.hdf5", "other.hdf5"))
    assert not np.array_equal(one, other)


@pytest.mark.integration
def test_the_command_makes_a_file_and_tells_its_size(tmp_path, small_blocks, capsys):
    path = tmp_path / "jets.hdf5"
    main(["simulate", str(path), "--num-jets", "10", "--seed", "2", "--pileup", "0"])
    assert "10 jets" in capsys.readouterr().out
    assert len(read(path)[1]) == 10
    with pytest.raises(SystemExit):
        main(["simulate", str(path), "--num-jets", "10", "--seed", "2", "--pileup", "0"])
    assert "exists" in capsys.readouterr().err


def test_the_fault_of_a_missing_library_is_told_with_its_cure(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastjet", None)
    with pytest.raises(SystemExit):
        main(["simulate", str(tmp_path / "jets.hdf5"), "--num-jets", "10"])
    message = capsys.readouterr().err
    assert "fastjet" in message
    assert "pip install 'jet-diffusion[simulation]'" in message
    assert list(tmp_path.iterdir()) == []
