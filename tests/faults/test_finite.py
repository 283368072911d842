"""A loss or a weight that is not finite ends training, and nothing good is lost for it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from faulty_runs import STEPS, TWO_PROCESSES, train_arguments, train_here
from safetensors.torch import load_file, save_file

from jet_diffusion.data.convert import convert
from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.hub import load_pipeline
from jet_diffusion.runs import STATE, file_digest
from jet_diffusion.training.batches import GlobalBatches, Noiser
from jet_diffusion.workflows.stage import stage

SLOT = 4


@pytest.fixture
def poison(monkeypatch):
    """A function that makes one jet of one step NaN (step -1: of the validation)."""

    def spoil(step):
        noise = Noiser.__call__

        def spoilt(self, batch):
            noisy = noise(self, batch)
            if batch.step == step:
                noisy.x_0[batch.slots_and_conditions()[0] == SLOT] = torch.nan
            return noisy

        monkeypatch.setattr(Noiser, "__call__", spoilt)

    return spoil


@pytest.mark.integration
def test_the_first_loss_that_is_not_finite_stops_the_run(run, go_on, poison, converted_folder):
    poison(step=3)
    jets = JetDataset.load(converted_folder, "train")
    row = GlobalBatches(len(jets), 8, 0).positions(3).rows[SLOT]
    named = rf"step 4 is not finite for 1 of 8 jets .* row {row} \(content hash {jets.content_hash[row]:016x}\)"
    with pytest.raises(ValueError, match=named) as caught:
        # Neither logged nor saved before step 6, two steps later: the jet is remembered.
        go_on(run, "--max_steps=6", "--checkpoint_every=6", "--keep_checkpoints=1", "--log_every=6")
    assert "the checkpoint of step 3 stays" in str(caught.value)
    assert "--drop-bad" in str(caught.value)
    assert run.checkpoint_steps() == [1, 2, 3]
    assert all(line["step"] <= 3 for line in run.read_metrics())
    load_pipeline(run.path)


@pytest.mark.integration
def test_a_learning_rate_that_is_too_high_is_named(converted_folder, tmp_path):
    with pytest.raises(ValueError, match=r"for 8 of 8 jets.*no checkpoint yet.*learning_rate is 1e\+36"):
        train_here(converted_folder, tmp_path / "run", "--max_steps=3", "--learning_rate=1e36", "--validate_every=9")
    # Nothing of it is in the way of the corrected command.
    run = train_here(converted_folder, tmp_path / "run", "--max_steps=1")
    assert run.checkpoint_steps() == [1]


@pytest.mark.slow
def test_all_processes_stop(converted_folder, tmp_path, start):
    arguments = train_arguments(converted_folder, tmp_path / "run", "--learning_rate=1e36", "--max_steps=9")
    process = start(*arguments, launcher=TWO_PROCESSES)
    output, _ = process.communicate(timeout=900)
    assert process.returncode != 0
    assert "for 8 of 8 jets" in output
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


@pytest.mark.integration
def test_a_validation_loss_that_is_not_finite_stops_the_run(run, go_on, poison, converted_folder):
    poison(step=-1)
    jets = JetDataset.load(converted_folder, "validation")
    named = rf"validation loss after step 4 .* row {SLOT} \(content hash {jets.content_hash[SLOT]:016x}\)"
    with pytest.raises(ValueError, match=named):
        go_on(run, "--max_steps=4")
    assert run.checkpoint_steps() == [1, 2, 3]


@pytest.mark.integration
def test_weights_that_are_not_finite_are_not_saved(run, go_on, monkeypatch):
    """A gradient can be infinite where the loss is not."""
    step = torch.optim.AdamW.step

    def spoilt(self, *arguments, **options):
        step(self, *arguments, **options)
        with torch.no_grad():
            self.param_groups[0]["params"][0].view(-1)[0] = torch.inf

    monkeypatch.setattr(torch.optim.AdamW, "step", spoilt)
    with pytest.raises(ValueError, match="not finite"):
        go_on(run, "--max_steps=4", "--keep_checkpoints=1")
    assert run.checkpoint_steps() == [1, 2, 3]


def with_state(run, step, **facts):
    file = run.checkpoint(step) / STATE
    file.write_text(json.dumps({**json.loads(file.read_text()), **facts}))


@pytest.mark.parametrize("loss", [float("nan"), float("-inf"), None])
def test_the_best_is_never_one_without_a_number(run, loss):
    with_state(run, 1, validation_loss=2.0)
    with_state(run, 2, validation_loss=1.0)
    with_state(run, 3, validation_loss=loss)
    assert run.checkpoint("best").name == "step-00000002"
    run.prune(1)
    assert run.checkpoint_steps() == [2, 3]


@pytest.mark.integration
def test_nan_weights_are_not_loaded_published_or_gone_on_with(run, go_on, tmp_path):
    checkpoint = run.checkpoint("last")
    for file in ("weights.safetensors", "averaged.safetensors"):
        weights = load_file(checkpoint / file)
        weights["unet.conv_out.bias"][0] = torch.nan
        save_file(weights, checkpoint / file)
    digests = {file: file_digest(checkpoint / file) for file in json.loads((checkpoint / STATE).read_text())["sha256"]}
    with_state(run, 3, sha256=digests)
    for use in (load_pipeline, lambda path: stage(run, tmp_path / "staged", "user/jets"), lambda path: go_on(run)):
        with pytest.raises(ValueError, match=r"not finite in 1 of .* tensors \(unet\.conv_out\.bias\)"):
            use(run.path)
    assert not (tmp_path / "staged").exists()


@pytest.mark.parametrize(("column", "value"), [("pt", 0.0), ("m0", -1.0), ("m0", np.nan), ("pt", np.inf)])
def test_conditions_are_checked_before_the_first_step(converted_folder, tmp_path, monkeypatch, column, value):
    init = JetDataset.__init__

    def spoilt(self, *arguments):
        init(self, *arguments)
        setattr(self, column, np.where(np.arange(len(self)) == 7, np.float32(value), getattr(self, column)))

    monkeypatch.setattr(JetDataset, "__init__", spoilt)
    with pytest.raises(ValueError, match=r"(?s)train.*\b7\b"):
        train_here(converted_folder, tmp_path / "run", *STEPS)
    assert not (tmp_path / "run").exists()


def test_one_faulty_condition_is_refused_by_conversion(jets, write_file, tmp_path):
    jets.m0[3] = 0
    with pytest.raises(ValueError, match="m0"):
        convert(write_file(jets), tmp_path / "out")
    assert not (tmp_path / "out").exists()
