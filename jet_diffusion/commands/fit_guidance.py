"""`jet-diffusion fit-guidance MODEL DATA --out FILE`."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jet_diffusion.arguments import Precision, Scheduler
from jet_diffusion.errors import require_least


@dataclass
class Options:
    """Fit moment guidance, with which the shapes of a model's jets vary as much as those of training jets.

    Each round samples jets for the conditions of training jets and corrects the strengths of the guidance.
    `jet-diffusion publish --moment-guidance FILE` makes the guidance part of a model. Several processes share the work:
    accelerate launch -m jet_diffusion fit-guidance ...

    Attributes:
        model: A training run, a pipeline folder, or user/name on the Hub.
        data: A converted dataset; its training split is used.
        out: JSON file to write.
        rounds: Rounds of sampling.
        num_jets: Jets of each round, 2 or more.
        batch_size: Jets that each process denoises at once; 16 on a CPU and 256 on a GPU if you omit it.
        scheduler: Fit for this solver; the model's own if you omit it.
        steps: Fit for this number of solver steps; the model's own number if you omit it.
        step_power: Fit for this spacing of the steps; the model's own if you omit it.
        precision: Precision of the networks; "no" is float32.
        checkpoint: Checkpoint of a training run: last, best or a step; the last if you omit it.
        seed: Seed of the noise and of the choice of training jets.
    """

    model: str
    data: str
    out: Path = field(kw_only=True)
    rounds: int = 4
    num_jets: int = 1000
    batch_size: int | None = None
    scheduler: Scheduler | None = None
    steps: int | None = None
    step_power: float | None = None
    precision: Precision = "no"
    checkpoint: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        require_least(self, rounds=1, num_jets=2, batch_size=1, steps=1, seed=0)


def main(options: Options) -> None:
    """Fit, and write the guidance with what each round found."""
    import json

    from jet_diffusion.data.dataset import JetDataset
    from jet_diffusion.errors import checking
    from jet_diffusion.hub import load_pipeline
    from jet_diffusion.io import write_text_atomically
    from jet_diffusion.pipelines.jet_image_pipeline import batch_size_on
    from jet_diffusion.precision import make_accelerator
    from jet_diffusion.sampling.generate import generation_attrs
    from jet_diffusion.sampling.guidance import as_table, fit_moment_guidance
    from jet_diffusion.sampling.sample import set_sampler
    from jet_diffusion.training.runtime import check_processes

    if not options.out.absolute().parent.is_dir():
        raise FileNotFoundError(f"there is no folder {options.out.parent}")
    pipeline = load_pipeline(options.model, checkpoint=options.checkpoint)
    set_sampler(pipeline, options.scheduler, options.steps, options.step_power)
    jets = JetDataset.load(options.data, "train")
    accelerator = make_accelerator(options.precision)
    with checking():
        check_processes(accelerator.num_processes, None, os.environ)
    batch_size = batch_size_on(accelerator.device, options.batch_size)
    guidance, found = fit_moment_guidance(
        pipeline,
        jets,
        rounds=options.rounds,
        num_jets=options.num_jets,
        batch_size=batch_size,
        seed=options.seed,
        accelerator=accelerator,
    )
    if accelerator.is_main_process:
        written: dict[str, Any] = {
            **generation_attrs(pipeline, options.seed, pipeline.config.default_steps, batch_size),
            "mixed_precision": accelerator.mixed_precision,
            "moment_guidance": guidance,
            "rounds": [asdict(each) for each in found],
            "jets_each_round": options.num_jets,
            "training_jets": jets.fingerprint,
        }
        write_text_atomically(options.out, json.dumps(written, indent=2) + "\n")
        sys.stdout.write(f"{as_table(found)}\nwritten to {options.out}\n")
