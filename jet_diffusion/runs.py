"""The run folder: settings, record, checkpoints and pictures of a training run.

run/
  config.yaml       every setting; `--config run/config.yaml` repeats the run
  run.json          versions, git state, dataset and its fingerprint, and each time the run went on
  initial/          the pipeline before the first step: fitted representation and denoiser, seeded weights
  marginal/         the one-pixel denoiser that a plain denoiser's loss is compared with
  checkpoints/      step-00000500/ ...: weights, averaged weights, optimiser, state.json
  metrics.jsonl     one line a log, validation or sample
  history.png       loss against steps
  training_jets.npy sorted content hashes of the training jets, by which evaluation finds leaks
  evaluation/       report of `jet-diffusion evaluate`, if one was put here; cards take their figures from it
  samples/          pictures of jets sampled on the way
  logs/             trackers
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import platform
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

import jet_diffusion
from jet_diffusion.errors import UserError
from jet_diffusion.io import read_json_object, write_text_atomically

PACKAGES = ("torch", "diffusers", "accelerate", "datasets", "transformers", "numpy", "safetensors")

STATE = "state.json"
"""The checkpoint's file of counters and of digests of the others."""

TRAINING_JETS = "training_jets.npy"
"""Name of the file of content hashes, in a run folder and in what is published."""

FROM_COPY = "restore it from a copy, or begin another run"
"""What to do about a damaged file that nothing can be made from again."""


class RunFolder:
    """Paths and records of one run.

    Args:
        path: The run's folder; made by `begin`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser().absolute()
        self.config = self.path / "config.yaml"
        self.record = self.path / "run.json"
        self.initial = self.path / "initial"
        self.marginal = self.path / "marginal"
        self.checkpoints = self.path / "checkpoints"
        self.training_jets = self.path / TRAINING_JETS
        self.metrics = self.path / "metrics.jsonl"
        self.history = self.path / "history.png"
        self.samples = self.path / "samples"
        self.evaluation = self.path / "evaluation"
        self.logs = self.path / "logs"

    @property
    def begun(self) -> bool:
        """Whether a run was begun here; its record is the last thing `begin` writes."""
        return self.record.is_file()

    @staticmethod
    def open(path: str | Path) -> RunFolder:
        """A run that was begun.

        Raises:
            FileNotFoundError: If there is none, or its record is missing.
        """
        run = RunFolder(path)
        run.require_record()
        if not run.begun:
            raise FileNotFoundError(f"{path} is not a training run: it has no run.json")
        return run

    def require_record(self) -> None:
        """Refuse checkpoints without a record: nobody knows of what settings and jets they are.

        Raises:
            FileNotFoundError: If there are such.
        """
        if self.checkpoint_steps() and not self.begun:
            raise FileNotFoundError(
                f"{self.path} has checkpoints but no run.json, which says of what settings and jets they are; "
                f"{FROM_COPY}"
            )

    def begin(self, config: dict[str, Any], dataset: dict[str, Any]) -> None:
        """Write the settings and the record, once the initial pipeline is saved."""
        for folder in (self.checkpoints, self.samples, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        write_text_atomically(self.config, yaml.safe_dump(config, sort_keys=False))
        self._write_record({"dataset": dataset, "versions": versions(), "git": git_state(), "sessions": []})

    def read_config(self) -> dict[str, Any]:
        """The settings the run was begun or last gone on with.

        Raises:
            FileNotFoundError: If the file is missing.
            UserError: If it is damaged.
        """
        if not self.config.is_file():
            raise FileNotFoundError(f"{self.config} is missing; {FROM_COPY}")
        try:
            config = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        except (yaml.YAMLError, ValueError) as error:
            raise UserError(f"{self.config} is not valid YAML ({error}); {FROM_COPY}") from error
        if not isinstance(config, dict) or not {"data", "run_dir", "unet"} <= config.keys():
            raise UserError(
                f"{self.config} must hold all settings of a run, but is cut or of something else; {FROM_COPY}"
            )
        return config

    def update_config(self, config: dict[str, Any]) -> None:
        """Write the settings of a run that continues."""
        write_text_atomically(self.config, yaml.safe_dump(config, sort_keys=False))

    def read_record(self) -> dict[str, Any]:
        """The record as begun and gone on.

        Raises:
            FileNotFoundError: If the file is missing.
            UserError: If it is damaged.
        """
        record = read_json_object(self.record, FROM_COPY)
        dataset, sessions = record.get("dataset"), record.get("sessions")
        if not isinstance(dataset, dict) or not {"path", "fingerprint"} <= dataset.keys():
            raise UserError(f"{self.record} lacks the run's dataset, its path and fingerprint; {FROM_COPY}")
        if not isinstance(sessions, list):
            raise UserError(f"{self.record} lacks the list of the run's sessions; {FROM_COPY}")
        return record

    def add_session(self, **facts: Any) -> None:
        """Record that the run continues now: from which step, with how many processes, on which device."""
        record = self.read_record()
        started = datetime.now(UTC).isoformat(timespec="seconds")
        record["sessions"].append({"started": started, "command": sys.argv, "versions": versions(), **facts})
        self._write_record(record)

    def log(self, **values: Any) -> None:
        """Append one line to the metrics."""
        with self.metrics.open("a") as file:
            file.write(json.dumps(values) + "\n")

    def read_metrics(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The metrics' lines, or those of one kind (train, validation, sample).

        A last line that a kill cut is left out.

        Raises:
            UserError: If another line is damaged.
        """
        if not self.metrics.is_file():
            return []
        lines = []
        for number, text in enumerate(self.metrics.read_bytes().splitlines(keepends=True), 1):
            if not text.endswith(b"\n"):
                break
            try:
                line = json.loads(text)
                complete = isinstance(line["kind"], str) and isinstance(line["step"], int)
            except (ValueError, TypeError, KeyError):
                complete = False
            if not complete:
                raise UserError(
                    f"{self.metrics}, line {number}: not a line of metrics, {text[:40]!r}; remove that line"
                )
            lines.append(line)
        return [line for line in lines if kind is None or line["kind"] == kind]

    def forget_after(self, step: int) -> None:
        """Drop metrics of steps that a killed run did after its last checkpoint and will now repeat."""
        kept = [line for line in self.read_metrics() if line["step"] <= step]
        if self.metrics.is_file():
            write_text_atomically(self.metrics, "".join(json.dumps(line) + "\n" for line in kept))

    def checkpoint_steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending; other names beside them are no checkpoints."""
        folders = [path.name for path in self.checkpoints.glob("step-*") if path.is_dir()]
        return sorted(int(name.removeprefix("step-")) for name in folders if re.fullmatch(r"step-\d{8,}", name))

    def last_checkpoint_stays(self) -> str:
        """What a run that ends before its last step leaves, for its message."""
        steps = self.checkpoint_steps()
        return f"the checkpoint of step {steps[-1]} stays" if steps else "there is no checkpoint yet"

    def checkpoint(self, which: str | int = "last") -> Path:
        """A checkpoint's folder: "last", "best" (lowest validation loss) or a step.

        Raises:
            FileNotFoundError: If there is none such.
            UserError: If it is named by anything else.
        """
        steps = self.checkpoint_steps()
        if not steps:
            raise FileNotFoundError(f"{self.path} has no checkpoint yet")
        if which == "best":
            step = min(steps, key=self._validation_loss)
        else:
            if which != "last" and not str(which).isdecimal():
                raise UserError(f"a checkpoint is last, best or a step, not {which!r}")
            step = steps[-1] if which == "last" else int(which)
        if step not in steps:
            raise FileNotFoundError(f"{self.path} has no checkpoint at step {step}; there are {steps}")
        return self.checkpoints / f"step-{step:08d}"

    def prune(self, keep: int) -> None:
        """Remove all but the last `keep` checkpoints and the best one, and what a kill left half-written.

        A checkpoint is written only if its weights are finite, so the last one left always is.
        """
        steps = self.checkpoint_steps()
        kept = {*steps[-keep:], min(steps, key=self._validation_loss)}
        for step in steps:
            if step not in kept:
                shutil.rmtree(self.checkpoints / f"step-{step:08d}")
        for leftover in self.checkpoints.glob(".tmp-*"):
            shutil.rmtree(leftover)

    def _validation_loss(self, step: int) -> float:
        folder = self.checkpoints / f"step-{step:08d}"
        loss = read_json_object(folder / STATE, f"remove {folder}").get("validation_loss")
        # A checkpoint without a validation, or with NaN, is never the best.
        return loss if isinstance(loss, int | float) and math.isfinite(loss) else math.inf

    def _write_record(self, record: dict[str, Any]) -> None:
        write_text_atomically(self.record, json.dumps(record, indent=2) + "\n")


def read_state(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint's state.json, after checking every file against its digest.

    Raises:
        FileNotFoundError: If state.json is missing.
        UserError: If a file is not what was written.
    """
    remedy = _remedy(checkpoint)
    facts = read_json_object(checkpoint / STATE, remedy)
    digests = facts.get("sha256")
    if not isinstance(digests, dict) or not digests:
        raise UserError(f"{checkpoint / STATE} lacks the digests of the checkpoint's files; {remedy}")
    for file, digest in digests.items():
        if not (checkpoint / file).is_file() or file_digest(checkpoint / file) != digest:
            raise UserError(f"checkpoint {checkpoint} is damaged: {file} is missing or not as it was written; {remedy}")
    return facts


def _remedy(checkpoint: Path) -> str:
    """How to take the checkpoint before a damaged one."""
    steps = RunFolder(checkpoint.parent.parent).checkpoint_steps()
    before = [step for step in steps if f"step-{step:08d}" < checkpoint.name]
    if not before:
        return "there is no checkpoint before it: restore it from a copy, or begin another run"
    return f"to train on from step {before[-1]} remove that folder; other commands take it by --checkpoint {before[-1]}"


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python, this package and what it stands on."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "jet-diffusion": jet_diffusion.__version__, **found}


def git_state() -> dict[str, Any] | None:
    """Commit and cleanliness of the working folder's git repository, or None outside one."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "clean": not changes.strip()}
