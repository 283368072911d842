"""The denoising of a jet as an animation, on the colour scale of the strips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.colors import LogNorm
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from jet_diffusion.plotting.jets import BACKGROUND, PANELS, enlarge_hits, jet_colours, with_sum
from jet_diffusion.plotting.training import STRIP_RANGE_GEV

_GAP = 8
_FRAME_MS, _LAST_MS = 200, 2500


def save_animation(energies: NDArray[np.float32], path: Path) -> None:
    """Write the states of one jet as an animated GIF, four panels a frame; it stays on the last one.

    Args:
        energies: (levels, 3, 125, 125) in GeV/100, from noise to the jet.
        path: The file.
    """
    panels = enlarge_hits(with_sum(energies))
    side = panels.shape[-1]
    scaled = LogNorm(*STRIP_RANGE_GEV)(np.ma.masked_less_equal(panels.reshape(-1), 0))
    colours = jet_colours()(scaled.reshape(panels.shape), bytes=True)
    font = ImageFont.load_default(size=22)
    frames = []
    for level in colours[..., :3]:
        frame = Image.new("RGB", (2 * side + _GAP, 2 * side + _GAP), "white")
        for number, name in enumerate(PANELS):
            line, column = divmod(number, 2)
            corner = column * (side + _GAP), line * (side + _GAP)
            frame.paste(Image.fromarray(np.ascontiguousarray(level[number][::-1])), corner)
            place = corner[0] + 8, corner[1] + 6
            ImageDraw.Draw(frame).text(place, name, "white", font, stroke_width=2, stroke_fill=BACKGROUND)
        frames.append(frame)
    durations = [_FRAME_MS] * (len(frames) - 1) + [_LAST_MS]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0)
