"""The sampling loop: jets of a pipeline batch by batch, in one process or many."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather
from tqdm.auto import tqdm

from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline, batch_size_on
from jet_diffusion.pipelines.jet_output import JetImagePipelineOutput


class Conditioned(Protocol):
    """Jets that conditions can be taken from: labels, pT and mass in GeV, each (N,)."""

    labels: np.ndarray
    pt: np.ndarray
    m0: np.ndarray


@dataclass
class Conditions:
    """Labels, pT and mass in GeV, each (N,)."""

    labels: np.ndarray
    pt: np.ndarray
    m0: np.ndarray


@dataclass(frozen=True)
class JetBatch:
    """Finished jets, in the order of the seed's sequence.

    Attributes:
        energies: (N, 3, 125, 125) float32 in GeV/100, the channels last in memory; on the CPU, or with several
            processes on their device.
        labels, pt, m0: (N,) what the jets were asked to be, pT and mass in GeV; -1 and NaN from an unconditional model.
        clipped_fraction: Share of the values of predicted x_0 that were clipped to the range seen in training.
        seconds: Wall time of this process.
    """

    energies: torch.Tensor
    labels: torch.Tensor
    pt: torch.Tensor
    m0: torch.Tensor
    clipped_fraction: float
    seconds: float

    def __len__(self) -> int:
        return len(self.energies)


def sample_batches(
    pipeline: JetImagePipeline,
    num_jets: int,
    conditions: Conditioned | dict[str, Any] | None = None,
    *,
    ring_sums: Callable[[np.ndarray], torch.Tensor | None] | None = None,
    first_jet: int = 0,
    seed: int = 0,
    steps: int | None = None,
    batch_size: int | None = None,
    accelerator: Accelerator | None = None,
    progress: bool = False,
    **call: Any,
) -> Iterator[JetBatch]:
    """Sample jets `first_jet` to `num_jets` of a seed's sequence and yield them as they are finished.

    Each process samples `batch_size` jets at a time and all of them get the jets of all. Batches always have their full
    size while they are denoised, so jet i does not depend on how many jets are asked for.

    Args:
        pipeline: The model, on the device it shall run on.
        num_jets: End of the sequence.
        conditions: Jets whose class, pT and mass are asked for, one by one; or these for all jets by name, where what
            is left out is drawn; None draws all. An unconditional model takes no notice of jets.
        ring_sums: Gives the rings' hit counts and energies, as the pipeline takes them, for indices (n,) of jets.
        first_jet: Where to begin.
        seed: Jet i of a seed is always the same.
        steps: Solver steps; by default the model's own number.
        batch_size: Jets a process denoises at once; by default as suits the device.
        accelerator: Of this process, for several processes or another precision than float32.
        progress: Whether to show a bar.
        call: Further arguments of the pipeline's call.

    Raises:
        ValueError: From the pipeline, for bad arguments.
    """
    pipeline.set_progress_bar_config(disable=True)
    process, processes = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    batch_size = min(batch_size_on(pipeline.device, batch_size), num_jets)
    with tqdm(total=num_jets, initial=first_jet, desc="sampling", unit="jet", disable=not progress or process) as bar:
        for first in range(first_jet, num_jets, batch_size * processes):
            mine = first + process * batch_size
            rows = np.arange(mine, mine + batch_size).clip(max=num_jets - 1)
            begun = time.perf_counter()
            with accelerator.autocast() if accelerator else nullcontext():
                output = pipeline(
                    batch_size,
                    **_asked(pipeline, conditions, rows),
                    ring_sums=None if ring_sums is None else ring_sums(rows),
                    num_inference_steps=steps,
                    generator=torch.Generator().manual_seed(seed),
                    first_jet=mine,
                    batch_size=batch_size,
                    output_type="pt",
                    **call,
                )
            seconds = time.perf_counter() - begun
            images, labels, pt, m0 = (column[: num_jets - first] for column in _of_all_processes(output, accelerator))
            bar.update(len(images))
            yield JetBatch(images.movedim(-1, 1), labels, pt, m0, output.clipped_fraction, seconds)


def sample_jets(pipeline: JetImagePipeline, num_jets: int, *arguments: Any, **options: Any) -> JetBatch:
    """All jets of `sample_batches` at once, on the CPU; for so many as fit into memory (190 kB each)."""
    batches = list(sample_batches(pipeline, num_jets, *arguments, **options))
    tensors = {
        field.name: torch.cat([getattr(batch, field.name).cpu() for batch in batches]) for field in fields(JetBatch)[:4]
    }
    clipped = sum(batch.clipped_fraction for batch in batches) / len(batches)
    return JetBatch(**tensors, clipped_fraction=clipped, seconds=sum(batch.seconds for batch in batches))


def _of_all_processes(output: JetImagePipelineOutput, accelerator: Accelerator | None) -> Sequence[torch.Tensor]:
    """Images, labels, pT and mass of the jets of all processes, in order."""
    columns = (output.images, *(torch.from_numpy(column) for column in (output.labels, output.pt, output.m0)))
    if accelerator is None or accelerator.num_processes == 1:
        return columns
    gathered: list[torch.Tensor] = gather([column.to(accelerator.device) for column in columns])
    return gathered


def _asked(
    pipeline: JetImagePipeline, conditions: Conditioned | dict[str, Any] | None, rows: np.ndarray
) -> dict[str, Any]:
    """Arguments of the pipeline for jets of these indices (n,)."""
    if conditions is None or isinstance(conditions, dict):
        return dict(conditions or {})
    if pipeline.conditioner is None:
        return {}
    # In double precision as the pipeline takes them: a float32 pT is itself again afterwards.
    pt, m0 = (column[rows].astype(np.float64) for column in (conditions.pt, conditions.m0))
    return {"labels": conditions.labels[rows], "pt": pt, "m0": m0}
