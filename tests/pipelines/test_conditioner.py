from __future__ import annotations

import pytest
import torch

from jet_diffusion.pipelines.conditioner import Conditioner
from jet_diffusion.training.fit import fit_conditioner


@pytest.fixture
def conditioner():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(2000) % 2
    pt = 70 + 100 * torch.rand(2000, generator=generator)
    m0 = 0.15 * pt + 4 * labels + torch.rand(2000, generator=generator)
    torch.manual_seed(0)
    return fit_conditioner(Conditioner, labels, pt, m0, embedding_dim=16)


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
