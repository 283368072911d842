from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from accelerate.state import AcceleratorState
from fakehub import FakeHub
from models import SMALL_UNET, small_pipeline, small_settings
from safetensors.torch import load_file

from jet_diffusion.data import convert as conversion
from jet_diffusion.data.bundled import sample_path
from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.errors import UserError
from jet_diffusion.hub import load_folder, load_pipeline
from jet_diffusion.runs import RunFolder
from jet_diffusion.training.loss import DenoisingLoss
from jet_diffusion.training.train import train
from jet_diffusion.workflows.card import model_facts

pytestmark = pytest.mark.integration

TRAIN = Path(__file__).parents[2] / "training" / "train.py"
TENSORS = ("weights.safetensors", "averaged.safetensors", "optimizer.safetensors")


def run_here(*arguments, **settings):
    """Train in this process; accelerate keeps global state, which is reset."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return train(small_settings(*arguments, **settings))


def options(folder, run, *more):
    settings = small_settings(folder, run)
    fixed = ["--batch_size=8", "--precision=no", "--cpu=true", "--trackers=[]", "--num_workers=1", "--warmup_steps=1"]
    fixed += ["--validation_jets=8", "--sample_jets=2", "--log_every=1"]
    return [f"--data={settings.data}", f"--run_dir={run}", *SMALL_UNET, *fixed, *more]


def launch(processes, arguments, environment=os.environ):
    command = [sys.executable, str(TRAIN)]
    if processes > 1:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        command += [str(TRAIN)]
    environment = {**environment, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [*command, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    return output


def kill_at(process, checkpoint):
    """SIGKILL the launcher and all its processes as soon as the checkpoint exists."""
    deadline = time.monotonic() + 900
    while not checkpoint.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    launcher = psutil.Process(process.pid)
    for victim in [launcher, *launcher.children(recursive=True)]:
        victim.kill()
    process.communicate()


@pytest.mark.integration
@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_exactly(converted_folder, tmp_path, processes):
    # 320 training jets: 40 steps an epoch; start close to the epoch's end by making epochs of 20 jets.
    more = ["--max_steps=7", "--checkpoint_every=1", "--keep_checkpoints=9", "--max_jets=20", "--unet.dropout=0.2"]
    if processes == 1:
        more += ["--accumulation=2"]
    else:
        more += ["--denoiser.crystal_channels=[4]"]
    whole = launch(processes, options(converted_folder, tmp_path / "whole", *more))
    assert f"{processes} process(es) take part" in finish(whole)
    broken = launch(processes, options(converted_folder, tmp_path / "broken", *more))
    kill_at(broken, tmp_path / "broken" / "checkpoints" / "step-00000003")
    left = RunFolder.open(tmp_path / "broken").checkpoint_steps()
    assert left[-1] < 7, "it was killed too late to test anything"
    output = finish(launch(processes, options(converted_folder, tmp_path / "broken", *more)))
    assert f"going on from step {left[-1]} of 7" in output
    for step in (left[-1] + 1, 7):
        for file in TENSORS:
            one, two = (tmp_path / name / "checkpoints" / f"step-{step:08d}" / file for name in ("whole", "broken"))
            assert one.read_bytes() == two.read_bytes(), (step, file)
    one, two = (RunFolder.open(tmp_path / name).read_metrics("train") for name in ("whole", "broken"))
    assert [line["step"] for line in two] == list(range(1, 8))
    assert [line["loss"] for line in one] == [line["loss"] for line in two]
    assert len(RunFolder.open(tmp_path / "broken").read_record()["sessions"]) == 2


@pytest.mark.slow
def test_a_killed_run_that_streams_goes_on_exactly(tmp_path, monkeypatch):
    monkeypatch.setattr(conversion, "BLOCK_JETS", 16)
    conversion.convert(sample_path(), tmp_path / "jets", max_jets=400)
    more = ["--max_steps=7", "--checkpoint_every=1", "--keep_checkpoints=9", "--max_jets=40", "--data=hf://user/jets"]
    with FakeHub() as hub:
        hub.put("datasets", "user/jets", tmp_path / "jets")
        environment = hub.environment(tmp_path / "home")
        whole = launch(1, options("unused", tmp_path / "whole", *more), environment)
        assert "images are streamed from the 4 shards of hf://user/jets" in finish(whole)
        broken = launch(1, options("unused", tmp_path / "broken", *more), environment)
        kill_at(broken, tmp_path / "broken" / "checkpoints" / "step-00000003")
        left = RunFolder.open(tmp_path / "broken").checkpoint_steps()
        assert left[-1] < 7, "it was killed too late to test anything"
        assert f"going on from step {left[-1]} of 7" in finish(
            launch(1, options("unused", tmp_path / "broken", *more), environment)
        )
        assert not [*(tmp_path / "home").rglob("*.parquet")], "images stay on the Hub"
    for file in TENSORS:
        one, two = (tmp_path / name / "checkpoints" / "step-00000007" / file for name in ("whole", "broken"))
        assert one.read_bytes() == two.read_bytes(), file
    with pytest.raises(UserError, match="begun on hf://user/jets, whose jets come in another order than"):
        run_here(tmp_path / "jets", tmp_path / "whole", "--max_steps=7", "--max_jets=40", "--checkpoint_every=1")


@pytest.mark.slow
def test_a_hub_that_refuses_in_the_middle_of_a_run_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(conversion, "BLOCK_JETS", 16)
    conversion.convert(sample_path(), tmp_path / "jets", max_jets=400)
    run = RunFolder(tmp_path / "run")
    more = ["--max_steps=100000", "--checkpoint_every=2", "--data=hf://user/jets"]
    with FakeHub() as hub:
        hub.put("datasets", "user/jets", tmp_path / "jets")
        process = launch(1, options("unused", run.path, *more), hub.environment(tmp_path / "home"))
        deadline = time.monotonic() + 300
        while len(run.read_metrics("train")) < 3:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        hub.faults["resolve", "user/jets"] = [403, 10**6]
        output, _ = process.communicate(timeout=200)
    assert process.returncode == 2
    assert re.search(r"data/train-\d+.parquet of user/jets cannot be read: the Hub refuses access to user/jets", output)
    assert "Traceback" not in output
    assert run.checkpoint_steps()


@pytest.mark.slow
def test_one_and_two_processes_agree(converted_folder, tmp_path):
    more = ["--max_steps=4", "--checkpoint_every=4", "--learning_rate=0.01"]
    for processes in (1, 2):
        finish(launch(processes, options(converted_folder, tmp_path / str(processes), *more)))
    one, two = (
        load_file(tmp_path / str(processes) / "checkpoints" / "step-00000004" / TENSORS[0]) for processes in (1, 2)
    )
    start = dict(load_pipeline(tmp_path / "1").unet.named_parameters())
    moved = 0.0
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-4)
        if name.startswith("unet."):
            moved = max(moved, (tensor - start[name.removeprefix("unet.")]).abs().max().item())
    assert moved > 1e-3, "agreement means nothing if nothing was learnt"
    losses = [[line["loss"] for line in RunFolder(tmp_path / name).read_metrics("train")] for name in ("1", "2")]
    assert np.allclose(*losses, rtol=1e-5)
    validations = [RunFolder(tmp_path / name).read_metrics("validation")[-1]["loss"] for name in ("1", "2")]
    assert np.allclose(*validations, rtol=1e-5)


@pytest.mark.integration
def test_a_launch_that_lost_processes_is_refused(converted_folder, tmp_path):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes=2", "--num_machines=1"]
    command += ["--mixed_precision=no", "--dynamo_backend=no", str(TRAIN)]
    done = subprocess.run(
        [*command, *options(converted_folder, tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode != 0
    assert "asked for several processes but started one" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def trained(converted_folder, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    more = ["--max_steps=40", "--checkpoint_every=10", "--validate_every=10", "--learning_rate=0.005"]
    return run_here(converted_folder, run, *more)


def test_training_learns_context(trained):
    ratios = [line["loss_ratio"] for line in trained.read_metrics("train")]
    validation = [line["loss_ratio"] for line in trained.read_metrics("validation")]
    assert ratios[0] == pytest.approx(1.0, abs=1e-5)  # the first step is the marginal denoiser
    assert len(ratios) == 40
    assert len(validation) == 4
    assert validation[-1] < 0.998


def test_the_run_folder_holds_what_is_needed_to_repeat_and_judge_it(trained, converted_folder):
    record = trained.read_record()
    jets = JetDataset.load(converted_folder, "train")
    assert record["dataset"]["fingerprint"] == jets.fingerprint
    assert record["versions"]["torch"] == torch.__version__
    assert record["dataset"]["simulated"]
    assert np.array_equal(np.load(trained.training_jets), np.sort(jets.content_hash))
    assert trained.read_config()["seed"] == 0
    assert trained.history.is_file()
    assert len(list(trained.samples.glob("*.png"))) == 1
    table = trained.read_metrics("sample")[-1]["table"]
    assert {(row["quantity"], row["channel"]) for row in table} == {
        (quantity, channel) for quantity in ("energy", "occupancy") for channel in ("tracks", "ecal", "hcal")
    }


def test_gradient_checkpointing_changes_memory_not_results(converted_folder, tmp_path, monkeypatch):
    used = []
    checkpoint = torch.utils.checkpoint.checkpoint
    monkeypatch.setattr(torch.utils.checkpoint, "checkpoint", lambda *a, **k: (used.append(1), checkpoint(*a, **k))[1])
    losses = []
    for flag in ("false", "true"):
        assert not used
        run = run_here(converted_folder, tmp_path / flag, "--max_steps=2", f"--unet.gradient_checkpointing={flag}")
        losses.append([line["loss"] for line in run.read_metrics("train")])
    assert used
    assert np.allclose(*losses, rtol=1e-6)


def test_the_best_is_the_lowest_ever_validated(trained):
    validated = {line["step"]: line["loss"] for line in trained.read_metrics("validation")}
    assert {10, 20, 30, 40} <= set(validated)
    assert trained.checkpoint("best").name == f"step-{min(validated, key=validated.get):08d}"


def test_the_last_and_the_best_checkpoints_are_kept(trained):
    steps = trained.checkpoint_steps()
    states = {step: json.loads((trained.checkpoint(step) / "state.json").read_text()) for step in steps}
    assert steps[-2:] == [30, 40]
    assert trained.checkpoint("best").name == f"step-{min(states, key=lambda s: states[s]['validation_loss']):08d}"
    with pytest.raises(FileNotFoundError, match="no checkpoint at step 7; there are"):
        trained.checkpoint(7)


def test_the_loaded_pipeline_has_the_averaged_weights(trained):
    averaged = load_file(trained.checkpoint("last") / "averaged.safetensors")
    raw = load_file(trained.checkpoint("last") / "weights.safetensors")
    pipeline = load_pipeline(trained.path)
    loaded = pipeline.unet.conv_out.weight
    assert torch.equal(loaded, averaged["unet.conv_out.weight"])
    assert not torch.equal(loaded, raw["unet.conv_out.weight"])


def test_going_on_with_other_settings_or_jets_is_refused(trained, converted_folder, jets, write_file, tmp_path):
    with pytest.raises(ValueError, match=r"other settings \(learning_rate, seed\)"):
        run_here(converted_folder, trained.path, "--max_steps=50", "--seed=1")
    same = ["--validate_every=10", "--learning_rate=0.005"]
    with pytest.raises(ValueError, match=r"begun with other settings .max_jets."):
        run_here(converted_folder, trained.path, "--max_steps=50", "--max_jets=100", *same)
    shutil.copytree(converted_folder, tmp_path / "longer")
    conversion.convert(write_file(jets), tmp_path / "longer", append=True)
    with pytest.raises(ValueError, match=r"begun on other training jets .* than .*longer holds now .* another"):
        run_here(tmp_path / "longer", trained.path, "--max_steps=50", *same)


def test_a_tracker_that_is_not_installed_is_refused(converted_folder, tmp_path):
    for name in ("wandb", "abacus"):
        with pytest.raises(ValueError, match=rf"jet-diffusion\[{name}\]"):
            run_here(converted_folder, tmp_path / "run", f"--trackers=[{name}]")
    assert not (tmp_path / "run").exists()


def test_a_damaged_checkpoint_is_refused(converted_folder, tmp_path):
    run = run_here(converted_folder, tmp_path / "run", "--max_steps=1")
    weights = run.checkpoint("last") / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"damaged: weights\.safetensors"):
        run_here(converted_folder, tmp_path / "run", "--max_steps=2")
    averaged = run.checkpoint("last") / "averaged.safetensors"
    averaged.write_bytes(averaged.read_bytes()[:-1])
    with pytest.raises(ValueError, match="damaged"):
        load_pipeline(run.path)


def test_warm_start_takes_weights_and_fit(trained, converted_folder, tmp_path):
    run = run_here(converted_folder, tmp_path / "warm", "--max_steps=1", f"--init_from={trained.path}", "--seed=9")
    first = run.read_metrics("train")[0]["loss_ratio"]
    assert first < 0.999
    assert ("begun with the weights of", trained.path.name) in model_facts(
        run, load_pipeline(run.path), "step-00000001"
    )
    saved = tmp_path / "saved"
    load_pipeline(trained.path).save_pretrained(saved)
    of_saved = run_here(converted_folder, tmp_path / "of_saved", "--max_steps=1", f"--init_from={saved}", "--seed=9")
    assert of_saved.read_metrics("train")[0]["loss"] == run.read_metrics("train")[0]["loss"]
    for other in ("--noise.beta_end=0.03", "--denoiser.kind=epsilon", "--denoiser.crystal_channels=[4]"):
        with pytest.raises(ValueError, match="trained with another"):
            run_here(converted_folder, tmp_path / "other", f"--init_from={trained.path}", other)
    with pytest.raises(ValueError, match="another model"):
        run_here(
            converted_folder, tmp_path / "other", f"--init_from={trained.path}", "--unet.block_out_channels=[8,8,16]"
        )
    assert not RunFolder(tmp_path / "other").begun


def test_channel_groups_count_by_their_weights(converted_folder, tmp_path):
    pipeline = small_pipeline(converted_folder)
    group = torch.tensor(pipeline.representation.channel_group)
    error = torch.rand(2, *pipeline.representation.shape, generator=torch.Generator().manual_seed(0))
    inside = pipeline.representation.mask()

    def mean_of(*options):
        settings = small_settings(converted_folder, tmp_path, *options)
        loss_of = DenoisingLoss(pipeline.denoiser, pipeline.representation, settings.optimizer, torch.device("cpu"))
        return loss_of._mean(error, torch.ones(2))

    means = torch.stack([error[:, group == g][..., inside].mean() for g in range(3)])
    shares = torch.tensor([25, 50, 5]) / 80
    torch.testing.assert_close(mean_of("--optimizer.group_weights=[1,2,5]"), (means * shares).sum())


@pytest.mark.parametrize(
    "more",
    [
        ["--denoiser.kind=v_prediction", "--optimizer.condition_drop=0.5"],
        ["--denoiser.kind=epsilon", "--optimizer.loss=l1", "--unet.conditioning=none"],
        ["--representation.name=PixelGrid", "--optimizer.group_weights=[1,2,3]"],
        ["--precision=bf16", "--unet.gradient_checkpointing=true"],
        ["--denoiser.crystal_channels=[4]"],
        ["--optimizer.lr_schedule=constant_with_warmup", "--trackers=[tensorboard]", "--unet.preset=base"],
    ],
)
def test_every_kind_of_training_runs(converted_folder, tmp_path, more):
    run = run_here(converted_folder, tmp_path / "run", "--max_steps=2", *more)
    assert run.checkpoint_steps() == [2]
    assert all(np.isfinite(line["loss"]) for line in run.read_metrics("train"))
    weights = load_file(run.checkpoint("last") / "weights.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_a_plain_denoiser_is_compared_with_the_one_pixel_one(converted_folder, tmp_path):
    run = run_here(converted_folder, tmp_path / "run", "--max_steps=2", "--denoiser.kind=v_prediction")
    ratios = [line["loss_ratio"] for line in run.read_metrics("train") + run.read_metrics("validation")]
    assert len(ratios) == 3
    assert all(ratio > 1.5 for ratio in ratios)  # an untrained network is far worse than Bayes' rule


def test_dry_run_writes_nothing(converted_folder, tmp_path, capsys):
    run_here(converted_folder, tmp_path / "run", "--dry-run")
    printed = capsys.readouterr().out
    assert "parameters" in printed
    assert "3200 of 8 jets" in printed
    assert not (tmp_path / "run").exists()


def test_a_schedule_with_signal_left_is_refused_before_training(converted_folder, tmp_path):
    with pytest.raises(ValueError, match="signal's amplitude"):
        run_here(converted_folder, tmp_path / "run", "--noise.num_train_timesteps=50")
    assert not RunFolder(tmp_path / "run").begun


@pytest.mark.parametrize(("asked", "computed"), [("auto", "bf16"), ("no", "no")])
def test_the_precision_of_the_device_is_trained_in_and_recorded(
    converted_folder, tmp_path, monkeypatch, asked, computed
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    run = run_here(converted_folder, tmp_path, "--max_steps=1", f"--precision={asked}")
    assert run.read_record()["sessions"][0]["precision"] == computed
    assert run.read_config()["precision"] == asked


def test_energetic_hits_can_weigh_more_in_the_likelihood(converted_folder, tmp_path):
    likelihood = ["--max_steps=1", "--optimizer.loss=likelihood", "--validate_every=1"]
    plain = run_here(converted_folder, tmp_path / "plain", *likelihood, "--optimizer.energy_weight=0")
    weighted = run_here(converted_folder, tmp_path / "weighted", *likelihood, "--optimizer.energy_weight=1")
    losses = [run.read_metrics("train")[0]["loss"] for run in (plain, weighted)]
    assert losses[0] < losses[1] < 10 * losses[0]


def test_a_crystal_network_is_trained_and_loaded(converted_folder, tmp_path):
    run = run_here(converted_folder, tmp_path / "run", "--max_steps=3", "--denoiser.crystal_channels=[4]")
    begun = load_folder(run.initial).denoiser.crystal_network
    trained = load_pipeline(run.path).denoiser.crystal_network
    averaged = load_file(run.checkpoint("last") / "averaged.safetensors")
    for name, parameter in trained.named_parameters():
        assert torch.equal(parameter, averaged[f"denoiser.crystal_network.{name}"])
    assert not torch.equal(trained.layers[-1].weight, begun.layers[-1].weight)
