"""A signal ends a command in one line, with exit code 128 + signal, and what was done is kept."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from faulty_runs import TRAIN, TWO_PROCESSES, train_arguments, wait_for
from models import small_pipeline

from jet_diffusion.errors import run_command
from jet_diffusion.runs import RunFolder
from jet_diffusion.signals import SIGNALS, Interrupted, on_signals
from jet_diffusion.workflows import stage as staging
from jet_diffusion.workflows.stage import stage


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    ("command", "kept"), [("convert", "the same command goes on"), ("publish", "the same command starts anew")]
)
def test_a_command_ends_in_one_line(command, kept, number, capsys):
    with pytest.raises(SystemExit) as end:
        run_command(command, lambda argv: os.kill(os.getpid(), number) or time.sleep(5), [])
    assert end.value.code == 128 + number
    line = capsys.readouterr().err
    assert line.startswith(f"jet-diffusion {command}: stopped by {number.name}; ") and kept in line
    assert line.count("\n") == 1


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(Interrupted), on_signals(lambda number: (_ for _ in ()).throw(Interrupted(number))):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert [signal.getsignal(number) for number in SIGNALS] == before


TWICE = """
import os, signal, sys, time
from jet_diffusion.signals import on_signals
with on_signals(lambda number: None):
    for pause in (0, 0, 1.2):
        time.sleep(pause)
        os.kill(os.getpid(), signal.SIGTERM)
        print("still here", flush=True)
"""


def test_a_second_signal_means_now():
    """What a launcher passes on at once is the first signal once more."""
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGTERM
    assert done.stdout.count("still here") == 2


def test_an_interrupted_publish_leaves_what_was_staged_before(run, tmp_path, monkeypatch):
    folder = stage(run, tmp_path / "model", "user/jets")
    card = (folder / "README.md").read_text()

    def interrupt(*_):
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(staging, "make_model_card", interrupt)
    with pytest.raises(Interrupted):
        stage(run, folder, "user/other")
    assert (folder / "README.md").read_text() == card
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "run"]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("processes", "number"),
    [
        pytest.param(1, signal.SIGINT, marks=pytest.mark.slow),
        (1, signal.SIGUSR1),
        pytest.param(2, signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_training_saves_a_checkpoint_and_goes_on(converted_folder, tmp_path, start, processes, number):
    run = RunFolder(tmp_path / "run")
    arguments = train_arguments(converted_folder, run.path, "--max_steps=100000", "--unet.dropout=0.1")
    launcher = (TRAIN,) if processes == 1 else TWO_PROCESSES
    process = start(*arguments, launcher=launcher)
    wait_for(lambda: len(run.read_metrics("train")) > 2, process)
    asked = time.monotonic()
    # As Ctrl-C and schedulers do: to all processes, the loaders and the launcher too.
    os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=120)
    assert time.monotonic() - asked < 30
    (step,) = run.checkpoint_steps()
    line = f"stopped by {number.name}; the checkpoint of step {step} is saved; to go on: jet-diffusion train --config "
    assert line + str(run.config) in output
    if processes == 1:
        assert process.returncode == 128 + number
        assert "Traceback" not in output
    assert json.loads((run.checkpoint("last") / "state.json").read_text())["validation_loss"] is None
    if number == signal.SIGINT:
        command = re.search(r"to go on: jet-diffusion (.*)", output)[1].split()
        again = start(*command, f"--max_steps={step + 1}")
        output, _ = again.communicate(timeout=900)
        assert again.returncode == 0, output
        assert f"going on from step {step} of {step + 1}" in output
        assert [line["step"] for line in run.read_metrics("train")] == list(range(1, step + 2))


@pytest.mark.integration
def test_generate_keeps_its_jets(converted_folder, tmp_path, start):
    small_pipeline(converted_folder).save_pretrained(tmp_path / "model")
    out = tmp_path / "jets.hdf5"
    arguments = ["generate", tmp_path / "model", out, "--num-jets=300", "--steps=2", "--batch-size=100"]
    process = start(*arguments)
    wait_for(lambda: list((tmp_path / ".jets.hdf5.partial").glob("part-*")), process)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, output
    assert "stopped by SIGINT; what is done is kept" in output
    assert "Traceback" not in output
    assert not (tmp_path / ".jets.hdf5.lock").exists()
    assert list((tmp_path / ".jets.hdf5.partial").glob("part-*"))


@pytest.mark.integration
def test_simulate_ends_its_workers(tmp_path, start):
    pytest.importorskip("pythia8mc")
    arguments = ["simulate", tmp_path / "jets.hdf5", "--num-jets=5000", "--workers=2", "--pileup=0"]
    process = start(*arguments)
    wait_for((tmp_path / ".jets.hdf5.partial").exists, process)
    time.sleep(3)
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "Traceback" not in output
    with pytest.raises(ProcessLookupError):  # nobody is left in the group
        os.killpg(process.pid, 0)
