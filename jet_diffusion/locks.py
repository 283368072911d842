"""One process at a time in a run folder, a dataset or a file; a crash leaves nothing to clean up.

The lock is a small file `.NAME.lock` beside what it locks. It is made in one step that fails if it exists, which
shared file systems keep to as well, and it names its holder. On the holder's machine a lock whose process is gone is
stale. Elsewhere the age of the file tells: the holder touches it every 30 seconds.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

HEARTBEAT = 30.0
"""Seconds between two signs of life."""

STALE_AFTER = 600.0
"""Seconds without a sign of life after which a lock of another machine counts as left behind."""


POLL = 0.2
"""Seconds between two looks at a lock that is waited for."""


@contextmanager
def hold(path: str | Path, purpose: str, *, patience: float = 0.0) -> Iterator[None]:
    """Lock `path` for this process while the block runs.

    Args:
        path: What is locked; it need not exist, but its folder must.
        purpose: What the holder does, for the message that the second process gets ("convert", "train").
        patience: Seconds to wait for another holder to be done.

    Raises:
        BlockingIOError: Another process holds it; the message names process, machine and time.
        FileNotFoundError: The folder of `path` does not exist.
    """
    path = Path(path).absolute()
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent}")
    file = lock_file(path)
    claim = {"token": uuid.uuid4().hex, "purpose": purpose, "since": time.time(), **_who()}
    deadline = time.monotonic() + patience
    while True:
        try:
            _take(file, claim, path)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL)
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(file, claim["token"], stop), daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        if _read(file).get("token") == claim["token"]:
            file.unlink(missing_ok=True)


def lock_file(path: Path) -> Path:
    """The lock's own file, a hidden sibling of `path`."""
    return path.with_name(f".{path.name}.lock")


def _take(file: Path, claim: dict[str, Any], path: Path) -> None:
    """Make the lock file, or take over a stale one."""
    if _create(file, claim):
        return
    # Only one process at a time may replace a stale lock, or two could each remove the other's new one.
    guard = file.with_name(file.name + ".takeover")
    with suppress(FileNotFoundError):
        if _age(guard) > STALE_AFTER:
            guard.unlink()
    if _create(guard, claim):
        try:
            holder = _read(file)
            if _is_stale(file, holder):
                fresh = file.with_name(f"{file.name}.{claim['token']}")
                _create(fresh, claim)
                os.replace(fresh, file)
                return
        finally:
            guard.unlink(missing_ok=True)
    holder = _read(file)
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["since"])) if "since" in holder else "just now"
    who = f"process {holder.get('process', '?')} on {holder.get('host', '?')}"
    raise BlockingIOError(
        f"{path} is in use by `{holder.get('purpose', 'another command')}` ({who}, since {since}); "
        f"wait for it, or choose another name"
    )


def _create(file: Path, claim: dict[str, Any]) -> bool:
    """Make a file that must not exist; False if it does."""
    try:
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(claim, stream)
        stream.flush()
        os.fsync(descriptor)
    return True


def _read(file: Path) -> dict[str, Any]:
    """What a lock says; nothing if it is gone, or made this moment and not yet written."""
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _is_stale(file: Path, holder: dict[str, Any]) -> bool:
    """Whether the holder is gone: its process on this machine, its signs of life on another."""
    here = _who()
    if holder and all(holder.get(name) == here[name] for name in ("host", "boot", "namespace")):
        return _started(int(holder["process"])) != holder.get("started") or holder.get("started") is None
    try:
        return _age(file) > STALE_AFTER
    except FileNotFoundError:
        return True


def _age(file: Path) -> float:
    """Seconds since a file was touched, by the clock of its own file system."""
    probe = file.with_name(f"{file.name}.{uuid.uuid4().hex}")
    try:
        probe.touch()
        return probe.stat().st_mtime - file.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _beat(file: Path, token: str, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT):
        if _read(file).get("token") != token:
            return
        with suppress(OSError):
            os.utime(file)


def _who() -> dict[str, Any]:
    """This process, and what tells its machine, boot and container from others of the same name."""
    process = os.getpid()
    return {
        "process": process,
        "started": _started(process),
        "host": socket.gethostname(),
        "boot": _text("/proc/sys/kernel/random/boot_id"),
        "namespace": _link("/proc/self/ns/pid"),
    }


def _started(process: int) -> str | None:
    """When a process of this machine began, in ticks since the boot; None if there is no such process."""
    stat = _text(f"/proc/{process}/stat")
    if stat is not None:
        state, *fields = stat.rpartition(")")[2].split()
        return None if state == "Z" else fields[18]
    try:  # a system without /proc
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "running"


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None
