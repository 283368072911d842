"""Two machines on one: network namespaces joined by a cable that can be pulled, each with its own processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

TRAIN = Path(__file__).parents[2] / "training" / "train.py"
PROCESSES = 4
PORT = 29511

REASON = (
    "two machines take root and the command ip (Debian's iproute2)"
    if os.geteuid() or shutil.which("ip") is None
    else ""
)
"""Why there can be no two machines here; empty where there can."""


def ip(*arguments):
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


class Machine:
    """A network namespace with one end of the cable.

    Args:
        rank: 0 or 1.
    """

    def __init__(self, rank):
        self.rank = rank
        self.name, self.cable, self.address = f"jets-{os.getpid()}-{rank}", f"jets{rank}", f"10.77.0.{rank + 1}"
        ip("netns", "add", self.name)
        ip("-n", self.name, "link", "set", "lo", "up")

    def join(self):
        ip("-n", self.name, "address", "add", f"{self.address}/24", "dev", self.cable)
        self.plug()

    def plug(self):
        ip("-n", self.name, "link", "set", self.cable, "up")

    def pull(self):
        ip("-n", self.name, "link", "set", self.cable, "down")

    def launch(self, arguments, *, main_address, **variables):
        """Start this machine's part of a training run."""
        command = ["ip", "netns", "exec", self.name, *accelerate_launch(machines=2, rank=self.rank, ip=main_address)]
        return start([*command, str(TRAIN), *arguments], GLOO_SOCKET_IFNAME=self.cable, **variables)

    def kill(self):
        """Every process at once, as a power cut does."""
        for pid in ip("netns", "pids", self.name).split():
            os.kill(int(pid), signal.SIGKILL)

    def remove(self):
        self.kill()
        ip("netns", "delete", self.name)


def two_machines():
    """Two machines with a cable between them."""
    machines = [Machine(0), Machine(1)]
    first, second = machines
    ip("link", "add", first.cable, "netns", first.name, "type", "veth", "peer", "name", second.cable, "netns",
       second.name)  # fmt: skip
    for machine in machines:
        machine.join()
    return machines


def accelerate_launch(*, machines, rank=0, ip="127.0.0.1"):
    """The launcher's command; `--multi_gpu` chooses the one that starts several processes, also on CPUs."""
    return [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", f"--num_machines={machines}",
            f"--machine_rank={rank}", f"--num_processes={PROCESSES}", f"--main_process_ip={ip}",
            f"--main_process_port={PORT}", "--mixed_precision=no", "--dynamo_backend=no"]  # fmt: skip


def start(command, **variables):
    """A process whose output is one text."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", **variables}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )


def wait_for(path, processes, seconds=300):
    """Wait until a file or folder exists; the processes must live so long."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        for process in processes:
            assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"no {path} after {seconds} s"
        time.sleep(0.02)
