"""`jet-diffusion generate MODEL OUT --num-jets N`."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jet_diffusion.arguments import Precision, Scheduler
from jet_diffusion.errors import UserError, require_least


@dataclass
class Options:
    """Sample jets into an HDF5 file of the original schema.

    Jet number i of a seed is always the same. The same command continues an interrupted run. Several processes share
    the work: accelerate launch -m jet_diffusion generate ... Several jobs do with --shard; the last of them puts the
    file together.

    Attributes:
        model: A training run, a pipeline folder, or user/name on the Hub.
        out: HDF5 file to write.
        num_jets: Jets to sample.
        seed: Seed of the noise and of conditions that are drawn.
        steps: Solver steps; the model's own number if you omit it.
        scheduler: Solver; the model's own if you omit it.
        batch_size: Jets that each process denoises at once; 16 on a CPU and 256 on a GPU if you omit it.
        precision: Precision of the networks: "auto" is bf16 where the device has instructions for it, "no" is float32.
        label: Class of all jets. The model draws class, pT and mass that you omit, jointly.
        pt: Transverse momentum of all jets, GeV.
        m0: Mass of all jets, GeV.
        like: Take class, pT and mass of each jet from this HDF5 file.
        shard: For example 3/16: make only the third of 16 shares of the jets. Without it the command makes what jobs
            of shards have left.
        checkpoint: Checkpoint of a training run: last, best or a step; the last if you omit it.
    """

    model: str
    out: Path
    num_jets: int = field(kw_only=True)
    seed: int = 0
    steps: int | None = None
    scheduler: Scheduler | None = None
    batch_size: int | None = None
    precision: Precision = "auto"
    label: Literal["gluon", "quark"] | None = None
    pt: float | None = None
    m0: float | None = None
    like: Path | None = None
    shard: str = "1/1"
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        require_least(self, num_jets=1, seed=0, steps=1, batch_size=1)
        if self.like is not None and (self.label, self.pt, self.m0) != (None, None, None):
            raise UserError("give --label, --pt and --m0, or a file to take them from (--like), not both")
        if self.out.exists():
            raise FileExistsError(f"{self.out} exists; delete it or choose another name")


def main(options: Options) -> None:
    """Load the model and sample."""
    from jet_diffusion.arguments import parse_shard
    from jet_diffusion.data.hdf5 import QuarkGluonFile
    from jet_diffusion.errors import checking
    from jet_diffusion.hub import load_pipeline
    from jet_diffusion.precision import make_accelerator
    from jet_diffusion.runs import RunFolder
    from jet_diffusion.sampling.generate import generate
    from jet_diffusion.sampling.sample import set_sampler
    from jet_diffusion.training.processes import check_processes, join_processes

    shard = parse_shard(options.shard)
    pipeline = load_pipeline(options.model, checkpoint=options.checkpoint)
    set_sampler(pipeline, options.scheduler)
    join_processes(cpu=False)
    accelerator = make_accelerator(options.precision)
    running = accelerator.num_processes
    with checking():  # srun's tasks may be separate jobs on purpose, one a shard
        check_processes(running, None if shard == (1, 1) else running, os.environ)
    attrs = {"model": options.model}
    if RunFolder(options.model).begun:
        attrs["checkpoint"] = options.checkpoint or "last"
    given = {"labels": options.label, "pt": options.pt, "m0": options.m0}
    with ExitStack() as opened:
        like = opened.enter_context(QuarkGluonFile(options.like)) if options.like else None
        generate(
            pipeline,
            options.out,
            options.num_jets,
            seed=options.seed,
            steps=options.steps,
            batch_size=options.batch_size,
            conditions={name: value for name, value in given.items() if value is not None},
            like=like,
            attrs=attrs,
            shard=shard,
            accelerator=accelerator,
        )
    if accelerator.is_main_process:
        made = f"{options.num_jets:,} jets are in {options.out}"
        waiting = f"the jets of shard {options.shard} are made; {options.out} appears when those of all shards are"
        sys.stdout.write(f"{made if options.out.is_file() else waiting}\n")
