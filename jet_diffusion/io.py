"""Files and folders that appear under their name whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jet_diffusion.errors import UserError


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary sibling of `path`, make it durable and give it the name, replacing a file.

    Args:
        path: The file to write.
        write: Called with the temporary path, which keeps the suffix of `path`.

    Raises:
        FileNotFoundError: The folder of `path` does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent}")
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        write(temporary)
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text_atomically(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json_object(file: Path, remedy: str) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        file: The file.
        remedy: What to do if it is damaged, for the message.

    Raises:
        FileNotFoundError: If there is no such file.
        UserError: If the file holds anything else, naming the place.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{file} is missing; {remedy}") from error
    except ValueError as error:
        raise UserError(f"{file} is not valid JSON ({error}); {remedy}") from error
    if not isinstance(found, dict):
        raise UserError(f"{file} must hold a JSON object, but holds {json.dumps(found):.40}; {remedy}")
    return found


def megabytes(size: int) -> str:
    """A size as text."""
    return f"{size / 1e6:.3g} MB"


@contextmanager
def explaining_full_disk(folder: Path, explain: Callable[[], str] | None = None) -> Iterator[None]:
    """Say, where the disk is full, which, how much is free and what to do.

    Args:
        folder: A folder on that disk.
        explain: Gives what else is said, such as how much is needed and what is kept.

    Raises:
        OSError: In place of the error of the file that did not fit; safetensors, for one, has its own kind.
    """
    try:
        yield
    except Exception as error:
        codes = (errno.ENOSPC, errno.EDQUOT)
        if getattr(error, "errno", None) not in codes and not any(f"os error {code}" in str(error) for code in codes):
            raise
        free = f"{megabytes(shutil.disk_usage(folder).free)} are free"
        seen = f"the disk of {folder} is full, {free}{f': {explain()}' if explain else ''}"
        raise OSError(f"{seen}. Make room and give the same command again") from error


def replace_folder(new: Path, folder: Path) -> None:
    """Give a finished folder its name; what has the name is moved aside first and deleted last.

    `restore_folder` mends what a crash leaves between the two renames.
    """
    aside = _aside(folder)
    if folder.exists():
        os.replace(folder, aside)
    os.replace(new, folder)
    sync(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


def restore_folder(folder: Path) -> None:
    """Undo a replacement that a crash interrupted: the old folder has its name again, or is gone if the new one has."""
    aside = _aside(folder)
    if not aside.is_dir():
        return
    if folder.exists():
        shutil.rmtree(aside)
    else:
        os.replace(aside, folder)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.replaced")


def file_stem(name: str) -> str:
    """Turn a title into a file name of small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def partial_folder(path: str | Path) -> Path:
    """The hidden folder beside `path` that has unfinished work."""
    path = Path(path)
    return path.with_name(f".{path.name}.partial")


def claim_partial_folder(folder: Path, maker: str, settings: Mapping[str, Any], *, resume: bool = True) -> bool:
    """Make the folder for unfinished work, or find an interrupted run of the same maker and settings in it.

    Args:
        folder: What `partial_folder` names.
        maker: Whose work waits there, told apart from others' ("convert").
        settings: What determines the work, storable as JSON.
        resume: Whether to go on with an interrupted run.

    Returns:
        Whether an interrupted run goes on.

    Raises:
        FileExistsError: The folder holds something else, or an interrupted run and `resume` is false.
        UserError: The interrupted run had other settings.
    """
    claim = folder / "claim.json"
    if claim.exists():
        before = json.loads(claim.read_text(encoding="utf-8"))
        if before["maker"] != maker:
            raise FileExistsError(f"{folder} is left of an interrupted `{before['maker']}`; finish it or delete it")
        if not resume:
            raise FileExistsError(f"{folder} is left of an interrupted run; resume it or delete it")
        _compare(folder, before["settings"], json.loads(json.dumps(dict(settings))))
        return True
    # A crash before the claim was written leaves an empty folder or the claim's own temporary file.
    if folder.exists() and any(not path.match(".claim.*.partial.json") for path in folder.iterdir()):
        raise FileExistsError(f"{folder} is in the way and not of `{maker}`; move it away or choose another name")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_text_atomically(claim, json.dumps({"maker": maker, "settings": dict(settings)}))
    return False


def _compare(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    if seen := differences(before, now):
        raise UserError(f"the interrupted run in {folder} differs: {seen}; delete it to start anew")


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say which settings differ, as "seed was 0 and is now 1"; empty if none does."""
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(f"{name} was {before.get(name)!r} and is now {now.get(name)!r}" for name in changed)


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
