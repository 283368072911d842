"""The numbers of a model card, all read from files of the run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from jet_diffusion.report.model import REPORT_FILE, Report
from jet_diffusion.report.tables import number
from jet_diffusion.runs import RunFolder

OTHER_SAMPLER = " These jets, and those of the picture, were made with the run's own sampler, not with this model's."


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


def mark_other_samplers(figures: Figures, own: dict[str, Any], published: dict[str, Any]) -> None:
    """Mark results of jets sampled otherwise than the published model samples; the card's metadata leave them out."""
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
