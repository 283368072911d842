"""Tiny runs to interrupt and to damage."""

from __future__ import annotations

import time
from pathlib import Path

from accelerate.state import AcceleratorState
from models import SMALL_UNET, small_settings

from jet_diffusion.training.train import train

STEPS = ["--max_steps=3", "--checkpoint_every=1", "--keep_checkpoints=3"]

TRAIN = str(Path(__file__).parents[2] / "training" / "train.py")

TWO_PROCESSES = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", TRAIN)
"""Launches training in two processes."""


def train_here(folder, run, *options):
    """Train in this process; accelerate keeps global state, which is reset."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return train(small_settings(folder, run, *options))


def train_arguments(folder, run, *more):
    """Arguments of a tiny training with one loader process."""
    fixed = ["--batch_size=8", "--precision=no", "--cpu=true", "--num_workers=1", "--warmup_steps=1"]
    fixed += ["--validation_jets=8", "--sample_jets=2", "--log_every=1"]
    return [f"--data={folder}", f"--run_dir={run}", *SMALL_UNET, *fixed, *more]


def wait_for(condition, process, seconds=900):
    """Wait until something is there; the process must live on."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
