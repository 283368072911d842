"""Judge generated jets against real ones: `jet-diffusion evaluate GENERATED REAL --out FOLDER`.

GENERATED is an HDF5 file of jets, or a model (training run, pipeline folder or Hub name) that is then sampled for
the conditions of real jets. REAL is an HDF5 file or a converted dataset; two (for a model three) times `--size`
jets of it are used.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jet_diffusion.data.hdf5 import QuarkGluonFile
from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.data.leakage import find_training_hashes, read_hashes, refuse_training_jets
from jet_diffusion.data.load import HDF5_SUFFIXES, load_jets
from jet_diffusion.evaluation.result import Evaluation
from jet_diffusion.evaluation.run import SIZE, evaluate_jets
from jet_diffusion.evaluation.write import write_report
from jet_diffusion.hub import load_pipeline
from jet_diffusion.metrics.classifiers import CLASSIFIERS
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.pipelines.schedulers import SCHEDULERS
from jet_diffusion.report.model import Figure, Goal, Report, refuse_existing
from jet_diffusion.report.tables import number, verdict
from jet_diffusion.runs import versions
from jet_diffusion.sampling.sample import SampledJets, sample_like, set_sampler
from jet_diffusion.sampling.sweep import parse_steps, run_sweep

MS_PER_JET = Goal(high=10)
"""On one GPU."""


def evaluate(arguments: argparse.Namespace) -> Evaluation:
    """Load or sample the jets, evaluate them, and write the report.

    Raises:
        ValueError: for bad input, or training jets among the real ones.
        FileNotFoundError: for what is not there.
        FileExistsError: if the output folder holds a report already.
    """
    out: Path = arguments.out
    refuse_existing(out, overwrite=arguments.overwrite)
    steps = parse_steps(arguments.sweep) if arguments.sweep else []
    is_file = Path(arguments.generated).suffix in HDF5_SUFFIXES
    if is_file and steps:
        raise ValueError("--sweep needs a model to sample, not a file of jets")
    rng = np.random.default_rng(arguments.seed)
    pipeline = None if is_file else _load_model(arguments)
    wanted = (2 if pipeline is None else 3) * arguments.size
    real = load_jets(arguments.real, wanted, rng, split=arguments.split, progress=True)
    notices = _notices(arguments, real)
    training = None
    if arguments.training:
        training = load_jets(arguments.training, arguments.size, rng, split=arguments.training_split, progress=True)
    sampled = None
    if pipeline is None:
        generated = load_jets(arguments.generated, arguments.size, rng, generated=True, progress=True)
    else:
        asked, real = split_conditions(real, arguments.size, rng)
        sampled = _sample(pipeline, asked, arguments)
        generated = sampled.jets
    evaluation = evaluate_jets(
        real,
        generated,
        training=training,
        size=arguments.size,
        seed=arguments.seed,
        classifiers=arguments.classifiers,
        jobs=arguments.dask or arguments.jobs,
        tagger=arguments.tagger,
        heading=_heading(arguments, sampled),
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
            arguments.schedulers or [None],
            size=min(arguments.sweep_size, len(real) // 2),
            seed=arguments.seed,
            batch_size=arguments.batch_size,
        )
    write_report(evaluation, out, pictures=not arguments.no_pictures, progress=True)
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


def _load_model(arguments: argparse.Namespace) -> JetImagePipeline:
    pipeline = load_pipeline(arguments.generated, checkpoint=arguments.checkpoint)
    set_sampler(pipeline, arguments.scheduler, arguments.steps)
    steps = pipeline.config.default_steps
    pipeline.check_inputs(arguments.size, None, None, None, steps, arguments.batch_size, "np")
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    return pipeline


def _sample(pipeline: JetImagePipeline, asked: JetSample, arguments: argparse.Namespace) -> SampledJets:
    return sample_like(
        pipeline,
        asked,
        steps=pipeline.config.default_steps,
        seed=arguments.seed,
        batch_size=arguments.batch_size,
        source=str(arguments.generated),
        progress=True,
    )


def _notices(arguments: argparse.Namespace, real: JetSample) -> list[str]:
    """What the report must say first; refuses training jets among the real ones."""
    if arguments.training_hashes:
        hashes = read_hashes(arguments.training_hashes)
    elif Path(arguments.generated).suffix in HDF5_SUFFIXES:
        hashes = None
    else:
        hashes = find_training_hashes(arguments.generated)
    leak = refuse_training_jets(real, hashes, arguments.allow_training_jets)
    stand_in = f"the real jets are simulated: {real.simulated}" if real.simulated else None
    return [notice for notice in (leak, stand_in) if notice]


def _heading(arguments: argparse.Namespace, sampled: SampledJets | None) -> dict[str, Any]:
    return {
        "title": f"Evaluation of {Path(arguments.generated).name}",
        "command": shlex.join(["jet-diffusion", "evaluate", *arguments.argv]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "sampling": _own_words(arguments.generated) if sampled is None else sampled.settings,
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
        Figure(
            "ms_per_jet",
            "sampling time a jet",
            "cost",
            sampled.ms_per_jet,
            None,
            None,
            None,
            size,
            unit="ms",
            goal=MS_PER_JET if on_gpu else None,
            note=note,
        ),
        Figure("evaluations", "network evaluations a jet", "cost", sampled.evaluations, None, None, None, size),
    )


def main(argv: list[str] | None = None) -> None:
    """Evaluate as the command line says and print the figures."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = _parser().parse_args(argv)
    arguments.argv = argv
    evaluation = evaluate(arguments)
    for notice in evaluation.report.notices:
        sys.stdout.write(f"! {notice}\n")
    for figure in evaluation.report.figures:
        value, floor = number(figure.value, figure.error), number(figure.floor, figure.floor_error)
        sys.stdout.write(f"{figure.label:<44} {value:>22}   floor {floor:>22}   {verdict(figure)}\n")
    for entry in evaluation.report.omitted:
        sys.stdout.write(f"left out: {entry['name']}: {entry['reason']}\n")
    sys.stdout.write(f"report: {(arguments.out / 'report.html').absolute()}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jet-diffusion evaluate", description=__doc__)
    parser.add_argument("generated", help="HDF5 file of generated jets, or a model to sample")
    parser.add_argument("real", help="HDF5 file of real jets, or a converted dataset (folder or Hub name)")
    parser.add_argument("--out", type=Path, default=Path("evaluation"), help="folder of the report")
    parser.add_argument("--overwrite", action="store_true", help="replace a report that is there")
    parser.add_argument("--no-pictures", action="store_true", help="numbers only")
    parser.add_argument("--split", default="test", help="split of a dataset of real jets (default test)")
    parser.add_argument("--size", type=_count, default=SIZE, help=f"jets a side (default {SIZE})")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=_count, default=1, help="processes for the classifiers (default 1)")
    parser.add_argument("--dask", metavar="ADDRESS", help="a Dask scheduler whose workers train them, or local:N")
    parser.add_argument(
        "--classifiers",
        nargs="*",
        default=["observables", "voxels"],
        choices=list(CLASSIFIERS),
        help="two-sample tests to run (default: observables voxels)",
    )
    parser.add_argument("--tagger", action="store_true", help="train quark/gluon taggers on real and generated jets")
    group = parser.add_argument_group("training jets")
    group.add_argument("--training", help="HDF5 file or dataset of training jets, for memorisation")
    group.add_argument("--training-split", default="train", help="split of that dataset (default train)")
    group.add_argument("--training-hashes", type=Path, help="content hashes of the training jets (.npy)")
    group.add_argument("--allow-training-jets", action="store_true", help="evaluate even on jets trained on")
    group = parser.add_argument_group("sampling a model")
    group.add_argument("--steps", type=_count, help="solver steps (default: the model's own number)")
    group.add_argument("--scheduler", choices=list(SCHEDULERS), help="default: the model's own")
    group.add_argument("--batch-size", type=_count, default=64, help="jets denoised at once (default 64)")
    group.add_argument("--checkpoint", default="last", help="of a run: last, best or a step (default last)")
    group.add_argument("--sweep", metavar="steps=5,10,25", help="table of quality and time against steps")
    group.add_argument("--schedulers", nargs="+", choices=list(SCHEDULERS), help="of the sweep (default: the model's)")
    group.add_argument("--sweep-size", type=_count, default=1000, help="jets of each sweep row (default 1000)")
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be positive, got {value}")
    return value
