"""Peak memory of training against batch size, with and without gradient checkpointing.

    python -m benchmarks.speed.memory [--data jets] [--preset small] [--batch 16 64 256]

Every row is a process of its own that takes some training steps. RAM is the process's peak in them, and how much of it
came with them (the loader's process is not counted); GPU memory is what torch had allocated at most.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import torch

from benchmarks.speed.contest import begin, dataset_folder, parser, training_settings
from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.training.build import build_pipeline
from jet_diffusion.training.loop import TrainingLoop
from jet_diffusion.training.train import make_state


def resident(field: str) -> float:
    """VmRSS or VmHWM of this process, in MB."""
    found = re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 / 1e6 if found else float("nan")


def measure(options: argparse.Namespace) -> None:
    """One row: train some steps and print the figures as JSON."""
    accelerator = begin(options)
    size, checkpointing = options.batch[0], f"--unet.gradient_checkpointing={options.checkpointing}"
    more = [f"--batch_size={size}", checkpointing, "--max_steps=1000000"]
    settings = training_settings(options, options.data, *more)
    jets = JetDataset.load(options.data, "train")
    pipeline = build_pipeline(settings, jets, train_first_stage=False)
    loop = TrainingLoop(settings, accelerator, pipeline, make_state(settings, pipeline), jets)
    with suppress(OSError, AttributeError):  # elsewhere than on Linux with glibc the fit's memory is counted too
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = resident("VmRSS")
    for step in range(options.steps):
        loop.step()
        if step == 0:
            loop.clock.busy, loop.clock.jets = 0.0, 0
    gpu = torch.cuda.max_memory_allocated() / 1e6 if accelerator.device.type == "cuda" else 0.0
    figures = {
        "peak": resident("VmHWM"),
        "steps": resident("VmHWM") - before,
        "gpu": gpu,
        "rate": loop.clock.jets / loop.clock.busy,
        "precision": accelerator.mixed_precision,
    }
    print(json.dumps(figures))


def main() -> None:
    """Measure every row and print the table; `--row` is how the benchmark calls itself."""
    made = parser(__doc__)
    made.add_argument("--batch", type=int, nargs="+", default=[16, 64, 256])
    made.add_argument("--steps", type=int, default=3, help="of training in each row (default 3)")
    made.add_argument("--row", action="store_true", help=argparse.SUPPRESS)
    made.add_argument("--checkpointing", default="false", help=argparse.SUPPRESS)
    options = made.parse_args()
    if options.row:
        return measure(options)
    print(f"{options.config or options.preset}, {options.steps} steps a row")
    memory_heads = f"{'peak RAM':>10} {'of it steps':>12} {'GPU':>9}"
    print(f"{'batch':>6} {'checkpointing':>14} {memory_heads} {'jets/s':>8} {'precision':>9}")
    own = [f"--preset={options.preset}", f"--precision={options.precision}", f"--steps={options.steps}"]
    own += [f"--threads={options.threads}", *["--compile"] * options.compile, *["--cpu"] * options.cpu]
    own += [f"--config={options.config}"] if options.config else []
    with dataset_folder(options.data) as data:
        for size in options.batch:
            for checkpointing in ("false", "true"):
                row = ["--row", f"--data={data}", f"--checkpointing={checkpointing}", "--batch", str(size)]
                command = [sys.executable, "-m", f"benchmarks.speed.{Path(__file__).stem}", *own, *row]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                figures = json.loads(done.stdout.splitlines()[-1])
                memory = (f"{figures[name]:.0f} MB" for name in ("peak", "steps", "gpu"))
                cells = "{:>10} {:>12} {:>9}".format(*memory)
                rate = f"{figures['rate']:>8.1f} {figures['precision']:>9}"
                print(f"{size:>6} {checkpointing:>14} {cells} {rate}", flush=True)


if __name__ == "__main__":
    main()
