"""Write what is published of a run into a folder, and push it: what `jet-diffusion publish` does."""

from __future__ import annotations

import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any

from jet_diffusion.errors import UserError
from jet_diffusion.hub import load_pipeline
from jet_diffusion.io import explaining_full_disk, partial_folder, read_json_object, replace_folder, restore_folder
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.renames import PIPELINE, renamed
from jet_diffusion.report.model import REPORT_FILE
from jet_diffusion.runs import TRAINING_JETS, RunFolder
from jet_diffusion.sampling.sample import describe_sampler, set_sampler
from jet_diffusion.workflows.card import PICTURE, make_model_card
from jet_diffusion.workflows.card_figures import Figures, mark_other_samplers, read_figures

logger = logging.getLogger(__name__)

PIPELINES = (JetImagePipeline.__name__, "QuantumJetPipeline")
"""Classes of pipelines that are published."""


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
        UserError: If the guidance was fitted to anything else, a link leaves the run's folder, or the weights are not
            finite.
        FileNotFoundError: If the run has no such checkpoint or no picture of sampled jets.
        FileExistsError: If the folder holds something else.
    """
    folder = Path(folder)
    refuse_links_out(run.path)
    run.read_config()  # refuses a damaged one, which is copied
    restore_folder(folder)
    if folder.exists() and any(folder.iterdir()) and not was_staged(folder):
        raise FileExistsError(f"{folder} exists and is no staged pipeline; choose another folder")
    step = int(run.checkpoint(checkpoint).name.removeprefix("step-"))
    figures = read_figures(run, step)
    pipeline = load_pipeline(run.path, checkpoint=checkpoint)
    own = describe_sampler(pipeline)
    set_sampler(pipeline, **(sampler or {}))
    if guidance is not None:
        fitted = read_moment_guidance(guidance, pipeline, run.read_record()["dataset"]["fingerprint"])
        set_sampler(pipeline, moment_guidance=fitted)
    mark_other_samplers(figures, own, describe_sampler(pipeline))
    work = partial_folder(folder)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        with explaining_full_disk(folder.parent):
            _write_files(run, pipeline, figures, work)
            card = make_model_card(run, pipeline, figures, repo, licence, run.checkpoint(checkpoint).name)
            card.save(work / "README.md")
        replace_folder(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def refuse_links_out(folder: Path) -> None:
    """Refuse symbolic links that leave a folder: what they point to would be published.

    Raises:
        UserError: Naming the first.
    """
    root = folder.resolve()
    for place, folders, files in os.walk(root):
        for path in (Path(place, name) for name in (*folders, *files)):
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise UserError(
                    f"{path} is a symbolic link to {path.resolve()}, outside the run's folder; put a copy in its place"
                )


def _write_files(run: RunFolder, pipeline: JetImagePipeline, figures: Figures, work: Path) -> None:
    """All but the card."""
    pipeline.save_pretrained(work)
    for config in work.glob("*/config.json"):
        config.write_text(without_folders(config.read_text()))
    for source, name in ((figures.picture, PICTURE), (run.history, "history.png"), (run.training_jets, TRAINING_JETS)):
        if not source.is_file():
            raise FileNotFoundError(f"{source} is missing; the run's training command makes it again")
        shutil.copyfile(source, work / name)
    (work / "training_config.yaml").write_text(without_folders(run.config.read_text()))
    if figures.report is not None:
        (work / REPORT_FILE).write_text(without_folders(figures.report.read_text()))


def without_folders(text: str) -> str:
    """Cut absolute paths in a text to their last part, so that it tells nothing of the machine."""
    return re.sub(r"(?<![\w.:/~-])/(?:[^\s\"'/]+/)+([^\s\"'/]+)", r"\1", text)


def read_moment_guidance(file: Path, pipeline: JetImagePipeline, training_jets: str) -> dict[str, Any]:
    """The guidance of a file of `jet-diffusion fit-guidance`.

    Args:
        file: What the fit wrote.
        pipeline: The model that is to have it, with its sampler and without guidance.
        training_jets: Fingerprint of the jets it was trained on.

    Raises:
        UserError: If it is no such file, or of other weights, another sampler or other jets.
    """
    saved = read_json_object(file, "fit the guidance again")
    written = renamed(saved, PIPELINE)
    if written != saved:
        logger.warning("%s was made by an earlier version and is converted", file)
    if not isinstance(written.get("moment_guidance"), dict):
        raise UserError(f"{file} has no moment_guidance; it must be a file of jet-diffusion fit-guidance")
    needed = {**describe_sampler(pipeline), "training_jets": training_jets}
    for name, value in needed.items():
        if name != "moment_guidance" and written.get(name) != value:
            raise UserError(f"the guidance of {file} was fitted with {name} {written.get(name)}, the model has {value}")
    guidance: dict[str, Any] = written["moment_guidance"]
    return guidance


def was_staged(folder: Path) -> bool:
    """Whether a folder is one of ours, which may be replaced."""
    index = folder / "model_index.json"
    if not index.is_file() or not (folder / TRAINING_JETS).is_file():
        return False
    try:
        name = read_json_object(index, "").get("_class_name")
    except UserError:
        return False
    return name in [["pipeline", each] for each in PIPELINES]
