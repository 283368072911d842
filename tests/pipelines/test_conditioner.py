from __future__ import annotations

import pytest
import torch

from jet_diffusion.pipelines.conditioner import NEIGHBOURS, Conditioner
from jet_diffusion.pipelines.jet_image_pipeline import jet_generators


@pytest.fixture
def conditioner():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(2000) % 2
    pt = 70 + 100 * torch.rand(2000, generator=generator)
    m0 = 0.15 * pt + 4 * labels + torch.rand(2000, generator=generator)
    torch.manual_seed(0)
    return Conditioner.fit(labels, pt, m0, embedding_dim=16)


def test_every_condition_moves_the_embedding(conditioner):
    base = conditioner(torch.tensor([0]), torch.tensor([100.0]), torch.tensor([20.0]))
    for changed in ((1, 100.0, 20.0), (0, 101.0, 20.0), (0, 100.0, 21.0)):
        label, pt, m0 = (torch.tensor([value]) for value in changed)
        assert not torch.allclose(conditioner(label, pt, m0), base, atol=1e-4)


def test_dropped_conditions_leave_no_trace(conditioner):
    conditions = torch.tensor([0, 1, 1]), torch.tensor([80.0, 100, 120]), torch.tensor([10.0, 20, 30])
    embedding = conditioner(*conditions, dropped=torch.tensor([True, False, True]))
    assert torch.equal(embedding[0], embedding[2])
    assert torch.equal(embedding[1], conditioner(*conditions)[1])


def test_the_table_is_exact_after_saving_and_in_half_precision(conditioner, tmp_path):
    conditioner.save_pretrained(tmp_path)
    again = Conditioner.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    for column, kept, cast in zip(
        conditioner.table(), again.table(), conditioner.to(torch.bfloat16).table(), strict=False
    ):
        assert torch.equal(column, kept)
        assert torch.equal(column, cast)


def test_nothing_given_draws_whole_training_rows(conditioner):
    rows = set(zip(*(column.tolist() for column in conditioner.table()), strict=True))
    drawn = conditioner.draw(jet_generators(0, 0, 300))[:3]
    drawn_rows = list(zip(*(column.tolist() for column in drawn), strict=True))
    assert set(drawn_rows) <= rows
    assert len(set(drawn_rows)) > 200
    assert 100 < sum(label for label, _, _ in drawn_rows) < 200


def test_the_missing_is_drawn_given_the_rest(conditioner):
    generators = jet_generators(0, 0, 50)
    labels, pt, m0, _ = conditioner.draw(
        generators, labels=torch.ones(50, dtype=torch.int64), pt=torch.full((50,), 120.0)
    )
    assert (labels == 1).all()
    assert (pt == 120).all()
    assert (m0 - (0.15 * 120 + 4 + 0.5)).abs().max() < 1.5  # the class's own masses at this pT
    labels, pt, m0, _ = conditioner.draw(generators, m0=torch.full((50,), 25.0))
    assert (m0 == 25).all()
    assert 0 < labels.sum() < 50
    assert pt[labels == 1].mean() < pt[labels == 0].mean() - 10  # quarks are heavier here, so softer at one mass


def test_draws_belong_to_the_jet_not_the_batch(conditioner):
    together = conditioner.draw(jet_generators(3, 0, 10))
    apart = conditioner.draw(jet_generators(3, 4, 3))
    for left, right in zip(together, apart, strict=True):
        assert torch.equal(left[4:7], right)


def test_draws_come_from_the_nearest(conditioner):
    _, table_pt, _ = conditioner.table()
    _, _, m0, _ = conditioner.draw(jet_generators(0, 0, 400), pt=torch.full((400,), 100.0))
    nearest = (table_pt.log() - torch.tensor(100.0).log()).abs().topk(NEIGHBOURS, largest=False).indices
    assert set(m0.tolist()) <= set(conditioner.table()[2][nearest].tolist())


def test_extrapolation_is_said(conditioner, caplog):
    conditioner.draw(jet_generators(0, 0, 2), pt=torch.tensor([500.0, 100.0]))
    assert "1 of 2 jets ask for a pt outside" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": [0, 2]}, "labels must be"),
        ({"labels": "charm"}, "labels must be"),
        ({"labels": [[0]]}, "labels must be"),
        ({"pt": -1.0}, "pt must be positive"),
        ({"pt": [100.0, float("nan")]}, "pt must be positive"),
        ({"m0": [[1.0]]}, "m0 must be positive"),
        ({"m0": 0.0}, "m0 must be positive"),
    ],
)
def test_bad_conditions_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Conditioner.parse(**{"labels": None, "pt": None, "m0": None, **arguments})


def test_names_and_numbers_mean_the_same():
    labels, pt, m0 = Conditioner.parse(["gluon", 1, "quark"], 100, None)
    assert labels.tolist() == [0, 1, 1]
    assert pt.item() == 100
    assert m0 is None


def test_a_class_without_training_jets_cannot_be_asked_for():
    gluons = Conditioner.fit(torch.zeros(5), torch.rand(5) + 80, torch.rand(5) + 9, embedding_dim=4)
    with pytest.raises(ValueError, match="no training jet has label 1"):
        gluons.draw(jet_generators(0, 0, 1), labels=torch.ones(1, dtype=torch.int64))


@pytest.fixture(params=[3, 9], ids=["of channels", "of rings"])
def with_totals(request):
    generator = torch.Generator().manual_seed(1)
    pt = 70 + 100 * torch.rand(1000, generator=generator)
    shape = (1000, request.param)
    totals = torch.cat([torch.randint(0, 300, shape, generator=generator), torch.rand(shape) * pt[:, None]], 1)
    return Conditioner.fit(torch.arange(1000) % 2, pt, 0.2 * pt, totals, embedding_dim=16)


def test_totals_are_drawn_with_the_rest_of_a_training_jet(with_totals, tmp_path):
    with_totals.save_pretrained(tmp_path)
    again = Conditioner.from_pretrained(tmp_path)
    columns = (*again.table(), *again.totals_table().unbind(1))
    rows = set(zip(*(column.tolist() for column in columns), strict=True))
    drawn = again.draw(jet_generators(0, 0, 100))
    drawn_columns = (*drawn[:3], *drawn.totals.unbind(1))
    assert set(zip(*(column.tolist() for column in drawn_columns), strict=True)) <= rows


def test_drawn_energies_follow_the_asked_pt_and_given_totals_stay(with_totals):
    regions = with_totals.num_totals // 2
    asked = torch.full((20, 2 * regions), torch.nan)
    asked[:, 0] = 42.0
    pt = torch.full((20,), 340.0)
    drawn = with_totals.draw(jet_generators(0, 0, 20), torch.ones(20, dtype=torch.int64), pt, 0.2 * pt, asked)
    assert torch.equal(drawn.totals[:, 0], asked[:, 0])
    table_labels, table_pt, _ = with_totals.table()
    shares = with_totals.totals_table()[:, regions:] / table_pt[:, None]
    for jet in drawn.totals:
        nearest = (shares[table_labels == 1] - jet[regions:] / 340).abs().sum(1).min()
        assert nearest < 1e-5
    hits = drawn.totals[:, 1:regions]
    assert hits.round().equal(hits)


def test_totals_move_the_embedding(with_totals):
    conditions = torch.tensor([1]), torch.tensor([100.0]), torch.tensor([20.0])
    regions = with_totals.num_totals // 2
    totals = torch.tensor([[50.0, 200, 10, 60, 30, 10]]).repeat_interleave(regions // 3, 1)
    base = with_totals(*conditions, totals)
    for place in range(2 * regions):
        changed = totals.clone()
        changed[0, place] *= 1.5
        assert not torch.allclose(with_totals(*conditions, changed), base, atol=1e-4)
