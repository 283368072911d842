from __future__ import annotations

import pytest
import torch

from jet_diffusion.pipelines.first_stage import Conditions, FirstStage
from jet_diffusion.pipelines.random_numbers import RandomNumbers
from jet_diffusion.training.first_stage import fit_first_stage

RINGS = 2


def training_jets(count=2000):
    """Jets whose numbers depend on one another: heavier quarks, hits that rise with pT, a ring that is often empty."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    pt = 70 + 100 * torch.rand(count, generator=generator)
    m0 = 0.15 * pt + 4 * labels + torch.rand(count, generator=generator)
    hits = torch.poisson(torch.stack([pt / 5, 0.5 + labels], 1), generator=generator)
    energies = hits * (1 + torch.rand(count, RINGS, generator=generator))
    return Conditions(labels, pt, m0, torch.cat([hits, energies], 1))


@pytest.fixture(scope="module")
def jets():
    return training_jets()


@pytest.fixture(scope="module")
def stage(jets):
    return fit_first_stage(jets, seed=0)


def same(left, right):
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_nothing_given_draws_jets_like_the_training_jets(stage, jets):
    drawn = stage.draw(RandomNumbers.of_seed(0, 0, 1000))
    assert drawn.labels.float().mean().item() == pytest.approx(0.5, abs=0.06)
    assert drawn.pt.mean().item() == pytest.approx(jets.pt.mean().item(), rel=0.03)
    hits, energies = drawn.ring_sums.chunk(2, 1)
    assert torch.equal(hits, hits.round())
    assert (hits >= 0).all()
    assert ((energies == 0) == (hits == 0)).all()
    real, _ = jets.ring_sums.chunk(2, 1)
    assert hits.mean(0).tolist() == pytest.approx(real.mean(0).tolist(), rel=0.08)
    correlation = torch.corrcoef(torch.stack([drawn.pt, hits[:, 0]]))[0, 1].item()
    assert correlation == pytest.approx(torch.corrcoef(torch.stack([jets.pt, real[:, 0]]))[0, 1].item(), abs=0.1)


def test_training_lowers_the_likelihood_of_what_it_has_not_seen(stage, jets):
    independent = fit_first_stage(jets, seed=0, train=False)
    generator = torch.Generator().manual_seed(9)
    rows = torch.randperm(2000, generator=generator)[:500]
    held_out = Conditions(*(column[rows] for column in training_jets(4000)))
    losses = [each.negative_log_likelihood(held_out).sum(1).mean().item() for each in (stage, independent)]
    assert losses[0] < losses[1] - 0.5


def test_what_is_given_stays_to_the_bit(stage, jets):
    part = Conditions(*(column[:40] for column in jets))
    assert same(stage.draw(RandomNumbers.of_seed(0, 0, 40), *part), part)
    asked = torch.full((40, 2 * RINGS), torch.nan)
    asked[:, 0] = 42.0
    drawn = stage.draw(RandomNumbers.of_seed(0, 0, 40), part.labels, part.pt, part.m0, asked)
    assert same(drawn[:3], part[:3])
    assert (drawn.ring_sums[:, 0] == 42).all()
    assert drawn.ring_sums.isfinite().all()


def test_the_missing_is_drawn_given_the_rest(stage):
    quarks = torch.ones(200, dtype=torch.int64)
    drawn = stage.draw(RandomNumbers.of_seed(0, 0, 200), labels=quarks, pt=torch.full((200,), 120.0))
    assert (drawn.labels == 1).all()
    assert (drawn.pt == 120).all()
    assert drawn.m0.mean().item() == pytest.approx(0.15 * 120 + 4.5, abs=0.6)
    assert drawn.ring_sums[:, 0].mean().item() == pytest.approx(24, rel=0.1)


def test_a_given_mass_tells_of_the_class_and_pt_before_it(stage):
    drawn = stage.draw(RandomNumbers.of_seed(0, 0, 300), m0=torch.full((300,), 25.0))
    assert (drawn.m0 == 25).all()
    quark, gluon = drawn.pt[drawn.labels == 1].mean().item(), drawn.pt[drawn.labels == 0].mean().item()
    assert quark == pytest.approx(20.5 / 0.15, rel=0.06)  # m0 = 0.15 pt + 4 + about a half
    assert gluon == pytest.approx(24.5 / 0.15, rel=0.06)


def test_draws_belong_to_the_jet_not_the_batch(stage):
    for given in ({}, {"pt": 100.0}):
        together, apart = (
            stage.draw(RandomNumbers.of_seed(3, first, count), **{k: torch.full((count,), v) for k, v in given.items()})
            for first, count in ((0, 10), (4, 3))
        )
        for left, right in zip(together, apart, strict=True):
            assert torch.allclose(left[4:7].float(), right.float(), rtol=1e-4)


def test_energies_grow_with_a_pt_beyond_the_training_jets(stage, caplog):
    pt = torch.full((300,), 400.0)
    drawn = stage.draw(RandomNumbers.of_seed(0, 0, 300), pt=pt, labels=torch.ones(300, dtype=torch.int64))
    assert "300 of 300 jets ask for a pt outside" in caplog.text
    at_the_edge = stage.draw(RandomNumbers.of_seed(0, 0, 300), pt=pt.clamp(max=169.9), labels=drawn.labels)
    ratio = drawn.ring_sums[:, RINGS].mean() / at_the_edge.ring_sums[:, RINGS].mean()
    assert ratio.item() == pytest.approx(400 / 170, rel=0.1)


def test_a_class_without_training_jets_cannot_be_asked_for(jets):
    gluons = Conditions(*(column[jets.labels == 0] for column in jets))
    model = fit_first_stage(gluons, seed=0, train=False)
    assert (model.draw(RandomNumbers.of_seed(0, 0, 5)).labels == 0).all()
    with pytest.raises(ValueError, match="no training jet has label 1"):
        model.draw(RandomNumbers.of_seed(0, 0, 1), labels=torch.ones(1, dtype=torch.int64))


def test_without_rings_it_draws_class_pt_and_mass(jets):
    model = fit_first_stage(jets._replace(ring_sums=torch.zeros(len(jets.labels), 0)), seed=0)
    drawn = model.draw(RandomNumbers.of_seed(0, 0, 200))
    assert drawn.ring_sums.shape == (200, 0)
    assert drawn.m0.mean().item() == pytest.approx(jets.m0.mean().item(), rel=0.05)


def test_it_draws_the_same_after_saving_and_in_half_precision(stage, tmp_path):
    stage.save_pretrained(tmp_path)
    drawn = stage.draw(RandomNumbers.of_seed(0, 0, 20))
    for precision in (torch.float32, torch.bfloat16):
        again = FirstStage.from_pretrained(tmp_path, torch_dtype=precision)
        assert same(again.draw(RandomNumbers.of_seed(0, 0, 20)), drawn)


def test_the_weights_hold_no_training_jet(stage, jets):
    size = sum(tensor.numel() for tensor in stage.state_dict().values())
    more = fit_first_stage(training_jets(4000), seed=0, train=False)
    assert size == sum(tensor.numel() for tensor in more.state_dict().values())
    columns = stage.quantiles.T  # row i holds the i-th quantile of every number, which no one jet has
    rows = {tuple(row) for row in stage.as_values(jets).tolist()}
    assert not rows & {tuple(row) for row in columns.tolist()}


def test_probabilities_of_hit_counts_add_up_to_one(stage, jets):
    low, high = (int(count) for count in jets.ring_sums[:, 0].aminmax())
    counts = torch.arange(low, high + 1)
    one = Conditions(*(column[:1].repeat_interleave(len(counts), 0) for column in jets))
    ring_sums = one.ring_sums.clone()
    ring_sums[:, 0] = counts
    loss = stage.negative_log_likelihood(one._replace(ring_sums=ring_sums))
    assert loss[:, 2].neg().exp().sum().item() == pytest.approx(1, abs=1e-3)
