from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import small_pipeline

from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.training.batches import GlobalBatches, NoisyBatch, NoisyJets, batch_loader


@pytest.fixture(scope="module")
def pipeline(converted_folder):
    return small_pipeline(converted_folder)


def noisy_jets(folder, pipeline, **settings):
    jets = JetDataset.load(folder, "train")
    return NoisyJets(jets, pipeline.representation, pipeline.denoiser, **{"batch_size": 16, "seed": 5, **settings})


def flat(batches):
    return [position for batch in batches for position in batch]


@given(
    num_jets=st.integers(1, 50),
    per_process=st.integers(1, 4),
    processes=st.integers(1, 4),
    accumulation=st.integers(1, 3),
    first=st.integers(0, 20),
)
def test_processes_and_resumes_see_one_sequence(num_jets, per_process, processes, accumulation, first):
    batch_size = per_process * processes * accumulation
    whole = flat(GlobalBatches(num_jets, batch_size, 7, range(25)))
    rest = [
        GlobalBatches(
            num_jets, batch_size, 7, range(first, 25), process=p, processes=processes, accumulation=accumulation
        )
        for p in range(processes)
    ]
    assert sorted(position for batches in rest for position in flat(batches)) == whole[first * batch_size :]
    assert all(len(list(batches)) == len(batches) for batches in rest)


@given(num_jets=st.integers(1, 40), batch_size=st.integers(1, 20))
def test_every_epoch_is_a_permutation(num_jets, batch_size):
    steps = -(-3 * num_jets // batch_size)
    order = [position.jet for position in flat(GlobalBatches(num_jets, batch_size, 1, range(steps)))]
    epochs = [order[start : start + num_jets] for start in (0, num_jets, 2 * num_jets)]
    assert all(Counter(epoch) == Counter(range(num_jets)) for epoch in epochs)
    if num_jets > 8:
        assert epochs[0] != epochs[1]


def test_noise_belongs_to_seed_step_and_place(converted_folder, pipeline):
    jets = noisy_jets(converted_folder, pipeline)
    positions = flat(GlobalBatches(len(jets.jets), 16, 5, range(1)))
    whole, part = jets.__getitems__(positions), jets.__getitems__(positions[4:9])
    for left, right in zip(whole, part, strict=True):
        assert torch.equal(left[4:9], right)
    elsewhere = jets.__getitems__([position._replace(step=1) for position in positions])
    assert torch.equal(elsewhere.x_0, whole.x_0)
    assert not torch.equal(elsewhere.noise, whole.noise)
    assert not torch.equal(elsewhere.timesteps, whole.timesteps)
    assert not torch.equal(noisy_jets(converted_folder, pipeline, seed=6).__getitems__(positions).noise, whole.noise)


def test_jets_come_with_their_own_conditions(converted_folder, pipeline):
    jets = noisy_jets(converted_folder, pipeline)
    positions = flat(GlobalBatches(len(jets.jets), 16, 5, range(1)))
    batch = jets.__getitems__(positions)
    rows = [position.jet for position in positions]
    decoded = pipeline.representation.decode(batch.x_0)
    torch.testing.assert_close(decoded, torch.from_numpy(jets.jets.energies(rows)), rtol=2e-5, atol=0)
    assert batch.labels.tolist() == jets.jets.labels[rows].tolist()
    assert batch.pt.tolist() == jets.jets.pt[rows].tolist()


def test_noise_is_unit_gaussian_and_timesteps_uniform(converted_folder, pipeline):
    jets = noisy_jets(converted_folder, pipeline)
    batches = [jets.__getitems__(batch) for batch in GlobalBatches(len(jets.jets), 16, 5, range(60))]
    noise = torch.cat([batch.noise for batch in batches])
    assert abs(noise.mean()) < 1e-3
    assert abs(noise.std() - 1) < 1e-3
    timesteps = torch.cat([batch.timesteps for batch in batches])
    counts = torch.bincount(timesteps // 100, minlength=10)
    assert len(counts) == 10
    assert (counts - 96).abs().max() < 15
    spread = batches[0].timesteps.sort().values.diff()
    assert spread.max() <= 63  # sixteen of a thousand, evenly spread


def test_small_noise_levels_can_be_left_out(converted_folder, pipeline):
    jets = noisy_jets(converted_folder, pipeline, min_ratio=1.0)
    timesteps = jets.__getitems__(flat(GlobalBatches(len(jets.jets), 16, 5, range(1)))).timesteps
    alpha, sigma = pipeline.denoiser.noise_level(timesteps)
    assert (sigma / alpha).min() >= 1
    with pytest.raises(ValueError, match="min_ratio"):
        noisy_jets(converted_folder, pipeline, min_ratio=1e9)


def test_low_noise_can_be_trained_on_more_often(converted_folder, pipeline):
    jets = noisy_jets(converted_folder, pipeline, timestep_power=2.0)
    batches = [jets.__getitems__(batch) for batch in GlobalBatches(len(jets.jets), 16, 5, range(60))]
    timesteps = torch.cat([batch.timesteps for batch in batches])
    assert (timesteps < 250).float().mean() == pytest.approx(0.5, abs=0.01)
    assert timesteps.max() > 950


def test_conditions_are_dropped_as_often_as_asked(converted_folder, pipeline):
    jets = noisy_jets(converted_folder, pipeline, condition_drop=0.25)
    dropped = torch.cat([jets.__getitems__(batch).dropped for batch in GlobalBatches(300, 16, 5, range(40))])
    assert 0.18 < dropped.float().mean() < 0.32


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_loader_gives_batches_in_order_and_spares_the_global_random_state(converted_folder, pipeline, num_workers):
    jets = noisy_jets(converted_folder, pipeline)
    batches = GlobalBatches(len(jets.jets), 16, 5, range(3))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    loaded = list(batch_loader(jets, batches, num_workers, pin=False))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(isinstance(batch, NoisyBatch) for batch in loaded)
    for batch, positions in zip(loaded, batches, strict=True):
        assert torch.equal(batch.noise, jets.__getitems__(positions).noise)
