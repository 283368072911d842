"""What earlier versions called the settings of saved models and of training runs, and what they are called now."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from jet_diffusion.errors import UserError, printable

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gone:
    """A setting that this version no longer has.

    Attributes:
        value: The one value that is left.
    """

    value: Any


CONDITIONERS: dict[str, str | Gone] = {"log_totals_mean": "log_ring_sums_mean", "log_totals_std": "log_ring_sums_std"}

COMPONENTS: dict[str, dict[str, str | Gone]] = {
    "SpikeAndSlabDenoiser": {
        "hold_hits": Gone(True),
        "hold_energies": Gone(True),
        "hold_ratio": "match_ratio",
        "num_regions": "num_rings",
        "energy_map": Gone("log"),
        "min_variance": Gone(0.05),
        "weights_by_position": Gone(True),
    },
    "PlainDenoiser": {"snr_gamma": Gone(0.0)},
    "TowerPatches": {"value_map": Gone("log"), "knots": Gone([])},
    "PixelGrid": {"value_map": Gone("log"), "knots": Gone([]), "pool": Gone(1)},
    "Conditioner": CONDITIONERS,
    "ClassConditioner": CONDITIONERS,
}
"""Class of a component -> setting of an earlier version -> its name now."""

PIPELINE: dict[str, str | Gone] = {"shape_tilt": "moment_guidance"}
"""Setting of a pipeline -> its name now."""

TENSORS = {
    "alphas_cumprod_bits": "alphas_cumprod",
    "prior_logit_bits": "prior.logit",
    "place_bits": "prior.hit_moments",
    "slab_weight_bits": "prior.weights",
    "inside": "prior.inside",
    "region": "rings.index",
    "log_hits_bits": "rings.log_counts",
}
"""Tensor -> its name now; what ended in _bits was float32 kept as int32."""


ANY = object()

OPTIONS: dict[str, tuple[Any, ...]] = {
    "memory_format": (ANY,),
    "unet.layers_per_block": (None, 1),
    "unet.attention": (None, False),
    "unet.norm_num_groups": (ANY,),
    "representation.gap": (1,),
    "representation.pool": (1,),
    "representation.value_map": ("log",),
    "representation.fit_jets": (ANY,),
    "denoiser.prior": ("mixture",),
    "denoiser.hold_hits": (True,),
    "denoiser.hold_energies": (True,),
    "denoiser.hold_ratio": (0.3, 0.5),
    "denoiser.components": (1, 5),
    "denoiser.fit_jets": (ANY,),
    "denoiser.min_variance": (0.05,),
    "denoiser.snr_gamma": (0,),
    "noise.rescale_betas_zero_snr": (False,),
    "noise.min_ratio": (0, 0.02),
    "noise.timestep_power": (1, 1.35),
    "sampling.step_power": (1, 1.35),
    "optimizer.name": ("adamw",),
    "optimizer.beta1": (0.9,),
    "optimizer.beta2": (0.99, 0.999),
    "optimizer.epsilon": (1e-8,),
    "optimizer.weight_decay": (0,),
    "optimizer.max_grad_norm": (0, 1),
    "optimizer.fused": (ANY,),
    "optimizer.balance": ("pixel",),
    "quantum.grid": (16,),
    "quantum.eta": (0,),
    "quantum.layers": (0,),
    "quantum.width": (0,),
}
"""Training option that is gone -> values that are left: one, or each where the model wants it."""


def convert_component(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings a component was saved with, as this version has them.

    Args:
        name: Class of the component.
        settings: From its file.

    Raises:
        UserError: If a setting that is gone had another value than the one that is left.
    """
    if name == "SpikeAndSlabDenoiser" and "previous" in settings.get("inputs", ()):
        raise UserError("this version has no self-conditioning (input previous); the model was trained with it")
    if name == "SpikeAndSlabDenoiser" and settings.get("weights_by_position") is False:
        raise UserError(
            "this version's prior is a mixture with weights of its own at each position; this model has another"
        )
    return renamed(settings, COMPONENTS.get(name, {}))


def renamed(settings: dict[str, Any], names: dict[str, str | Gone]) -> dict[str, Any]:
    """Settings under their new names, without those that are gone.

    Raises:
        UserError: If a setting that is gone had another value than the one that is left.
    """
    converted = {}
    for name, value in settings.items():
        new = names.get(name, name)
        if isinstance(new, str):
            converted[new] = value
        elif value != new.value:
            raise UserError(f"{name} {value!r} is of an earlier version; this one has {new.value!r} alone")
    return converted


def convert_tensors(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A component's tensors under their names of this version."""
    import torch

    return {
        TENSORS.get(name, name): tensor.view(torch.float32) if name.endswith("_bits") else tensor
        for name, tensor in tensors.items()
    }


def convert_options(options: dict[str, Any]) -> dict[str, Any]:
    """Training options by dotted name, as this version has them; one line says what was converted.

    Raises:
        UserError: If an option that is gone had a value that this version cannot have.
    """
    converted = dict(options)
    gone = [name for name in options if name in OPTIONS]
    for name in gone:
        value = converted.pop(name)
        if ANY not in OPTIONS[name] and value not in OPTIONS[name]:
            accepted = " or ".join(map(repr, OPTIONS[name]))
            raise UserError(f"{name} is no option any more, and {value!r} cannot be had, only {accepted}; leave it out")
    conditional, totals = (converted.pop(f"unet.{name}", None) for name in ("conditional", "totals"))
    if conditional is False:
        converted["unet.conditioning"] = "none"
    elif totals is not None:
        converted["unet.conditioning"] = "rings" if totals else "jet"
    changed = sorted(options.keys() - converted.keys())
    if changed:
        logger.warning("options of an earlier version are left out or converted: %s", ", ".join(changed))
    return converted


def convert_arguments(arguments: list[str]) -> list[str]:
    """A training command's arguments with the options, and the files of `--config`, of earlier versions converted."""
    given = iter(arguments)
    converted = []
    for argument in given:
        name, equals, value = argument.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if name == "config":
            path = value if equals else next(given, "")
            converted.append(f"--config={converted_file(path)}")
        elif name in OPTIONS or name in ("unet.conditional", "unet.totals"):
            option = {name: _read_yaml(value if equals else next(given, ""), f"the value of --{name}")}
            converted += [f"--{new}={kept}" for new, kept in convert_options(option).items()]
        else:
            converted.append(argument)
    return converted


def _read_yaml(text: str | bytes, what: str) -> Any:
    """Parse YAML; UserError, which `what` opens, if it is none or does not end."""
    try:
        return json.loads(json.dumps(yaml.safe_load(text), default=str))  # as a tree: an alias may go in a circle
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{what} is not valid YAML: {printable(error, 200)}") from error


def converted_file(path: str) -> str:
    """The file of options itself or, if it has some of an earlier version, the converted ones as JSON."""
    if not Path(path).is_file():
        return path  # the parser says so
    options = _read_yaml(Path(path).read_bytes(), path)
    if not isinstance(options, dict | None):
        raise UserError(f"{path} must hold options and their values, but holds {printable(options)}")
    options = flatten(options or {})
    converted = convert_options(options)
    return path if converted == options else json.dumps(nested(converted))


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dictionary as one of dotted names."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """Undo `flatten`."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *groups, own = name.split(".")
        node = tree
        for group in groups:
            node = node.setdefault(group, {})
        node[own] = value
    return tree
