from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import small_pipeline

from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.data.files.streamed import LANES, SHARDS_HELD
from jet_diffusion.pipelines.notebook_baselines import ChannelMaxGrid
from jet_diffusion.pipelines.tower_representations import PixelGrid
from jet_diffusion.training.batches import GlobalBatches, Noiser, SparseBatch, batch_loader
from jet_diffusion.training.fit import fit_representation

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pipeline(converted_folder):
    return small_pipeline(converted_folder)


@pytest.fixture(scope="module")
def jets(converted_folder):
    return JetDataset.load(converted_folder, "train")


def noiser(pipeline, **settings):
    return Noiser(pipeline.representation, pipeline.denoiser, CPU, **{"batch_size": 16, "seed": 5, **settings})


def noisy_steps(jets, noise, steps):
    batches = GlobalBatches(len(jets), 16, 5)
    return [noise(SparseBatch.pack(batches.positions(step), jets)) for step in range(steps)]


def sequence(batches, steps):
    """Step, slot and row of every jet that a process sees."""
    found = [batches.positions(step, micro) for step in steps for micro in range(batches.accumulation)]
    return [(part.step, *pair) for part in found for pair in zip(part.slots, part.rows, strict=True)]


@given(
    num_jets=st.integers(1, 50),
    per_process=st.integers(1, 4),
    processes=st.integers(1, 4),
    accumulation=st.integers(1, 3),
    first=st.integers(0, 20),
)
def test_processes_and_resumes_see_one_sequence(num_jets, per_process, processes, accumulation, first):
    batch_size = per_process * processes * accumulation
    whole = sequence(GlobalBatches(num_jets, batch_size, 7), range(25))
    rest = [
        GlobalBatches(num_jets, batch_size, 7, process=p, processes=processes, accumulation=accumulation)
        for p in range(processes)
    ]
    seen = [place for batches in rest for place in sequence(batches, range(first, 25))]
    assert sorted(seen) == whole[first * batch_size :]


@given(num_jets=st.integers(1, 40), batch_size=st.integers(1, 20))
def test_every_epoch_is_a_permutation(num_jets, batch_size):
    steps = -(-3 * num_jets // batch_size)
    order = [row for _, _, row in sequence(GlobalBatches(num_jets, batch_size, 1), range(steps))]
    epochs = [order[start : start + num_jets] for start in (0, num_jets, 2 * num_jets)]
    assert all(Counter(epoch) == Counter(range(num_jets)) for epoch in epochs)
    if num_jets > 8:
        assert epochs[0] != epochs[1]


@given(
    shards=st.lists(st.integers(1, 9), min_size=1, max_size=40),
    per_process=st.integers(1, 4),
    processes=st.integers(1, 4),
    accumulation=st.integers(1, 3),
    first=st.integers(0, 20),
)
def test_processes_and_resumes_see_one_sequence_of_streamed_jets(shards, per_process, processes, accumulation, first):
    num_jets, batch_size = sum(shards), per_process * processes * accumulation
    whole = sequence(GlobalBatches(num_jets, batch_size, 7, shards=shards), range(25))
    shares = {"processes": processes, "accumulation": accumulation, "shards": shards}
    rest = [GlobalBatches(num_jets, batch_size, 7, process=p, **shares) for p in range(processes)]
    seen = [place for batches in rest for place in sequence(batches, range(first, 25))]
    assert sorted(seen) == whole[first * batch_size :]
    order = [row for _, _, row in whole]
    for start in range(0, len(order) - num_jets + 1, num_jets):
        assert sorted(order[start : start + num_jets]) == list(range(num_jets))


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_a_process_streams_its_own_shards_and_few_at_once(processes):
    shards, batch_size, accumulation = [100 + number % 7 for number in range(80)], 64, 2
    shard_of = np.repeat(np.arange(80), shards)
    steps = sum(shards) // batch_size
    read = []
    for process in range(processes):
        shares = {"process": process, "processes": processes, "accumulation": accumulation, "shards": shards}
        batches = GlobalBatches(sum(shards), batch_size, 3, **shares)
        parts = [[shard_of[batches.positions(step, micro).rows] for micro in (0, 1)] for step in range(steps)]
        drawn = [set(np.concatenate(part)) for part in parts]
        assert max(map(len, drawn)) <= 2 * LANES // processes <= SHARDS_HELD
        assert np.mean([len(shards) for shards in drawn]) > 0.9 * LANES / processes
        held, misses = [], 0
        for shard in (shard for part in parts for micro in part for shard in np.unique(micro)):
            misses += shard not in held
            held = [*(other for other in held if other != shard), shard][-SHARDS_HELD:]
        read.append(set.union(*drawn))
        assert misses <= len(read[-1]) + LANES, "each is read once, except where it reaches into two lanes"
    assert sum(map(len, read)) <= len(shards) + processes, "a process reads its own and at most one that it shares"


def test_what_a_loader_process_cannot_read_is_handed_on(jets):
    class Cut(JetDataset):
        def hits(self, indices):
            raise ConnectionError("the Hub cannot be reached")

    batches = GlobalBatches(len(jets), 16, 5)
    loader = batch_loader(Cut(jets.dataset), batches, range(2), num_workers=1, pin=False)
    error = next(iter(loader))
    assert isinstance(error, ConnectionError) and str(error) == "the Hub cannot be reached"


def test_noise_belongs_to_seed_step_and_slot(jets, pipeline):
    positions = GlobalBatches(len(jets), 16, 5).positions(0)
    noise = noiser(pipeline, condition_drop=0.5)
    sparse = SparseBatch.pack(positions, jets)
    whole, part = noise(sparse), noise(SparseBatch.pack(positions.part(slice(4, 9)), jets))
    for left, right in zip(whole, part, strict=True):
        assert torch.equal(left[4:9], right)
    elsewhere = noise(sparse._replace(step=1))
    assert torch.equal(elsewhere.x_0, whole.x_0)
    for name in ("noise", "timesteps", "dropped"):
        assert not torch.equal(getattr(elsewhere, name), getattr(whole, name))
    assert not torch.equal(noiser(pipeline, seed=6)(sparse).noise, whole.noise)
    assert not torch.equal(whole.noise[0], whole.noise[1])


@pytest.mark.parametrize("kind", ["TowerPatches", PixelGrid, ChannelMaxGrid])
def test_a_sparse_batch_is_the_dense_jets(jets, pipeline, kind):
    positions = GlobalBatches(len(jets), 16, 5).positions(0)
    energies = torch.from_numpy(jets.energies(positions.rows))
    representation = pipeline.representation
    if kind != "TowerPatches":
        representation = fit_representation(kind, [energies])
    sparse = SparseBatch.pack(positions, jets)
    assert sparse.numbers.nbytes < 6000 * len(positions.rows)
    hits = sparse.hits()
    assert torch.equal(hits.energies(), energies)
    assert torch.equal(representation.encode_hits(hits), representation.encode(energies))
    if kind != ChannelMaxGrid:
        torch.testing.assert_close(representation.ring_sums_of_hits(hits), representation.ring_sums(energies))
    slots, labels, pt, m0 = sparse.slots_and_conditions()
    assert slots.tolist() == positions.slots.tolist()
    assert labels.tolist() == jets.labels[positions.rows].tolist()
    assert pt.tolist() == jets.pt[positions.rows].tolist()
    assert m0.tolist() == jets.m0[positions.rows].tolist()


def test_hits_without_energy_are_none_and_negative_ones_become_nan(jets, pipeline):
    hits = SparseBatch.pack(GlobalBatches(len(jets), 4, 5).positions(0), jets).hits()
    energy = hits.energy.clone()
    energy[0], energy[1] = -0.0, -1.0
    changed = hits._replace(energy=energy)
    removed = pipeline.representation.encode_hits(changed) != pipeline.representation.encode_hits(hits)
    assert removed.sum() == 2
    assert pipeline.representation.encode_hits(changed).isnan().sum() == 1
    counts = pipeline.representation.ring_sums_of_hits(hits._replace(energy=torch.where(energy < 0, 0, energy)))
    assert counts[0, : counts.shape[1] // 2].sum() == hits.jet.eq(0).sum() + hits.tower_jet.eq(0).sum() - 2


def test_noise_is_unit_gaussian_and_timesteps_uniform(jets, pipeline):
    batches = noisy_steps(jets, noiser(pipeline), 60)
    noise = torch.cat([batch.noise for batch in batches])
    assert abs(noise.mean()) < 1e-3
    assert abs(noise.std() - 1) < 1e-3
    timesteps = torch.cat([batch.timesteps for batch in batches])
    counts = torch.bincount(timesteps // 100, minlength=10)
    assert len(counts) == 10
    assert (counts - 96).abs().max() < 15
    spread = batches[0].timesteps.sort().values.diff()
    assert spread.max() <= 63  # sixteen of a thousand, evenly spread


def test_small_noise_levels_can_be_left_out(jets, pipeline):
    (batch,) = noisy_steps(jets, noiser(pipeline, min_ratio=1.0), 1)
    alpha, sigma = pipeline.denoiser.noise_level(batch.timesteps)
    assert (sigma / alpha).min() >= 1
    with pytest.raises(ValueError, match="min_ratio"):
        noiser(pipeline, min_ratio=1e9)


def test_low_noise_can_be_trained_on_more_often(jets, pipeline):
    batches = noisy_steps(jets, noiser(pipeline, timestep_power=2.0), 60)
    timesteps = torch.cat([batch.timesteps for batch in batches])
    assert (timesteps < 250).float().mean() == pytest.approx(0.5, abs=0.01)
    assert timesteps.max() > 950


def test_conditions_are_dropped_as_often_as_asked(jets, pipeline):
    dropped = torch.cat([batch.dropped for batch in noisy_steps(jets, noiser(pipeline, condition_drop=0.25), 40)])
    assert 0.18 < dropped.float().mean() < 0.32


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_loader_gives_batches_in_order_and_spares_the_global_random_state(jets, num_workers):
    batches = GlobalBatches(len(jets), 16, 5, accumulation=2)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    loaded = list(batch_loader(jets, batches, range(3, 5), num_workers, pin=False))
    assert torch.equal(torch.get_rng_state(), before)
    expected = [batches.positions(step, micro) for step in (3, 4) for micro in (0, 1)]
    for batch, positions in zip(loaded, expected, strict=True):
        assert isinstance(batch, SparseBatch)
        assert batch.step == positions.step
        assert torch.equal(batch.numbers, SparseBatch.pack(positions, jets).numbers)
        assert np.array_equal(batch.slots_and_conditions()[0], positions.slots)
