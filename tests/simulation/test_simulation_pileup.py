"""Pile-up: turned, mirrored and added without loss; and the random streams."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("numba")

from jet_diffusion.simulation import pileup_cache
from jet_diffusion.simulation.detector.maps import empty_maps
from jet_diffusion.simulation.pileup import (
    Overlay,
    PileupPool,
    add_hcal,
    add_pileup,
    draw_overlay,
    empty_pool,
    join_pools,
    load_pool,
    save_pool,
)
from jet_diffusion.simulation.seeds import JET_STREAM, POOL_STREAM, pythia_seed, stream


def pool_of(track, crystal, tower):
    """A pool of one event with one hit in each map."""

    def hits(cell, width, energy):
        row, column = cell
        cells = np.array([row * width + column], np.int32)
        return np.array([0, 1]), cells, np.array([energy], np.float32)

    candidates = np.array([[1.0, 0.5, 0.1, 1.0]])
    return PileupPool(
        *hits(track, 360, 1.0), *hits(crystal, 360, 2.0), *hits(tower, 72, 3.0), np.array([0, 1]), candidates
    )


def overlay(turn, mirrored):
    return Overlay(np.array([0, 1]), np.array([0]), np.array([turn]), np.array([mirrored]))


@given(st.integers(0, 71), st.integers(0, 1), st.integers(0, 279), st.integers(0, 359))
def test_an_event_is_turned_by_towers_and_mirrored_in_eta(turn, mirrored, row, column):
    pool = pool_of((row, column), (row, column), (row // 5, column // 5))
    maps = empty_maps()
    add_pileup(pool, overlay(turn, mirrored), 0, maps)
    place = (279 - row if mirrored else row), (column + 5 * turn) % 360
    for image, energy in ((maps.tracks, 1.0), (maps.ecal, 2.0)):
        assert image[place] == energy
        assert image.sum() == energy
    assert maps.hcal[place[0] // 5, place[1] // 5] == 3.0  # still behind its crystals
    assert maps.hcal.sum() == 3.0


def test_events_add_up_and_can_be_scaled():
    pool = pool_of((0, 0), (0, 0), (3, 4))
    both = Overlay(np.array([0, 2]), np.array([0, 0]), np.array([1, 1]), np.array([0, 0]))
    hcal = np.zeros((56, 72))
    add_hcal(pool, both, 0, 0.5, hcal)
    assert hcal[3, 5] == 3.0


def test_the_number_of_collisions_has_the_mean_asked_for():
    drawn = draw_overlay(np.random.default_rng(1), 100, 22.0, 4000)
    counts = np.diff(drawn.offsets)
    assert counts.mean() == pytest.approx(22, rel=0.02)
    assert counts.std() == pytest.approx(np.sqrt(22 + 25), rel=0.05)  # Poisson, and its mean spread by 5
    assert len(drawn.events) == drawn.offsets[-1]
    assert set(drawn.mirrored) == {0, 1}
    assert (drawn.turns.min(), drawn.turns.max()) == (0, 71)


def test_without_a_pool_or_pileup_there_are_none():
    assert empty_pool().num_events == 0
    for events, mean in ((0, 22.0), (10, 0.0)):
        assert draw_overlay(np.random.default_rng(1), events, mean, 5).offsets.tolist() == [0] * 6


def test_a_pool_is_read_as_it_was_written(tmp_path):
    pool = pool_of((1, 2), (3, 4), (5, 6))
    save_pool(pool, tmp_path / "pool.npz")
    for written, again in zip(pool, load_pool(tmp_path / "pool.npz"), strict=True):
        np.testing.assert_array_equal(written, again)
    assert [path.name for path in tmp_path.iterdir()] == ["pool.npz"]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5))
def test_joined_pools_have_the_events_of_each(sizes):
    one = pool_of((1, 2), (3, 4), (5, 6))
    pools = [join_pools([empty_pool(), *[one] * size]) for size in sizes]
    joined = join_pools(pools)
    assert joined.num_events == sum(sizes)
    for offsets, values in ((joined.track_offsets, joined.track_values), (joined.ecal_offsets, joined.ecal_values)):
        assert [values[start:stop].size for start, stop in pairwise(offsets)] == [1] * sum(sizes)
    np.testing.assert_array_equal(joined.candidates, np.tile(one.candidates, (sum(sizes), 1)))


@pytest.fixture
def shards_made(tmp_path, monkeypatch):
    """Numbers of the shards that are made, each of one event, in a cache that starts empty."""
    made = []

    def make(number, num_events):
        made.append(number)
        return pool_of((number, 0), (number, 0), (number, 0))

    monkeypatch.setattr(pileup_cache, "make_shard", make)
    monkeypatch.setattr(pileup_cache, "POOL_SHARDS", 3)
    monkeypatch.delenv(pileup_cache.FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return made


def test_the_pool_is_made_once_in_the_users_cache(shards_made, tmp_path):
    with ThreadPoolExecutor(2) as executor:
        paths = pileup_cache.prepare_pool(executor)
        assert pileup_cache.prepare_pool(executor) == paths
    assert sorted(shards_made) == [0, 1, 2]
    assert all(path.is_relative_to(tmp_path / "jet-diffusion" / "pileup") for path in paths)
    assert pileup_cache.read_pool(paths).track_cells.tolist() == [0, 360, 720]  # in the order of their numbers


def test_only_the_shards_that_are_missing_are_made(shards_made, monkeypatch, tmp_path):
    monkeypatch.setenv(pileup_cache.FOLDER_VARIABLE, str(tmp_path / "elsewhere"))
    with ThreadPoolExecutor(1) as executor:
        paths = pileup_cache.prepare_pool(executor)
        paths[1].unlink()
        pileup_cache.prepare_pool(executor)
    assert shards_made == [0, 1, 2, 1]
    assert paths[0].parents[1] == tmp_path / "elsewhere"


@pytest.mark.parametrize("changed", ["source_digest", "libraries"])
def test_a_changed_simulation_has_a_pool_of_its_own(changed, monkeypatch):
    before = pileup_cache.pool_folder()
    if changed == "source_digest":
        monkeypatch.setattr(pileup_cache, "source_digest", lambda: "other")
    else:
        monkeypatch.setattr(pileup_cache.libraries, "versions", lambda: {"pythia8mc": "9"})
    assert pileup_cache.pool_folder().parent == before.parent
    assert pileup_cache.pool_folder() != before


def test_a_cache_that_cannot_be_written_is_told_with_its_cure(shards_made, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv(pileup_cache.FOLDER_VARIABLE, str(tmp_path / "file"))
    with ThreadPoolExecutor(1) as executor, pytest.raises(ValueError, match="name another folder in JET_DIFFUSION_P"):
        pileup_cache.prepare_pool(executor)


def test_streams_are_named_by_all_their_numbers():
    first = [stream(*name).random() for name in ((1, JET_STREAM, 2, 0), (1, JET_STREAM, 2, 0))]
    others = [stream(*name).random() for name in ((2, JET_STREAM, 2, 0), (1, POOL_STREAM, 2, 0), (1, JET_STREAM, 3, 0))]
    assert first[0] == first[1]
    assert len({first[0], *others}) == 4
    assert 1 <= pythia_seed(stream(1, JET_STREAM, 0, 0)) < 900_000_000
