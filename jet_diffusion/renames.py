"""What earlier versions called the settings of saved models, and what they are called now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


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
    },
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
    "table_pt_bits": "table_pt",
    "table_m0_bits": "table_m0",
    "table_totals_bits": "table_ring_sums",
}
"""Tensor -> its name now; what ended in _bits was float32 kept as int32."""


def convert_component(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings a component was saved with, as this version has them.

    Args:
        name: Class of the component.
        settings: From its file.

    Raises:
        ValueError: If a setting that is gone had another value than the one that is left.
    """
    if name == "SpikeAndSlabDenoiser" and "hold_hits" in settings and not settings.get("weights_by_position"):
        raise ValueError(
            "this version has no prior with a mean and width for each position; the model was saved with one"
        )
    return renamed(settings, COMPONENTS.get(name, {}))


def renamed(settings: dict[str, Any], names: dict[str, str | Gone]) -> dict[str, Any]:
    """Settings under their new names, without those that are gone.

    Raises:
        ValueError: If a setting that is gone had another value than the one that is left.
    """
    converted = {}
    for name, value in settings.items():
        new = names.get(name, name)
        if isinstance(new, str):
            converted[new] = value
        elif value != new.value:
            raise ValueError(f"{name} {value!r} is of an earlier version; this one has {new.value!r} alone")
    return converted


def convert_tensors(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A component's tensors under their names of this version."""
    return {
        TENSORS.get(name, name): tensor.view(torch.float32) if name.endswith("_bits") else tensor
        for name, tensor in tensors.items()
    }
