"""Guidance: predictions moved away from those of a network that knows less, and whether a model can have it.

This file is self-contained so that it can travel to the Hub.
"""

from __future__ import annotations

import math
from typing import Any

GUIDED_ABOVE = 1.0
"""Noise level sigma/alpha from which a weaker model guides: below, what is left to decide is each pixel's own."""


def check_guidance(pipeline: Any, scale: float, guide: Any = None) -> None:
    """Refuse guidance that a pipeline cannot have.

    Args:
        pipeline: The JetImagePipeline that is to be guided.
        scale: Guidance scale; 1 is none.
        guide: A weaker JetImagePipeline, or None for the pipeline's own predictions without conditions.

    Raises:
        ValueError: Saying what is wrong.
    """
    if not math.isfinite(scale):
        raise ValueError(f"guidance_scale must be finite, got {scale}")
    if guide is not None:
        if scale == 1:
            raise ValueError(
                "guidance_scale is 1, at which a guide changes nothing; 2 goes as far beyond as it lies behind"
            )
        same_x = dict(guide.representation.config) == dict(pipeline.representation.config)
        if not same_x or not pipeline.denoiser.agrees_with(guide.denoiser):
            raise ValueError(
                "the guide must have been fitted on the same jets with the same settings, but for its networks"
            )
        if (guide.conditioner is None) != (pipeline.conditioner is None):
            raise ValueError("the guide must be conditioned as the model is, which one of the two is not")
        return
    if scale != 1 and (pipeline.conditioner is None or not pipeline.conditioner.dropped.any()):
        raise ValueError(
            f"guidance_scale {scale} needs a model trained with conditions dropped now and then "
            "(optimizer.condition_drop), which this one was not, or a guide"
        )
