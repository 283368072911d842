"""The model card of a published run, from its template and the run's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from jet_diffusion.data.folder import HUB_PREFIX
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.report.render import render_markdown
from jet_diffusion.runs import RunFolder
from jet_diffusion.sampling.sample import solver_name
from jet_diffusion.training.build import count_parameters
from jet_diffusion.training.monitor import widths
from jet_diffusion.workflows.card_figures import Figures

PICTURE = "jets.png"


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
        datasets=[dataset["path"].removeprefix(HUB_PREFIX).removeprefix("datasets/")]
        if dataset.get("on_hub")
        else None,
        eval_results=figures.results,
    )
    return ModelCard(
        render_markdown(
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
            fingerprint=dataset["fingerprint"],
        )
    )


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
    if pipeline.first_stage is None:
        return "unknown"
    low, high = pipeline.first_stage.limits()[0].tolist()
    return f"{low:.0f} to {high:.0f}"


def _hub_name(path: str) -> str:
    """A dataset's user/name, whatever it was written with."""
    return path.removeprefix(HUB_PREFIX).removeprefix("datasets/")
