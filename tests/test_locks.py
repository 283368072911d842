"""Two processes never work in one place, and a crash leaves nothing in the way."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from jet_diffusion import locks
from jet_diffusion.io import claim_partial_folder
from jet_diffusion.locks import hold, lock_file

HOLD = """
import sys, time
from jet_diffusion.locks import hold
with hold(sys.argv[1], "train"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_is_told_who_holds_it(tmp_path):
    path = tmp_path / "run"
    with hold(path, "train"):
        told = rf"in use by `train` \(process {os.getpid()} on .*, since 20"
        with pytest.raises(BlockingIOError, match=told), hold(path, "train"):
            pass
        with hold(tmp_path / "other", "train"):
            pass
    assert list(tmp_path.iterdir()) == []
    with hold(path, "train"):
        pass
    with pytest.raises(FileNotFoundError, match="no folder"), hold(tmp_path / "missing" / "run", "train"):
        pass


def test_a_short_hold_can_be_waited_for(tmp_path):
    with hold(tmp_path / "run", "train"):
        begun = time.monotonic()
        with pytest.raises(BlockingIOError), hold(tmp_path / "run", "train", patience=0.5):
            pass
        assert time.monotonic() - begun > 0.5
    freed = threading.Event()

    def short():
        with hold(tmp_path / "run", "generate"):
            freed.wait(5)

    other = threading.Thread(target=short)
    other.start()
    while not lock_file(tmp_path / "run").exists():
        time.sleep(0.01)
    threading.Timer(0.3, freed.set).start()
    with hold(tmp_path / "run", "train", patience=60):
        other.join()


def test_an_error_frees_it(tmp_path):
    with pytest.raises(KeyError), hold(tmp_path / "run", "train"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.integration
def test_a_killed_holder_is_succeeded(tmp_path):
    path = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError, match=f"process {process.pid} "), hold(path, "train"):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        with hold(path, "train"):
            assert json.loads(lock_file(path).read_text())["process"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def elsewhere(path, age):
    """A lock of another machine, last touched `age` seconds ago."""
    holder = {"token": "t", "purpose": "train", "since": 0, "process": 1, "host": "elsewhere", "boot": "other"}
    lock_file(path).write_text(json.dumps(holder))
    os.utime(lock_file(path), (time.time() - age,) * 2)


def test_another_machine_is_judged_by_its_signs_of_life(tmp_path):
    path = tmp_path / "run"
    elsewhere(path, locks.STALE_AFTER - 60)
    with pytest.raises(BlockingIOError, match="process 1 on elsewhere"), hold(path, "train"):
        pass
    elsewhere(path, locks.STALE_AFTER + 60)
    with hold(path, "train"):
        assert json.loads(lock_file(path).read_text())["process"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_reused_process_number_is_not_taken_for_the_holder(tmp_path):
    path = tmp_path / "run"
    with hold(path, "train"):
        holder = json.loads(lock_file(path).read_text())
    lock_file(path).write_text(json.dumps(holder | {"started": "another time"}))
    with hold(path, "train"):
        pass


def test_the_holder_shows_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "HEARTBEAT", 0.01)
    path = tmp_path / "run"
    with hold(path, "train"):
        os.utime(lock_file(path), (0, 0))
        deadline = time.monotonic() + 10
        while lock_file(path).stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert lock_file(path).stat().st_mtime > 0


def test_a_partial_folder_is_claimed_and_told_apart(tmp_path):
    folder = tmp_path / ".jets.partial"
    assert claim_partial_folder(folder, "convert", {"seed": 1}) is False
    assert claim_partial_folder(folder, "convert", {"seed": 1}) is True
    with pytest.raises(ValueError, match="seed was 1 and is now 2; delete it to start anew"):
        claim_partial_folder(folder, "convert", {"seed": 2})
    with pytest.raises(FileExistsError, match="interrupted `convert`"):
        claim_partial_folder(folder, "generate", {"seed": 1})
    with pytest.raises(FileExistsError, match="resume it or delete it"):
        claim_partial_folder(folder, "convert", {"seed": 1}, resume=False)


def test_what_is_not_ours_is_never_removed(tmp_path):
    folder = tmp_path / ".jets.partial"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="in the way and not of `convert`"):
        claim_partial_folder(folder, "convert", {})
    assert (folder / "thesis.txt").read_text() == "mine"
    (folder / "thesis.txt").unlink()
    assert claim_partial_folder(folder, "convert", {}) is False
