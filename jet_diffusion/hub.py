"""Load a pipeline without running anybody's code: from a folder or the Hub, by this package's own classes."""

from __future__ import annotations

import inspect
import json
import logging
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import ModelMixin, SchedulerMixin, UNet2DModel
from huggingface_hub import snapshot_download
from safetensors.torch import load_file
from torch import nn

from jet_diffusion.pipelines.conditioner import Conditioner
from jet_diffusion.pipelines.denoiser import PlainDenoiser
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.pipelines.notebook_baselines import BASELINES, RESIZED_REPRESENTATIONS
from jet_diffusion.pipelines.schedulers import SCHEDULERS
from jet_diffusion.pipelines.spike_and_slab import SpikeAndSlabDenoiser
from jet_diffusion.pipelines.tower_representations import NATIVE_REPRESENTATIONS
from jet_diffusion.quantum.class_conditioning import ClassConditioner
from jet_diffusion.quantum.encoding import JetAmplitudeEncoder
from jet_diffusion.quantum.filter_denoiser import QuantumFilterDenoiser
from jet_diffusion.quantum.hybrid_unet import AmplitudeCNN, HybridUNet2DModel
from jet_diffusion.quantum.pipeline import QuantumJetPipeline
from jet_diffusion.quantum.scheduler import QuantumChannelScheduler
from jet_diffusion.quantum.state_denoiser import StateDenoiser
from jet_diffusion.renames import PIPELINE, convert_component, convert_tensors, renamed
from jet_diffusion.runs import RunFolder, read_state

logger = logging.getLogger(__name__)

QUANTUM_NETWORKS = (QuantumFilterDenoiser, HybridUNet2DModel, AmplitudeCNN)

LOADABLE: dict[str, dict[str, type]] = {
    "unet": {"UNet2DModel": UNet2DModel, **{cls.__name__: cls for cls in (*BASELINES.values(), *QUANTUM_NETWORKS)}},
    "scheduler": {cls.__name__: cls for cls in (*(cls for cls, _ in SCHEDULERS.values()), QuantumChannelScheduler)},
    "representation": {**NATIVE_REPRESENTATIONS, **RESIZED_REPRESENTATIONS, "JetAmplitudeEncoder": JetAmplitudeEncoder},
    "denoiser": {
        "PlainDenoiser": PlainDenoiser,
        "SpikeAndSlabDenoiser": SpikeAndSlabDenoiser,
        "StateDenoiser": StateDenoiser,
    },
    "conditioner": {"Conditioner": Conditioner, "ClassConditioner": ClassConditioner},
}
"""What each component of a pipeline may be."""

PIPELINE_FILES = ["model_index.json", "*/*.json", "*/*.safetensors"]
"""What is downloaded of a published pipeline; no source code is."""


def load_pipeline(
    source: str | Path, *, checkpoint: str | int = "last", revision: str | None = None
) -> JetImagePipeline:
    """A pipeline from a training run, a folder made by `save_pretrained`, or the Hub.

    Args:
        source: Folder, or `user/name` on the Hub.
        checkpoint: For a run: "last", "best" or a step; its averaged weights are taken.
        revision: For the Hub: branch, tag or commit.

    Raises:
        FileNotFoundError: If there is no such folder or repository, or the run has no such checkpoint.
        ValueError: If what is there is no jet pipeline.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        folder = _download(str(source), revision)
    if RunFolder(folder).begun:
        run = RunFolder(folder)
        pipeline = load_folder(run.initial)
        load_averaged(pipeline, run.checkpoint(checkpoint))
        return pipeline
    return load_folder(folder)


def load_folder(folder: Path) -> JetImagePipeline:
    """Build the pipeline of a folder from this package's classes.

    Raises:
        ValueError: If there is no model_index.json or it names classes or settings this package does not know.
    """
    index_file = folder / "model_index.json"
    if not index_file.is_file():
        raise ValueError(f"{folder} is no pipeline: it has no model_index.json")
    index: dict[str, Any] = renamed(json.loads(index_file.read_text()), PIPELINE)
    components: dict[str, Any] = {}
    for name, classes in LOADABLE.items():
        class_name = (index.get(name) or [None, None])[1]
        if class_name is None:
            components[name] = None
            continue
        if class_name not in classes:
            raise ValueError(f"{index_file}: {name} is a {class_name}; known are {', '.join(classes)}")
        components[name] = load_component(folder / name, classes[class_name])
    missing = [name for name, part in components.items() if part is None and name != "conditioner"]
    if missing:
        raise ValueError(f"{index_file} names no {', '.join(missing)}; it is no jet pipeline")
    for part in components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    quantum = isinstance(components["representation"], JetAmplitudeEncoder)
    pipeline = QuantumJetPipeline if quantum else JetImagePipeline
    settings = inspect.signature(pipeline).parameters.keys() - components
    return pipeline(**components, **{name: index[name] for name in settings if name in index})


def load_component(folder: Path, component: type) -> Any:
    """A component of this package or of diffusers, converted if an earlier version saved it.

    Args:
        folder: The component's.
        component: Its class.

    Raises:
        ValueError: If it was saved with settings that this version does not have; diffusers would drop them.
    """
    # Without this diffusers would fall back to unpickling a .bin file.
    safe = {"use_safetensors": True} if issubclass(component, ModelMixin) else {}
    file = folder / component.config_name  # type: ignore[attr-defined]
    # A scheduler keeps the settings of those it was made from.
    if component.__module__.startswith("diffusers.") or file.name == "scheduler_config.json" or not file.is_file():
        return component.from_pretrained(folder, **safe)  # type: ignore[attr-defined]
    saved = json.loads(file.read_text())
    settings = convert_component(component.__name__, saved)
    known = inspect.signature(component).parameters
    other = [name for name in settings if name not in known and not name.startswith("_")]
    if other:
        raise ValueError(f"{file} has {', '.join(other)}, which {component.__name__} of this version does not know")
    if settings == saved:
        return component.from_pretrained(folder, **safe)  # type: ignore[attr-defined]
    logger.warning("%s was saved by an earlier version and is converted", file.parent)
    part = component.from_config(settings)  # type: ignore[attr-defined]
    if isinstance(part, nn.Module):
        part.load_state_dict(convert_tensors(load_file(folder / "diffusion_pytorch_model.safetensors")))
    return part


def load_averaged(pipeline: JetImagePipeline, checkpoint: Path) -> None:
    """Put a checkpoint's averaged weights, and the statistics of normalisations, into the components."""
    read_state(checkpoint)
    weights = load_file(checkpoint / "averaged.safetensors")
    for name in ("unet", "conditioner", "denoiser"):
        component = getattr(pipeline, name)
        if component is None:
            continue
        with torch.no_grad():
            for key, tensor in trained_tensors(component).items():
                tensor.copy_(weights[f"{name}.{key}"])


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
    """The DDPMScheduler of a noise schedule, given x_0 by the denoiser and never clipping it."""
    return diffusers.DDPMScheduler(**noise, prediction_type="sample", clip_sample=False, timestep_spacing="trailing")


def _download(repo: str, revision: str | None) -> Path:
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=PIPELINE_FILES))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise FileNotFoundError(f"{repo} is neither a folder nor a repository on the Hub: {error}") from error
