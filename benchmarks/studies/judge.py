"""Sample one model and print the metrics that the ablations are judged by.

    python -m benchmarks.studies.judge MODEL REAL [--size 1000] [--steps 25] [--scheduler dpm++] [--out FILE]

MODEL is a run, a pipeline folder or a name on the Hub; REAL is an HDF5 file or converted dataset of held-out jets, at
least three times `--size` of them. Jets are sampled for the conditions of real ones and compared with others.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies.comparison import DISTANCES, Candidate, judge
from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.data.load import load_jets
from jet_diffusion.hub import load_pipeline
from jet_diffusion.io import write_text_atomically
from jet_diffusion.metrics.distances import central_width, wasserstein
from jet_diffusion.observables.table import OBSERVABLES
from jet_diffusion.pipelines.schedulers import SCHEDULERS
from jet_diffusion.precision import PRECISIONS, make_accelerator
from jet_diffusion.runs import RunFolder
from jet_diffusion.sampling.sample import sample_like, set_sampler
from jet_diffusion.schema import CHANNELS

WORST = 6
"""Observables named as the farthest from the real jets'."""


def main() -> None:
    """Judge as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a training run, a pipeline folder, or user/name on the Hub")
    parser.add_argument("real", help="held-out jets: HDF5 file or converted dataset")
    parser.add_argument("--size", type=int, default=1000, help="jets to sample (default 1000)")
    parser.add_argument("--steps", type=int, help="solver steps (default: the model's own)")
    parser.add_argument("--scheduler", choices=list(SCHEDULERS), help="default: the model's own")
    parser.add_argument("--step-power", type=float, help="where steps lie (default: the model's own)")
    parser.add_argument("--precision", choices=PRECISIONS, default="no", help="of the networks (default no)")
    parser.add_argument("--checkpoint", help="of a run: last, best or a step (default last)")
    parser.add_argument("--out", type=Path, help="write the results there too, with all digits")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    pipeline = load_pipeline(options.model, checkpoint=options.checkpoint)
    seen = jets_seen(RunFolder(Path(options.model)), options.checkpoint)
    set_sampler(pipeline, options.scheduler, options.steps, options.step_power)
    rng = np.random.default_rng(options.seed)
    conditions, real = load_jets(options.real, 3 * options.size, rng).split([options.size, 2 * options.size], rng)
    steps = pipeline.config.default_steps
    accelerator = make_accelerator(options.precision)
    pipeline.to(accelerator.device)
    with accelerator.autocast():
        sampled = sample_like(pipeline, conditions, steps=steps, seed=options.seed, source="model", progress=True)
    row = judge(Candidate(options.model, sampled.jets, {}), real, real, draws=3, seed=options.seed)
    row |= {"steps": steps, "ms_per_jet": sampled.ms_per_jet, **moments(sampled.jets, real)}
    row["precision"] = accelerator.mixed_precision
    if seen is not None:
        row["training_jets"] = seen
    print(json.dumps(in_short(row)))
    if options.out:
        write_text_atomically(options.out, json.dumps(row, indent=2) + "\n")


def jets_seen(run: RunFolder, checkpoint: str | None) -> int | None:
    """Training jets that a run's checkpoint has seen; None of what is no run, or began with another's weights."""
    if not run.begun or run.read_config().get("init_from"):
        return None
    step = int(run.checkpoint(checkpoint or "last").name.removeprefix("step-"))
    return step * int(run.read_config()["batch_size"])


def moments(generated: JetSample, real: JetSample) -> dict[str, Any]:
    """Measure W1 and the ratio of the central widths of each observable, in units of the real central width."""
    width = central_width(real.observables)
    distances = wasserstein(real.observables, generated.observables) / width
    spreads = central_width(generated.observables) / width
    columns = {"w1": distances, "spread": spreads}
    return {name: dict(zip(OBSERVABLES, map(float, column), strict=True)) for name, column in columns.items()}


def in_short(row: dict[str, Any]) -> dict[str, Any]:
    """Pick the numbers that are looked at first."""
    ratios = {name: "/".join(f"{row[f'{name}_{c}']:.3f}" for c in CHANNELS) for name in ("occupancy", "energy")}
    results = {
        name: f"{row[name]:.3f}+-{row[f'{name}_error']:.3f} ({row[f'{name}_baseline']:.3f})"
        for name in DISTANCES
        if name in row
    }
    worst = dict(sorted(row["w1"].items(), key=lambda item: -item[1])[:WORST])
    return {
        **{"steps": row["steps"], "ms_per_jet": round(row["ms_per_jet"]), **ratios, **results},
        "worst": {name: round(value, 2) for name, value in worst.items()},
        "spread": round(float(np.median(list(row["spread"].values()))), 3),
    }


if __name__ == "__main__":
    main()
