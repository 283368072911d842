"""What earlier versions called the settings of saved models, and what they are called now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Gone:
    """A setting that this version no longer has.

    Attributes:
        value: The one value that is left.
    """

    value: Any


COMPONENTS: dict[str, dict[str, str | Gone]] = {
    "SpikeAndSlabDenoiser": {
        "hold_hits": Gone(True),
        "hold_energies": Gone(True),
        "energy_map": Gone("log"),
        "min_variance": Gone(0.05),
    },
    "TowerPatches": {"value_map": Gone("log"), "knots": Gone([])},
    "PixelGrid": {"value_map": Gone("log"), "knots": Gone([]), "pool": Gone(1)},
}
"""Class of a component -> setting of an earlier version -> its name now."""


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
