from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from models import VARIANCES, small_pipeline, tilt

from jet_diffusion import cli
from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.hub import load_pipeline
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.pipelines.moment_guidance import MOMENTS, MomentGuidance, shape_moments
from jet_diffusion.pipelines.random_numbers import RandomNumbers
from jet_diffusion.pipelines.schedulers import make_scheduler
from jet_diffusion.pipelines.tower_representations import PixelGrid, TowerPatches
from jet_diffusion.sampling.guidance import DAMPING, as_table, fit_moment_guidance, moments_of
from jet_diffusion.sampling.sample import set_sampler
from jet_diffusion.training.fit import fit_representation

pytestmark = pytest.mark.integration

CRYSTAL = 2 * np.pi / 360


@pytest.fixture(scope="module")
def model(converted_folder):
    return small_pipeline(converted_folder, "--unet.conditioning=rings")


@pytest.fixture
def pipeline(model):
    """The model, whose tilt is taken away again."""
    yield model
    model.register_to_config(moment_guidance=None)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def row(name):
    return MOMENTS.index(name)


def moments(representation, energies):
    x = representation.encode(energies)
    hits = (x > representation.hit_threshold().view(-1, 1, 1)).float()
    positions = representation.positions().float()
    gev = representation.to_grid(energies)
    at_top_left = torch.zeros_like(x)
    at_top_left[:, :, : gev.shape[2], : gev.shape[3]] = gev
    return shape_moments(hits, at_top_left, positions, representation.channel_group)


@pytest.fixture(params=[TowerPatches, PixelGrid], ids=lambda kind: kind.__name__)
def representation(request, jets):
    return fit_representation(request.param, [torch.from_numpy(jets.energies)])


def test_moments_of_one_crystal_are_its_place(representation):
    energies = torch.zeros(1, 3, 125, 125)
    energies[0, 1, 62 + 30, 62 - 40] = 0.7
    found = moments(representation, energies)[0]
    place, length = torch.tensor([30.0, -40.0]) * CRYSTAL, 50 * CRYSTAL
    for name in ("ecal", "energy"):
        torch.testing.assert_close(found[row(f"centroid_{name}")], place)
        # cos and sin of twice the angle whose cos and sin are .6 and -.8
        expected = length * torch.tensor([0.36 - 0.64, -0.96])
        torch.testing.assert_close(found[row(f"elongation_{name}")], expected.float())
    assert (found[row("centroid_tracks")] == 0).all()
    assert (found[row("elongation_hcal")] == 0).all()


def test_a_quarter_turn_turns_centroids_and_flips_elongations(representation, jets):
    energies = torch.from_numpy(jets.energies[:8])
    before, after = moments(representation, energies), moments(representation, energies.rot90(1, (2, 3)))
    centroid, elongation = before[:, :4], before[:, 4:]
    torch.testing.assert_close(
        after[:, :4], torch.stack([-centroid[..., 1], centroid[..., 0]], -1), atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(after[:, 4:], -elongation, atol=1e-5, rtol=1e-4)


def test_moments_do_not_depend_on_the_arrangement_of_pixels(jets):
    energies = torch.from_numpy(jets.energies[:8])
    towers, grid = (fit_representation(kind, [torch.from_numpy(jets.energies)]) for kind in (TowerPatches, PixelGrid))
    of_towers, of_grid = moments(towers, energies), moments(grid, energies)
    channels = [row(name) for name in MOMENTS if not name.endswith(("energy", "hcal"))]
    torch.testing.assert_close(of_towers[:, channels], of_grid[:, channels], atol=1e-6, rtol=1e-4)


def test_the_shift_is_the_gradient_of_the_exponent(pipeline):
    settings = tilt(0.3, centroid_energy=0.8)
    guide = MomentGuidance(pipeline.representation.positions(), **settings)
    denoiser, conditioner = pipeline.denoiser, pipeline.conditioner
    timesteps = torch.tensor([600, 600])
    alpha, sigma = denoiser.noise_level(timesteps)
    drawn = pipeline.first_stage.draw(RandomNumbers.of_seed(1, 0, 2))
    inputs = (conditioner(*drawn), drawn[3])
    x_t = torch.randn(2, *pipeline.representation.shape, generator=seeded())
    output, shift = guide(denoiser, pipeline.unet, x_t, timesteps, *inputs)
    torch.testing.assert_close(output.x0, denoiser(pipeline.unet, x_t, timesteps, *inputs).x0)
    assert not shift.requires_grad

    def exponents(x):
        with torch.no_grad():
            hits, energies = denoiser.hits_and_energies(denoiser(pipeline.unet, x, timesteps, *inputs))
            found = shape_moments(hits, energies, pipeline.representation.positions().float(), denoiser.rings.group)
        size = found.double().square().sum(2)
        return sum(settings["strengths"][n] / VARIANCES[n] * size[:, row(n)] for n in MOMENTS) / 2

    way = shift / shift.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    step = 0.3
    slope = (exponents(x_t + step * way) - exponents(x_t - step * way)) / (2 * step)
    expected = (sigma.square() / alpha).flatten().double() * slope
    torch.testing.assert_close((shift * way).sum((1, 2, 3)).double(), expected, rtol=0.03, atol=1e-6)


def test_stronger_tilts_make_larger_moments(pipeline):
    found = {}
    for strength in (-1.0, 0.0, 1.0):
        pipeline.register_to_config(moment_guidance=tilt(strength))
        images = pipeline(24, num_inference_steps=10, generator=seeded(), output_type="pt").images
        found[strength] = moments_of(pipeline, images.permute(0, 3, 1, 2)).norm(dim=2).mean(0)
    assert (found[-1.0] < found[0.0]).all()
    assert (found[0.0] < found[1.0]).all()


def test_a_tilt_without_strength_changes_nothing(pipeline):
    plain = pipeline(3, num_inference_steps=4, generator=seeded()).images
    pipeline.register_to_config(moment_guidance=tilt(0.0))
    assert np.array_equal(pipeline(3, num_inference_steps=4, generator=seeded()).images, plain)


def test_nothing_is_tilted_outside_the_ratios(pipeline):
    plain = pipeline(2, num_inference_steps=4, generator=seeded()).images
    pipeline.register_to_config(moment_guidance={**tilt(5.0), "ratios": [1e5, 1e6]})
    assert np.array_equal(pipeline(2, num_inference_steps=4, generator=seeded()).images, plain)


def test_tilted_jets_do_not_depend_on_their_batch_and_leave_no_gradients(pipeline):
    pipeline.register_to_config(moment_guidance=tilt(0.5))
    whole = pipeline(5, num_inference_steps=4, generator=seeded(), batch_size=5).images
    with torch.inference_mode():
        parts = pipeline(5, num_inference_steps=4, generator=seeded(), batch_size=2).images
    assert ((whole > 0) != (parts > 0)).mean() <= 1e-4
    assert (np.abs(whole - parts) > 1e-5).mean() <= 1e-3
    assert all(weight.grad is None for weight in pipeline.unet.parameters())


def test_a_tilt_survives_saving(pipeline, tmp_path):
    pipeline.register_to_config(moment_guidance=tilt(0.5))
    pipeline.save_pretrained(tmp_path)
    again = load_pipeline(tmp_path)
    assert again.config.moment_guidance == pipeline.config.moment_guidance
    jets = [each(2, num_inference_steps=4, generator=seeded()).images for each in (pipeline, again)]
    assert np.array_equal(*jets)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strengths": {"centroid_tracks": 1.0}}, "strengths of moment guidance must be of centroid_tracks, "),
        ({"variances": {**VARIANCES, "elongation_energy": 0.0}}, "must be positive"),
        ({"strengths": dict.fromkeys(MOMENTS, float("nan"))}, "must be finite"),
        ({"ratios": [3.0, 2.0]}, "must be two that rise"),
        ({"power": 2.0}, "has strengths, variances and ratios"),
    ],
)
def test_bad_tilts_are_refused_before_any_work(model, changes, message):
    bad = {**tilt(0.1), **changes}
    with pytest.raises(ValueError, match=message):
        JetImagePipeline(**model.components, moment_guidance=bad)
    other = JetImagePipeline(**model.components)
    with pytest.raises(ValueError, match=message):
        set_sampler(other, moment_guidance=bad)
    with pytest.raises(ValueError, match=message):
        other(1, num_inference_steps=2, callback_on_step_end=lambda *_: pytest.fail("a step was made"))


@pytest.mark.parametrize(
    ("scheduler", "settings"),
    [("sde-dpm++", {"clip_sample": False}), ("sde-dpm++", {"guidance_scale": 1.5}), ("euler", {}), ("ddim", {})],
)
def test_a_tilt_goes_with_other_settings(converted_folder, scheduler, settings):
    pipeline = small_pipeline(converted_folder, "--unet.conditioning=rings", "--optimizer.condition_drop=0.1")
    torch.nn.init.normal_(pipeline.conditioner.dropped)
    pipeline.scheduler = make_scheduler(scheduler, pipeline.scheduler.config)
    sizes = []
    for strength in (-1.0, 1.0):
        pipeline.register_to_config(moment_guidance=tilt(strength))
        output = pipeline(8, num_inference_steps=8, generator=seeded(), output_type="pt", **settings)
        sizes.append(moments_of(pipeline, output.images.permute(0, 3, 1, 2)).norm(dim=2).mean())
        assert output.clipped_fraction < 1e-2
    assert sizes[0] < sizes[1]


def test_moments_are_float32_under_autocast(jets):
    representation = fit_representation(TowerPatches, [torch.from_numpy(jets.energies)])
    energies = torch.from_numpy(jets.energies[:4])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = moments(representation, energies)
    torch.testing.assert_close(found, moments(representation, energies), rtol=0, atol=0)


def test_models_that_know_no_energies_of_hits_refuse_a_tilt(converted_folder):
    other = small_pipeline(converted_folder, "--denoiser.kind=v_prediction")
    with pytest.raises(ValueError, match="needs a spike-and-slab denoiser"):
        JetImagePipeline(**other.components, moment_guidance=tilt(0.1))
    with pytest.raises(ValueError, match="needs a spike-and-slab denoiser"):
        fit_moment_guidance(other, JetDataset.load(converted_folder, "train"), rounds=1, num_jets=4)


@pytest.mark.slow
def test_fitting_raises_what_is_too_small(pipeline, converted_folder, monkeypatch):
    jets = JetDataset.load(converted_folder, "train")
    sampled_with = []
    moved = pipeline.denoiser.forward

    def watch(*inputs):
        sampled_with.append(dict(pipeline.config.moment_guidance["strengths"]))
        return moved(*inputs)

    monkeypatch.setattr(pipeline.denoiser, "forward", watch)
    found_tilt, rounds = fit_moment_guidance(pipeline, jets, rounds=2, num_jets=24, batch_size=16)
    first, second = rounds
    half = len(sampled_with) // 2
    assert all(strengths == first.strengths for strengths in sampled_with[:half])
    assert all(strengths == second.strengths for strengths in sampled_with[half:])
    assert set(first.strengths.values()) == {0}
    final = found_tilt["strengths"]
    for before, found, after in ((first, first, second.strengths), (second, second, final)):
        for name in MOMENTS:
            assert (after[name] > before.strengths[name]) is (found.sizes[name] < 1)
            assert abs(after[name] - before.strengths[name]) <= DAMPING + 1e-4
            assert 0 < found.errors[name] < 1
    assert pipeline.config.moment_guidance == found_tilt
    real = moments_of(pipeline, torch.from_numpy(jets.energies(slice(None)))).square().mean((0, 2))
    assert list(found_tilt["variances"].values()) == pytest.approx(real.tolist(), rel=1e-2)
    table = as_table(rounds)
    assert "round 2" in table
    assert f"{second.sizes['centroid_energy']:.3f}" in table


def test_the_command_writes_what_publish_takes(model, converted_folder, tmp_path, capsys):
    model.save_pretrained(tmp_path / "model")
    command = [str(tmp_path / "model"), str(converted_folder), "--rounds", "1", "--num-jets", "4"]
    cli.run("fit-guidance", [*command, "--out", str(tmp_path / "shapes.json")])
    written = json.loads((tmp_path / "shapes.json").read_text())
    assert set(written["moment_guidance"]["strengths"]) == set(MOMENTS)
    assert set(written["rounds"][0]["sizes"]) == set(MOMENTS)
    assert written["training_jets"] == JetDataset.load(converted_folder, "train").fingerprint
    assert written["num_inference_steps"] == model.config.default_steps
    assert "centroid_tracks" in capsys.readouterr().out
    JetImagePipeline(**model.components, moment_guidance=written["moment_guidance"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rounds", "0"], "--rounds must be at least 1, got 0"),
        (["--num-jets", "9999"], "9999"),
        (["--num-jets", "4", "--batch-size", "0"], "--batch-size must be at least 1"),
    ],
)
def test_too_few_jets_or_rounds_are_refused(model, converted_folder, tmp_path, options, message):
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=message):
        cli.run(
            "fit-guidance",
            [str(tmp_path / "model"), str(converted_folder), "--out", str(tmp_path / "shapes.json"), *options],
        )
    assert not (tmp_path / "shapes.json").exists()


def test_a_missing_folder_is_named_before_any_work(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        cli.run(
            "fit-guidance", [str(tmp_path / "no model"), "no data", "--out", str(tmp_path / "absent" / "shapes.json")]
        )
