"""The whole line on states: the ordinary trainer, saving, publishing, conditions, starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import DDIMScheduler
from models import small_settings
from strangers import run_stranger

from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.hub import load_pipeline
from jet_diffusion.pipelines.random_numbers import RandomNumbers
from jet_diffusion.quantum.pipeline import QuantumJetPipeline
from jet_diffusion.quantum.scheduler import QuantumChannelScheduler
from jet_diffusion.training.build import build_pipeline
from jet_diffusion.training.settings import parse_settings
from jet_diffusion.training.train import train
from jet_diffusion.workflows.stage import stage

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
QUANTUM = ["--representation.name=JetAmplitudeEncoder", "--sampling.scheduler=quantum", "--optimizer.loss=infidelity"]
QUANTUM += ["--noise.beta_schedule=squaredcos_cap_v2", "--sampling.steps=5", "--ema_decay=0"]
MODELS = {
    "filter": ["--unet.network=quantum_filter"],
    "joint": ["--unet.network=quantum_filter", "--quantum.channels=joint", "--quantum.order=2"],
    "hybrid": ["--unet.network=quantum_hybrid", "--quantum.layout=image"],
    "classical": ["--unet.network=quantum_hybrid", "--quantum.unravelling=classical", "--quantum.layout=image"],
    "unconditional": ["--unet.network=quantum_hybrid", "--unet.conditioning=none"],
}


def build(folder, *options):
    settings = small_settings(folder, "unused", *QUANTUM, *options)
    pipeline = build_pipeline(settings, JetDataset.load(folder, "train"))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def filter_pipeline(converted_folder):
    return build(converted_folder, *MODELS["filter"])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_samples_and_comes_back_the_same(converted_folder, tmp_path, name):
    pipeline = build(converted_folder, *MODELS[name])
    images = pipeline(4, generator=seeded()).images
    assert images.shape == (4, 125, 125, 3)
    assert np.isfinite(images).all()
    assert (images >= 0).all()
    pipeline.save_pretrained(tmp_path)
    again = load_pipeline(tmp_path)
    assert isinstance(again, QuantumJetPipeline)
    again.set_progress_bar_config(disable=True)
    assert np.array_equal(again(4, generator=seeded()).images, images)
    # In other batches the sums of the network round otherwise.
    assert np.allclose(again(4, generator=seeded(), batch_size=3).images, images, rtol=1e-2, atol=1e-5)


def test_jets_have_the_energies_that_the_first_stage_draws(filter_pipeline):
    for label, name in enumerate(("gluon", "quark")):
        own = [seeded(jet) for jet in range(20)]
        output = filter_pipeline(20, labels=name, num_inference_steps=2, generator=own, batch_size=20)
        labels = torch.full((20,), label)
        drawn = filter_pipeline.first_stage.draw(
            RandomNumbers.of_generators([seeded(jet) for jet in range(20)], 0, 20), labels
        )
        np.testing.assert_allclose(100 * output.images.sum((1, 2)), drawn.ring_sums[:, 3:].numpy(), rtol=1e-3)


def test_the_class_changes_the_jets(filter_pipeline):
    quark, gluon = (filter_pipeline(8, labels=name, generator=seeded()).images for name in ("quark", "gluon"))
    shapes = [images.sum(3) / images.sum((1, 2, 3))[:, None, None] for images in (quark, gluon)]
    assert np.abs(shapes[0] - shapes[1]).max() > 1e-4


def test_cells_are_what_was_sampled(filter_pipeline):
    output = filter_pipeline(3, generator=seeded(), output_type="pt")
    cells = filter_pipeline.to_cells(output.images)
    assert cells.shape == (3, 3, 16, 16)
    again = filter_pipeline.representation.spread(cells).movedim(1, -1)
    assert torch.allclose(again, output.images, rtol=1e-4, atol=1e-7)


def test_starts_are_chosen_by_the_scheduler(filter_pipeline, monkeypatch):
    jets = {}
    for start in ("haar", "mixed", "state"):
        scheduler = QuantumChannelScheduler.from_config(filter_pipeline.scheduler.config, start=start)
        monkeypatch.setattr(filter_pipeline, "scheduler", scheduler)
        state = torch.ones(2, 16, 16) if start == "state" else None
        jets[start] = filter_pipeline(3, labels=1, generator=seeded(), state=state).images
    shares = {name: images.sum(3) / images.sum((1, 2, 3))[:, None, None] for name, images in jets.items()}
    assert np.abs(shares["state"][0] - shares["state"][1]).max() < 1e-6
    assert np.abs(shares["haar"][0] - shares["haar"][1]).max() > 1e-3
    assert np.abs(shares["haar"] - shares["mixed"]).max() > 1e-3
    with pytest.raises(ValueError, match="needs chosen state"):
        filter_pipeline(1)


def test_schedulers_of_diffusers_step_the_same_states(filter_pipeline, monkeypatch):
    ours = filter_pipeline(4, labels=0, num_inference_steps=20, generator=seeded()).images
    theirs = DDIMScheduler.from_config(
        filter_pipeline.scheduler.config, clip_sample=False, timestep_spacing="trailing", prediction_type="sample"
    )
    monkeypatch.setattr(filter_pipeline, "scheduler", theirs)
    other = filter_pipeline(4, labels=0, num_inference_steps=20, generator=seeded()).images
    cells = [filter_pipeline.to_cells(torch.from_numpy(images)).sum(1).flatten(1) for images in (ours, other)]
    overlap = torch.nn.functional.cosine_similarity(*cells)
    assert (overlap > 0.9).all()
    with pytest.raises(ValueError, match="takes no start state"):
        filter_pipeline(1, state=torch.ones(2, 16, 16))


def test_a_jet_can_be_noised_and_denoised(filter_pipeline, jets):
    energies = torch.from_numpy(jets.energies[:4])
    clean, noisy = filter_pipeline.reconstruct(energies, 60, num_inference_steps=20, generator=seeded())
    encoder = filter_pipeline.representation
    true, near, far = (encoder.encode(values) / 16 for values in (energies, clean, noisy))
    assert ((true * near).sum((1, 2, 3)) > 0.95).all()
    assert (true * far).sum((1, 2, 3)).mean() > 0.8


def test_settings_that_do_not_go_together_are_refused(converted_folder):
    with pytest.raises(ValueError, match=r"unet\.network 'unet2d'"):
        build(converted_folder)
    with pytest.raises(ValueError, match="precision 'bf16'"):
        build(converted_folder, *MODELS["filter"], "--precision=bf16")
    with pytest.raises(ValueError, match=r"need representation\.name: JetAmplitudeEncoder"):
        build_pipeline(
            small_settings(converted_folder, "unused", "--unet.network=quantum_filter"),
            JetDataset.load(converted_folder, "train"),
        )


@pytest.mark.parametrize("name", ["quantum-filter", "quantum-hybrid"])
def test_the_configurations_are_understood(name, converted_folder):
    settings = parse_settings([f"--config={ROOT / 'configs' / name}.yaml", f"--data={converted_folder}"])
    assert isinstance(build_pipeline(settings, JetDataset.load(converted_folder, "train")), QuantumJetPipeline)


@pytest.mark.integration
def test_the_ordinary_trainer_trains_resumes_and_publishes(converted_folder, tmp_path):
    run, options = tmp_path / "run", [*QUANTUM, *MODELS["hybrid"], "--validation_jets=16"]
    for steps in (2, 4):
        AcceleratorState._reset_state(reset_partial_state=True)
        folder = train(small_settings(converted_folder, run, *options, f"--max_steps={steps}"))
    losses = [line["loss"] for line in folder.read_metrics("train")]
    assert len(losses) == 4
    assert all(0 < loss < 1 for loss in losses)
    staged = stage(folder, tmp_path / "staged", "user/states")
    assert "jets are states of qubits" in (staged / "README.md").read_text()
    files = {str(path.relative_to(staged)) for path in staged.rglob("*.py")}
    assert {"pipeline.py", "unet/hybrid_unet.py"} <= files
    assert not any("jet_diffusion" in line for file in staged.rglob("*.py") for line in file.read_text().splitlines()
                   if line.startswith(("import", "from")))  # fmt: skip
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    found = run_stranger(staged, tmp_path, environment)
    pipeline = load_pipeline(staged)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(3, labels=1, num_inference_steps=4, generator=seeded()).images
    assert np.array_equal(found["first"], expected)
    assert np.array_equal(found["second"], expected)


@pytest.mark.integration
def test_nothing_of_the_core_needs_the_references(tmp_path):
    script = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("pennylane", "qiskit"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import jet_diffusion.hub, jet_diffusion.training.train, jet_diffusion.workflows.quantum_report
from jet_diffusion.quantum.qiskit_export import export_qiskit
try:
    export_qiskit(1, 2)
except ValueError as error:
    assert "jet-diffusion[quantum]" in str(error)
else:
    raise SystemExit("exported without Qiskit")
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
