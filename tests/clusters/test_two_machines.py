"""Training on two machines with two processes each: the same weights as on one, and no harm when one is lost."""

from __future__ import annotations

import time

import pytest
import torch
from machines import PROCESSES, REASON, TRAIN, accelerate_launch, start, two_machines, wait_for
from models import SMALL_UNET, small_settings
from safetensors.torch import load_file

from jet_diffusion.hub import load_pipeline
from jet_diffusion.runs import RunFolder
from jet_diffusion.training.processes import TIMEOUT_VARIABLE

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(REASON), reason=REASON)]

STEPS = 12
GRACE = 60
"""Seconds a launcher may take, beyond the processes' own time, to end them and itself."""

TENSORS = ("weights.safetensors", "averaged.safetensors", "optimizer.safetensors")


@pytest.fixture
def machines():
    both = two_machines()
    yield both
    for machine in both:
        machine.remove()


def options(folder, run, *more):
    settings = small_settings(folder, run)
    fixed = ["--batch_size=8", "--precision=no", "--cpu=true", "--trackers=[]", "--num_workers=1", "--warmup_steps=1"]
    fixed += ["--validation_jets=8", "--sample_jets=2", "--log_every=1", "--checkpoint_every=1"]
    fixed += [f"--max_steps={STEPS}", "--keep_checkpoints=99", "--learning_rate=0.01"]
    return [f"--data={settings.data}", f"--run_dir={run}", *SMALL_UNET, *fixed, *more]


def launch_on(machines, arguments, **variables):
    return [machine.launch(arguments, main_address=machines[0].address, **variables) for machine in machines]


def finish(processes):
    outputs = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(outputs)
    return outputs[0]


def tensors(run, step, file):
    return run / "checkpoints" / f"step-{step:08d}" / file


def same_from(whole, broken, first):
    """Every checkpoint from a step on, bit for bit, and every line of the metrics."""
    for step in range(first, STEPS + 1):
        for file in TENSORS:
            assert tensors(whole, step, file).read_bytes() == tensors(broken, step, file).read_bytes(), (step, file)
    one, two = ([(line["step"], line["loss"]) for line in RunFolder(run).read_metrics("train")]
                for run in (whole, broken))  # fmt: skip
    assert one == two


@pytest.fixture(scope="module")
def whole(converted_folder, tmp_path_factory):
    """An undisturbed run on two machines."""
    run = tmp_path_factory.mktemp("whole") / "run"
    both = two_machines()
    try:
        output = finish(launch_on(both, options(converted_folder, run)))
    finally:
        for machine in both:
            machine.remove()
    assert f"{PROCESSES} process(es) take part" in output
    return run


def test_two_machines_train_as_one(whole, converted_folder, tmp_path):
    arguments = options(converted_folder, tmp_path / "one")
    finish([start([*accelerate_launch(machines=1), str(TRAIN), *arguments])])
    begun = dict(load_pipeline(tmp_path / "one").unet.named_parameters())
    one, two = (load_file(tensors(run, STEPS, TENSORS[0])) for run in (tmp_path / "one", whole))
    moved = 0.0
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-4)
        if name.startswith("unet."):
            moved = max(moved, (tensor - begun[name.removeprefix("unet.")]).abs().max().item())
    assert moved > 1e-3, "agreement means nothing if nothing was learnt"


def test_a_machine_that_dies_is_named_and_the_pair_goes_on(whole, machines, converted_folder, tmp_path):
    run = tmp_path / "run"
    pair = launch_on(machines, options(converted_folder, run))
    wait_for(tensors(run, 3, ""), pair)
    machines[1].kill()
    killed = time.monotonic()
    output, _ = (process.communicate(timeout=300)[0] for process in pair)
    assert time.monotonic() - killed < GRACE
    assert pair[0].returncode != 0
    assert f"process 0 of {PROCESSES} lost the others" in output
    assert "the same command on all machines goes on" in output
    left = RunFolder(run).checkpoint_steps()
    assert 3 <= left[-1] < STEPS, "it was killed too late to test anything"
    assert f"step {left[-1]} is saved" in output
    output = finish(launch_on(machines, options(converted_folder, run)))
    assert f"going on from step {left[-1]} of {STEPS}" in output
    same_from(whole, run, left[-1])


def test_a_cut_network_ends_in_an_error_and_loses_nothing(whole, machines, converted_folder, tmp_path):
    run, timeout = tmp_path / "run", 20
    pair = launch_on(machines, options(converted_folder, run), **{TIMEOUT_VARIABLE: str(timeout)})
    wait_for(tensors(run, 3, ""), pair)
    machines[0].pull()
    cut = time.monotonic()
    outputs = [process.communicate(timeout=300)[0] for process in pair]
    ended = time.monotonic() - cut
    machines[0].plug()
    assert ended < timeout + GRACE, "\n".join(outputs)
    for machine, output in enumerate(outputs):
        assert pair[machine].returncode != 0
        assert f"waited more than {timeout} s" in output
        assert "the same command on all machines goes on" in output
    left = RunFolder(run).checkpoint_steps()
    assert 3 <= left[-1] < STEPS, "it was cut too late to test anything"
    output = finish(launch_on(machines, options(converted_folder, run)))
    assert f"going on from step {left[-1]} of {STEPS}" in output
    same_from(whole, run, left[-1])
