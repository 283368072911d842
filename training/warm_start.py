"""Warm start: a new run begins with the weights of a trained one of the same configuration."""

from __future__ import annotations

import json

from jet_diffusion.errors import UserError
from jet_diffusion.hub import trained_tensors
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.training.checkpoints import load_tensors

CHOSEN = ("gap", "ring_edges", "noise_schedule", "inputs", "crystal_channels", "weights_by_position", "prediction")
"""Settings of representation and denoiser that are chosen, not fitted to the jets."""


def start_from(pipeline: JetImagePipeline, trained: JetImagePipeline) -> None:
    """Load the trained weights, with the representation and the denoiser that were fitted for them.

    Raises:
        UserError: If the pipelines differ in a component, a chosen setting, or the name or shape of a weight.
    """
    for name in ("representation", "denoiser"):
        parts = getattr(pipeline, name), getattr(trained, name)
        new, old = (json.dumps({k: part.config.get(k) for k in CHOSEN}, sort_keys=True) for part in parts)
        if type(parts[0]) is not type(parts[1]) or new != old:
            raise UserError(f"the weights to start from were trained with another {name}: {old}, not {new}")
    for part in [part for part in ("unet", "denoiser", "conditioner") if getattr(pipeline, part) is not None]:
        load_tensors(trained_tensors(getattr(pipeline, part)), trained_tensors(getattr(trained, part)))
    if pipeline.conditioner is not None:
        fitted = {name: value for name, value in trained.conditioner.config.items() if name.startswith("log_")}
        pipeline.conditioner.register_to_config(**fitted)
    fitted_parts = ("representation", "denoiser", "first_stage")
    pipeline.register_modules(**{name: getattr(trained, name) for name in fitted_parts})
