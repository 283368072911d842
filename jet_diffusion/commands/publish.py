"""Stage a training run as a Hub repository and push it: `jet-diffusion publish RUN --repo user/name [--dry-run]`."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData

from jet_diffusion.hub import load_pipeline
from jet_diffusion.io import partial_folder
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.pipelines.schedulers import SCHEDULERS
from jet_diffusion.quantum.pipeline import QuantumJetPipeline
from jet_diffusion.report.model import REPORT_FILE, Report
from jet_diffusion.report.render import render_markdown
from jet_diffusion.report.tables import number
from jet_diffusion.runs import TRAINING_JETS, RunFolder
from jet_diffusion.sampling.sample import describe_sampler, set_sampler, solver_name
from jet_diffusion.training.build import count_parameters
from jet_diffusion.training.monitor import widths

PICTURE = "jets.png"
OTHER_SAMPLER = " These jets, and those of the picture, were made with the run's own sampler, not with this model's."
LICENSES = ("apache-2.0", "mit", "cc-by-4.0", "bsd-3-clause", "other")


@dataclass
class Figures:
    """The numbers of a card, all read from files of the run.

    Attributes:
        picture: Jets sampled at the same step as the averages.
        caption: What the averages are of.
        averages: Energy and occupancy per channel: name, real, generated and ratio, as text.
        evaluated: Results of the evaluation report: name, value, baseline and jets, as text; empty without one.
        notices: What the report says before any number.
        results: The same for the card's metadata.
        report: The evaluation report, if the run has one.
        sampling: What the report says of how its jets were sampled.
    """

    picture: Path
    caption: str
    averages: list[dict[str, str]]
    evaluated: list[dict[str, str]]
    notices: list[str]
    results: list[EvalResult]
    report: Path | None
    sampling: dict[str, Any] = field(default_factory=dict)


def stage(
    run: RunFolder,
    folder: str | Path,
    repo: str,
    *,
    checkpoint: str | int = "last",
    licence: str = "apache-2.0",
    sampler: dict[str, Any] | None = None,
    guidance: Path | None = None,
) -> Path:
    """Write what is published of a run: pipeline with its source, card, pictures, configuration, report.

    Args:
        run: A run with at least one checkpoint.
        folder: Appears when it is complete; one staged before is replaced.
        repo: Name on the Hub, for the card.
        checkpoint: "last", "best" or a step.
        licence: Of the weights.
        sampler: scheduler (a name of `SCHEDULERS`), steps, step_power: another sampler than the run's to publish as
            the model's own.
        guidance: File of `jet-diffusion fit-guidance` for this checkpoint, sampler and training jets, which becomes
            the model's own.

    Raises:
        ValueError: If the guidance was fitted to anything else.
        FileNotFoundError: If the run has no such checkpoint or no picture of sampled jets.
        FileExistsError: If the folder holds something else.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()) and not was_staged(folder):
        raise FileExistsError(f"{folder} exists and is no staged pipeline; choose another folder")
    step = int(run.checkpoint(checkpoint).name.removeprefix("step-"))
    figures = read_figures(run, step)
    pipeline = load_pipeline(run.path, checkpoint=checkpoint)
    own = describe_sampler(pipeline)
    set_sampler(pipeline, **(sampler or {}))
    if guidance is not None:
        set_sampler(
            pipeline,
            moment_guidance=read_moment_guidance(guidance, pipeline, run.read_record()["dataset"]["fingerprint"]),
        )
    _say_what_differs(figures, own, describe_sampler(pipeline))
    work = partial_folder(folder)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    pipeline.save_pretrained(work)
    for config in work.glob("*/config.json"):
        config.write_text(without_folders(config.read_text()))
    for source, name in (
        (figures.picture, PICTURE),
        (run.history, "history.png"),
        (run.training_jets, TRAINING_JETS),
    ):
        shutil.copyfile(source, work / name)
    (work / "training_config.yaml").write_text(without_folders(run.config.read_text()))
    if figures.report is not None:
        (work / REPORT_FILE).write_text(without_folders(figures.report.read_text()))
    make_model_card(run, pipeline, figures, repo, licence, run.checkpoint(checkpoint).name).save(work / "README.md")
    if folder.exists():
        shutil.rmtree(folder)
    work.rename(folder)
    return folder


def without_folders(text: str) -> str:
    """Text with absolute paths cut to their last part: where things lay on a machine is nobody's business."""
    return re.sub(r"(?<![\w.:/~-])/(?:[^\s\"'/]+/)+([^\s\"'/]+)", r"\1", text)


def push(folder: Path, repo: str, *, private: bool = False) -> str:
    """Upload a staged folder; the token is the environment's or the one `hf auth login` stored.

    Returns:
        The repository's address.
    """
    hub = HfApi()
    address = hub.create_repo(repo, private=private, exist_ok=True)
    hub.upload_folder(repo_id=repo, folder_path=folder, commit_message="Publish jet diffusion pipeline")
    return str(address)


def read_figures(run: RunFolder, step: int) -> Figures:
    """The table of the last jets sampled up to a step and, if the run has one, the evaluation report.

    Raises:
        FileNotFoundError: If no jets were sampled by then.
    """
    samples = [line for line in run.read_metrics("sample") if line["step"] <= step]
    if not samples:
        raise FileNotFoundError(
            f"{run.path} sampled no jets up to step {step} to show; train it to the end, or with sample_every"
        )
    last, dataset = samples[-1], Path(run.read_record()["dataset"]["path"]).name
    averages, results = [], []
    for row in last["table"]:
        name = f"{row['channel']} {row['quantity']} ({row['unit']})"
        averages.append(
            {
                "name": name,
                "real": number(row["real"], row["real_error"]),
                "generated": number(row["generated"], row["generated_error"]),
                "ratio": f"{row['ratio']:.3f}",
            }
        )
        metric = f"{row['channel']}-{row['quantity']}-ratio"
        results.append(_result(dataset, "validation", metric, f"{name}, generated / real", row["ratio"]))
    caption = (
        f"Averages over jets of the validation split and generated ones for the same conditions, after {last['jets']} "
        "training jets; errors are statistical."
    )
    picture = run.samples / f"step-{last['step']:08d}.png"
    report_file = run.evaluation / REPORT_FILE
    if not report_file.is_file():
        return Figures(picture, caption, averages, [], [], results, None)
    report = Report.load(report_file)
    for result in report.results:
        results.append(_result(dataset, "test", result.name.replace("_", "-"), result.label, result.value))
    evaluated = [
        {
            "name": result.label,
            "value": number(result.value, result.error),
            "baseline": number(result.baseline, result.baseline_error),
            "size": str(result.size),
        }
        for result in report.results
    ]
    sampling = report.heading.get("sampling", {})
    return Figures(picture, caption, averages, evaluated, report.notices, results, report_file, sampling)


def _say_what_differs(figures: Figures, own: dict[str, Any], published: dict[str, Any]) -> None:
    """Mark figures of jets sampled otherwise than the published model samples; the card's metadata leave them out."""
    if published != own:
        figures.caption += OTHER_SAMPLER
        figures.results = [result for result in figures.results if result.dataset_split != "validation"]
    other = ", ".join(name for name, value in published.items() if figures.sampling.get(name) != value)
    if figures.report is not None and other:
        figures.notices.insert(0, f"not known to be of jets sampled as this model samples them: {other} differ")
        figures.results = [result for result in figures.results if result.dataset_split != "test"]


def _result(dataset: str, split: str, metric: str, name: str, value: float) -> EvalResult:
    return EvalResult(
        task_type="unconditional-image-generation",
        dataset_type=dataset,
        dataset_name="quark/gluon jet images",
        dataset_split=split,
        metric_type=metric,
        metric_name=name,
        metric_value=float(f"{value:.4g}"),
    )


def make_model_card(
    run: RunFolder, pipeline: JetImagePipeline, figures: Figures, repo: str, licence: str, checkpoint: str
) -> ModelCard:
    """Fill the template; every number comes from the run's files."""
    record = run.read_record()
    dataset = record["dataset"]
    data = ModelCardData(
        model_name=repo.rsplit("/", maxsplit=1)[-1],
        license=licence,
        library_name="diffusers",
        pipeline_tag="unconditional-image-generation",
        tags=["physics", "jets", "calorimeter", "jet-diffusion", *(["simulated"] if dataset["simulated"] else [])],
        datasets=[dataset["path"]] if dataset.get("on_hub") else None,
        eval_results=figures.results,
    )
    content = render_markdown(
        "model_card.md",
        card_data=data.to_yaml(),
        title=repo.rsplit("/", maxsplit=1)[-1],
        repo=repo,
        provenance=dataset["simulated"],
        picture=PICTURE,
        note=getattr(pipeline, "note", ""),
        facts=model_facts(run, pipeline, checkpoint),
        figures=figures,
        pt_range=_pt_range(pipeline),
        rings=_rings(pipeline),
        guided=pipeline.config.moment_guidance is not None,
        rows="" if pipeline.conditioner is None else f"{pipeline.conditioner.config.num_rows:,}",
        fingerprint=dataset["fingerprint"],
    )
    return ModelCard(content)


def model_facts(run: RunFolder, pipeline: JetImagePipeline, checkpoint: str) -> list[tuple[str, str]]:
    """What the card says of the model: name and value, in order."""
    state = json.loads((run.checkpoints / checkpoint / "state.json").read_text())
    config, record = run.read_config(), run.read_record()
    parameters = count_parameters(pipeline)
    return [
        (
            type(pipeline.unet).__name__,
            f"{parameters['unet']:,} parameters{widths(pipeline.unet)}; {sum(parameters.values()):,} in all",
        ),
        ("representation", f"{type(pipeline.representation).__name__}, x of {pipeline.representation.shape}"),
        ("denoiser", type(pipeline.denoiser).__name__),
        ("training jets", f"{record['dataset']['jets']:,}"),
        ("jets seen", f"{state['step'] * config['batch_size']:,} ({state['step']:,} steps of {config['batch_size']})"),
        *([("begun with the weights of", Path(config["init_from"]).name)] if config.get("init_from") else []),
        ("weights", f"exponential moving average, decay {config['ema_decay']}"),
        ("default sampler", _sampler(pipeline)),
        *(
            [("moment guidance", _strengths(pipeline.config.moment_guidance))]
            if pipeline.config.moment_guidance
            else []
        ),
        ("versions", ", ".join(f"{name} {version}" for name, version in record["versions"].items())),
    ]


def read_moment_guidance(file: Path, pipeline: JetImagePipeline, training_jets: str) -> dict[str, Any]:
    """The guidance of a file of `jet-diffusion fit-guidance`.

    Args:
        file: What the fit wrote.
        pipeline: The model that is to have it, with its sampler and without guidance.
        training_jets: Fingerprint of the jets it was trained on.

    Raises:
        ValueError: If it is no such file, or of other weights, another sampler or other jets.
    """
    written = json.loads(file.read_text())
    if not isinstance(written, dict) or not isinstance(written.get("moment_guidance"), dict):
        raise ValueError(f"{file} has no moment_guidance; it must be a file of jet-diffusion fit-guidance")
    needed = {**describe_sampler(pipeline), "training_jets": training_jets}
    for name, value in needed.items():
        if name != "moment_guidance" and written.get(name) != value:
            raise ValueError(
                f"the guidance of {file} was fitted with {name} {written.get(name)}, the model has {value}"
            )
    guidance: dict[str, Any] = written["moment_guidance"]
    return guidance


def was_staged(folder: Path) -> bool:
    """Whether a folder is one of ours, which may be replaced."""
    index = folder / "model_index.json"
    if not index.is_file() or not (folder / TRAINING_JETS).is_file():
        return False
    name: object = json.loads(index.read_text()).get("_class_name")
    return name in (["pipeline", JetImagePipeline.__name__], ["pipeline", QuantumJetPipeline.__name__])


def main(argv: list[str] | None = None) -> None:
    """Publish as the command line says."""
    arguments = _parser().parse_args(argv)
    run = RunFolder.open(arguments.run)
    folder = arguments.folder or run.path / "published"
    stage(
        run,
        folder,
        arguments.repo,
        checkpoint=arguments.checkpoint,
        licence=arguments.licence,
        sampler={name: getattr(arguments, name) for name in ("scheduler", "steps", "step_power")},
        guidance=arguments.moment_guidance,
    )
    sys.stdout.write(f"staged in {folder}\n")
    if not arguments.dry_run:
        sys.stdout.write(f"published at {push(folder, arguments.repo, private=arguments.private)}\n")


def _sampler(pipeline: JetImagePipeline) -> str:
    """Solver, its variant, steps and where they lie, in words."""
    settings = pipeline.config
    return f"{solver_name(pipeline.scheduler)}, {settings.default_steps} steps, step_power {settings.step_power:g}"


def _strengths(guidance: dict[str, Any]) -> str:
    """Moment guidance in words."""
    return "strengths " + ", ".join(f"{name} {value:.2f}" for name, value in guidance["strengths"].items())


def _rings(pipeline: JetImagePipeline) -> str:
    """Which ring sums a jet is drawn with, in words; nothing for a model without."""
    edges = pipeline.representation.config.get("ring_edges")
    if edges is None or pipeline.conditioner is None or not pipeline.conditioner.num_ring_sums:
        return ""
    rings = len(edges) + 1
    return f"each channel in {rings} rings" if rings > 1 else "each channel"


def _pt_range(pipeline: JetImagePipeline) -> str:
    if pipeline.conditioner is None:
        return "unknown"
    _, pt, _ = pipeline.conditioner.table()
    return f"{pt.min().item():.0f} to {pt.max().item():.0f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jet-diffusion publish", description=__doc__)
    parser.add_argument("run", help="folder of a training run")
    parser.add_argument("--repo", required=True, help="user/name on the Hub")
    parser.add_argument("--folder", type=Path, help="where to stage (default: RUN/published)")
    parser.add_argument("--checkpoint", default="last", help="last, best or a step (default last)")
    parser.add_argument("--licence", default="apache-2.0", choices=LICENSES, help="of the weights")
    parser.add_argument("--scheduler", choices=list(SCHEDULERS), help="publish with this solver, not the run's own")
    parser.add_argument("--steps", type=int, help="and so many steps")
    parser.add_argument("--step-power", type=float, help="and this value of sampling.step_power")
    parser.add_argument("--moment-guidance", type=Path, help="and this file of `jet-diffusion fit-guidance`")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--dry-run", action="store_true", help="stage only, push nothing")
    return parser
