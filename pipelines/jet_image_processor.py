"""JetImageProcessor: what turns calorimeter images into the inputs of a quark/gluon tagger.

On the Hub this file travels beside the tagger's weights; it is self-contained.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

SIDE = 125
TOWER = 5
TYPICAL_HIT = (3e-3, 1e-3, 3e-4)


class JetImageProcessor(BaseImageProcessor):
    """Logarithms of the energies, rearranged into 75 channels of 25x25 towers.

    Args:
        typical_hit: Energy (GeV/100) in tracks, ECAL and HCAL where the inputs turn from linear to logarithmic.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012

    def __init__(self, typical_hit: tuple[float, ...] = TYPICAL_HIT, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.typical_hit = tuple(typical_hit)

    def preprocess(self, images: Any, return_tensors: str | None = "pt", **_: Any) -> BatchFeature:
        """Images to inputs.

        Args:
            images: One jet (125, 125, 3) or several (N, 125, 125, 3) or a list of them: energies in GeV/100,
                channels tracks, ECAL, HCAL last, as `JetImagePipeline` gives them.
            return_tensors: As in transformers: "pt" or "np".

        Returns:
            `pixel_values` (N, 75, 25, 25).

        Raises:
            ValueError: If the shape is wrong.
        """
        energies = np.asarray(images, dtype=np.float32)
        energies = energies[None] if energies.ndim == 3 else energies
        if energies.ndim != 4 or energies.shape[1:] != (SIDE, SIDE, 3):
            raise ValueError(f"jets must have shape (N, {SIDE}, {SIDE}, 3), got {energies.shape}")
        scaled = np.sign(energies) * np.log1p(np.abs(energies) / np.array(self.typical_hit, np.float32))
        towers = SIDE // TOWER
        patches = scaled.reshape(-1, towers, TOWER, towers, TOWER, 3).transpose(0, 5, 2, 4, 1, 3)
        values = np.ascontiguousarray(patches.reshape(-1, 3 * TOWER**2, towers, towers))
        return BatchFeature({"pixel_values": values}, tensor_type=return_tensors)


JetImageProcessor.register_for_auto_class("AutoImageProcessor")
