"""Break the commands on purpose and print what came of it; `make faults` runs this, in at most half an hour.

    PYTHONPATH=tests python tests/faults/break_all.py --kills 25

Each command is killed at random moments, and given again: it must end in the same data as without the kill, and leave
nothing beside it. Then it meets full disks, on file systems of a tenth, half and nine tenths of what it needs, and
afterwards more room.
`simulate` needs the extra `simulation`; it is left out, and said to be, where that is not installed.
The tables of bad files, damaged states, the Hub, two processes and signals are tests; here their numbers are printed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from contextlib import suppress
from pathlib import Path

import h5py
from faulty_runs import STEPS, train_arguments, train_here
from models import small_pipeline

from jet_diffusion.data.bundled import sample_path
from jet_diffusion.data.convert import convert
from jet_diffusion.errors import UserError
from jet_diffusion.simulation import libraries

TESTS = Path(__file__).parents[1]

DISKS = (0.1, 0.5, 0.9)
"""Sizes of full disks over that of what a command makes."""

LONGEST = 300
"""Seconds that a command of this size may take."""

TABLES = {
    "bad files": ["data/test_cases.py", "data/test_links.py"],
    "damaged states": ["data/test_whole.py", "faults/test_damaged_runs.py", "faults/test_finite.py"],
    "refused starts": ["faults/test_refused_starts.py", "faults/test_publishing.py"],
    "the Hub": ["test_repositories.py", "test_hub.py"],
    "two processes": ["faults/test_two_at_once.py", "test_locks.py"],
    "signals": ["faults/test_signals.py", "faults/test_schedulers.py"],
}
"""Fault -> tests of it."""


class Command:
    """A command of a few seconds that makes one file or folder.

    Args:
        name: Of the command.
        arguments: Its arguments, with OUT in the place of what it makes.
    """

    def __init__(self, name: str, *arguments: object) -> None:
        self.name, self.arguments = name, [str(argument) for argument in arguments]

    def start(self, out: Path) -> subprocess.Popen[str]:
        """Start it in a process group of its own."""
        given = [argument.replace("OUT", str(out)) for argument in self.arguments]
        command = [sys.executable, "-m", "jet_diffusion", self.name, *given]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, text=True, start_new_session=True, cwd=TESTS.parent, **pipes)

    def finish(self, out: Path) -> tuple[int, str]:
        """Run it to the end: exit code, and what it said last."""
        process = self.start(out)
        try:
            _, said = process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return -1, f"did not end in {LONGEST} s"
        return process.returncode, (said.strip().splitlines() or [""])[-1]


def digest(out: Path) -> str:
    """Of what a command made: arrays of HDF5 files, weights of runs, else all bytes."""
    found = hashlib.sha256()
    if out.is_file():
        with h5py.File(out) as file:
            for name in sorted(file):
                found.update(name.encode() + file[name][()].tobytes())
        return found.hexdigest()
    weights = sorted(out.glob("checkpoints/*/averaged.safetensors"))
    for path in weights or sorted(path for path in out.rglob("*") if path.is_file()):
        found.update(str(path.relative_to(out)).encode() + path.read_bytes())
    return found.hexdigest()


def remove(out: Path) -> None:
    """Remove what a command made."""
    if out.is_dir():
        shutil.rmtree(out)
    else:
        out.unlink()


def wrong_after(command: Command, out: Path, expected: str) -> str | None:
    """Give a command again: what is wrong with what it makes, or None."""
    code, said = command.finish(out)
    if code:
        return f"the same command ended with {code}: {said}"
    if digest(out) != expected:
        return "other data"
    return left_beside(out)


def left_beside(out: Path) -> str | None:
    """What lies beside the only thing that a command should make, or None."""
    beside = [path.name for path in out.parent.iterdir() if path != out]
    return f"left behind: {', '.join(beside)}" if beside else None


def kill(command: Command, out: Path, expected: str, seconds: float) -> str | None:
    """Kill a command after some seconds, or sooner if it has ended by then, and give it again."""
    process = command.start(out)
    time.sleep(seconds)
    if process.poll() is not None:  # the machine is less busy than it was
        process.communicate()
        remove(out)
        return kill(command, out, expected, seconds / 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    if command.name != "train" and out.exists():  # it had made everything, and was about to end
        return left_beside(out) if digest(out) == expected else "something half done had the final name"
    return wrong_after(command, out, expected)


def fill_disk(command: Command, folder: Path, expected: str, room: float) -> str | None:
    """Run a command on a disk of so many bytes, and again on enough."""
    tmpfs = ["mount", "-t", "tmpfs", "-o"]
    subprocess.run([*tmpfs, f"size={max(int(room), 8192)}", "tmpfs", str(folder)], check=True)
    try:
        out = folder / "out"
        code, said = command.finish(out)
        if code != 2 or "Traceback" in said or not said.startswith("jet-diffusion"):
            return f"ended with {code}: {said}"
        if command.name != "train" and out.exists():
            return "something half done had the final name"
        subprocess.run([*tmpfs, "remount,size=1g", str(folder)], check=True)
        return wrong_after(command, out, expected)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def commands(folder: Path) -> list[Command]:
    """What is broken, and what it needs, in a folder."""
    convert(sample_path(), folder / "jets", max_jets=400)
    run = train_here(folder / "jets", folder / "run", *STEPS)
    small_pipeline(folder / "jets").save_pretrained(folder / "model")
    simulate = Command("simulate", "OUT", "--num-jets=40", "--seed=1", "--workers=2", "--pileup=0")
    return [
        Command("convert", sample_path(), "OUT", "--max-jets=2048"),
        *([simulate] if simulation_is_installed() else []),
        Command("train", *train_arguments(folder / "jets", "OUT", "--max_steps=6", "--checkpoint_every=2")),
        Command("generate", folder / "model", "OUT", "--num-jets=200", "--steps=2", "--batch-size=20", "--seed=1"),
        Command("publish", run.path, "--repo=user/jets", "--folder=OUT", "--dry-run"),
    ]


def break_command(command: Command, kills: int, disks: bool, rng: random.Random) -> None:
    """Print the rows of one command."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        start = time.monotonic()
        code, said = command.finish(out)
        if code:
            return row(f"{command.name}", 1, [f"ended with {code}: {said}"])
        seconds, expected = time.monotonic() - start, digest(out)
        needed = sum(path.stat().st_size for path in (out.rglob("*") if out.is_dir() else [out]) if path.is_file())
    wrong = []
    for _ in range(kills):
        with tempfile.TemporaryDirectory() as folder:
            wrong.append(kill(command, Path(folder) / "out", expected, rng.uniform(0.3, 1) * seconds))
    row(f"kill {command.name}", kills, wrong)
    wrong = []
    for share in DISKS if disks else ():
        with tempfile.TemporaryDirectory() as folder:
            wrong.append(fill_disk(command, Path(folder), expected, share * needed))
    if disks:
        row(f"full disk, {command.name}", len(DISKS), wrong)
    return None


def row(fault: str, tried: int, wrong: list[str | None]) -> None:
    """Print one row of the table."""
    said = Counter(each for each in wrong if each)
    what = "; ".join(f"{count} x {text}" for text, count in said.items())
    sys.stdout.write(f"{fault:<22} {tried:>6} {tried - sum(said.values()):>9}  {what}\n")
    sys.stdout.flush()


def run_tests(fault: str, files: list[str]) -> None:
    """Print the row of a table that is tests."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options = ["-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        command = [sys.executable, "-m", "pytest", *options, *(str(TESTS / file) for file in files)]
        subprocess.run(command, cwd=TESTS.parent, stdout=subprocess.DEVNULL, check=False)
        cases = list(ET.parse(report).iter("testcase"))
    ran = [case for case in cases if case.find("skipped") is None]
    failed = [case.get("name") for case in ran if case.find("failure") is not None or case.find("error") is not None]
    row(fault, len(ran), [*failed])


def simulation_is_installed() -> bool:
    """Whether `simulate` can run here."""
    with suppress(UserError):
        libraries.require()
        return True
    return False


def may_mount() -> bool:
    """Whether this process may mount a small file system."""
    with tempfile.TemporaryDirectory() as folder:
        tried = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, check=False)
        if tried.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        return tried.returncode == 0


def main() -> None:
    """Break everything and print the table."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--kills", type=int, default=25, help="of each command (default 25)")
    made.add_argument("--only", nargs="+", help="commands and tables to break; all if you omit it")
    made.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    options = made.parse_args()
    disks, rng = os.name == "posix" and may_mount(), random.Random(options.seed)
    sys.stdout.write(f"{'fault':<22} {'tried':>6} {'survived':>9}  what was wrong\n")
    if not disks:
        sys.stdout.write("full disk: not tried, mounting is not allowed here\n")
    if not simulation_is_installed():
        sys.stdout.write("simulate: not tried, the extra `simulation` is not installed\n")
    with tempfile.TemporaryDirectory() as folder:
        for command in commands(Path(folder)):
            if not options.only or command.name in options.only:
                break_command(command, options.kills, disks, rng)
    for fault, files in TABLES.items():
        if not options.only or fault in options.only:
            run_tests(fault, files)


if __name__ == "__main__":
    main()
