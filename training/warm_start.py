"""Warm start: a new run begins with the weights of a trained one."""

from __future__ import annotations

import json
from typing import Any

import torch

from jet_diffusion.hub import trained_tensors
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.pipelines.spike_and_slab import SpikeAndSlabDenoiser
from jet_diffusion.training.checkpoints import load_tensors


def start_from(pipeline: JetImagePipeline, trained: JetImagePipeline) -> None:
    """Load the trained weights, with the value map and the denoiser's fit they were trained in.

    On the same jets the slab may be another, and the network may be shown more, of which it knows nothing at first.

    Raises:
        ValueError: If the settings ask for another representation, denoiser or noise schedule than was trained.
    """
    same_jets = plain_config(pipeline.representation) == plain_config(trained.representation)
    for name in ("representation", "denoiser"):
        asked, found = (describe_choice(getattr(one, name)) for one in (pipeline, trained))
        different = [key for key in asked.keys() | found.keys() if asked.get(key) != found.get(key)]
        if different:
            raise ValueError(
                f"the weights to start from were trained with another {name}: "
                + ", ".join(f"{key} {found.get(key)}, not {asked.get(key)}" for key in sorted(different))
            )
    new, old = (inputs_of(one) for one in (pipeline, trained))
    if new != old and not (same_jets and set(old) <= set(new)):
        raise ValueError(
            f"the weights to start from were trained with inputs {old}, not {new}; on the same jets more may be shown, "
            "on others the same alone"
        )
    load_widened(pipeline, trained, "unet", "conv_in.weight", 1, pipeline.representation.shape[0])
    if pipeline.conditioner is not None and trained.conditioner is not None:
        load_tensors(trained_tensors(pipeline.conditioner), trained_tensors(trained.conditioner))
        for name in (n for n in trained.conditioner.config if n.startswith("log_")):
            pipeline.conditioner.register_to_config(**{name: trained.conditioner.config[name]})
    if same_jets:
        groups = len(set(pipeline.representation.channel_group))
        load_widened(pipeline, trained, "denoiser", "crystal_network.layers.0.weight", groups, 1)
        return
    if isinstance(pipeline.denoiser, SpikeAndSlabDenoiser):
        if not pipeline.denoiser.same_kind_of_slab(trained.denoiser):
            raise ValueError("another prior or number of components needs the jets that the weights were trained on")
        names = ("min_ratio", "hold_hits", "hold_energies", "hold_ratio")
        free = {name: pipeline.denoiser.config[name] for name in names}
        trained.denoiser.register_to_config(**free)
    pipeline.register_modules(representation=trained.representation, denoiser=trained.denoiser)


def load_widened(
    pipeline: JetImagePipeline, trained: JetImagePipeline, part: str, first: str, groups: int, size: int
) -> None:
    """Load a component's weights; those of its first layer for inputs that the trained network did not see are zero.

    Args:
        pipeline, trained: To load into, and from.
        part: Name of the component.
        first: Name of the weight (out, in, height, width) of its first layer, whose input channels are, group by group,
            blocks of equal size: the denoiser's inputs, then perhaps others.
        groups: How many groups.
        size: Channels in a block.
    """
    tensors, weights = (dict(trained_tensors(getattr(one, part))) for one in (pipeline, trained))
    new, old = inputs_of(pipeline), inputs_of(trained)
    if new != old and first in tensors and first in weights:
        into = torch.zeros_like(tensors[first]).unflatten(1, (groups, -1, size))
        of = weights[first].unflatten(1, (groups, -1, size))
        others = of.shape[2] - len(old)
        places = [*(new.index(name) for name in old), *range(len(new), len(new) + others)]
        into[:, :, places] = of
        weights[first] = into.flatten(1, 3)
    load_tensors(tensors, weights)


def inputs_of(pipeline: JetImagePipeline) -> list[str]:
    """What the network is shown, by name; a plain denoiser's names nothing."""
    return list(pipeline.denoiser.config.get("inputs", ()))


def describe_choice(component: Any) -> dict[str, Any]:
    """What ties weights to a representation or denoiser: class and settings, without what a warm start may change.

    That is the numbers fitted to the jets, the slab, the noise levels trained on, what is held and what is shown.
    """
    free = {"log_min", "log_low", "log_high", "log_max", "mean", "std", "zero"}
    free |= {"slab_weights", "slab_means", "slab_stds"}
    free |= {"channel_share", "mean_total", "min_ratio", "weights_by_position", "hold_hits", "hold_energies"}
    free |= {"energy_line", "energy_map", "inputs", "hold_ratio", "knots"}
    config = plain_config(component)
    chosen = {key: value for key, value in config.items() if key not in free and "range" not in key}
    return {"class": type(component).__name__, **chosen}


def plain_config(component: Any) -> dict[str, Any]:
    """A component's configuration as it is after a detour through a file, without diffusers' own entries."""
    own = {key: value for key, value in component.config.items() if not key.startswith("_")}
    plain: dict[str, Any] = json.loads(json.dumps(own))
    return plain
