"""Random numbers by counter: published vectors, numpy's own, independence of batch and device, their distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jet_diffusion.pipelines.random_numbers import (
    RandomNumbers,
    as_int64,
    philox,
    wide_product,
    words_of_numpy,
    words_of_torch,
)

WORD = st.integers(0, 2**64 - 1)
SEED = st.integers(0, 2**63 - 1)
STEP = st.integers(-1, 2**63 - 1)
JETS = st.lists(st.tuples(SEED, SEED), min_size=1, max_size=5)

# counter, key, result: of Random123's kat_vectors, philox4x64 10
KNOWN_ANSWERS = [
    (
        (0, 0, 0, 0),
        (0, 0),
        (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B),
    ),
    (
        (2**64 - 1,) * 4,
        (2**64 - 1,) * 2,
        (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0),
    ),
    (
        (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89),
        (0x452821E638D01377, 0xBE5466CF34E90C6C),
        (0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6),
    ),
]


def of_words(words: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor([as_int64(word) for word in words])


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN_ANSWERS)
def test_published_vectors(counter, key, result):
    assert torch.equal(philox(of_words(counter), of_words(key)), of_words(result))


def numbers_of(pairs: list[tuple[int, int]]) -> RandomNumbers:
    seeds, jets = torch.tensor(pairs).unbind(1)
    return RandomNumbers(seeds, jets)


@given(a=WORD, b=WORD)
def test_wide_product_is_that_of_whole_numbers(a, b):
    high, low = (int(part) % 2**64 for part in wide_product(of_words((a,)), of_words((b,))))
    assert (high << 64) + low == a * b


@given(jets=JETS, purpose=WORD, step=STEP, count=st.integers(1, 23))
def test_a_cpu_and_other_devices_have_the_same_words(jets, purpose, step, count):
    numbers = numbers_of(jets)
    of_cpu, of_others = (make(numbers, purpose, count, step) for make in (words_of_numpy, words_of_torch))
    assert of_cpu.shape == (len(jets), count)
    assert of_others.view(torch.int32).shape == (len(jets), 2 * count)
    assert torch.equal(of_cpu, of_others)


@given(key=st.tuples(SEED, WORD), jet=SEED, step=st.integers(0, 2**63 - 1), count=st.integers(1, 23))
def test_words_are_numpys(key, jet, step, count):
    words = words_of_torch(numbers_of([(key[0], jet)]), key[1], count, step)
    of_numpy = np.random.Philox(key=np.array(key, np.uint64), counter=np.array([0, step, jet, 0], np.uint64))
    first = [int(word) for word in of_numpy.random_raw(count + 4)]  # numpy counts on before it draws: block 1 is first
    later = words_of_torch(numbers_of([(key[0], jet)]), key[1], count + 4, step)[0]
    assert first[:count] == [int(word) % 2**64 for word in later[4:]]
    assert torch.equal(words[0], later[:count])


@given(jets=JETS, data=st.data())
def test_a_jet_has_its_numbers_in_any_batch_and_order(jets, data):
    numbers = numbers_of(jets)
    order = data.draw(st.lists(st.integers(0, len(jets) - 1), min_size=1, max_size=8))
    assert torch.equal(numbers[torch.tensor(order)].uniform("order", 7), numbers.uniform("order", 7)[order])
    drawn = numbers[torch.tensor(order)].normal("order", (3, 5, 7))
    torch.testing.assert_close(drawn, numbers.normal("order", (3, 5, 7))[order], rtol=1e-5, atol=1e-6)


def test_a_jet_has_its_numbers_in_a_batch_made_in_parts():
    numbers = RandomNumbers.of_seed(7, 0, 5)
    together = numbers.normal("noise", (51, 28, 28), step=3)
    apart = torch.cat([numbers[row : row + 1].normal("noise", (51, 28, 28), step=3) for row in range(5)])
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-6)


@given(seed=st.integers(0, 2**40), jet=st.integers(0, 2**40), step=st.integers(0, 2**40))
@settings(max_examples=20)
def test_seed_jet_purpose_and_step_each_give_other_numbers(seed, jet, step):
    keys = [(seed, jet, "noise", step), (seed + 1, jet, "noise", step), (seed, jet + 1, "noise", step)]
    keys += [(seed, jet, "other", step), (seed, jet, "noise", step + 1)]
    rows = [numbers_of([(s, j)]).uniform(purpose, 3, at) for s, j, purpose, at in keys]
    assert len({tuple(row[0].tolist()) for row in rows}) == len(keys)


def test_an_odd_count_and_no_more_than_asked_for():
    numbers = RandomNumbers.of_seed(1, 0, 2)
    assert numbers.uniform("odd", 5).shape == (2, 5)
    assert numbers.normal("odd", (5,)).shape == (2, 5)
    assert numbers.normal("one", ()).shape == (2,)


def test_a_long_purpose_is_refused():
    with pytest.raises(ValueError, match="at most 8 characters"):
        RandomNumbers.of_seed(1, 0, 2).uniform("ninechars", 1)


def test_uniform_numbers_are_uniform_and_never_0_or_1():
    uniform = RandomNumbers.of_seed(11, 0, 20).uniform("uniform", 10_000)
    assert ((uniform > 0) & (uniform < 1)).all()
    assert stats.kstest(uniform.flatten().numpy(), "uniform").pvalue > 1e-3


def test_normal_numbers_are_normal_in_their_tails_too():
    normal = RandomNumbers.of_seed(12, 0, 20).normal("normal", (50_000,)).double().flatten()
    assert stats.kstest(normal.numpy(), "norm").pvalue > 1e-3
    for limit in (3.0, 4.0):
        expected = 2 * stats.norm.sf(limit) * len(normal)
        assert abs(int((normal.abs() > limit).sum()) - expected) < 4 * expected**0.5


@pytest.mark.parametrize("other", [(0, 1, 0), (1, 0, 0), (0, 0, 1)], ids=["jet", "seed", "step"])
def test_neighbouring_keys_are_not_correlated(other):
    seed, jet, step = other
    count = 100_000
    one = RandomNumbers.of_seed(0, 0, 1).normal("noise", (count,))[0]
    two = RandomNumbers.of_seed(seed, jet, 1).normal("noise", (count,), step)[0]
    assert abs(float((one * two).mean())) < 4 / count**0.5


def test_numbers_need_no_copy_to_another_device():
    """The meta device refuses to give values back: whatever waited for one would fail."""
    numbers = RandomNumbers.of_seed(3, 5, 4, device="meta")
    assert numbers.normal("noise", (2, 3)).shape == (4, 2, 3)
    assert numbers.uniform("noise", 3).device.type == "meta"
