from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMScheduler

from jet_diffusion.pipelines.crystal_refiner import CrystalNetwork
from jet_diffusion.pipelines.denoiser import PlainDenoiser
from jet_diffusion.pipelines.spike_and_slab import SpikeAndSlabDenoiser
from jet_diffusion.pipelines.sum_constraints import HitEnergy, energy_inputs, match_counts, match_energies
from jet_diffusion.pipelines.tower_representations import TowerPatches
from jet_diffusion.training.fit import Hits, fit_mixture, fit_representation, fit_spike_and_slab

NOISE = {"num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}


@pytest.fixture
def representation(jets):
    return fit_representation(TowerPatches, [torch.from_numpy(jets.energies)])


@pytest.fixture
def ringed(jets):
    return fit_representation(TowerPatches, [torch.from_numpy(jets.energies)], ring_edges=(0.1, 0.2, 0.4, 0.7))


LINE = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""An energy line for tests that need none."""


def hit_energy(representation):
    """The energy that x stands for, channel by channel."""
    line = representation.energy_line()[:, torch.tensor(representation.channel_group), None, None]
    return HitEnergy(*line)


def fit(representation, jets, match_ratio=0.5, **settings):
    x = representation.encode(torch.from_numpy(jets.energies))
    return fit_spike_and_slab([x], representation, NOISE, match_ratio=match_ratio, **settings)


def posterior(denoiser, x_t, timesteps, delta=0.0, eta=None):
    """Log-odds and value of a hit by x_t and what others know of the pixel."""
    slab = denoiser.prior.slab_posterior(x_t, *denoiser.noise_level(timesteps), eta)
    return denoiser.prior.logit + delta + slab.log_bayes_factor, slab.value


def with_counts(denoiser, logit, counts):
    return match_counts(logit, counts, denoiser.prior, denoiser.rings)


def deserts(representation, hit):
    """(C, H, W) bool, the pixels without hits (N, C, H, W) on them and their neighbours."""
    group = torch.tensor(representation.channel_group)
    hits = Hits(torch.empty(0), torch.empty(0), group, tuple(representation.shape))
    return hits.around(hit.any(0)[None].float())[0] == 0


def constant_unet(value, channels):
    """A network that answers the same everywhere."""
    return lambda x, t, class_labels=None: SimpleNamespace(sample=torch.full((len(x), channels, *x.shape[2:]), value))


def noisy(denoiser, x_0, timestep, seed=0):
    timesteps = torch.full((len(x_0),), timestep)
    alpha, sigma = denoiser.noise_level(timesteps)
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(seed))
    return alpha * x_0 + sigma * noise, noise, timesteps


def integrated_posterior(x_t, alpha, sigma, zero, p, weights, means, stds):
    """E[x_0 | x_t] of one pixel by brute numerical integration of Bayes' rule."""
    grid = torch.linspace(-5, 60, 400_001, dtype=torch.float64)
    step = grid[1] - grid[0]
    likelihood = torch.distributions.Normal(alpha * grid, sigma).log_prob(torch.tensor(x_t).double()).exp()
    slab = sum(
        w * torch.distributions.Normal(m, s).log_prob(grid).exp() for w, m, s in zip(weights, means, stds, strict=True)
    )
    spike = (1 - p) * torch.distributions.Normal(alpha * zero, sigma).log_prob(torch.tensor(x_t).double()).exp()
    evidence = spike + p * (likelihood * slab).sum() * step
    return (spike * zero + p * (likelihood * slab * grid).sum() * step) / evidence


@pytest.mark.parametrize("components", [1, 3])
@pytest.mark.parametrize("timestep", [50, 300, 500, 800])
def test_the_marginal_estimate_is_bayes_rule(components, timestep):
    weights, means, stds = (
        ([1.0], [9.0], [1.5]) if components == 1 else ([0.5, 0.3, 0.2], [7.0, 9.0, 14.0], [0.4, 1, 3])
    )
    denoiser = SpikeAndSlabDenoiser((0,), (1, 1), (-0.2,), [weights], [means], [stds], NOISE, LINE)
    p = torch.sigmoid(denoiser.prior.logit).item()
    timesteps = torch.tensor([timestep])
    alpha, sigma = (level.double().item() for level in denoiser.noise_level(timesteps))
    for x_t in (-0.5, alpha * 3.0, alpha * 9.0, alpha * 15.0):
        ours = denoiser.marginal(torch.full((1, 1, 1, 1), x_t), timesteps).item()
        exact = integrated_posterior(x_t, alpha, sigma, -0.2, p, weights, means, stds).item()
        assert ours == pytest.approx(exact, abs=2e-3)


@pytest.mark.parametrize("timestep", [50, 400, 800])
def test_the_network_tilts_the_slab(timestep):
    """Times exp(b x_0): the weights, means and stds of the tilted mixture, worked out by integration."""
    weights, means, stds, b = [0.6, 0.4], [8.0, 9.0], [0.3, 1.2], 0.7
    denoiser = SpikeAndSlabDenoiser((0,), (1, 1), (-0.2,), [weights], [means], [stds], NOISE, LINE)
    mean = sum(w * m for w, m in zip(weights, means, strict=True))
    variance = sum(w * (s**2 + (m - mean) ** 2) for w, m, s in zip(weights, means, stds, strict=True))
    tilted = [w * math.exp(b * m + b**2 * s**2 / 2) for w, m, s in zip(weights, means, stds, strict=True)]
    norm = sum(tilted)
    moved = [m + b * s**2 for m, s in zip(means, stds, strict=True)]
    # The tilt is normalised to second order: the rest is a factor of the odds.
    rest = norm / math.exp(b * mean + b**2 * variance / 2)
    assert rest == pytest.approx(1, abs=0.1)
    logit = denoiser.prior.logit.item() + math.log(rest)
    timesteps = torch.tensor([timestep])
    alpha, sigma = (level.double().item() for level in denoiser.noise_level(timesteps))
    for x_t in (alpha * 7.0, alpha * 9.0, alpha * 12.0):
        eta = torch.full((1, 1, 1, 1), b * math.sqrt(variance))
        odds, value = posterior(denoiser, torch.full((1, 1, 1, 1), x_t), timesteps, eta=eta)
        p = 1 / (1 + math.exp(-logit))
        exact = integrated_posterior(x_t, alpha, sigma, -0.2, p, [w / norm for w in tilted], moved, stds)
        assert denoiser.prior.estimate(denoiser.prior.hit_probability(odds), value).item() == pytest.approx(
            exact.item(), abs=2e-3
        )


def test_training_starts_at_the_marginal_denoiser(representation, jets):
    denoiser = fit(representation, jets)
    x_t, _, timesteps = noisy(denoiser, representation.encode(torch.from_numpy(jets.energies[:4])), 400)
    output = denoiser(constant_unet(0.0, 102), x_t, timesteps)
    torch.testing.assert_close(output.x0, output.marginal)
    assert denoiser.unet_channels() == (102, 102)


def test_the_marginal_beats_guessing_the_mean_until_noise_drowns_it(representation, jets):
    denoiser = fit(representation, jets)
    x_0 = representation.encode(torch.from_numpy(jets.energies))
    inside = representation.mask()
    for timestep, limit in ((50, 0.01), (300, 0.1), (990, 1.05)):
        x_t, _, timesteps = noisy(denoiser, x_0, timestep)
        error = (denoiser.marginal(x_t, timesteps) - x_0).square()[:, :, inside].mean()
        assert error < limit


def test_the_network_moves_odds_and_value(representation, jets):
    denoiser = fit(representation, jets)
    x_t, _, timesteps = noisy(denoiser, representation.encode(torch.from_numpy(jets.energies[:2])), 500)
    logit, value = posterior(denoiser, x_t, timesteps)
    likelier, _ = posterior(denoiser, x_t, timesteps, delta=torch.tensor(2.0))
    _, higher = posterior(denoiser, x_t, timesteps, eta=torch.tensor(1.0))
    torch.testing.assert_close(likelier - logit, torch.full_like(logit, 2.0), rtol=1e-4, atol=1e-3)
    assert (higher > value).all()


def test_padding_is_a_zero_for_certain(representation, jets):
    denoiser = fit(representation, jets)
    x_t, _, timesteps = noisy(denoiser, representation.encode(torch.from_numpy(jets.energies[:2])), 700)
    x_0 = denoiser(constant_unet(8.0, 102), x_t, timesteps).x0
    outside = ~representation.mask()
    assert torch.equal(x_0[:, :, outside], representation.zero()[None, :, None].expand(2, -1, int(outside.sum())))
    assert not torch.allclose(x_0[:, :, ~outside], representation.zero().view(1, -1, 1))


def test_a_prior_by_position_knows_where_jets_are(representation, jets):
    flat, mapped = fit(representation, jets), fit(representation, jets)
    prior = torch.sigmoid(mapped.prior.logit)
    flat.prior.logit.copy_(torch.logit(prior.mean((1, 2), keepdim=True)).expand_as(prior))
    assert prior[50, 12, 12] > 3 * prior[50, 2, 2]  # HCAL: the centre against a corner
    x_0 = representation.encode(torch.from_numpy(jets.energies))
    x_t, _, timesteps = noisy(flat, x_0, 600)
    errors = [(d.marginal(x_t, timesteps) - x_0).square().mean() for d in (flat, mapped)]
    assert errors[1] < errors[0]


@pytest.mark.parametrize(
    "settings",
    [
        {"components": 2, "inputs": ("x_t", "hit_probability", "hit_value")},
        {"components": 3},
    ],
)
def test_saving_keeps_it_to_the_bit_in_any_precision(representation, jets, tmp_path, settings):
    denoiser = fit(representation, jets, **settings)
    x_t, _, timesteps = noisy(denoiser, representation.encode(torch.from_numpy(jets.energies[:2])), 400)
    before = denoiser.marginal(x_t, timesteps)
    denoiser.save_pretrained(tmp_path)
    for again in (SpikeAndSlabDenoiser.from_pretrained(tmp_path), denoiser.to(torch.bfloat16)):
        assert torch.equal(again.marginal(x_t, timesteps), before)
        assert again.unet_channels() == denoiser.unet_channels()
    again = SpikeAndSlabDenoiser.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert torch.equal(again.marginal(x_t, timesteps), before)


def test_buffers_stay_exact_and_the_network_follows(representation, jets):
    denoiser = fit(representation, jets, crystal_channels=(4,))
    exact = {name: tensor.clone() for name, tensor in denoiser.named_buffers()}
    denoiser.half()
    assert all(torch.equal(tensor, exact[name]) for name, tensor in denoiser.named_buffers())
    assert all(tensor.dtype != torch.float16 for tensor in denoiser.buffers())
    assert all(parameter.dtype == torch.float16 for parameter in denoiser.parameters())
    assert all(tensor.is_meta for tensor in denoiser.to("meta").buffers())


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("timestep", [0, 400, 999])
def test_a_perfect_plain_prediction_gives_the_jet_back(representation, jets, prediction, timestep):
    denoiser = PlainDenoiser(51, NOISE, prediction)
    x_0 = representation.encode(torch.from_numpy(jets.energies[:2]))
    x_t, noise, timesteps = noisy(denoiser, x_0, timestep)
    perfect = denoiser.target(x_0, noise, timesteps)
    output = denoiser(lambda x, t, class_labels=None: SimpleNamespace(sample=perfect), x_t, timesteps)
    torch.testing.assert_close(output.x0, x_0, rtol=1e-3, atol=2e-3)


def test_noise_levels_are_diffusers_and_rise_between():
    denoiser = PlainDenoiser(1, NOISE)
    scheduler = DDPMScheduler(**NOISE)
    timesteps = torch.tensor([0, 17, 999])
    alpha, sigma = denoiser.noise_level(timesteps)
    x_0, noise = torch.randn(3, 1, 2, 2), torch.randn(3, 1, 2, 2)
    torch.testing.assert_close(alpha * x_0 + sigma * noise, scheduler.add_noise(x_0, noise, timesteps))
    between = denoiser.noise_level(torch.tensor([17.0, 17.25, 17.75, 18.0]))[1].flatten()
    assert (between.diff() > 0).all()
    torch.testing.assert_close(between[0], denoiser.noise_level(torch.tensor([17]))[1].flatten()[0])


def test_power_timesteps_lie_closer_at_low_noise():
    timesteps = PlainDenoiser(1, NOISE).power_timesteps(25, 1.35)
    gaps = -torch.tensor(timesteps).diff()
    assert timesteps[0] == 999
    assert (gaps.diff() <= 1).all()  # whole numbers
    assert gaps[0] > 2 * gaps[-1]


@pytest.mark.parametrize("steps", [1, 25, 400, 700, 1000])
def test_as_many_steps_as_asked_for(steps):
    timesteps = PlainDenoiser(1, NOISE).power_timesteps(steps, 1.35)
    assert len(timesteps) == steps
    assert timesteps == sorted(set(timesteps), reverse=True)


def test_below_the_levels_trained_on_the_network_is_not_asked(representation, jets):
    denoiser = fit(representation, jets, min_ratio=0.5)
    x_0 = representation.encode(torch.from_numpy(jets.energies[:2]))
    for timestep, used in ((100, False), (300, True)):
        x_t, _, timesteps = noisy(denoiser, x_0, timestep)
        output = denoiser(constant_unet(3.0, 102), x_t, timesteps)
        assert torch.equal(output.x0, output.marginal) is not used


def test_bad_settings_are_refused(representation, jets):
    with pytest.raises(ValueError, match="prediction must be"):
        PlainDenoiser(1, NOISE, "score")
    with pytest.raises(ValueError, match="zero terminal SNR"):
        PlainDenoiser(1, {**NOISE, "rescale_betas_zero_snr": True}, "epsilon")
    with pytest.raises(ValueError, match="inputs must be"):
        fit(representation, jets, inputs=("x_t", "guess"))
    with pytest.raises(ValueError, match="two components"):
        fit(representation, jets, components=1)
    with pytest.raises(ValueError, match="too few"):
        fit_mixture(torch.arange(15.0), 2)


def test_asked_hits_are_what_the_prior_expects(representation, jets):
    denoiser = fit(representation, jets)
    hits = torch.tensor([[10.0, 300.0, 4.0], [150.0, torch.nan, 40.0]])
    logit = denoiser.prior.logit + denoiser.rings.prior_shift(hits)
    expected = (torch.sigmoid(logit) * denoiser.prior.inside).sum((2, 3))
    group = torch.tensor(representation.channel_group)
    found = torch.stack([expected[:, group == g].sum(1) for g in range(3)], 1)
    average = (torch.sigmoid(denoiser.prior.logit) * denoiser.prior.inside).sum((1, 2))
    hits[1, 1] = average[group == 1].sum()  # unknown: the prior as it was fitted
    torch.testing.assert_close(found, hits, rtol=0.02, atol=0)


def test_asked_hits_move_the_estimate_of_their_own_channels_alone(representation, jets):
    denoiser = fit(representation, jets)
    x_t, _, timesteps = noisy(denoiser, representation.encode(torch.from_numpy(jets.energies[:4])), 900)
    unet = constant_unet(0.0, 2 * len(representation.channel_group))
    few, many = (
        denoiser(unet, x_t, timesteps, ring_sums=torch.tensor([[n, *[torch.nan] * 5]]).expand(4, 6)).x0
        for n in (5.0, 500.0)
    )
    group = torch.tensor(representation.channel_group)
    inside = representation.mask()
    assert (many[:, group == 0][..., inside] > few[:, group == 0][..., inside]).all()
    assert torch.equal(many[:, group > 0], few[:, group > 0])


def test_a_mixture_by_position_describes_hits_better(representation, jets):
    x = representation.encode(torch.from_numpy(jets.energies))
    hit = (x > representation.hit_threshold().view(-1, 1, 1)) & representation.mask()
    likelihoods = []
    denoiser = fit(representation, jets, components=3)
    prior, means, variances = denoiser.prior, denoiser.prior.means, denoiser.prior.stds.square()
    group = torch.tensor(representation.channel_group)
    of_groups = torch.tensor(denoiser.config.slab_weights)[group].T[..., None, None]
    for weights in (of_groups, prior.weights):
        density = weights.log() - (x[:, None] - means).square() / variances / 2 - variances.log() / 2
        likelihoods.append(-density.logsumexp(1)[hit].mean())
        assert torch.allclose(weights.sum(0), torch.ones(()))
    assert likelihoods[1] < likelihoods[0]
    weights = prior.weights
    empty = deserts(representation, hit)
    assert empty.any()
    for g in group.unique():  # where there are no hits near, the group's weights
        desert = weights[:, empty & (group == g)[:, None, None]]
        torch.testing.assert_close(desert, desert[:, :1].expand_as(desert))


@pytest.mark.parametrize("offset", [-6.0, -2.0, 0.0, 3.0])
@pytest.mark.parametrize("timestep", [500, 700, 950])
def test_probabilities_add_up_to_the_asked_hits(representation, jets, timestep, offset):
    denoiser = fit(representation, jets)
    x_0 = representation.encode(torch.from_numpy(jets.energies[:8]))
    hits = representation.ring_sums(torch.from_numpy(jets.energies[:8]))[:, :3]
    x_t, _, timesteps = noisy(denoiser, x_0, timestep)
    logit, _ = posterior(denoiser, x_t, timesteps, offset + torch.randn(x_t.shape[1], 1, 1))
    probability = torch.sigmoid(with_counts(denoiser, logit, hits)) * denoiser.prior.inside
    group = torch.tensor(representation.channel_group)
    found = torch.stack([probability[:, group == g].sum((1, 2, 3)) for g in range(3)], 1)
    torch.testing.assert_close(found, hits, rtol=0.02, atol=0.2)


@pytest.mark.parametrize("timestep", [500, 900])
def test_probabilities_add_up_to_the_asked_hits_of_each_ring(ringed, jets, timestep):
    denoiser = fit(ringed, jets)
    energies = torch.from_numpy(jets.energies[:8])
    hits = ringed.ring_sums(energies)[:, :15]
    hits[0, 7] = torch.nan
    x_t, _, timesteps = noisy(denoiser, ringed.encode(energies), timestep)
    logit, _ = posterior(denoiser, x_t, timesteps, denoiser.rings.prior_shift(hits))
    probability, before = (
        torch.sigmoid(one) * denoiser.prior.inside for one in (with_counts(denoiser, logit, hits), logit)
    )
    found, free = torch.zeros(8, 15), torch.zeros(8, 15)
    for region in range(15):
        member = ringed.rings() == region
        found[:, region], free[:, region] = probability[:, member].sum(1), before[:, member].sum(1)
    hits[0, 7] = free[0, 7]  # not known: as it was
    torch.testing.assert_close(found, hits, rtol=0.02, atol=0.25)


def test_the_prior_expects_the_asked_hits_of_each_ring(ringed, jets):
    denoiser = fit(ringed, jets)
    hits = torch.tensor([[3.0, 6, 10, 20, 40, 40, 50, 60, 50, 40, 3, 3, 2, 2, 5]])
    logit = denoiser.prior.logit + denoiser.rings.prior_shift(hits)
    probability = torch.sigmoid(logit) * denoiser.prior.inside
    found = torch.stack([probability[:, ringed.rings() == region].sum(1) for region in range(15)], 1)
    torch.testing.assert_close(found, hits, rtol=0.03, atol=0)


def test_energies_are_held_ring_by_ring(ringed, jets):
    denoiser = fit(ringed, jets, components=3)
    energies = torch.from_numpy(jets.energies[:6])
    totals = ringed.ring_sums(energies)
    x_t, _, timesteps = noisy(denoiser, ringed.encode(energies), 100)
    held = denoiser(constant_unet(0.0, 102), x_t, timesteps, ring_sums=totals)
    denoiser.register_to_config(match_ratio=0.0)
    free = denoiser(constant_unet(0.0, 102), x_t, timesteps, ring_sums=totals)
    expected = hit_energy(ringed).expected(denoiser.prior.slab_posterior(x_t, *denoiser.noise_level(timesteps)))
    moved = held.value - free.value
    energy, moved = (denoiser.prior.hit_probability(held.logit) * expected(by)[0] for by in (moved * 0, moved))
    asked = totals[:, 15:]
    before, after = (
        (torch.stack([e[:, ringed.rings() == region].sum(1) for region in range(15)], 1) / asked).log().abs()
        for e in (energy, moved)
    )
    known = (asked > 0.1) & (totals[:, :15] > 1)
    assert known.sum() > 40
    assert after[known].mean() < 0.4 * before[known].mean()
    assert after[known].median() < 0.01


def test_unknown_hits_hold_nothing(representation, jets):
    denoiser = fit(representation, jets)
    logit = torch.randn(2, *representation.shape)
    assert torch.equal(with_counts(denoiser, logit, torch.full((2, 3), torch.nan)), logit)


def test_what_is_not_asked_for_leaves_gradients_finite(ringed, jets):
    denoiser = fit(ringed, jets, components=3)
    energies = torch.from_numpy(jets.energies[:3])
    totals = ringed.ring_sums(energies)
    totals[0] = torch.nan
    totals[1, 3], totals[1, 20] = torch.nan, torch.nan
    x_t, _, timesteps = noisy(denoiser, ringed.encode(energies), 80)
    answer = torch.zeros(3, 102, *ringed.shape[1:], requires_grad=True)
    output = denoiser(lambda x, t, class_labels=None: SimpleNamespace(sample=answer), x_t, timesteps, ring_sums=totals)
    (output.logit.square().mean() + output.value.square().mean()).backward()
    assert answer.grad.isfinite().all()
    assert (answer.grad[0] != 0).any()


def test_a_shift_of_a_whole_group_has_no_gradient_where_its_hits_are_held(representation, jets):
    denoiser = fit(representation, jets)
    x_0 = representation.encode(torch.from_numpy(jets.energies[:2]))
    x_t, _, timesteps = noisy(denoiser, x_0, 800)
    common = torch.zeros(1, requires_grad=True)
    single = torch.zeros(representation.shape, requires_grad=True)
    logit, value = posterior(denoiser, x_t, timesteps, common + single)
    held = with_counts(denoiser, logit, representation.ring_sums(torch.from_numpy(jets.energies[:2]))[:, :3])
    (denoiser.prior.estimate(denoiser.prior.hit_probability(held), value) - x_0).square().sum().backward()
    assert common.grad.abs() < 1e-3 * single.grad.abs().sum()


@pytest.mark.parametrize("timestep", [400, 600, 900])
def test_the_likelihood_is_best_where_the_squared_error_is(timestep):
    """One pixel, many jets: both losses have their minimum at the marginal denoiser, delta = eta = 0."""
    denoiser = SpikeAndSlabDenoiser((0,), (1, 1), (-0.2,), [[1.0]], [[6.0]], [[0.8]], NOISE, LINE)
    denoiser.prior.logit.copy_(torch.logit(torch.tensor([[[0.2]]])))
    denoiser.prior.hit_moments.copy_(torch.tensor([6.0, 0.8]).view(2, 1, 1, 1))
    generator = torch.Generator().manual_seed(0)
    hit = torch.rand(200_000, 1, 1, 1, generator=generator) < 0.2
    x_0 = torch.where(hit, 6 + 0.8 * torch.randn(hit.shape, generator=generator), torch.tensor(-0.2))
    x_t, _, timesteps = noisy(denoiser, x_0, timestep, seed=1)

    def losses(delta, eta):
        def unet(x, t, class_labels=None):
            return SimpleNamespace(sample=torch.tensor([delta, eta]).view(1, 2, 1, 1).expand(len(x), 2, 1, 1))

        output = denoiser(unet, x_t, timesteps)
        likelihood = denoiser.negative_log_likelihood(output, x_0, hit, timesteps).mean()
        # A weight by what is known, x_t, leaves the optimum where it is.
        weighted = denoiser.negative_log_likelihood(
            output, x_0, hit, timesteps, value_weight=1 + x_t.clamp(min=0)
        ).mean()
        return (output.x0 - x_0).square().mean(), likelihood, weighted

    best = losses(0.0, 0.0)
    for moved in ((0.3, 0.0), (-0.3, 0.0), (0.0, 0.3), (0.0, -0.3)):
        assert all(found > least for found, least in zip(losses(*moved), best, strict=True))


def test_the_crystal_network_starts_at_nothing_and_keeps_to_its_neighbourhood(representation, jets):
    denoiser = fit(representation, jets, crystal_channels=(8,))
    plain = fit(representation, jets)
    unet = constant_unet(0.3, 2 * len(representation.channel_group))
    x_t, _, timesteps = noisy(denoiser, representation.encode(torch.from_numpy(jets.energies[:2])), 700)
    assert torch.equal(denoiser(unet, x_t, timesteps).x0, plain(unet, x_t, timesteps).x0)
    torch.nn.init.normal_(denoiser.crystal_network.layers[-1].weight, generator=torch.Generator().manual_seed(0))
    before = denoiser(unet, x_t, timesteps)
    moved = x_t.clone()
    moved[0, 24, 12, 14] += 5.0  # the last track crystal of tower (12, 14), at (64, 74) of the image
    after = denoiser(unet, moved, timesteps)
    changed = (before.logit != after.logit)[..., :25, :25]
    assert not changed[1].any()
    tracks, ecal = (torch.nn.functional.pixel_shuffle(changed[0, 25 * g : 25 * g + 25].float(), 5)[0] for g in (0, 1))
    for plane in (tracks, ecal):
        assert plane[62:67, 72:77].all()  # two 3x3 convolutions, across towers
        plane[62:67, 72:77] = 0
        assert not plane.any()
    assert changed[0, 50].nonzero().tolist() == [[12, 14], [12, 15], [13, 14], [13, 15]]


def test_crystals_and_towers_are_rearranged_there_and_back(representation):
    network = CrystalNetwork(representation.channel_group, (2, 2), (4,), (0, 25, 0, 25))
    x = torch.randn(3, 102, 28, 28, generator=torch.Generator().manual_seed(0))
    planes = network.to_crystals(x)
    assert planes.shape == (3, 6, 125, 125)
    image = representation.from_grid(x[:, 51:, :25, :25])  # the second block
    torch.testing.assert_close(planes[:, 1::2], image)
    torch.testing.assert_close(network.to_towers(planes), x[..., :25, :25])


def test_crystals_must_tile_their_towers():
    with pytest.raises(ValueError, match=r"a square number of crystals, got \[2, 1\]"):
        CrystalNetwork((0, 0, 1), (1, 1), (4,), (0, 4, 0, 4))


@pytest.mark.parametrize("settings", [{"components": 5}, {"components": 3}])
@pytest.mark.parametrize("timestep", [60, 130])
def test_held_energies_add_up_and_move_uncertain_hits(representation, jets, timestep, settings):
    denoiser = fit(representation, jets, **settings)
    energies = torch.from_numpy(jets.energies[:6])
    x_t, _, timesteps = noisy(denoiser, representation.encode(energies), timestep)
    totals = representation.ring_sums(energies)
    totals[0, 4] = torch.nan
    output = denoiser(constant_unet(0.0, 102), x_t, timesteps, ring_sums=totals)
    denoiser.register_to_config(match_ratio=0.0)
    free = denoiser(constant_unet(0.0, 102), x_t, timesteps, ring_sums=totals)
    group = torch.tensor(representation.channel_group)
    assert torch.equal(output.x0[0, group == 1], free.x0[0, group == 1])  # not known: as it was
    slab = denoiser.prior.slab_posterior(x_t, *denoiser.noise_level(timesteps))
    moved = output.value - free.value
    probability = torch.sigmoid(free.logit) * denoiser.prior.inside
    shift = (moved / slab.variance.sqrt())[probability > 0.1]
    assert shift.abs().max() < 2.01
    assert shift.abs().max() > 0.1
    expected = hit_energy(representation).expected(slab)
    asked = totals[:, 3:]
    known = ~asked.isnan() & (asked > 0)
    before, after = (
        (torch.zeros(6, 3).index_add(1, group, e.sum((2, 3))) / asked).log().abs()
        for e in (probability * expected(by)[0] for by in (moved * 0, moved))
    )
    assert after[known].mean() < 0.3 * before[known].mean()
    assert after[known].median() < 0.01


def test_energies_are_held_at_low_noise_alone(representation, jets):
    denoiser = fit(representation, jets)
    energies = torch.from_numpy(jets.energies[:2])
    x_0, totals = representation.encode(energies), representation.ring_sums(energies)
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
    denoiser.register_to_config(match_ratio=0.2)
    timesteps = torch.tensor([40, 100])  # sigma/alpha .15 and .35
    x_t = denoiser.add_noise(x_0, noise, timesteps)
    held = denoiser(constant_unet(0.0, 102), x_t, timesteps, ring_sums=totals).value
    denoiser.register_to_config(match_ratio=0.0)
    free = denoiser(constant_unet(0.0, 102), x_t, timesteps, ring_sums=totals).value
    assert (held[0] - free[0]).abs().max() > 1e-3
    assert torch.equal(held[1], free[1])


def test_a_common_factor_of_energies_has_no_gradient_where_they_are_held(representation, jets):
    denoiser = fit(representation, jets, components=3)
    energies = torch.from_numpy(jets.energies[:4])
    x_0 = representation.encode(energies)
    x_t, _, timesteps = noisy(denoiser, x_0, 300)
    common, single = torch.zeros(1, requires_grad=True), torch.zeros(representation.shape, requires_grad=True)
    slab = denoiser.prior.slab_posterior(x_t, *denoiser.noise_level(timesteps))
    probability = denoiser.prior.hit_probability(denoiser.prior.logit + slab.log_bayes_factor)
    group = torch.tensor(representation.channel_group)
    expected = hit_energy(representation).expected(slab)(torch.zeros_like(x_t))
    energy, covariance, _ = (probability * part for part in expected)
    asked = torch.zeros(4, 3).index_add(1, group, energy.sum((2, 3)))
    # What moves in proportion to the covariance is the very thing that is held.
    moved = replace(slab, value=slab.value + covariance * common + single)
    held = match_energies(moved, probability, asked, denoiser.hit_energy, denoiser.rings)
    torch.testing.assert_close(held, slab.value, rtol=0, atol=1e-3)  # as asked already
    weights = torch.randn(held.shape, generator=torch.Generator().manual_seed(0))
    (weights * covariance * held).sum().backward()
    assert common.grad.abs() < 1e-3 * (weights * covariance.square()).abs().sum()


def test_energy_shares_average_to_one_over_the_hits(representation, jets):
    denoiser = fit(representation, jets)
    x_t, _, timesteps = noisy(denoiser, representation.encode(torch.from_numpy(jets.energies[:6])), 400)
    output = denoiser(constant_unet(0.0, 102), x_t, timesteps)
    share = denoiser.energy_share(output)
    probability = torch.sigmoid(output.logit) * denoiser.prior.inside
    group = torch.tensor(representation.channel_group)
    for g in range(3):
        mine = group == g
        mean = (share * probability)[:, mine].sum((1, 2, 3)) / probability[:, mine].sum((1, 2, 3))
        torch.testing.assert_close(mean, torch.ones(6), rtol=1e-3, atol=0)


def test_energy_inputs_are_in_mean_hits_and_say_what_is_missing(representation, jets):
    inputs = ("x_t", "energy", "missing_energy")
    denoiser = fit(representation, jets, inputs=inputs)
    assert denoiser.unet_channels() == (153, 102)
    energies = torch.from_numpy(jets.energies[:4])
    x_t, _, timesteps = noisy(denoiser, representation.encode(energies), 300)
    logit, value = posterior(denoiser, x_t, timesteps)
    probability, energy = denoiser.prior.hit_probability(logit), hit_energy(representation).at(value)
    group = torch.tensor(representation.channel_group)
    expected = torch.zeros(4, 3).index_add(1, group, (probability * energy).sum((2, 3)))
    number = torch.zeros(4, 3).index_add(1, group, probability.sum((2, 3)))
    twice = 2 * expected
    twice[0, 1] = torch.nan
    seen, missing = energy_inputs(probability * energy, probability, twice, denoiser.rings)
    sums = torch.zeros(4, 3).index_add(1, group, seen.sum((2, 3)))
    unlimited = torch.tensor([[bool((seen[i, group == g] < 29.9).all()) for g in range(3)] for i in range(4)])
    asked = torch.full((4, 3), 2.0)
    asked[0, 1] = 1.0
    assert unlimited.any()
    torch.testing.assert_close((sums * asked / number)[unlimited], torch.ones(int(unlimited.sum())))
    torch.testing.assert_close(missing, asked.log()[:, group, None, None].expand_as(x_t))
    given = []
    unet = constant_unet(0.0, 102)
    hits = torch.full((4, 3), torch.nan)
    totals = torch.cat([hits, twice], 1)
    denoiser(lambda x, *rest, **named: given.append(x) or unet(x, *rest, **named), x_t, timesteps, ring_sums=totals)
    assert torch.equal(given[0][:, :51], x_t)
    torch.testing.assert_close(given[0][:, 51:], torch.cat([seen, missing], 1))


def test_guidance_moves_log_odds_and_values(representation, jets):
    denoiser = fit(representation, jets)
    x_t, _, timesteps = noisy(denoiser, representation.encode(torch.from_numpy(jets.energies[:2])), 300)

    @torch.no_grad()
    def with_odds(value):
        return denoiser(
            lambda x, t, class_labels=None: SimpleNamespace(
                sample=torch.cat([torch.full_like(x[:, :51], value), torch.zeros_like(x[:, :51])], 1)
            ),
            x_t,
            timesteps,
        )

    strong, weak, none = with_odds(0.6), with_odds(0.3), with_odds(0.0)
    guided = denoiser.guided(weak, none, 2.0)
    torch.testing.assert_close(guided.x0, strong.x0)
    torch.testing.assert_close(denoiser.guided(weak, none, 0.0).x0, none.x0)
