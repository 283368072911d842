from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from models import small_settings
from safetensors.torch import load_file
from strangers import run_stranger

from jet_diffusion import cli
from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.hub import load_pipeline, trained_tensors
from jet_diffusion.pipelines.notebook_baselines import BASELINES, DeepFalconCNN, DeepFalconUNet
from jet_diffusion.pipelines.schedulers import make_scheduler
from jet_diffusion.runs import RunFolder
from jet_diffusion.training.build import build_pipeline
from jet_diffusion.training.settings import parse_settings
from jet_diffusion.training.train import train
from jet_diffusion.workflows import notebook
from jet_diffusion.workflows.stage import stage

pytestmark = pytest.mark.integration

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = {"deepfalcon_cnn": [], "deepfalcon_unet": ["--unet.block_out_channels=[4,8,8]"]}


def settings_of(name, folder, run, *options):
    """The configuration that ships, made small."""
    fixed = [
        "--cpu=true",
        "--trackers=[]",
        "--num_workers=0",
        "--validation_jets=8",
        "--sample_jets=2",
        "--batch_size=8",
    ]
    fixed += ["--max_steps=2", "--sampling.steps=4", "--validate_every=1", f"--data={folder}", f"--run_dir={run}"]
    return parse_settings([f"--config={CONFIGS / name}.yaml", *fixed, *SMALL[name], *options])


def run_here(settings):
    AcceleratorState._reset_state(reset_partial_state=True)
    return train(settings)


def sampled(pipeline, **options):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(3, generator=torch.Generator().manual_seed(0), **options).images


@pytest.fixture(scope="module", params=BASELINES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def run(name, converted_folder, tmp_path_factory):
    return run_here(settings_of(name, converted_folder, tmp_path_factory.mktemp(name) / "run"))


@pytest.mark.parametrize(("network", "parameters"), [(DeepFalconCNN, 27_139), (DeepFalconUNet, 62_438_883)])
def test_networks_have_the_size_they_are_known_for(network, parameters):
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in network().parameters()) == parameters


@pytest.mark.parametrize("make", [DeepFalconCNN, lambda: DeepFalconUNet(block_out_channels=(4, 8, 8))])
def test_networks_are_called_as_a_unet2d_model_is(make, tmp_path):
    torch.manual_seed(0)
    network = make().eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    early, late = (network(x, torch.tensor([t, t])).sample for t in (1, 40))
    assert early.shape == x.shape
    assert not torch.equal(early, late)  # the timestep reaches the output
    assert torch.equal(network(x, torch.tensor([1, 1]), return_dict=False)[0], early)
    with pytest.raises(ValueError, match="unconditional"):
        network(x, torch.tensor([1, 1]), class_labels=torch.zeros(2, 4))
    network.save_pretrained(tmp_path)
    assert torch.equal(type(network).from_pretrained(tmp_path).eval()(x, torch.tensor([1, 1])).sample, early)


def test_configurations_are_the_known_experiments(converted_folder):
    jets = JetDataset.load(converted_folder, "train")
    expected = {"deepfalcon_cnn": ((3, 32, 32), 0.776), "deepfalcon_unet": ((3, 64, 64), 0.9998)}
    for name, (shape, amplitude) in expected.items():
        settings = parse_settings([f"--config={CONFIGS / name}.yaml", f"--data={converted_folder}", *SMALL[name]])
        pipeline = build_pipeline(settings, jets)
        assert pipeline.representation.shape == shape
        assert pipeline.denoiser.alphas_cumprod[-1].sqrt().item() == pytest.approx(amplitude, abs=6e-4)
        assert pipeline.config.default_steps == len(pipeline.denoiser.alphas_cumprod)
        settings.noise.allow_signal_at_T = False
        with pytest.raises(ValueError, match=f"leaves {str(amplitude)[:5]}"):
            build_pipeline(settings, jets)


def test_the_run_has_losses_and_a_complete_checkpoint(run, name):
    assert [line["step"] for line in run.read_metrics("validation")] == [1, 2]
    state = json.loads((run.checkpoint("last") / "state.json").read_text())
    assert state["epoch"] == pytest.approx(16 / 320)
    assert state["training_loss"] == pytest.approx(run.read_metrics("train")[-1]["loss"])
    # The loss is the noise's own error: predicting none costs 1 (squared) or sqrt(2 / pi) (absolute).
    blind = {"deepfalcon_cnn": 1.0, "deepfalcon_unet": (2 / np.pi) ** 0.5}[name]
    assert run.read_metrics("train")[-1]["loss"] == pytest.approx(blind, rel=0.35)


def test_no_averaging_means_the_weights_themselves(run):
    pipeline = load_pipeline(run.path)
    assert yaml.safe_load(run.config.read_text())["ema_decay"] == 0
    weights = load_file(run.checkpoint("last") / "weights.safetensors")
    for key, tensor in trained_tensors(pipeline.unet).items():
        assert torch.equal(tensor, weights[f"unet.{key}"]), key


def test_statistics_of_normalisation_survive(converted_folder, tmp_path):
    settings = settings_of("deepfalcon_unet", converted_folder, tmp_path / "run")
    pipeline = load_pipeline(run_here(settings).path)
    statistics = [buffer for key, buffer in trained_tensors(pipeline.unet).items() if "num_batches" in key]
    assert len(statistics) == 8
    assert all(int(number) == 2 for number in statistics)


def test_a_run_goes_on_exactly(name, converted_folder, tmp_path):
    steps = {"whole": [4], "broken": [2, 4]}
    for folder, ends in steps.items():
        for end in ends:
            more = [f"--max_steps={end}", "--checkpoint_every=2", "--validate_every=9"]
            run_here(settings_of(name, converted_folder, tmp_path / folder, *more))
    for file in ("weights.safetensors", "optimizer.safetensors"):
        one, two = (RunFolder(tmp_path / folder).checkpoint("last") / file for folder in steps)
        assert one.read_bytes() == two.read_bytes(), file


def test_sampling_is_finite_without_holding(run):
    pipeline = load_pipeline(run.path)
    total = len(pipeline.denoiser.alphas_cumprod)
    images = sampled(pipeline, clip_sample=False, num_inference_steps=total)
    assert images.shape == (3, 125, 125, 3)
    assert np.isfinite(images).all()
    assert (images >= 0).all()


def test_steps_without_noise_are_left_out(converted_folder, tmp_path):
    """The tiniest betas vanish in float32: a DDPM step there is 0 / 0."""
    jets = JetDataset.load(converted_folder, "train")
    pipeline = build_pipeline(settings_of("deepfalcon_unet", converted_folder, tmp_path), jets)
    assert (pipeline.denoiser.alphas_cumprod == 1).sum() == 3
    seen = []

    def keep(pipe, step, timestep, tensors):
        seen.append(int(timestep))
        return {}

    sampled(pipeline, num_inference_steps=300, callback_on_step_end=keep)
    assert seen == list(range(299, 2, -1))


def test_a_stranger_and_our_loader_agree(run, name, tmp_path):
    staged = stage(run, tmp_path / "model", "user/jets")
    names = {path.name for path in staged.rglob("*.py")}
    assert {"notebook_baselines.py", "pipeline.py"} <= names
    assert np.array_equal(sampled(load_pipeline(staged)), sampled(load_pipeline(run.path)))
    assert type(load_pipeline(staged).unet).__name__ in (staged / "README.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--unet.conditioning=jet"], "deepfalcon_cnn is unconditional"),
        (["--unet.dropout=0.1"], "has no unet.dropout"),
        (["--denoiser.kind=spike_and_slab"], "zeros that stand apart"),
        (["--sampling.steps=51"], "sampling.steps must lie in 1 to 50"),
    ],
)
def test_contradictions_are_refused(converted_folder, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run_here(settings_of("deepfalcon_cnn", converted_folder, tmp_path / "run", *options))


def test_any_network_goes_with_any_representation(converted_folder):
    """The baseline's network behind the spike and slab of towers: what it lacks is not its size alone."""
    options = ["--unet.network=deepfalcon_cnn", "--unet.conditioning=none", "--unet.block_out_channels=[8,8]"]
    settings = small_settings(converted_folder, "unused", *options)
    pipeline = build_pipeline(settings, JetDataset.load(converted_folder, "train"))
    pipeline.scheduler = make_scheduler("ddpm", pipeline.scheduler.config)
    assert np.isfinite(sampled(pipeline, num_inference_steps=4)).all()


@pytest.mark.slow
def test_a_stranger_samples_a_baseline(run, tmp_path):
    staged = stage(run, tmp_path / "model", "user/jets")
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    found = run_stranger(staged, tmp_path, environment, conditions="{}")
    expected = sampled(load_pipeline(staged), num_inference_steps=4)
    assert np.array_equal(found["first"], expected)
    assert np.array_equal(found["second"], expected)


def test_the_artefacts_have_their_promised_names(run, name, converted_folder, tmp_path, capsys):
    cli.run("notebook-artefacts", [str(run.path), f"--out={tmp_path / 'artefacts'}", "--num-jets=2"])
    assert {path.name for path in (tmp_path / "artefacts").iterdir()} == {
        "training_history.png",
        "diffusion_results_comparison.png",
        "forward_strip.png",
        "sampling_strip.png",
        "reconstruction.png",
        "combined_view.png",
        "results.json",
    }
    results = json.loads((tmp_path / "artefacts" / "results.json").read_text())
    assert results["losses"]["validation"] == [line["loss"] for line in run.read_metrics("validation")]
    assert results["generation_seconds"] > 0
    assert "blank image" in capsys.readouterr().out


def test_unpaired_scores_flatter_the_blank_image(converted_folder):
    """Why these scores are no headline: nothing at all beats real jets."""
    settings = settings_of("deepfalcon_cnn", converted_folder, "unused")
    pipeline = build_pipeline(settings, JetDataset.load(converted_folder, "train"))
    real = torch.from_numpy(JetDataset.load(converted_folder, "test").energies(np.arange(40)))
    scores = notebook.notebook_scores(pipeline, real, torch.zeros(20, 3, 32, 32))
    assert scores["blank image"] == scores["generated"]
    assert scores["blank image"]["ssim"] > scores["independent real jets"]["ssim"] + 0.05
    identical = notebook.unpaired_scores(torch.ones(2, 3, 32, 32), torch.ones(2, 3, 32, 32), (0, 1))
    assert identical == {"ssim": 1.0, "mse": 0.0, "psnr": float("inf")}
