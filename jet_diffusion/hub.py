"""Load a pipeline without running anybody's code: from a folder or the Hub, by this package's own classes."""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import ModelMixin, SchedulerMixin
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from jet_diffusion.errors import UserError, checking, printable
from jet_diffusion.io import read_json_object
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.pipelines.schedulers import SCHEDULERS
from jet_diffusion.pipelines.tower_representations import NATIVE_REPRESENTATIONS
from jet_diffusion.renames import PIPELINE, convert_component, convert_tensors, renamed
from jet_diffusion.repositories import fetch
from jet_diffusion.runs import RunFolder, read_state

logger = logging.getLogger(__name__)


class LazyClasses(Mapping[str, type]):
    """Classes by name, each imported when it is first asked for.

    Args:
        homes: Module -> names of its classes.
    """

    def __init__(self, homes: dict[str, list[str]]) -> None:
        self._homes = {name: module for module, names in homes.items() for name in names}

    def __getitem__(self, name: str) -> type:
        """The class; KeyError for an unknown name."""
        found: type = getattr(importlib.import_module(self._homes[name]), name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)


LOADABLE = {
    "unet": LazyClasses(
        {
            "diffusers": ["UNet2DModel"],
            "jet_diffusion.pipelines.notebook_baselines": ["DeepFalconCNN", "DeepFalconUNet"],
            "jet_diffusion.quantum.filter_denoiser": ["QuantumFilterDenoiser"],
            "jet_diffusion.quantum.hybrid_unet": ["HybridUNet2DModel", "AmplitudeCNN"],
        }
    ),
    "scheduler": LazyClasses(
        {
            "diffusers": sorted({kind.__name__ for kind, _ in SCHEDULERS.values()}),
            "jet_diffusion.quantum.scheduler": ["QuantumChannelScheduler"],
        }
    ),
    "representation": LazyClasses(
        {
            "jet_diffusion.pipelines.tower_representations": list(NATIVE_REPRESENTATIONS),
            "jet_diffusion.pipelines.notebook_baselines": ["ChannelMaxGrid", "ImageRangeGrid"],
            "jet_diffusion.quantum.encoding": ["JetAmplitudeEncoder"],
        }
    ),
    "denoiser": LazyClasses(
        {
            "jet_diffusion.pipelines.denoiser": ["PlainDenoiser"],
            "jet_diffusion.pipelines.spike_and_slab": ["SpikeAndSlabDenoiser"],
            "jet_diffusion.quantum.state_denoiser": ["StateDenoiser"],
        }
    ),
    "first_stage": LazyClasses({"jet_diffusion.pipelines.first_stage": ["FirstStage"]}),
    "conditioner": LazyClasses(
        {
            "jet_diffusion.pipelines.conditioner": ["Conditioner"],
            "jet_diffusion.quantum.class_conditioning": ["ClassConditioner"],
        }
    ),
}
"""What each component of a pipeline may be. The quantum simulator is imported for quantum models alone."""

PIPELINE_FILES = ["model_index.json", "*/*.json", "*/*.safetensors"]
"""What is downloaded of a published pipeline; no source code is."""

WITH_WEIGHTS = ("unet", "conditioner", "denoiser")
"""Components that are trained."""

REMEDY = "save or download the model again"
"""What to do about a damaged file of a model."""


def load_pipeline(
    source: str | Path, *, checkpoint: str | int | None = None, revision: str | None = None
) -> JetImagePipeline:
    """A pipeline from a training run, a folder made by `save_pretrained`, or the Hub.

    Args:
        source: Folder, or `user/name` on the Hub.
        checkpoint: For a training run: "last", "best" or a step, by default the last; its averaged weights are taken.
        revision: For the Hub: branch, tag or commit.

    Raises:
        FileNotFoundError: If there is no such folder or repository, or the run has no such checkpoint.
        ConnectionError: If the Hub cannot be reached or has an error, and the cache has no copy.
        PermissionError: If the Hub refuses access.
        UserError: If what is there is no jet pipeline, or has no checkpoints and one is named.
    """
    folder = Path(source).expanduser()
    on_hub = not folder.is_dir()
    if revision is not None and not on_hub:
        raise UserError(f"revision {revision} is of a repository on the Hub, and {folder} is a folder")
    if on_hub:
        folder = fetch(str(source), "model", PIPELINE_FILES, revision)
    run = RunFolder(folder)
    if run.begun:
        pipeline = load_folder(run.initial)
        load_averaged(pipeline, run.checkpoint("last" if checkpoint is None else checkpoint))
        return pipeline
    run.require_record()
    if checkpoint is not None:
        raise UserError(
            f"{source} has no checkpoints, so there is no checkpoint {checkpoint}: it is no training run but a saved "
            "pipeline, which has one set of weights; leave the checkpoint out"
        )
    pipeline = load_folder(folder)
    for name in WITH_WEIGHTS:
        if (component := getattr(pipeline, name)) is not None:
            require_finite(trained_tensors(component), f"the weights of {folder / name}")
    return pipeline


def load_folder(folder: Path) -> JetImagePipeline:
    """Build the pipeline of a folder from this package's classes.

    Raises:
        UserError: If there is no model_index.json, it names classes or settings this package does not know, or tensors
            are missing.
    """
    index_file = folder / "model_index.json"
    if not index_file.is_file():
        raise UserError(f"{folder} is no pipeline: it has no model_index.json")
    index = renamed(read_json_object(index_file, REMEDY), PIPELINE)
    components = {name: _load_component(folder, name, index.get(name)) for name in LOADABLE}
    missing = [name for name, part in components.items() if part is None and name not in ("conditioner", "first_stage")]
    if (components["conditioner"] is None) != (components["first_stage"] is None):
        raise UserError(
            f"{index_file}: a conditional model has a conditioner and a first stage. One of a version before 0.2 drew "
            "its conditions from a table of training jets and has no first stage: train it again"
        )
    if missing:
        raise UserError(f"{index_file} names no {', '.join(missing)}; it is no jet pipeline")
    for part in components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    pipeline = JetImagePipeline
    if type(components["representation"]).__name__ == "JetAmplitudeEncoder":
        from jet_diffusion.quantum.pipeline import QuantumJetPipeline

        pipeline = QuantumJetPipeline
    settings = inspect.signature(pipeline).parameters.keys() - components
    with checking(str(index_file)):
        return pipeline(**components, **{name: index[name] for name in settings if name in index})


def _load_component(folder: Path, name: str, entry: Any) -> Any:
    """A component of a pipeline's folder as its index names it, [library, class]; None if it names none.

    Raises:
        UserError: If the entry or the class is not known, or its files are not what the class needs.
    """
    if entry is None or entry == [None, None]:
        return None
    if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[1], str):
        raise UserError(f"{folder / 'model_index.json'}: {name} must be a pair of library and class, got {entry!r:.60}")
    classes, class_name = LOADABLE[name], entry[1]
    if class_name not in classes:
        raise UserError(f"{folder / 'model_index.json'}: {name} is a {class_name}; known are {', '.join(classes)}")
    return load_component(folder / name, classes[class_name])


def load_component(folder: Path, component: Any) -> Any:
    """A component of this package or of diffusers, converted if an earlier version saved it.

    Args:
        folder: The component's.
        component: Its class.

    Raises:
        UserError: If it was saved with settings that this version does not have, which diffusers would drop, or it
            lacks tensors, which diffusers would leave at random.
    """
    file = folder / component.config_name
    settings, converted = None, False
    # A scheduler keeps the settings of those it was made from.
    if not component.__module__.startswith("diffusers.") and file.name != "scheduler_config.json" and file.is_file():
        saved = read_json_object(file, REMEDY)
        settings = convert_component(component.__name__, saved)
        converted = settings != saved
        known = inspect.signature(component).parameters
        other = [name for name in settings if name not in known and not name.startswith("_")]
        if other:
            raise UserError(f"{file} has {', '.join(other)}, which {component.__name__} of this version does not know")
    with checking(str(folder)):
        if converted:
            logger.warning("%s was saved by an earlier version and is converted", folder)
            part = component.from_config(settings)
            if isinstance(part, nn.Module):
                tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
                part.load_state_dict(convert_tensors(tensors))
            return part
        if not issubclass(component, ModelMixin):
            return component.from_pretrained(folder)
        # Without use_safetensors diffusers would fall back to unpickling a .bin file.
        part, found = component.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
    if missing := sorted(found["missing_keys"]):
        raise UserError(
            f"{folder} lacks {len(missing)} tensors of {component.__name__}: {', '.join(missing):.200}; "
            "save or download the model again"
        )
    return part


def load_averaged(pipeline: JetImagePipeline, checkpoint: Path) -> None:
    """Put a checkpoint's averaged weights, and the statistics of normalisations, into the components.

    Raises:
        UserError: If the checkpoint is damaged, or of another model.
    """
    read_state(checkpoint)
    file = checkpoint / "averaged.safetensors"
    try:
        weights = load_file(file)
    except SafetensorError as error:
        raise UserError(f"{file} is damaged: {printable(error, 200)}; {REMEDY}") from error
    require_finite(weights, f"the averaged weights of {checkpoint}")
    parts = {name: part for name in WITH_WEIGHTS if (part := getattr(pipeline, name)) is not None}
    tensors = {f"{name}.{key}": tensor for name, part in parts.items() for key, tensor in trained_tensors(part).items()}
    wrong = [name for name, tensor in tensors.items() if name not in weights or weights[name].shape != tensor.shape]
    if wrong:
        raise UserError(
            f"{file} lacks {len(wrong)} of the model's {len(tensors)} tensors, or has them in another shape: "
            f"{', '.join(wrong):.200}; {REMEDY}"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(weights[name])


def require_finite(tensors: Mapping[str, torch.Tensor], whose: str) -> None:
    """Refuse weights of which some are NaN or infinite.

    Args:
        tensors: By name.
        whose: Opens the message.

    Raises:
        UserError: Naming the tensors.
    """
    wrong = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if wrong:
        raise UserError(
            f"{whose} are not finite in {len(wrong)} of {len(tensors)} tensors ({', '.join(wrong):.100}): training had "
            "diverged; take an earlier checkpoint"
        )


def trained_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """All that training changes, by name: parameters, and the running statistics of batch normalisation."""
    statistics = {
        f"{name}.{key}": buffer
        for name, part in module.named_modules()
        if isinstance(part, nn.BatchNorm2d)
        for key, buffer in part.named_buffers()
    }
    return {**dict(module.named_parameters()), **statistics}


def training_scheduler(noise: dict[str, Any]) -> SchedulerMixin:
    """Make the DDPMScheduler of a noise schedule; it takes x_0 from the denoiser and does not clip it."""
    return diffusers.DDPMScheduler(**noise, prediction_type="sample", clip_sample=False, timestep_spacing="trailing")
