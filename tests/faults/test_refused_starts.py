"""Options that would ruin a run are refused before anything is written."""

from __future__ import annotations

import pytest
import torch
from faulty_runs import train_here

from jet_diffusion.commands.publish import Options as PublishOptions
from jet_diffusion.training import loop, runtime

REFUSED = {
    "--max_steps=-1": "max_steps must be at least 1",
    "--warmup_steps=-1": "warmup_steps must be at least 0",
    "--batch_size=-8": "batch_size -8",
    "--batch_size=400": "batch_size 400 is larger than the training split, which has 3",
    "--learning_rate=-0.1": "learning_rate must be positive and finite",
    "--learning_rate=.inf": "learning_rate must be positive and finite",
    "--ema_decay=-0.5": "ema_decay must lie in",
    "--seed=-1": "seed must be at least 0",
    "--seed=99999999999999999999": "seed must be at most",
    "--noise.beta_start=-0.1": "0 < beta_start <= beta_end < 1",
    "--noise.beta_end=1.5": "0 < beta_start <= beta_end < 1",
    "--noise.beta_start=0.5": "0 < beta_start <= beta_end < 1",
    "--noise.num_train_timesteps=1000000000": "must lie in 1 to 100000",
    "--sampling.steps=-1": "sampling.steps must lie in 1",
    "--unet.dropout=-0.1": "dropout must lie in",
    "--unet.block_out_channels=[8,0]": "block_out_channels must be numbers of channels",
    "--denoiser.crystal_channels=[0]": "crystal_channels must be at least 1 each",
    "--denoiser.crystal_channels=[-4]": "crystal_channels must be at least 1 each",
    "--denoiser.inputs=[x_t,taste]": "inputs",
    "--representation.ring_edges=[-0.1,0.3]": "ring_edges must be positive and rise",
    "--representation.ring_edges=[0.3,0.1]": "ring_edges must be positive and rise",
    "--optimizer.group_weights=[1,-1,1]": "group_weights must be 3 positive numbers",
    "--optimizer.energy_weight=-1": "energy_weight must be finite and not negative",
    "--optimizer.condition_drop=-0.1": "condition_drop must lie in",
    "--quantum.order=-1": "order must be at least 1",
    "--trackers=[abacus]": "no tracker abacus is installed",
    "--keep_checkpoints=0": "keep_checkpoints must be at least 1",
}


@pytest.mark.parametrize(("option", "message"), REFUSED.items())
def test_an_option_that_ruins_a_run_is_refused(converted_folder, tmp_path, option, message):
    with pytest.raises(ValueError, match=message):
        train_here(converted_folder, tmp_path / "run", "--optimizer.loss=likelihood", option)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("steps", [0, -1])
def test_publishing_refuses_a_number_of_steps_that_is_none(tmp_path, steps):
    with pytest.raises(ValueError, match="--steps must be at least 1"):
        PublishOptions(tmp_path, repo="user/jets", steps=steps)


@pytest.mark.integration
def test_a_step_that_does_not_fit_into_memory_is_refused(run, go_on, monkeypatch):
    seen = []

    def small_machine(losses, parameters, jets, accelerator):
        seen.append(jets)
        monkeypatch.setattr(runtime.os, "sysconf", lambda name: 2**12)  # 16 MiB
        check(losses, parameters, jets, accelerator)

    check = loop.check_memory
    monkeypatch.setattr(loop, "check_memory", small_machine)
    with pytest.raises(ValueError, match=r"8 jets in each process needs about .* GiB .*this machine has 0\.0156 GiB"):
        go_on(run, "--max_steps=4")
    assert seen == [8]


def test_the_estimate_counts_what_the_backward_pass_needs():
    weights = torch.nn.Parameter(torch.ones(1000, 1000))

    def losses(jets):
        x = torch.randn(jets, 1000) @ weights
        return x.exp().sum()

    # The products of a jet (which exp keeps) and its input; the weights are kept once.
    a_jet = runtime.kept_for_backward(losses, 2) - runtime.kept_for_backward(losses, 1)
    assert a_jet == 2 * 4 * 1000
