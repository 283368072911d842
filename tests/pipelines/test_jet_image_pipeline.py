from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from models import small_pipeline
from PIL import Image

from jet_diffusion.hub import load_pipeline
from jet_diffusion.pipelines.random_numbers import RandomNumbers
from jet_diffusion.pipelines.schedulers import SCHEDULERS, make_scheduler

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def pipeline(converted_folder):
    return small_pipeline(converted_folder)


@pytest.fixture
def default_scheduler(pipeline):
    """Restores the scheduler a test swaps."""
    scheduler = pipeline.scheduler
    yield scheduler
    pipeline.scheduler = scheduler


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def final_x(pipeline, *args, **kwargs):
    """States of all jets after the last step, in model space."""
    finals = []
    timesteps = []

    def keep(pipe, step, timestep, tensors):
        if step == 0:
            finals.append(None)
        finals[-1] = tensors["x"].clone()
        timesteps.append(int(timestep))
        return {}

    output = pipeline(*args, callback_on_step_end=keep, **kwargs)
    return torch.cat(finals)[: len(output.labels)], output


def test_output_is_jets_with_their_conditions(pipeline):
    output = pipeline(labels=["quark", "gluon", 1], pt=[100, 120, 90.0], num_inference_steps=5, generator=seeded())
    assert output.images.shape == (3, 125, 125, 3)
    assert output.images.dtype == np.float32
    assert np.isfinite(output.images).all()
    assert (output.images >= 0).all()
    assert (output.images > 0).any()
    assert output.labels.tolist() == [1, 0, 1]
    assert output.pt.tolist() == [100, 120, 90]
    assert (output.m0 > 0).all()
    assert 0 <= output.clipped_fraction < 1


def test_output_types_agree(pipeline):
    arrays, tensors, pictures = (
        pipeline(2, num_inference_steps=3, generator=seeded(), output_type=kind).images for kind in ("np", "pt", "pil")
    )
    assert np.array_equal(arrays, tensors.numpy())
    assert all(isinstance(picture, Image.Image) and picture.size == (125, 125) for picture in pictures)
    lit = np.asarray(pictures[0])
    assert (lit[arrays[0] * 100 > 0.02] > 0).all()
    assert (lit[arrays[0] == 0] == 0).all()
    as_tuple = pipeline(2, num_inference_steps=3, generator=seeded(), return_dict=False)
    assert np.array_equal(as_tuple[0], arrays)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_of_the_table_makes_jets(pipeline, default_scheduler, name):
    pipeline.scheduler = make_scheduler(name, default_scheduler.config)
    output = pipeline(2, num_inference_steps=12, generator=seeded())
    occupancy = (output.images > 0).mean()
    assert np.isfinite(output.images).all()
    assert 0.003 < occupancy < 0.05
    again = pipeline(2, num_inference_steps=12, generator=seeded())
    assert np.array_equal(output.images, again.images)


@pytest.mark.parametrize("name", ["dpm++", "sde-dpm++", "ddpm", "euler"])
def test_a_jet_is_the_same_in_any_batch(pipeline, default_scheduler, name):
    pipeline.scheduler = make_scheduler(name, default_scheduler.config)
    settings = {"num_inference_steps": 6}
    x, whole = final_x(pipeline, 7, generator=seeded(), batch_size=7, **settings)
    for batch_size in (1, 3):
        x_split, split = final_x(pipeline, 7, generator=seeded(), batch_size=batch_size, **settings)
        difference = (x_split - x).abs()
        # Convolutions round differently at another batch size; a pixel on the edge of being a hit amplifies it.
        assert (difference > 1e-5).float().mean() <= 1e-3
        assert difference.max() < 1e-2
        assert ((split.images > 0) != (whole.images > 0)).mean() <= 1e-4
        assert np.array_equal(split.pt, whole.pt)
    tail = pipeline(3, generator=seeded(), batch_size=3, first_jet=4, **settings)
    assert np.array_equal(tail.labels, whole.labels[4:])
    assert np.allclose(tail.images, whole.images[4:], rtol=1e-3, atol=1e-6)


def test_at_one_batch_size_jets_are_equal_to_the_bit(pipeline):
    whole = pipeline(7, num_inference_steps=4, generator=seeded(), batch_size=4)
    tail = pipeline(4, num_inference_steps=4, generator=seeded(), batch_size=4, first_jet=3)
    assert np.array_equal(whole.images[3:], tail.images)


def test_generators_advance_and_seeds_differ(pipeline):
    generator = seeded()
    first, second = (pipeline(1, num_inference_steps=3, generator=generator).images for _ in range(2))
    assert not np.array_equal(first, second)
    own = [seeded(5), seeded(6)]
    listed = pipeline(2, num_inference_steps=3, generator=own)
    swapped = pipeline(2, num_inference_steps=3, generator=[seeded(6), seeded(5)])
    assert np.allclose(listed.images, swapped.images[::-1], rtol=1e-3, atol=1e-6)


def test_holding_keeps_x0_in_the_fitted_range(pipeline):
    low, high = (limit.view(-1, 1, 1) for limit in pipeline.representation.limits())
    weights = pipeline.unet.conv_out.weight.clone()
    seen = {}

    def check(pipe, step, timestep, tensors):
        seen["outside"] = bool(((tensors["x0"] < low) | (tensors["x0"] > high)).any())
        return {}

    try:
        pipeline.unet.conv_out.weight.data.mul_(100)
        for clip_sample in (True, False):
            output = pipeline(
                1, num_inference_steps=1, generator=seeded(), clip_sample=clip_sample, callback_on_step_end=check
            )
            assert seen["outside"] is not clip_sample
            assert (output.clipped_fraction > 0) is clip_sample
    finally:
        pipeline.unet.conv_out.weight.data.copy_(weights)


def test_holding_makes_no_hit_smaller_than_the_smallest_fitted(pipeline):
    smallest = np.exp(pipeline.representation.config.log_min)
    below = {}
    for clip_sample in (True, False):
        images = pipeline(4, num_inference_steps=2, generator=seeded(), clip_sample=clip_sample).images
        below[clip_sample] = int(((images > 0) & (images < smallest * (1 - 1e-3))).sum())
    assert below[False] > 0
    assert below[True] == 0


def test_the_share_held_does_not_depend_on_the_batch(pipeline):
    weights = pipeline.unet.conv_out.weight.clone()
    try:
        pipeline.unet.conv_out.weight.data.mul_(100)
        shares = [
            pipeline(3, num_inference_steps=3, generator=seeded(), batch_size=size).clipped_fraction for size in (2, 3)
        ]
    finally:
        pipeline.unet.conv_out.weight.data.copy_(weights)
    assert shares[0] > 0
    assert shares[0] == pytest.approx(shares[1], rel=1e-3)


def test_a_callback_may_replace_the_state(pipeline):
    def blank(pipe, step, timestep, tensors):
        return {"x": pipe.representation.zero().view(-1, 1, 1).expand_as(tensors["x"])}

    assert pipeline(1, num_inference_steps=2, generator=seeded(), callback_on_step_end=blank).images.sum() == 0


def test_conditions_reach_the_network(pipeline):
    torch.nn.init.normal_(pipeline.conditioner.project[2].weight, std=1.0)
    x_quark, _ = final_x(pipeline, labels=1, pt=100.0, m0=20.0, num_inference_steps=2, generator=seeded())
    x_heavy, _ = final_x(pipeline, labels=1, pt=100.0, m0=40.0, num_inference_steps=2, generator=seeded())
    assert not torch.allclose(x_quark, x_heavy, atol=1e-3)
    try:
        pipeline.conditioner.dropped.data.fill_(1.0)
        x_guided, _ = final_x(
            pipeline, labels=1, pt=100.0, m0=20.0, num_inference_steps=2, generator=seeded(), guidance_scale=3.0
        )
    finally:
        pipeline.conditioner.dropped.data.zero_()
    assert not torch.allclose(x_quark, x_guided, atol=1e-3)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_plain_denoisers_sample_too(converted_folder, prediction):
    plain = small_pipeline(converted_folder, f"--denoiser.kind={prediction}")
    output = plain(2, num_inference_steps=4, generator=seeded())
    assert np.isfinite(output.images).all()
    assert output.clipped_fraction > 0


def test_a_cpu_denoises_sixteen_jets_at_once_unless_told(pipeline):
    sizes = []

    def note(pipe, step, timestep, tensors):
        sizes.append(len(tensors["x"]))
        return {}

    pipeline(17, num_inference_steps=1, generator=seeded(), callback_on_step_end=note)
    pipeline(17, num_inference_steps=1, generator=seeded(), callback_on_step_end=note, batch_size=9)
    assert sizes == [16, 16, 9, 9]


def test_unconditional_models_sample_and_say_so(converted_folder):
    pipeline = small_pipeline(converted_folder, "--unet.conditioning=none")
    output = pipeline(2, num_inference_steps=2)
    assert output.labels.tolist() == [-1, -1]
    assert np.isnan(output.pt).all()
    with pytest.raises(ValueError, match="unconditional"):
        pipeline(2, labels=1)


@pytest.mark.parametrize("widths", ["[]", "[4]"])
def test_half_precision_leaves_jets_nearly_as_they_are(converted_folder, widths):
    pipeline = small_pipeline(converted_folder, f"--denoiser.crystal_channels={widths}")
    if pipeline.denoiser.crystal_network is not None:
        torch.nn.init.normal_(pipeline.denoiser.crystal_network.layers[-1].weight, std=0.02)
    x, _ = final_x(pipeline, 2, num_inference_steps=3, generator=seeded())
    x_half, output = final_x(pipeline.to(torch.bfloat16), 2, num_inference_steps=3, generator=seeded())
    assert output.images.dtype == np.float32
    assert x_half.dtype == torch.float32
    assert (x - x_half).abs().mean() < 0.05


@pytest.mark.parametrize("name", ["dpm++", "ddpm", "euler", "ddim"])
def test_lightly_noised_jets_come_back(pipeline, default_scheduler, jets, name):
    pipeline.scheduler = make_scheduler(name, default_scheduler.config)
    energies = torch.from_numpy(jets.energies[:3])
    columns = [torch.from_numpy(column[:3]) for column in (jets.labels, jets.pt, jets.m0)]
    clean, _noisy = pipeline.reconstruct(energies, 60, *columns, num_inference_steps=50, generator=seeded())
    assert ((clean > 0) != (energies > 0)).float().mean() < 2e-3
    torch.testing.assert_close(clean.sum((1, 2, 3)), energies.sum((1, 2, 3)), rtol=0.15, atol=0)
    far, _ = pipeline.reconstruct(energies, 990, *columns, num_inference_steps=10, generator=seeded())
    assert ((far > 0) != (energies > 0)).float().mean() > 5e-3
    with pytest.raises(ValueError, match="timestep must be 0 to 999"):
        pipeline.reconstruct(energies, 1000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_jets": 0}, "num_jets must be a positive"),
        ({"num_jets": 2.0}, "num_jets must be a positive"),
        ({"num_jets": 2, "labels": [0, 1, 1]}, "lengths differ: labels 3, num_jets 2"),
        ({"labels": [0, 1], "pt": [90.0]}, "lengths differ"),
        ({"labels": []}, "empty"),
        ({"labels": 7}, "labels must be"),
        ({"pt": -3.0}, "pt must be positive"),
        ({"m0": float("inf")}, "m0 must be positive"),
        ({"output_type": "latent"}, "output_type must be one of"),
        ({"num_inference_steps": 0}, "num_inference_steps must be"),
        ({"num_inference_steps": 1001}, "at most the 1000 training timesteps"),
        ({"timesteps": [100, 500]}, "timesteps must fall"),
        ({"timesteps": [1000, 500]}, "timesteps must fall"),
        ({"guidance_scale": 2.0}, "conditions dropped"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"num_jets": 2, "generator": [torch.Generator()]}, "1 generators were given for 2 jets"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(pipeline, arguments, message, monkeypatch):
    monkeypatch.setattr(pipeline.unet, "forward", lambda *_, **__: pytest.fail("the network was called"))
    with pytest.raises(ValueError, match=message):
        pipeline(**arguments)


def test_other_noise_schedules_are_refused(pipeline, default_scheduler):
    config = default_scheduler.config
    pipeline.scheduler = DDPMScheduler(beta_schedule="scaled_linear", prediction_type="sample")
    with pytest.raises(ValueError, match="alpha_bar"):
        pipeline(1)
    pipeline.scheduler = DDPMScheduler.from_config(config, prediction_type="epsilon")
    with pytest.raises(ValueError, match='prediction_type="sample"'):
        pipeline(1)
    with pytest.raises(ValueError, match="unknown scheduler 'heun'"):
        make_scheduler("heun", config)


def test_timesteps_can_be_chosen_where_the_scheduler_takes_them(pipeline, default_scheduler):
    output = pipeline(1, timesteps=[999, 500, 100], generator=seeded())
    assert output.images.shape == (1, 125, 125, 3)
    pipeline.scheduler = make_scheduler("ddim", default_scheduler.config)
    with pytest.raises(ValueError, match="takes no timesteps"):
        pipeline(1, timesteps=[999, 500, 100])


@pytest.fixture(scope="module")
def totals_pipeline(converted_folder):
    return small_pipeline(converted_folder, "--unet.conditioning=rings", "--optimizer.condition_drop=0.1")


def energies_of(output):
    return 100 * output.images.sum((1, 2), dtype=np.float64)


def test_jets_have_the_energies_drawn_for_them(totals_pipeline):
    output = totals_pipeline(6, num_inference_steps=4, generator=[seeded(jet) for jet in range(6)])
    drawn = totals_pipeline.first_stage.draw(RandomNumbers.of_generators([seeded(jet) for jet in range(6)], 0, 6))
    np.testing.assert_array_equal(output.labels, drawn.labels)
    np.testing.assert_array_equal(output.pt, drawn.pt)
    made, wanted = energies_of(output), drawn.ring_sums[:, 3:].numpy()
    assert (made > 0).any(1).all()
    np.testing.assert_allclose(made[made > 0], wanted[made > 0], rtol=1e-4)


def test_totals_can_be_asked_for(totals_pipeline):
    asked = torch.tensor([[60.0, 250, 12, 50, 40, 20]]).expand(3, 6).clone()
    asked[2] = torch.nan
    output = totals_pipeline(3, ring_sums=asked, num_inference_steps=4, generator=seeded())
    made = energies_of(output)[:2]
    np.testing.assert_allclose(made[made > 0], np.tile([50, 40, 20], (2, 1))[made > 0], rtol=1e-4)
    few, many = (
        totals_pipeline(4, ring_sums=asked[:1].expand(4, 6) * scale, num_inference_steps=4, generator=seeded())
        for scale in (0.3, 3.0)
    )
    assert (many.images > 0).sum() > 2 * (few.images > 0).sum()


def test_hits_and_energies_of_rings_can_be_asked_for_and_survive_saving(converted_folder, tmp_path):
    pipeline = small_pipeline(converted_folder, "--unet.conditioning=rings", "--representation.ring_edges=[.1,.3]")
    assert pipeline.conditioner.num_ring_sums == 18
    # Far from the average profile, which has most hits outside.
    asked = torch.tensor([[30.0, 20, 10, 20, 90, 10, 6, 4, 2, 20, 15, 15, 20, 12, 8, 8, 6, 6]]).expand(4, 18)
    output = pipeline(4, ring_sums=asked, num_inference_steps=20, generator=seeded(), output_type="pt")
    found = pipeline.representation.ring_sums(output.images.permute(0, 3, 1, 2).contiguous())
    hits = found[:, :9]
    assert ((hits - asked[:, :9]).abs() <= 2 + 1.5 * asked[:, :9].sqrt()).all()
    torch.testing.assert_close(
        found[:, 9:].unflatten(1, (3, 3)).sum(2), torch.tensor([[50.0, 40, 20]]).expand(4, 3), rtol=1e-4, atol=0
    )
    pipeline.save_pretrained(tmp_path)
    again = load_pipeline(tmp_path)
    again.set_progress_bar_config(disable=True)
    same = again(4, ring_sums=asked, num_inference_steps=20, generator=seeded(), output_type="pt")
    assert torch.equal(same.images, output.images)
    with pytest.raises(ValueError, match=r"ring_sums must be \(4, 18\)"):
        pipeline(4, ring_sums=asked[:, :6])


def test_a_crystal_network_survives_saving(converted_folder, tmp_path):
    pipeline = small_pipeline(converted_folder, "--denoiser.crystal_channels=[4]")
    torch.nn.init.normal_(pipeline.denoiser.crystal_network.layers[-1].weight, std=0.5)
    pipeline.save_pretrained(tmp_path)
    again = load_pipeline(tmp_path)
    again.set_progress_bar_config(disable=True)
    made, remade = (pipe(2, num_inference_steps=2, generator=seeded()) for pipe in (pipeline, again))
    np.testing.assert_array_equal(made.images, remade.images)


def test_totals_survive_saving(totals_pipeline, tmp_path):
    totals_pipeline.save_pretrained(tmp_path)
    again = load_pipeline(tmp_path)
    again.set_progress_bar_config(disable=True)
    made, remade = (pipe(3, num_inference_steps=2, generator=seeded()) for pipe in (totals_pipeline, again))
    np.testing.assert_array_equal(made.images, remade.images)


def test_totals_of_the_wrong_shape_or_model_are_refused(totals_pipeline, pipeline):
    with pytest.raises(ValueError, match=r"ring_sums must be \(2, 6\), got \(1, 6\)"):
        totals_pipeline(2, ring_sums=torch.ones(1, 6))
    with pytest.raises(ValueError, match="not conditioned on ring sums"):
        pipeline(1, ring_sums=torch.ones(1, 6))


def test_lightly_noised_jets_come_back_from_a_model_with_totals(totals_pipeline, jets):
    energies = torch.from_numpy(jets.energies[:4])
    clean, _ = totals_pipeline.reconstruct(energies, 20, num_inference_steps=50, generator=seeded())
    torch.testing.assert_close(clean.sum((2, 3)), energies.sum((2, 3)), rtol=0.3, atol=0.02)
