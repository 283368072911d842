"""Compare generated jets with real ones and write the report: what `jet-diffusion evaluate` does."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from jet_diffusion.arguments import command_line
from jet_diffusion.data.hdf5 import QuarkGluonFile
from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.data.leakage import find_training_hashes, read_hashes, refuse_training_jets
from jet_diffusion.data.load import load_jets
from jet_diffusion.errors import checking
from jet_diffusion.evaluation.goals import GOALS
from jet_diffusion.evaluation.result import Evaluation
from jet_diffusion.evaluation.run import evaluate_jets
from jet_diffusion.evaluation.write import write_report
from jet_diffusion.hub import load_pipeline
from jet_diffusion.metrics.networks import load_transformers
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline, batch_size_on
from jet_diffusion.plotting.style import style_settings
from jet_diffusion.report.model import MetricResult, Report, refuse_existing
from jet_diffusion.runs import versions
from jet_diffusion.sampling.sample import SampledJets, sample_like, set_sampler
from jet_diffusion.sampling.sweep import parse_steps, run_sweep

if TYPE_CHECKING:
    from jet_diffusion.commands.evaluate import Options


def evaluate(options: Options) -> Evaluation:
    """Load or sample the jets, evaluate them, and write the report.

    Args:
        options: of the command.

    Raises:
        UserError: for bad input, or training jets among the real ones.
        FileNotFoundError: for what is not there.
        FileExistsError: if the output folder holds a report already.
    """
    refuse_existing(options.out, overwrite=options.overwrite)
    if options.tagger or {"resnet", "convnextv2"} & {*options.classifiers}:
        load_transformers()  # where it is missing, say so before the jets are read
    style_settings(options.style)  # likewise
    steps = parse_steps(options.sweep) if options.sweep else []
    rng = np.random.default_rng(options.seed)
    pipeline = None if options.is_file else _load_model(options)
    wanted = (2 if pipeline is None else 3) * options.size
    real = load_jets(options.real, wanted, rng, split=options.split, progress=True)
    notices = _notices(options, real)
    training = None
    if options.training:
        training = load_jets(options.training, options.size, rng, split=options.training_split, progress=True)
    sampled = None
    if pipeline is None:
        generated = load_jets(options.generated, options.size, rng, generated=True, progress=True)
    else:
        asked, real = split_conditions(real, options.size, rng)
        sampled = _sample(pipeline, asked, options)
        generated = sampled.jets
    evaluation = evaluate_jets(
        real,
        generated,
        training=training,
        size=options.size,
        seed=options.seed,
        classifiers=options.classifiers,
        jobs=options.dask or options.jobs,
        tagger=options.tagger,
        heading=_heading(options, sampled),
        progress=True,
    )
    evaluation.report.notices[:0] = notices
    if sampled is not None:
        _add_cost(evaluation.report, sampled)
    if pipeline is not None and steps:
        evaluation.report.tables["sweep"] = run_sweep(
            pipeline,
            real,
            steps,
            [*options.schedulers] or [None],
            size=min(options.sweep_size, len(real) // 2),
            seed=options.seed,
            batch_size=options.batch_size,
        )
    write_report(evaluation, options.out, pictures=not options.no_pictures, style=options.style, progress=True)
    return evaluation


def split_conditions(real: JetSample, size: int, rng: np.random.Generator) -> tuple[JetSample, JetSample]:
    """Jets whose conditions are asked for, and jets to compare with.

    Where there are enough, the two are disjoint, as two real samples would be; where there are not, the same
    jets serve for both, which lowers distances of pT and mass a little.
    """
    if len(real) >= 3 * size:
        asked, compared = real.split([size, len(real) - size], rng)
        return asked, compared
    return real.take(np.sort(rng.permutation(len(real))[:size])), real


def _load_model(options: Options) -> JetImagePipeline:
    pipeline = load_pipeline(options.generated, checkpoint=options.checkpoint)
    set_sampler(pipeline, options.scheduler, options.steps)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    steps, batch_size = pipeline.config.default_steps, batch_size_on(device, options.batch_size)
    with checking():
        pipeline.check_inputs(options.size, None, None, None, steps, batch_size, "np")
    pipeline.to(device)
    return pipeline


def _sample(pipeline: JetImagePipeline, asked: JetSample, options: Options) -> SampledJets:
    return sample_like(
        pipeline,
        asked,
        steps=pipeline.config.default_steps,
        seed=options.seed,
        batch_size=options.batch_size,
        source=str(options.generated),
        progress=True,
    )


def _notices(options: Options, real: JetSample) -> list[str]:
    """What the report must say first; refuses training jets among the real ones."""
    if options.training_hashes:
        hashes = read_hashes(options.training_hashes)
    elif options.is_file:
        hashes = None
    else:
        hashes = find_training_hashes(options.generated)
    leak = refuse_training_jets(real, hashes, options.allow_training_jets)
    stand_in = f"the real jets are simulated: {real.simulated}" if real.simulated else None
    return [notice for notice in (leak, stand_in) if notice]


def _heading(options: Options, sampled: SampledJets | None) -> dict[str, Any]:
    return {
        "title": f"Evaluation of {Path(options.generated).name}",
        "command": command_line("evaluate", options),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "sampling": _own_words(options.generated) if sampled is None else sampled.settings,
        "versions": versions(),
    }


def _own_words(file: str) -> dict[str, Any]:
    """What a file of generated jets says, in words and numbers, of how they were made."""
    with QuarkGluonFile(file) as jets:
        told = {name: value for name, value in jets.attrs.items() if isinstance(value, str | int | float)}
    told.pop("simulated", None)  # which the report says of the sample
    return told


def _add_cost(report: Report, sampled: SampledJets) -> None:
    on_gpu = not sampled.settings["device"].startswith("cpu")
    size, device = len(sampled.jets), sampled.settings["device"]
    note = f"{device}, batches of {sampled.settings['batch_size']}"
    report.add(
        MetricResult(
            "ms_per_jet",
            "sampling time a jet",
            "cost",
            sampled.ms_per_jet,
            None,
            None,
            None,
            size,
            unit="ms",
            goal=GOALS["ms_per_jet"] if on_gpu else None,
            note=note,
        ),
        MetricResult("evaluations", "network evaluations a jet", "cost", sampled.evaluations, None, None, None, size),
    )
