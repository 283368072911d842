from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import EulerDiscreteScheduler
from fakehub import FakeHub
from huggingface_hub import ModelCard
from models import small_settings, tilt
from strangers import run_stranger

from jet_diffusion.cli import run as run_command
from jet_diffusion.data.bundled import sample_path
from jet_diffusion.hub import load_pipeline
from jet_diffusion.pipelines.schedulers import make_scheduler
from jet_diffusion.runs import RunFolder
from jet_diffusion.sampling.generate import generate
from jet_diffusion.training.train import train
from jet_diffusion.workflows.stage import stage

pytestmark = pytest.mark.integration

"""What someone without our package does: load, sample, save what was loaded, load that, sample."""


@pytest.fixture(scope="module")
def run(converted_folder, tmp_path_factory):
    AcceleratorState._reset_state(reset_partial_state=True)
    folder = tmp_path_factory.mktemp("runs") / "run"
    options = [
        "--max_steps=3",
        "--learning_rate=0.01",
        "--unet.conditioning=rings",
        "--representation.ring_edges=[.1,.3]",
    ]
    return train(small_settings(converted_folder, folder, *options))


@pytest.fixture(scope="module")
def staged(run, tmp_path_factory):
    return stage(run, tmp_path_factory.mktemp("staged") / "model", "user/jets")


@pytest.fixture(scope="module")
def guidance(run, converted_folder, tmp_path_factory):
    file = tmp_path_factory.mktemp("guidance") / "guidance.json"
    run_command(
        "fit-guidance", [str(run.path), str(converted_folder), "--rounds", "1", "--num-jets", "2", "--out", str(file)]
    )
    return file


def our_jets(source):
    pipeline = load_pipeline(source)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(3, labels=1, num_inference_steps=4, generator=torch.Generator().manual_seed(0)).images


def test_what_is_staged(staged, run):
    names = {str(path.relative_to(staged)) for path in staged.rglob("*") if path.is_file()}
    assert names == {
        "README.md",
        "model_index.json",
        "pipeline.py",
        "jets.png",
        "history.png",
        "training_config.yaml",
        "training_jets.npy",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
        "representation/tower_representations.py",
        "representation/representation_config.json",
        "denoiser/spike_and_slab.py",
        "first_stage/first_stage.py",
        "first_stage/config.json",
        "first_stage/diffusion_pytorch_model.safetensors",
        "denoiser/config.json",
        "denoiser/diffusion_pytorch_model.safetensors",
        "conditioner/conditioner.py",
        "conditioner/config.json",
        "conditioner/diffusion_pytorch_model.safetensors",
    }
    assert not any(path.name.startswith(".") for path in staged.parent.iterdir())


def test_the_card_takes_its_numbers_from_the_run(staged, run):
    card = ModelCard.load(staged / "README.md")
    table = run.read_metrics("sample")[-1]["table"]
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    for row in table:
        assert results[f"{row['channel']}-{row['quantity']}-ratio"] == pytest.approx(row["ratio"], abs=6e-4)
        assert f"{row['ratio']:.3f}" in card.text
    assert card.data.library_name == "diffusers"
    assert card.data.pipeline_tag == "unconditional-image-generation"
    assert "simulated" in card.data.tags
    assert "not on collision data" in card.text
    assert "draws the number of hits and the energy of each channel in 3 rings" in card.text
    assert run.read_record()["dataset"]["fingerprint"] in card.text
    assert "{{" not in card.text
    assert "{%" not in card.text
    # It begins with the picture; one table is unfolded, and use takes three lines.
    text = card.text.strip().splitlines()
    assert text[2].startswith("![")
    unfolded = re.sub(r"<details>.*?</details>", "", card.text, flags=re.DOTALL)
    assert len(re.findall(r"^\|( --- \|)+$", unfolded, re.MULTILINE)) == 1
    assert sum(line.startswith("|") for line in unfolded.splitlines()) <= 2 + 10
    (code,) = re.findall(r"```python\n(.*?)```", unfolded, re.DOTALL)
    assert sum(bool(line) for line in code.splitlines()) == 3


def test_our_loader_gives_the_run_s_jets_without_its_code(staged, run):
    expected = our_jets(run.path)
    assert np.array_equal(our_jets(staged), expected)


def test_our_loader_never_runs_what_was_downloaded(staged, tmp_path):
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(staged), str(copy)], check=True)
    for file in copy.rglob("*.py"):
        file.write_text("raise SystemExit('downloaded code was run')")
    our_jets(copy)


def test_pickled_weights_are_not_loaded(staged, tmp_path):
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(staged), str(copy)], check=True)
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(torch.nn.Linear(1, 1).state_dict(), copy / "unet" / "diffusion_pytorch_model.bin")
    weights.unlink()
    with pytest.raises(OSError, match="safetensors"):
        load_pipeline(copy)


def test_other_folders_are_no_pipelines(tmp_path, staged):
    with pytest.raises(ValueError, match=r"no model_index\.json"):
        load_pipeline(tmp_path)
    index = json.loads((staged / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps({**index, "representation": ["representation", "Evil"]}))
    subprocess.run(["cp", "-r", str(staged / "unet"), str(staged / "scheduler"), str(tmp_path)], check=True)
    with pytest.raises(ValueError, match="representation is a Evil; known are TowerPatches"):
        load_pipeline(tmp_path)


def test_staging_replaces_only_what_was_staged(run, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "thesis.tex").write_text("do not lose me")
    with pytest.raises(FileExistsError, match="no staged pipeline"):
        stage(run, folder, "user/jets")
    assert (folder / "thesis.tex").exists()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(FileExistsError, match="no staged pipeline"):
        stage(run, folder, "user/jets")
    for file in folder.iterdir():
        file.unlink()
    for _ in range(2):
        stage(run, folder, "user/jets")
    assert (folder / "model_index.json").exists()


def test_a_run_without_checkpoints_cannot_be_published(converted_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no run\.json"):
        run_command("publish", [str(tmp_path), "--repo=user/jets", "--dry-run"])


def test_a_scheduler_made_from_another_is_loaded(staged, tmp_path):
    """It keeps the other's settings, which it does not know."""
    pipeline = load_pipeline(staged)
    pipeline.scheduler = make_scheduler("euler", make_scheduler("unipc", pipeline.scheduler.config).config)
    pipeline.save_pretrained(tmp_path)
    assert isinstance(load_pipeline(tmp_path).scheduler, EulerDiscreteScheduler)


def test_settings_of_another_version_are_refused(staged, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(staged, folder)
    file = folder / "denoiser" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"log_energy_line": None}))
    with pytest.raises(ValueError, match=r"has log_energy_line, which SpikeAndSlabDenoiser of this version"):
        load_pipeline(folder)


@pytest.mark.integration
def test_a_stranger_loads_the_folder_and_what_they_saved(staged, tmp_path):
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    found = run_stranger(staged, tmp_path, environment)
    expected = our_jets(staged)
    assert np.array_equal(found["first"], expected)
    assert np.array_equal(found["second"], expected)
    assert "stand-in" in str(found["provenance"])


@pytest.mark.slow
def test_a_stranger_loads_what_was_pushed(run, staged, tmp_path):
    with FakeHub() as hub:
        publisher = {**os.environ, **hub.environment(tmp_path / "publisher"), "HF_HUB_OFFLINE": "0"}
        command = [sys.executable, "-m", "jet_diffusion", "publish", str(run.path), "--repo=user/jets"]
        done = subprocess.run(
            [*command, f"--folder={tmp_path / 'staged'}"],
            env=publisher,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "user/jets" in done.stdout
        stranger = {**os.environ, **hub.environment(tmp_path / "stranger"), "HF_HUB_OFFLINE": "0"}
        found = run_stranger("user/jets", tmp_path, stranger)
        loader = "import sys, numpy as np, torch; from jet_diffusion.hub import load_pipeline; "
        loader += "p = load_pipeline('user/jets'); g = torch.Generator().manual_seed(0); "
        loader += "np.save(sys.argv[1], p(3, labels=1, num_inference_steps=4, generator=g).images)"
        subprocess.run(
            [sys.executable, "-c", loader, str(tmp_path / "ours.npy")],
            env={**os.environ, **hub.environment(tmp_path / "ours"), "HF_HUB_OFFLINE": "0"},
            cwd=tmp_path,
            check=True,
            timeout=900,
            capture_output=True,
        )
    expected = our_jets(run.path)
    assert np.array_equal(found["first"], expected)
    assert np.array_equal(found["second"], expected)
    assert np.array_equal(np.load(tmp_path / "ours.npy"), expected)
    assert RunFolder.open(run.path).begun


def test_a_sampler_can_be_chosen_for_what_is_published(run, tmp_path):
    folder = stage(run, tmp_path / "model", "user/jets", sampler={"scheduler": "ddim", "steps": 7})
    published, own = load_pipeline(folder), load_pipeline(run.path)
    assert type(published.scheduler).__name__ == "DDIMScheduler"
    assert published.config.default_steps == 7
    assert published.config.step_power == own.config.step_power
    own_card = (stage(run, tmp_path / "own", "user/jets") / "README.md").read_text()
    card = (folder / "README.md").read_text()
    assert "DDIMScheduler, 7 steps" in card
    assert "made with the run's own sampler" in card
    assert "made with the run's own sampler" not in own_card


@pytest.mark.slow
def test_moment_guidance_is_published_and_works_without_our_package(run, guidance, tmp_path):
    fitted = json.loads(guidance.read_text())
    (tmp_path / "guidance.json").write_text(
        json.dumps({**fitted, "moment_guidance": {**tilt(0.5), "ratios": [0.1, 99.0]}})
    )
    folder, choice = tmp_path / "model", ["--moment-guidance", str(tmp_path / "guidance.json")]
    run_command("publish", [str(run.path), "--repo", "user/jets", "--folder", str(folder), "--dry-run", *choice])
    card = (folder / "README.md").read_text()
    assert "strengths centroid_tracks 0.50" in card
    assert "moment guidance" in card and "fit-guidance RUN DATA" in card
    expected = our_jets(folder)
    assert not np.array_equal(expected, our_jets(run.path))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    found = run_stranger(folder, tmp_path, environment)
    assert np.array_equal(found["first"], expected)
    assert np.array_equal(found["second"], expected)


@pytest.mark.integration
def test_moment_guidance_of_something_else_is_refused(run, guidance, tmp_path):
    fitted = json.loads(guidance.read_text())
    for name in ("weights", "training_jets", "scheduler_config"):
        other = tmp_path / "other.json"
        other.write_text(json.dumps({**fitted, name: "other"}))
        with pytest.raises(ValueError, match=f"was fitted with {name} other"):
            stage(run, tmp_path / "model", "user/jets", guidance=other)
    with pytest.raises(ValueError, match=r"was fitted with step_power .*, the model has 3.0"):
        stage(run, tmp_path / "model", "user/jets", sampler={"step_power": 3.0}, guidance=guidance)
    (tmp_path / "none.json").write_text("{}")
    with pytest.raises(ValueError, match="must be a file of jet-diffusion fit-guidance"):
        stage(run, tmp_path / "model", "user/jets", guidance=tmp_path / "none.json")
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_a_card_says_whose_jets_were_evaluated(run, tmp_path):
    copy = RunFolder.open(shutil.copytree(run.path, tmp_path / "run"))
    sample, options = str(sample_path()), ["--size", "100", "--classifiers", "--no-pictures", "--allow-training-jets"]
    doubt = "not known to be of jets sampled as this model samples them"

    def card(**sampler):
        return ModelCard.load(stage(copy, tmp_path / "model", "user/jets", sampler=sampler) / "README.md")

    def splits(card):
        return {result.dataset_split for result in card.data.eval_results or []}

    own = load_pipeline(copy.path).config.default_steps
    generate(load_pipeline(copy.path), tmp_path / "jets.hdf5", 100, steps=own)
    for judged, steps in ((str(copy.path), own), (str(tmp_path / "jets.hdf5"), own), (str(copy.path), own + 1)):
        asked = [] if judged.endswith(".hdf5") else ["--steps", str(steps)]
        run_command("evaluate", [judged, sample, *options, *asked, "--overwrite", "--out", str(copy.evaluation)])
        for published in (own, own + 1):
            found = card(steps=published)
            assert (f"{doubt}: num_inference_steps differ" in found.text) is (published != steps)
            assert ("test" in splits(found)) is (published == steps)
            assert ("validation" in splits(found)) is (published == own)


def test_published_settings_hold_no_local_paths(staged, run):
    import yaml

    published = yaml.safe_load((staged / "training_config.yaml").read_text())
    assert published["run_dir"] == run.path.name
    assert "/" not in published["data"]
    own = yaml.safe_load(run.config.read_text())
    assert {**published, "data": own["data"], "run_dir": own["run_dir"]} == own
