"""Sample jets into an HDF5 file of the original schema: `jet-diffusion generate MODEL OUT.hdf5 --num-jets N`.

Also runs in several processes (`accelerate launch -m jet_diffusion generate ...`); jet i of a seed is the same whatever
their number. An interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather
from tqdm import tqdm

from jet_diffusion.data.hdf5 import JetWriter, QuarkGluonFile
from jet_diffusion.hub import load_pipeline
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.pipelines.schedulers import SCHEDULERS
from jet_diffusion.precision import PRECISIONS, make_accelerator
from jet_diffusion.runs import versions
from jet_diffusion.sampling.sample import Conditioned, describe_sampler, set_sampler
from jet_diffusion.training.runtime import check_processes


def generate(
    pipeline: JetImagePipeline,
    out: str | Path,
    num_jets: int,
    *,
    seed: int = 0,
    steps: int | None = None,
    batch_size: int = 64,
    conditions: dict[str, Any] | None = None,
    like: Conditioned | None = None,
    attrs: dict[str, Any] | None = None,
    accelerator: Accelerator | None = None,
) -> None:
    """Fill a file with generated jets, in as many processes as there are.

    Args:
        pipeline: The model. An unconditional one fills the schema's label, pt and m0 from `like`, and the file's
            attribute `conditional` says that they mean nothing.
        out: The file, which gets its name when all jets are in it.
        num_jets: How many.
        seed: Jet i of a seed is always the same.
        steps: Solver steps; by default the model's own number.
        batch_size: Jets a process denoises at once.
        conditions: Labels, pt, m0 for all jets; what is left out is drawn.
        like: Take the conditions of jet i from jet i of these: an HDF5 file or a dataset.
        attrs: Further root attributes.
        accelerator: Of this process; its mixed precision is that of the networks.

    Raises:
        ValueError: For bad arguments, or an interrupted run with other settings.
        FileExistsError: If the file exists.
    """
    accelerator = accelerator or Accelerator()
    steps = pipeline.config.default_steps if steps is None else steps
    if pipeline.conditioner is None and like is None:
        raise ValueError(
            "the model is unconditional: its jets have no label, pt and m0 for the file's schema; name jets to take "
            "these columns from (--like), which the file will then mark as meaningless"
        )
    if like is not None and conditions:
        raise ValueError("give conditions, or jets to take them from, not both")
    if like is not None and len(like.labels) < num_jets:
        raise ValueError(f"there are {len(like.labels)} jets to take conditions from, {num_jets} are asked for")
    pipeline.check_inputs(num_jets, **_all_conditions(conditions), num_inference_steps=steps, batch_size=batch_size,
                          output_type="pt")  # fmt: skip
    pipeline.to(accelerator.device)
    pipeline.set_progress_bar_config(disable=True)
    made = generation_attrs(pipeline, seed, steps, batch_size)
    made["mixed_precision"] = accelerator.mixed_precision
    settings = {**made, **condition_attrs(conditions, like), **(attrs or {})}
    writer, start = _open_writer(accelerator, out, num_jets, settings)
    clipped: list[float] = []
    rounds = range(start, num_jets, batch_size * accelerator.num_processes)
    progress = tqdm(total=num_jets, initial=start, unit="jet", disable=not accelerator.is_main_process)
    for first in rounds:
        mine = first + accelerator.process_index * batch_size
        given = _conditions_of(mine, batch_size, conditions, like)
        with accelerator.autocast():
            output = pipeline(
                batch_size,
                **(given if pipeline.conditioner is not None else {}),
                num_inference_steps=steps,
                generator=torch.Generator().manual_seed(seed),
                first_jet=mine,
                batch_size=batch_size,
                output_type="pt",
            )
        columns = (output.labels, output.pt, output.m0) if pipeline.conditioner is not None else given.values()
        tensors = (output.images, *(torch.from_numpy(column) for column in columns))
        parts = gather([tensor.to(accelerator.device) for tensor in tensors])
        clipped.append(output.clipped_fraction)
        count = min(batch_size * accelerator.num_processes, num_jets - first)
        if writer is not None:
            images, labels, pt, m0 = (part[:count].cpu().numpy() for part in parts)
            writer.append(np.ascontiguousarray(images.transpose(0, 3, 1, 2)), labels, pt, m0)
            writer.flush()
        progress.update(count)
    progress.close()
    if clipped:
        tqdm.write(f"{sum(clipped) / len(clipped):.2e} of the values of predicted x_0 were clipped to the fitted range")
    if writer is not None:
        writer.complete()
    accelerator.wait_for_everyone()


def generation_attrs(pipeline: JetImagePipeline, seed: int, steps: int, batch_size: int) -> dict[str, Any]:
    """Root attributes that say how the jets came to be."""
    made = f"generated by {type(pipeline).__name__} of jet-diffusion"
    if pipeline.config.provenance:
        made += f", trained on: {pipeline.config.provenance}"
    return {
        "simulated": made,
        "conditional": pipeline.conditioner is not None,
        "seed": seed,
        **describe_sampler(pipeline, steps),
        "batch_size": batch_size,
        "versions": " ".join(f"{name}={version}" for name, version in versions().items()),
    }


def condition_attrs(conditions: dict[str, Any] | None, like: Conditioned | None) -> dict[str, Any]:
    """What the jets were asked to be: the conditions given for all, or a digest of those taken from other jets."""
    if like is None:
        return {"conditions": json.dumps(conditions or {}, sort_keys=True)}
    digest = hashlib.sha256()
    for column in (like.labels, like.pt, like.m0):
        digest.update(np.ascontiguousarray(column).tobytes())
    return {"conditions": f"those of the jets {digest.hexdigest()[:16]}"}


def main(argv: list[str] | None = None) -> None:
    """Generate as the command line says."""
    arguments = _parser().parse_args(argv)
    pipeline = load_pipeline(arguments.model, checkpoint=arguments.checkpoint)
    set_sampler(pipeline, arguments.scheduler)
    accelerator = make_accelerator(arguments.precision)
    check_processes(accelerator.num_processes, None, os.environ)
    given = {"labels": arguments.label, "pt": arguments.pt, "m0": arguments.m0}
    generate(
        pipeline,
        arguments.out,
        arguments.num_jets,
        seed=arguments.seed,
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        conditions={name: value for name, value in given.items() if value is not None},
        like=QuarkGluonFile(arguments.like) if arguments.like else None,
        attrs={"model": str(arguments.model), "checkpoint": str(arguments.checkpoint)},
        accelerator=accelerator,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jet-diffusion generate", description=__doc__)
    parser.add_argument("model", help="a training run, a pipeline folder, or user/name on the Hub")
    parser.add_argument("out", type=Path, help="HDF5 file to write")
    parser.add_argument("--num-jets", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="solver steps (default: the model's own number)")
    parser.add_argument("--scheduler", choices=list(SCHEDULERS), help="default: the model's own")
    parser.add_argument("--batch-size", type=int, default=64, help="jets a process denoises at once (default 64)")
    parser.add_argument("--precision", choices=PRECISIONS, default="no", help="of the networks (default no: float32)")
    parser.add_argument("--label", choices=["gluon", "quark"], help="class of all jets (default: drawn)")
    parser.add_argument("--pt", type=float, help="pT of all jets, GeV (default: drawn)")
    parser.add_argument("--m0", type=float, help="mass of all jets, GeV (default: drawn)")
    parser.add_argument("--like", type=Path, help="take label, pT and mass of each jet from this HDF5 file")
    parser.add_argument("--checkpoint", default="last", help="of a run: last, best or a step (default last)")
    return parser


def _open_writer(
    accelerator: Accelerator, out: str | Path, num_jets: int, attrs: dict[str, Any]
) -> tuple[JetWriter | None, int]:
    """The main process's writer, and for all the number of jets already written; errors reach every process."""
    writer: JetWriter | None = None
    news: list[Any] = [None, 0]
    if accelerator.is_main_process:
        try:
            writer = JetWriter.resume(out, num_jets, attrs)
            news = [None, writer.num_written]
        except (ValueError, FileExistsError, FileNotFoundError) as error:
            news = [error, 0]
    broadcast_object_list(news)
    if news[0] is not None:
        raise news[0]
    return writer, int(news[1])


def _all_conditions(conditions: dict[str, Any] | None) -> dict[str, Any]:
    return {name: (conditions or {}).get(name) for name in ("labels", "pt", "m0")}


def _conditions_of(
    first: int, count: int, conditions: dict[str, Any] | None, like: Conditioned | None
) -> dict[str, Any]:
    if like is None:
        return conditions or {}
    rows = np.arange(first, first + count).clip(max=len(like.labels) - 1)
    return {"labels": like.labels[rows], "pt": like.pt[rows], "m0": like.m0[rows]}
