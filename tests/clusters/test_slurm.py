"""Launches under SLURM: which are trained, which refused, and the scripts of configs/slurm."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from machines import accelerate_launch, wait_for
from models import SMALL_UNET, small_settings

from jet_diffusion.runs import RunFolder
from jet_diffusion.simulation.settings import SimulationSettings
from jet_diffusion.training.processes import SHARDING, TIMEOUT_VARIABLE, check_engine, check_processes, process_timeout

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "configs" / "slurm").glob("*.sbatch"))
FAKES = Path(__file__).parent / "slurm"

JOB = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_NTASKS": "4", "SLURM_NPROCS": "4"}
BATCH = {**JOB, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_TASK_PID": "99"}
STEP = {**BATCH, "SLURM_STEP_ID": "0", "SLURM_STEPID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2"}
ONE_TASK = {**STEP, "SLURM_NTASKS": "1", "SLURM_NPROCS": "1", "SLURM_STEP_NUM_TASKS": "1"}
INTERACTIVE = {**STEP, "SLURM_STEP_ID": "4294967290", "SLURM_STEPID": "4294967290", "SLURM_STEP_NUM_TASKS": "1"}
TORCHRUN = {"MASTER_ADDR": "node1", "MASTER_PORT": "29500", "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "none"}


@pytest.mark.parametrize(
    ("variables", "running"),
    [
        pytest.param({}, 1, id="no SLURM"),
        pytest.param(JOB, 1, id="salloc -n 4, a plain command on the login node"),
        pytest.param(INTERACTIVE, 1, id="salloc -n 4 with its shell on the first node"),
        pytest.param(BATCH, 1, id="sbatch -n 4, a plain command in the script"),
        pytest.param(ONE_TASK, 1, id="srun -n 1"),
        pytest.param({**BATCH, **TORCHRUN, "WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "1"}, 4, id="sbatch -n 4, torchrun"),
        pytest.param(
            {**STEP, **TORCHRUN, "WORLD_SIZE": "8", "GROUP_WORLD_SIZE": "4"}, 8, id="srun of 4, torchrun of 2 in each"
        ),
        pytest.param({**STEP, "MASTER_ADDR": "node1", "WORLD_SIZE": "4", "RANK": "0"}, 4, id="srun of 4 with ranks"),
        pytest.param({**STEP, "PMI_SIZE": "4", "PMI_RANK": "0"}, 4, id="srun of 4 by MPI, on CPUs"),
    ],
)
def test_what_slurm_sets_is_trained(variables, running):
    check_processes(running, None, variables)


@pytest.mark.parametrize(
    ("variables", "running"),
    [
        pytest.param(STEP, 1, id="srun of 4 without a launcher"),
        pytest.param({**STEP, **TORCHRUN, "WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "1"}, 2, id="srun of 4, each alone"),
    ],
)
def test_tasks_that_do_not_know_of_each_other_are_refused(variables, running):
    with pytest.raises(ValueError, match=r"srun started 4 tasks .* `torchrun --nnodes \$SLURM_NNODES"):
        check_processes(running, None, variables)
    check_processes(running, running, variables)  # said to be separate runs


def test_lost_processes_are_refused():
    check_processes(2, 2, {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2"})
    check_processes(1, None, {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "1"})
    with pytest.raises(ValueError, match="ACCELERATE_USE_CPU"):
        check_processes(1, None, {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2"})
    with pytest.raises(ValueError, match="expect_processes is 4, but 2 take part"):
        check_processes(2, 4, {})
    lost = {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_MIXED_PRECISION": "no"}
    with pytest.raises(ValueError, match=r"asked for several processes but started one; .*torchrun"):
        check_processes(1, None, lost)


def test_engines_that_share_the_weights_are_refused():
    check_engine({"ACCELERATE_USE_FSDP": "false"})
    for engine, option in SHARDING.items():
        with pytest.raises(ValueError, match=f"start without {option}"):
            check_engine({f"ACCELERATE_USE_{engine}": "true"})


@pytest.mark.slow
def test_fsdp_is_refused_before_anything_is_written(converted_folder, tmp_path):
    launcher = ["--use_fsdp" if part == "--multi_gpu" else part for part in accelerate_launch(machines=1)]
    train = ["--num_processes=2", ROOT / "training" / "train.py"]
    process = start([*launcher, *train, *options(converted_folder, tmp_path / "run")], environment(tmp_path))
    output = process.communicate(timeout=300)[0]
    assert process.returncode != 0
    assert "start without --use_fsdp" in output
    assert not (tmp_path / "run").exists()


def test_the_longest_wait_is_read_from_the_environment(monkeypatch):
    monkeypatch.setenv(TIMEOUT_VARIABLE, "20")
    assert process_timeout() == 20
    for wrong in ("soon", "0", "nan", "inf"):
        monkeypatch.setenv(TIMEOUT_VARIABLE, wrong)
        with pytest.raises(ValueError, match=f"{TIMEOUT_VARIABLE} must be a number of seconds from 1 .* got {wrong}"):
            process_timeout()


def options(folder, run, *more):
    settings = small_settings(folder, run)
    fixed = ["--batch_size=8", "--precision=no", "--cpu=true", "--trackers=[]", "--num_workers=0", "--warmup_steps=1"]
    fixed += ["--validation_jets=8", "--sample_jets=2", "--log_every=1", "--checkpoint_every=1"]
    return [f"--data={settings.data}", f"--run_dir={run}", *SMALL_UNET, *fixed, *more]


def environment(tmp_path, **variables):
    """A node's: the stand-ins for SLURM's commands come first."""
    path = os.pathsep.join([str(FAKES), str(Path(sys.executable).parent), os.environ["PATH"]])
    slurm = {"FAKE_SLURM": str(tmp_path), "PATH": path, "PYTHONUNBUFFERED": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return {**os.environ, **slurm, **variables}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start(command, variables):
    return subprocess.Popen(
        list(map(str, command)), env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )


@pytest.mark.slow
def test_a_bare_srun_is_refused_before_anything_is_written(converted_folder, tmp_path):
    command = [FAKES / "srun", "-n", "2", sys.executable, "-m", "jet_diffusion", "train"]
    process = start([*command, *options(converted_folder, tmp_path / "run")], environment(tmp_path, **JOB))
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 2
    assert output.count("srun started 2 tasks that do not know of each other") == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_port_in_use_is_named(converted_folder, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ranks = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
        command = [sys.executable, "-m", "jet_diffusion", "train", *options(converted_folder, tmp_path / "run")]
        process = start(command, environment(tmp_path, **ranks))
        output = process.communicate(timeout=300)[0]
    assert process.returncode == 2
    assert f"port {port} of 127.0.0.1 is in use" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_are_sound(script):
    subprocess.run(["bash", "-n", str(script)], check=True)
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    directives = [number for number, line in enumerate(lines) if line.startswith("#SBATCH")]
    command = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    assert directives
    assert directives[-1] < command, "SLURM reads no directive after the first command"


@pytest.mark.slow
def test_one_node_trains(converted_folder, tmp_path):
    script, run = ROOT / "configs" / "slurm" / "one-node.sbatch", tmp_path / "run"
    process = start(
        ["bash", script, *options(converted_folder, run, "--max_steps=1")],
        environment(tmp_path, SLURM_JOB_ID="7", SLURM_NTASKS="1", PROCESSES="2"),
    )
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    assert "2 process(es) take part" in output
    assert RunFolder(run).checkpoint_steps() == [1]


@pytest.mark.slow
def test_nodes_out_of_time_save_queue_again_and_go_on(converted_folder, tmp_path):
    script, run, steps = ROOT / "configs" / "slurm" / "many-nodes.sbatch", tmp_path / "run", 40
    job = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "node[1-2]"}
    variables = environment(tmp_path, **job, PORT=str(free_port()), PROCESSES="1")
    # No checkpoint is due before the end: only the signal saves one.
    command = ["bash", script, *options(converted_folder, run, f"--max_steps={steps}", f"--checkpoint_every={steps}")]
    process = start(command, variables)
    wait_for(run / "metrics.jsonl", [process])
    process.send_signal(signal.SIGUSR1)
    output = process.communicate(timeout=600)[0]
    assert process.returncode != 0
    assert (tmp_path / "requeued").read_text() == "7\n", output
    (left,) = RunFolder(run).checkpoint_steps()
    assert 1 <= left < steps, "it was stopped too late to test anything"
    process = start(command, variables)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    assert "2 process(es) take part" in output
    assert f"going on from step {left} of {steps}" in output
    assert (tmp_path / "requeued").read_text() == "7\n", "a run that ended was queued again"


@pytest.mark.slow
def test_an_array_makes_the_jets_of_one_process(tmp_path):
    for library in ("numba", "pythia8mc", "fastjet"):
        pytest.importorskip(library)
    from jet_diffusion.data.hdf5 import QuarkGluonFile
    from jet_diffusion.simulation.generate import simulate

    settings = SimulationSettings(600, seed=3, pileup=0.0)
    simulate(settings, tmp_path / "whole.hdf5")
    script = ROOT / "configs" / "slurm" / "simulate-array.sbatch"
    for task in ("1", "2"):
        variables = environment(tmp_path, SLURM_ARRAY_TASK_ID=task, SLURM_ARRAY_TASK_COUNT="2", SLURM_CPUS_PER_TASK="1")
        made = ["--num-jets=600", "--seed=3", "--pileup=0"]
        process = start(["bash", script, tmp_path / "parts", *made], variables)
        output = process.communicate(timeout=900)[0]
        assert process.returncode == 0, output
    with QuarkGluonFile(tmp_path / "whole.hdf5") as whole:
        start_row = 0
        for task in (1, 2):
            with QuarkGluonFile(tmp_path / "parts" / f"jets-{task}.hdf5") as part:
                rows = slice(start_row, start_row + part.num_jets)
                assert (part.energies(0, part.num_jets) == whole.energies(rows.start, rows.stop)).all()
                assert (part.pt == whole.pt[rows]).all()
                start_row = rows.stop
        assert start_row == 600


def test_shellcheck_is_content():
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    subprocess.run(["shellcheck", *map(str, SCRIPTS)], check=True)
