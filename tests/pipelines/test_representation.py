from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jet_diffusion.hub import LOADABLE
from jet_diffusion.pipelines.notebook_baselines import ChannelMaxGrid, ImageRangeGrid
from jet_diffusion.pipelines.random_numbers import RandomNumbers
from jet_diffusion.pipelines.sum_constraints import HitEnergy
from jet_diffusion.pipelines.tower_representations import NATIVE_REPRESENTATIONS, PixelGrid, TowerPatches
from jet_diffusion.training.fit import fit_representation

HIT_VALUED = [
    ("TowerPatches", {}),
    ("TowerPatches", {"gap": 0.5}),
    ("PixelGrid", {}),
]
RESIZED = [("ChannelMaxGrid", {}), ("ImageRangeGrid", {}), ("ImageRangeGrid", {"side": 32})]
VARIANTS = HIT_VALUED + RESIZED


def fitted(variant, jets):
    name, settings = variant
    return fit_representation(LOADABLE["representation"][name], torch.from_numpy(jets.energies).split(16), **settings)


def title(variant):
    return f"{variant[0]}-{variant[1]}"


@pytest.fixture(params=VARIANTS, ids=title)
def representation(request, jets):
    return fitted(request.param, jets)


@pytest.fixture(params=HIT_VALUED, ids=title)
def hit_valued(request, jets):
    return fitted(request.param, jets)


@pytest.fixture(params=RESIZED, ids=title)
def resized(request, jets):
    return fitted(request.param, jets)


def test_every_representation_is_tried():
    quantum = {"JetAmplitudeEncoder"}  # tests/test_quantum_states.py
    assert {name for name, _ in VARIANTS} | quantum == set(LOADABLE["representation"])
    assert {name for name, _ in HIT_VALUED} == set(NATIVE_REPRESENTATIONS)


def test_declarations_hold(representation, jets):
    energies = torch.from_numpy(jets.energies)
    x = representation.encode(energies)
    assert tuple(x.shape[1:]) == representation.shape
    decoded = representation.decode(x)
    assert decoded.shape == energies.shape
    if representation.lossless:
        assert torch.equal(decoded == 0, energies == 0)
        torch.testing.assert_close(decoded, energies, rtol=2e-5, atol=0)
    if representation.conserves_energy:
        torch.testing.assert_close(decoded.sum((2, 3)), energies.sum((2, 3)), rtol=1e-4, atol=1e-7)
    if representation.lossless is False:
        assert not torch.allclose(decoded, energies)


def test_groups_are_standardised_and_zeros_stand_apart(hit_valued, jets):
    representation = hit_valued
    assert representation.has_zero_gap
    x = representation.encode(torch.from_numpy(jets.energies))
    height, width = representation.grid
    group = torch.tensor(representation.channel_group)
    for g in range(3):
        values = x[:, group == g, :height, :width]
        assert abs(values.mean()) < 0.01
        assert abs(values.std() - 1) < 0.01
        zero = representation.zero()[group == g][0]
        threshold = representation.hit_threshold()[group == g][0]
        hits = values[values > threshold]
        assert torch.equal(values[values <= threshold].unique(), zero[None])
        assert hits.min() > threshold
        assert threshold - zero > hits.std()


def test_padding_is_masked_and_holds_zeros(hit_valued, jets):
    representation = hit_valued
    x = representation.encode(torch.from_numpy(jets.energies[:2]))
    outside = ~representation.mask()
    assert representation.mask().sum() == np.prod(representation.grid)
    assert torch.equal(x[:, :, outside], representation.zero()[None, :, None].expand(2, -1, int(outside.sum())))


def test_the_mask_covers_the_grid(representation):
    assert representation.mask().shape == representation.shape[1:]
    assert representation.mask()[: representation.grid[0], : representation.grid[1]].all()


def test_what_lies_in_the_padding_does_not_count(representation, jets):
    x = representation.encode(torch.from_numpy(jets.energies[:2]))
    disturbed = torch.where(representation.mask(), x, 99.0)
    assert torch.equal(representation.decode(disturbed), representation.decode(x))


def test_limits_span_the_training_jets(representation, jets):
    x = representation.encode(torch.from_numpy(jets.energies))
    low, high = (limit.view(-1, 1, 1) for limit in representation.limits())
    assert (x >= low - 1e-5).all()
    assert (x <= high + 1e-4).all()
    assert torch.isclose(x.amax(), high.amax(), rtol=1e-4)


def test_settling_raises_hits_to_the_smallest_seen(hit_valued, jets):
    x = hit_valued.encode(torch.from_numpy(jets.energies))
    torch.testing.assert_close(hit_valued.snap_to_min_hit(x), x, rtol=0, atol=1e-6)
    threshold = hit_valued.hit_threshold().view(-1, 1, 1)
    hit = (x > threshold) & hit_valued.mask()
    softened = torch.where(hit, threshold + 1e-3, x)
    settled = hit_valued.snap_to_min_hit(softened)
    assert torch.equal((settled > threshold) & hit_valued.mask(), hit)
    assert torch.equal(settled[~hit], softened[~hit])
    group = torch.tensor(hit_valued.channel_group)
    of_jets, made = (hit_valued.to_grid(hit_valued.decode(each)) for each in (x, settled))
    for g in range(3):
        smallest, all_made = (energies[:, group == g] for energies in (of_jets, made))
        smallest = smallest[smallest > 0].min()
        torch.testing.assert_close(all_made[all_made > 0], smallest.expand((all_made > 0).sum()), rtol=1e-4, atol=0)


def test_settling_needs_the_smallest_hit():
    representation = TowerPatches()
    x = representation.hit_threshold().view(-1, 1, 1).expand(1, -1, 28, 28) + 1e-3
    assert torch.equal(representation.snap_to_min_hit(x), x)


def test_settings_survive_saving(representation, jets, tmp_path):
    representation.save_pretrained(tmp_path)
    again = type(representation).from_pretrained(tmp_path)
    energies = torch.from_numpy(jets.energies[:4])
    assert torch.equal(again.encode(energies), representation.encode(energies))


def test_decode_gives_hcal_constant_in_towers_for_any_x(jets):
    representation = fit_representation(TowerPatches, [torch.from_numpy(jets.energies)])
    x = torch.randn((2, *representation.shape), generator=torch.Generator().manual_seed(0)) * 4
    hcal = representation.decode(x)[:, 2].reshape(2, 25, 5, 25, 5)
    assert torch.equal(hcal, hcal[:, :, :1, :, :1].expand_as(hcal))
    assert (hcal > 0).any()


def test_decode_neither_clamps_nor_hides():
    representation = PixelGrid(mean=(0.0,) * 3, std=(0.1,) * 3)
    x = torch.zeros(1, *representation.shape)
    x[0, 0, 0, 0], x[0, 1, 0, 0] = 1e4, float("nan")
    decoded = representation.decode(x)
    assert decoded[0, 0, 0, 0] == torch.inf
    assert decoded[0, 1, 0, 0].isnan()
    assert decoded[0, 2].abs().sum() == 0


@given(
    values=arrays(
        np.float32,
        (3, 8),
        elements=st.floats(2.0**-120, 2.0**100, width=32, allow_subnormal=False) | st.just(0.0) | st.just(-0.0),
    )
)
def test_any_energy_goes_there_and_back(values):
    representation = TowerPatches(
        log_low=(-6.1, -10.8, -8.1),
        log_high=(-0.6, -1.9, -3.8),
        mean=(0.006, 0.02, 0.03),
        std=(0.08, 0.18, 0.19),
    )
    energies = torch.zeros(1, 3, 125, 125)
    energies[0, :2, 0, :8] = torch.from_numpy(values[:2])
    for tower, value in enumerate(values[2]):
        energies[0, 2, :5, 5 * tower : 5 * tower + 5] = float(value)
    decoded = representation.decode(representation.encode(energies))
    assert torch.equal(decoded == 0, energies == 0)
    hit = energies > 0
    # x is float32: an energy is known to about 1e-6 within the fitted range, to per cents at 1e-38.
    error = (decoded[hit] / energies[hit]).log().abs()
    assert (error < torch.where((energies[hit] > 1e-6) & (energies[hit] < 1e4), 1e-4, 0.15)).all()


@given(values=st.lists(st.floats(1e-37, 1e30), min_size=2, max_size=50, unique=True))
def test_the_value_map_rises(values):
    representation = PixelGrid(log_low=(-6.0,) * 3, log_high=(-1.0,) * 3)
    energies = torch.zeros(1, 3, 125, 125)
    ordered = torch.tensor(sorted(values), dtype=torch.float64)
    energies[0, 0, 0, : len(values)] = ordered.float()
    x = representation.encode(energies)[0, 0, 0, : len(values)]
    apart = ordered[1:] / ordered[:-1] > 1.1
    assert (x.diff() >= 0).all()
    assert (x.diff()[apart] > 0).all()
    assert x.min() > representation.hit_threshold()[0]


def test_render_shows_what_is_no_hit_yet(jets):
    representation = fit_representation(TowerPatches, [torch.from_numpy(jets.energies)])
    energies = torch.from_numpy(jets.energies[:2])
    x = representation.encode(energies)
    torch.testing.assert_close(representation.render(x), representation.decode(x), rtol=0, atol=0)
    between = (representation.zero() + representation.hit_threshold()).view(-1, 1, 1) / 2
    faint = representation.render(between.expand(1, -1, 28, 28))
    assert representation.decode(between.expand(1, -1, 28, 28)).sum() == 0
    assert (faint > 0).all()
    assert faint.max() < torch.tensor(representation.config.log_low).exp().max()


def test_hcal_that_differs_within_a_tower_is_refused_where_towers_are_needed(jets):
    representation = fit_representation(TowerPatches, [torch.from_numpy(jets.energies)])
    energies = torch.from_numpy(jets.energies[:3])
    energies[1, 2, 7, 8] += 0.5
    with pytest.raises(ValueError, match=r"1 of 3 jets.*PixelGrid"):
        representation.encode(energies)
    fit_representation(PixelGrid, [torch.from_numpy(jets.energies)]).encode(energies)


@pytest.mark.parametrize("value", [-1e-3, float("nan")])
def test_negative_energies_are_refused(jets, value):
    representation = fit_representation(PixelGrid, [torch.from_numpy(jets.energies)])
    energies = torch.from_numpy(jets.energies[:2])
    energies[1, 0, 3, 4] = value
    with pytest.raises(ValueError, match="must not be negative or NaN"):
        representation.encode(energies)


def test_wrong_shapes_are_refused(representation):
    with pytest.raises(ValueError, match=r"\(N, 3, 125, 125\), got \(2, 125, 125, 3\)"):
        representation.encode(torch.zeros(2, 125, 125, 3))
    with pytest.raises(ValueError, match=r"x must be .* got \(2, 7, 28, 28\)"):
        representation.decode(torch.zeros(2, 7, 28, 28))


def test_a_blank_channel_cannot_be_fitted(jets):
    energies = torch.from_numpy(jets.energies)
    energies[:, 1] = 0
    with pytest.raises(ValueError, match="ecal"):
        fit_representation(TowerPatches, [energies])


def test_a_blank_channel_or_image_cannot_be_fitted(jets):
    energies = torch.from_numpy(jets.energies)
    energies[:, 1] = 0
    with pytest.raises(ValueError, match="ecal"):
        fit_representation(ChannelMaxGrid, [energies])
    with pytest.raises(ValueError, match="blank"):
        fit_representation(ImageRangeGrid, [torch.zeros(3, 3, 125, 125)])


def test_resized_images_lie_within_their_limits(resized, jets):
    assert not (resized.lossless or resized.conserves_energy or resized.has_zero_gap)
    x = resized.encode(torch.from_numpy(jets.energies))
    low, high = resized.limits()
    assert torch.allclose(x.amin(), low)
    assert torch.allclose(x.amax(), high)
    assert torch.equal(x.amin((1, 2, 3)), low[:1].expand(len(x)))


def test_reducing_twice_is_reducing_once(jets):
    representation = fit_representation(ChannelMaxGrid, [torch.from_numpy(jets.energies)])
    x = representation.encode(torch.from_numpy(jets.energies))
    torch.testing.assert_close(representation.encode(representation.decode(x)), x, rtol=1e-5, atol=1e-7)


def test_what_is_below_zero_is_no_energy_and_a_nan_stays_one(resized):
    x = torch.full((1, *resized.shape), -1.5)
    x[0, 0, 0, 0], x[0, 1, 0, 0] = float("nan"), 3.0
    decoded = resized.decode(x)
    assert decoded[0, 0, 0, 0].isnan()
    assert decoded[0, 1, 0, 0] > resized.decode(torch.ones(1, *resized.shape))[0, 1, 0, 0]
    assert decoded[0, 2].abs().sum() == 0


def test_the_range_of_an_image_is_drawn_from_training_images(jets):
    energies = torch.from_numpy(jets.energies)
    representation = fit_representation(ImageRangeGrid, energies.split(16))
    x = representation.encode(energies[:1]).expand(20, -1, -1, -1)

    def largest(random, x=x):
        return representation.decode(x, random).amax((1, 2, 3))

    drawn = largest(RandomNumbers.of_seed(1, 0, 20))
    seen = torch.tensor([high for _, high in representation.config.ranges])
    assert len(drawn.unique()) > 5
    assert (drawn[:, None] - seen).abs().amin(1).max() < 1e-5
    assert torch.equal(drawn[5:], largest(RandomNumbers.of_seed(1, 5, 15), x[5:]))
    assert torch.equal(largest(None), largest(None))


def test_a_blank_image_has_no_range():
    x = ImageRangeGrid().encode(torch.zeros(2, 3, 125, 125))
    assert (x == -1).all()


@pytest.mark.parametrize("make", [TowerPatches, PixelGrid])
def test_the_energy_line_gives_the_energies(make, jets):
    energies = torch.from_numpy(jets.energies)
    representation = fit_representation(make, [energies])
    x = representation.encode(energies)
    group = torch.tensor(representation.channel_group)
    energy = HitEnergy(*representation.energy_line()[:, group, None, None])
    hit = x > representation.hit_threshold().view(-1, 1, 1)
    sums = torch.where(hit, energy.at(x), 0).sum((2, 3))
    found = torch.zeros(len(x), 3).index_add(1, group, sums)
    torch.testing.assert_close(found, representation.ring_sums(energies)[:, 3:], rtol=1e-3, atol=1e-3)


EDGES = (0.1, 0.2, 0.4, 0.7)


def test_rings_divide_each_channel_by_the_distance_from_the_centre():
    representation = TowerPatches(ring_edges=EDGES)
    energies = torch.zeros(1, 3, 125, 125)
    energies[0, 0, 62, 62 + 5] = 1.0  # .087 away
    energies[0, 0, 62 + 6, 62] = 2.0  # .105
    energies[0, 1, 62 - 30, 62 - 30] = 3.0  # .74
    energies[0, 2, 65:70, 60:65] = 0.2  # a tower whose centre is .087 away
    hits, in_gev = representation.ring_sums(energies).view(2, 3, 5)
    assert hits.tolist() == [[1, 1, 0, 0, 0], [0, 0, 0, 0, 1], [1, 0, 0, 0, 0]]
    torch.testing.assert_close(
        in_gev, 100 * torch.tensor([[1.0, 2, 0, 0, 0], [0, 0, 0, 0, 3], [5, 0, 0, 0, 0]]), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("make", [TowerPatches, PixelGrid])
def test_totals_of_rings_add_up_to_those_of_channels(make, jets):
    energies = torch.from_numpy(jets.energies)
    of_channels, of_rings = make().ring_sums(energies), make(ring_edges=EDGES).ring_sums(energies)
    assert of_channels.shape == (len(energies), 6)
    torch.testing.assert_close(of_channels[:, 3:], 100 * energies.sum((2, 3)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(of_rings.unflatten(1, (6, -1)).sum(2), of_channels, rtol=1e-4, atol=1e-3)
    regions = make(ring_edges=EDGES).rings()
    assert regions.unique().tolist() == list(range(15))
    group = torch.tensor(make().channel_group)
    assert torch.equal(regions // 5, group.view(-1, 1, 1).expand_as(regions))


@pytest.mark.parametrize("edges", [(0.2, 0.1), (0.1, 0.1), (0.0, 0.1), (float("nan"),), (0.1, float("inf"))])
def test_ring_edges_must_rise_from_above_zero(edges):
    with pytest.raises(ValueError, match="ring_edges must be positive and rise"):
        TowerPatches(ring_edges=edges)


@pytest.mark.parametrize(
    ("make", "edges", "empty"),
    [
        (TowerPatches, (0.002, 0.003), "tracks 1, ecal 1, hcal 1"),
        (TowerPatches, (0.1, 1.6), "tracks 2, ecal 2, hcal 2"),
        (PixelGrid, (0.1, 1.6), "tracks 2, ecal 2, hcal 2"),
    ],
)
def test_rings_without_pixels_are_refused(make, edges, empty):
    with pytest.raises(ValueError, match=f"leave no pixel in rings .*: {empty}"):
        make(ring_edges=edges)
