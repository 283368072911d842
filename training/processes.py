"""The processes of one run: how they find each other, and what is said when one of them is lost."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import gather_object, parse_flag_from_env
from torch import distributed, nn
from torch.distributed import DistError
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from jet_diffusion.errors import UserError
from jet_diffusion.runs import RunFolder

PROCESS_TIMEOUT = 1800.0
"""Seconds a process waits for the others: longer than any work that one of them does alone."""

TIMEOUT_VARIABLE = "JET_DIFFUSION_PROCESS_TIMEOUT"
"""Environment variable with other seconds to wait."""

MOST_SECONDS = 10**6
"""Longest wait that can be asked for, eleven days."""

SHARDING = {"FSDP": "--use_fsdp", "DEEPSPEED": "--use_deepspeed", "MEGATRON_LM": "--use_megatron_lm"}
"""Engines of accelerate that share the weights among the processes, and the launcher's options that ask for them."""

GLOO = ("gloo", "Connection closed by peer", "Timed out waiting")
"""What the RuntimeErrors of gloo say; NCCL's have a class of their own."""


def check_processes(running: int, expected: int | None, environment: Mapping[str, str]) -> None:
    """Refuse to run with another number of processes than was asked for.

    Two launches go wrong in silence. `accelerate launch --cpu --num_processes 2` starts one process; it leaves
    MASTER_ADDR without WORLD_SIZE in the environment. `srun` without a launcher starts tasks that each train alone.

    Args:
        running: Processes that take part.
        expected: Processes asked for; a number given here is trusted where SLURM's tasks are on purpose separate runs.
        environment: Variables of launcher and scheduler.

    Raises:
        UserError: With the command that does start them.
    """
    hint = "on CPUs start several with `torchrun --standalone --nproc_per_node N ...`"
    if expected is not None and running != expected:
        raise UserError(f"expect_processes is {expected}, but {running} take part; {hint}")
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    launchers = int(environment.get("GROUP_WORLD_SIZE", environment.get("WORLD_SIZE", running)))
    if expected is None and tasks > 1 and launchers == 1:
        raise UserError(
            f"srun started {tasks} tasks that do not know of each other and would write the same run; start one task "
            "a node, and in it `torchrun --nnodes $SLURM_NNODES --node_rank $SLURM_NODEID ...`, as "
            "configs/slurm/many-nodes.sbatch does; for separate runs give each task its own run_dir and "
            f"expect_processes {running}"
        )
    launched = int(environment.get("WORLD_SIZE", running))
    if running == 1 and launched > 1:
        raise UserError(
            f"{launched} processes were launched but each believes to be the only one, and would write the same "
            "files; without GPUs set ACCELERATE_USE_CPU=true"
        )
    asked_for_more = "MASTER_ADDR" in environment and "WORLD_SIZE" not in environment
    if running == 1 and asked_for_more and "ACCELERATE_MIXED_PRECISION" in environment:
        raise UserError(f"the launcher was asked for several processes but started one; {hint}")


def check_engine(environment: Mapping[str, str]) -> None:
    """Refuse engines that share the weights: here every process holds them all.

    On GPUs such an engine would split the weights that averages and checkpoints read whole. On CPUs accelerate takes no
    notice of it, or ends with a traceback.

    Args:
        environment: Variables of the launcher.

    Raises:
        UserError: With what to leave out.
    """
    for engine, option in SHARDING.items():
        if environment.get(f"ACCELERATE_USE_{engine}", "false").lower() in {"1", "true", "yes"}:
            raise UserError(
                f"{option} shares the weights among processes, but here each process holds them all, which a GPU of "
                f"80 GB does for models of a billion parameters; start without {option} and without an accelerate "
                "configuration that asks for it"
            )


def process_timeout() -> float:
    """Seconds to wait, now and at every exchange.

    Raises:
        UserError: The environment variable is no such number.
    """
    text = os.environ.get(TIMEOUT_VARIABLE) or str(PROCESS_TIMEOUT)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds <= MOST_SECONDS:
        raise UserError(f"{TIMEOUT_VARIABLE} must be a number of seconds from 1 to {MOST_SECONDS}, got {text}")
    return seconds


def join_processes(*, cpu: bool) -> None:
    """Meet the other processes of this launch, if there are any; whatever accelerate makes later finds them.

    Args:
        cpu: Stay on the CPU even if there is a GPU.

    Raises:
        ConnectionError: If the main process's port is taken, or the others do not arrive in time.
        UserError: If the launcher asks for an engine that shares the weights.
    """
    check_engine(os.environ)
    timeout = process_timeout()
    try:
        PartialState(cpu=cpu or parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=timedelta(seconds=timeout))
    except (DistError, RuntimeError) as error:
        if not isinstance(error, DistError) and not _is_gloo(error):
            raise
        host, port = (os.environ.get(name, "unknown") for name in ("MASTER_ADDR", "MASTER_PORT"))
        if "EADDRINUSE" in str(error):
            raise ConnectionError(
                f"port {port} of {host} is in use, perhaps by another run; choose another with `--main_process_port` "
                "(accelerate), `--master_port` (torchrun) or MASTER_PORT"
            ) from error
        raise ConnectionError(
            f"the processes of this run did not meet at {host}, port {port}, within {timeout:.0f} s: {_first(error)}; "
            "see that every machine was started with that address and can reach it, and that GLOO_SOCKET_IFNAME or "
            "NCCL_SOCKET_IFNAME names the network between them"
        ) from error


def check_same_folder(accelerator: Accelerator, run: RunFolder) -> None:
    """See that all processes find the run in the same state, which takes a file system they share.

    Raises:
        UserError: If some find another last checkpoint, or no run.
    """
    found = gather_object([(run.checkpoint_steps()[-1:] or [0])[0] if run.begun else -1])
    if len(set(found)) > 1:
        seen = ", ".join(
            f"process {process} {'no run' if step < 0 else f'step {step}'}" for process, step in enumerate(found)
        )
        raise UserError(f"{run.path} is not the same folder on all machines: {seen}; put run_dir on a shared one")


@contextmanager
def explain_lost_processes(accelerator: Accelerator, run: RunFolder) -> Iterator[None]:
    """Turn the error of a process that lost the others into one that says what was lost and how to go on.

    Raises:
        ConnectionError: In place of an error of the exchange between processes; all others pass.
    """
    try:
        yield
    except RuntimeError as error:
        if accelerator.num_processes == 1 or not (isinstance(error, DistError) or _is_gloo(error)):
            raise
        saved = run.checkpoint_steps()
        kept = f"step {saved[-1]} is saved" if saved else "no checkpoint was saved yet"
        raise ConnectionError(
            f"process {accelerator.process_index} of {accelerator.num_processes} lost the others, or waited more than "
            f"{process_timeout():.0f} s for them: {_first(error)}; {kept}, and the same command on all "
            "machines goes on from there"
        ) from error


def average_in_order(model: nn.Module) -> None:
    """Make CPUs average gradients so that a resumed run repeats them bit for bit.

    An all-reduce adds up the processes in an order that depends on where a number lies in its bucket, and
    DistributedDataParallel moves numbers to other buckets after a session's first step. Two addends have one order;
    on GPUs kernels vary more than that.

    Args:
        model: As accelerate prepared it.
    """
    if isinstance(model, DistributedDataParallel) and model.device_type == "cpu" and distributed.get_world_size() > 2:
        # A lambda, for torch accepts no annotation that is a text.
        model.register_comm_hook(None, lambda _, bucket: _average(bucket))


def _average(bucket: distributed.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Each process adds up its share of the bucket in the order of ranks, and hands the mean to all."""
    gradients, processes = bucket.buffer(), distributed.get_world_size()
    sent = functional.pad(gradients, (0, -len(gradients) % processes))
    received = torch.empty_like(sent)
    distributed.all_to_all_single(received, sent)
    mean, *others = received.chunk(processes)
    for other in others:
        mean += other
    mean /= processes
    distributed.all_gather(list(sent.chunk(processes)), mean)
    gradients.copy_(sent[: len(gradients)])
    done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    done.set_result(gradients)
    return done


def _is_gloo(error: RuntimeError) -> bool:
    return any(words in str(error) for words in GLOO)


def _first(error: Exception) -> str:
    """The first line of an error, without the place in its source and the trace."""
    return re.sub(r"^\[[^]]*\] *", "", str(error).strip()).partition("\n")[0].rstrip(". ")
