"""Sample jets into an HDF5 file of the original schema, in one process or several.

Jet i of a seed is the same whatever the number of processes. An interrupted run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from tqdm.auto import tqdm

from jet_diffusion.data.hdf5 import JetWriter
from jet_diffusion.errors import UserError, checking
from jet_diffusion.locks import hold
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.runs import versions
from jet_diffusion.sampling.batches import Conditioned, JetBatch, sample_batches
from jet_diffusion.sampling.sample import describe_sampler

MAX_SEED = 2**63 - 1
"""Largest seed: what a file's attribute and the generators take."""


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
        UserError: For bad arguments, or an interrupted run with other settings.
        FileExistsError: If the file exists.
        BlockingIOError: If another process makes it.
    """
    accelerator = accelerator or Accelerator()
    steps = pipeline.config.default_steps if steps is None else steps
    _check(pipeline, num_jets, seed, steps, batch_size, conditions, like)
    pipeline.to(accelerator.device)
    made = {**generation_attrs(pipeline, seed, steps, batch_size), "mixed_precision": accelerator.mixed_precision}
    settings = {**made, **condition_attrs(conditions, like), **(attrs or {})}
    clipped: list[float] = []
    asked = conditions if like is None else like
    sampler: dict[str, Any] = {"seed": seed, "steps": steps, "batch_size": batch_size, "accelerator": accelerator}
    with ExitStack() as stack:
        writer, start = _open_writer(accelerator, stack, out, num_jets, settings)
        for batch in sample_batches(pipeline, num_jets, asked, first_jet=start, progress=True, **sampler):
            clipped.append(batch.clipped_fraction)
            if writer is not None:
                borrowed = like if pipeline.conditioner is None else None
                writer.append(batch.energies.cpu().numpy(), *_columns(batch, borrowed, writer.num_written))
                writer.flush()
    if clipped and accelerator.is_main_process:
        tqdm.write(f"{sum(clipped) / len(clipped):.2e} of the values of predicted x_0 were clipped to the fitted range")
    accelerator.wait_for_everyone()


def _columns(batch: JetBatch, borrowed: Conditioned | None, first: int) -> list[np.ndarray]:
    """Labels, pT and mass of a batch, or those of the jets they are borrowed from, beginning with the first."""
    if borrowed is None:
        return [column.cpu().numpy() for column in (batch.labels, batch.pt, batch.m0)]
    rows = slice(first, first + len(batch))
    return [borrowed.labels[rows], borrowed.pt[rows], borrowed.m0[rows]]


def _check(
    pipeline: JetImagePipeline,
    num_jets: int,
    seed: int,
    steps: int,
    batch_size: int,
    conditions: dict[str, Any] | None,
    like: Conditioned | None,
) -> None:
    """Refuse what cannot be generated, before any file is made.

    Raises:
        UserError: Saying what is wrong.
    """
    if pipeline.conditioner is None and like is None:
        raise UserError(
            "the model is unconditional: its jets have no label, pt and m0 for the file's schema; name jets to take "
            "these columns from (--like), which the file will then mark as meaningless"
        )
    if like is not None and conditions:
        raise UserError("give conditions (--label, --pt, --m0) or jets to take them from (--like), not both")
    if like is not None and len(like.labels) < num_jets:
        raise UserError(f"there are {len(like.labels)} jets to take conditions from, {num_jets} are asked for")
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"seed must lie in 0 to {MAX_SEED}, got {seed}")
    given = {name: (conditions or {}).get(name) for name in ("labels", "pt", "m0")}
    with checking():
        pipeline.check_inputs(num_jets, **given, num_inference_steps=steps, batch_size=batch_size, output_type="pt")


def generation_attrs(pipeline: JetImagePipeline, seed: int, steps: int, batch_size: int) -> dict[str, Any]:
    """Root attributes that say how the jets were made."""
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
    """The requested conditions: those given for all jets, or a digest of those taken from other jets."""
    if like is None:
        return {"conditions": json.dumps(conditions or {}, sort_keys=True)}
    digest = hashlib.sha256()
    for column in (like.labels, like.pt, like.m0):
        digest.update(np.ascontiguousarray(column).tobytes())
    return {"conditions": f"those of the jets {digest.hexdigest()[:16]}"}


def _open_writer(
    accelerator: Accelerator, stack: ExitStack, out: str | Path, num_jets: int, attrs: dict[str, Any]
) -> tuple[JetWriter | None, int]:
    """The main process's writer, and for all the number of jets already written; errors reach every process.

    Until the stack is left the file is held.
    """
    writer: JetWriter | None = None
    news: list[Any] = [None, 0]
    if accelerator.is_main_process:
        try:
            stack.enter_context(hold(out, "generate"))
            writer = stack.enter_context(JetWriter.resume(out, num_jets, attrs))
            news = [None, writer.num_written]
        except (ValueError, OSError) as error:
            news = [error, 0]
    broadcast_object_list(news)
    if news[0] is not None:
        raise news[0]
    return writer, int(news[1])
