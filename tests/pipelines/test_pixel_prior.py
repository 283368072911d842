"""The values of hits: mixtures, what a noisy pixel makes of them, and their fit."""

from __future__ import annotations

import pytest
import torch

from jet_diffusion.pipelines.pixel_prior import SlabPosterior, tilted_mixture
from jet_diffusion.pipelines.sum_constraints import HitEnergy
from jet_diffusion.training.fit import Hits, fit_mixture


def columns(*numbers):
    """One number a component, as (K, 1, 1, 1)."""
    return torch.tensor(numbers).view(-1, 1, 1, 1)


def components_of_one_pixel(b):
    """The tilted mixture of three components (weights .5, .3, .2) of pixels b (N, 1, 1, 1)."""
    ones = torch.ones(1, len(b), 1, 1, 1)
    means, variances = columns(0.0, 1.0, 3.0)[:, None] * ones, columns(1.0, 0.04, 0.5)[:, None] * ones
    return tilted_mixture(columns(0.5, 0.3, 0.2).log(), 0 * ones.expand(3, -1, 1, 1, 1), means, variances, b)


def test_a_tilted_mixture_is_the_mixture_times_an_exponential():
    b = torch.tensor([-3.0, 0.0, 0.7, 2.0])
    log_total, mean, shares, values = components_of_one_pixel(b.view(-1, 1, 1, 1))
    grid = torch.linspace(-40, 40, 400_001, dtype=torch.float64)
    density = sum(
        w * torch.distributions.Normal(m, v**0.5).log_prob(grid).exp()
        for w, m, v in ((0.5, 0.0, 1.0), (0.3, 1.0, 0.04), (0.2, 3.0, 0.5))
    )
    for jet, tilt in enumerate(b.tolist()):
        tilted = density * (tilt * grid).exp()
        total = torch.trapezoid(tilted, grid)
        assert log_total[jet].item() == pytest.approx(total.log().item(), abs=1e-4)
        assert mean[jet].item() == pytest.approx((torch.trapezoid(grid * tilted, grid) / total).item(), abs=1e-4)
        assert (shares * values).sum(0)[jet].item() == pytest.approx(mean[jet].item(), abs=1e-5)


def test_its_gradient_is_the_gradient_through_its_components():
    b = torch.tensor([-3.0, 0.0, 0.7, 2.0]).view(-1, 1, 1, 1)
    for number in (0, 1):
        ours, theirs = b.clone().requires_grad_(), b.clone().requires_grad_()
        components_of_one_pixel(ours)[number].sum().backward()
        means, variances = columns(0.0, 1.0, 3.0)[:, None], columns(1.0, 0.04, 0.5)[:, None]
        logs = columns(0.5, 0.3, 0.2)[:, None].log() + theirs * means + theirs.square() * variances / 2
        mean = (logs.softmax(0) * (means + theirs * variances)).sum(0)
        (logs.logsumexp(0), mean)[number].sum().backward()
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_components_far_away_have_no_share():
    far = torch.full((1, 1, 1, 1), 200.0)
    log_total, mean, shares, _ = components_of_one_pixel(far)
    assert log_total.isfinite().all()
    assert mean.item() == pytest.approx(200.0)  # of the widest component alone
    assert shares[0].item() == pytest.approx(1)


def test_mixture_fit_finds_what_was_mixed():
    generator = torch.Generator().manual_seed(0)
    values = torch.cat([torch.randn(6000, generator=generator), 8 + 2 * torch.randn(4000, generator=generator)])
    weights, means, stds = fit_mixture(values, 2)
    assert weights == pytest.approx([0.6, 0.4], abs=0.02)
    assert means == pytest.approx([0, 8], abs=0.15)
    assert stds == pytest.approx([1, 2], abs=0.1)


@pytest.mark.parametrize("by", [0.0, -0.3, 0.7])
def test_expected_energies_are_those_of_samples(by):
    generator = torch.Generator().manual_seed(0)
    shares = torch.tensor([0.3, 0.7]).view(2, 1, 1, 1, 1)
    values, variances = torch.tensor([1.0, 2.0]).view(2, 1, 1, 1, 1), torch.tensor([0.2, 0.05]).view(2, 1, 1, 1, 1)
    slab = SlabPosterior(torch.zeros(1, 1, 1, 1), (shares * values).sum(0), shares, values, variances)
    pick = (torch.rand(1_000_000, generator=generator) < 0.7).long()
    x = values.flatten()[pick] + variances.flatten()[pick].sqrt() * torch.randn(1_000_000, generator=generator)
    curve = HitEnergy(torch.tensor(0.5), torch.tensor(1.2))
    energies = curve.at(x + by)
    mean, covariance, rate = curve.expected(slab)(torch.full((1, 1, 1, 1), by))
    faster, slower = (curve.at(x + by + step).mean() for step in (0.01, -0.01))
    assert rate.item() == pytest.approx((faster - slower).item() / 0.02, rel=1e-2)
    assert slab.value.item() == pytest.approx(x.mean().item(), abs=2e-3)
    assert slab.variance.item() == pytest.approx(x.var().item(), rel=5e-3)
    assert mean.item() == pytest.approx(energies.mean().item(), rel=5e-3)
    assert covariance.item() == pytest.approx(((x - x.mean()) * energies).mean().item(), rel=1e-2)


def test_the_neighbourhood_is_a_tower_about_the_crystal():
    """Nine crystals a tower on 4x5 towers, and one channel of towers beside them."""
    hits = Hits(torch.zeros(0, dtype=torch.int64), torch.zeros(0), torch.tensor([0] * 9 + [1]), (10, 4, 5))
    sums = torch.rand(2, 10, 4, 5, generator=torch.Generator().manual_seed(0))
    around = hits.around(sums)
    assert torch.equal(around[:, 9], sums[:, 9])
    crystals, pooled = (torch.nn.functional.pixel_shuffle(planes[:, :9], 3)[:, 0] for planes in (sums, around))
    for row in range(12):
        for column in range(15):
            window = crystals[:, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            torch.testing.assert_close(pooled[:, row, column], window.sum((1, 2)))


def test_neighbours_need_towers_with_a_crystal_in_the_middle():
    for group, message in (([0] * 4, "in the middle"), ([0] * 3, "a square number"), ([0, 1] * 9, "together")):
        hits = Hits(torch.zeros(0, dtype=torch.int64), torch.zeros(0), torch.tensor(group), (len(group), 4, 5))
        with pytest.raises(ValueError, match=message):
            hits.around(torch.zeros(1, len(group), 4, 5))


def test_positions_learn_from_their_neighbours():
    """Two components whose weights change smoothly over 30x30 crystals, with forty hits a crystal."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.nn.functional.pixel_unshuffle(torch.linspace(0.1, 0.9, 30).expand(1, 30, 30), 5)  # (25, 6, 6)
    places = torch.arange(900).repeat(40)
    first = torch.rand(len(places), generator=generator) < truth.flatten()[places]
    values = torch.randn(len(places), generator=generator).double() + 3 * first
    hits = Hits(places, values, torch.zeros(25, dtype=torch.int64), (25, 6, 6))
    weights, means, widths = (torch.tensor([row]).double() for row in ([0.5, 0.5], [3.0, 0.0], [1.0, 1.0]))
    found = hits.mixture_weights(weights, means, widths)
    torch.testing.assert_close(found.sum(0), torch.ones(25, 6, 6).double())
    alone = torch.bincount(places, first.double(), minlength=900).view(25, 6, 6) / 40  # were the components known
    assert (found[0] - truth).square().mean() < 0.5 * (alone - truth).square().mean()


def test_occupancy_and_moments_learn_from_neighbours_too():
    """A probability and a mean that change smoothly over 30x30 crystals, by 200 jets."""
    generator = torch.Generator().manual_seed(0)
    ramp = torch.nn.functional.pixel_unshuffle(torch.linspace(0.02, 0.08, 30).expand(1, 30, 30), 5)  # (25, 6, 6)
    hit = torch.rand(200, 25, 6, 6, generator=generator) < ramp
    places = hit.flatten(1).nonzero()[:, 1]
    values = (20 * ramp.flatten()[places] + torch.randn(len(places), generator=generator)).double()
    hits = Hits(places, values, torch.zeros(25, dtype=torch.int64), (25, 6, 6))
    found = hits.occupancy(200, torch.ones(6, 6, dtype=torch.bool))
    assert (found - ramp).square().mean() < 0.2 * (hit.double().mean(0) - ramp).square().mean()
    assert found.mean().item() == pytest.approx(hit.double().mean().item(), rel=0.02)
    mean, width = hits.moments()
    counts = hit.sum(0)
    alone = torch.bincount(places, values, minlength=900).view(25, 6, 6) / counts
    several = counts > 1
    assert (mean - 20 * ramp)[several].square().mean() < 0.3 * (alone - 20 * ramp)[several].square().mean()
    assert width.mean().item() == pytest.approx(1, abs=0.15)
