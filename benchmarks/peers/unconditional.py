"""Peer: diffusers' own recipe for unconditional images, as its `train_unconditional` example sets it.

    python -m benchmarks.peers.unconditional DATA OUT.hdf5 [--seconds 600] [--widths 32 64 128]

UNet2DModel (128 to 512 channels, attention on the last but one level, 114 million parameters) on 128x128 images,
noise predicted with mean squared error, 1,000 linear betas, AdamW 1e-4 with 500 steps of warm-up and a cosine,
batches of 16; sampled by DDPMPipeline, which clamps to [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.optimization import get_scheduler

from benchmarks.peers.images import PADDED, peer_parser, run_peer

WIDTHS = (128, 128, 256, 256, 512, 512)


def build_network(widths: tuple[int, ...]) -> UNet2DModel:
    """The recipe's UNet; attention on the last but one level."""
    levels = len(widths)
    attention = {levels - 2}
    return UNet2DModel(
        sample_size=PADDED,
        in_channels=3,
        out_channels=3,
        layers_per_block=2,
        block_out_channels=widths,
        norm_num_groups=math.gcd(32, *widths),
        down_block_types=tuple("AttnDownBlock2D" if i in attention else "DownBlock2D" for i in range(levels)),
        up_block_types=tuple("AttnUpBlock2D" if levels - 1 - i in attention else "UpBlock2D" for i in range(levels)),
    )


def count_parameters(network: torch.nn.Module) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in network.parameters())


def equal_widths(parameters: int) -> tuple[int, ...]:
    """Widths of about the recipe's proportions (1, 1, 2, 2, 4, 4) at which its UNet has so many parameters."""

    def distance(widths: tuple[int, ...]) -> int:
        with torch.device("meta"):
            return abs(count_parameters(build_network(widths)) - parameters)

    with torch.device("meta"):
        full = count_parameters(build_network(WIDTHS))
    first = max(8, 4 * round(WIDTHS[0] * math.sqrt(parameters / full) / 4))
    widths = (first, first, 2 * first, 2 * first, 4 * first, 4 * first)
    for level in (-1, -2):  # the last level decides most, the one before it the rest
        moved = [[*widths] for _ in range(7)]
        for step, candidate in enumerate(moved):
            candidate[level] = max(8, candidate[level] + 8 * (step - 3))
        widths = min(map(tuple, moved), key=distance)
    return widths


class Recipe:
    """The recipe's training step and its sampler.

    Args:
        unet: The network, on its device.
        steps: Optimiser steps of the cosine.
        autocast: Context of the forward pass, for mixed precision.
    """

    def __init__(
        self, unet: UNet2DModel, steps: int, autocast: Callable[[], AbstractContextManager] = nullcontext
    ) -> None:
        self.unet, self.autocast = unet, autocast
        self.scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
        self.optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
        self.rate = get_scheduler("cosine", self.optimizer, num_warmup_steps=500, num_training_steps=steps)

    def train(self, images: torch.Tensor) -> torch.Tensor:
        """One step on images (n, 3, 128, 128) in [0, 1]; its loss."""
        clean = 2 * images - 1
        noise = torch.randn_like(clean)
        timesteps = torch.randint(0, 1000, (len(clean),), device=clean.device)
        with self.autocast():
            predicted = self.unet(self.scheduler.add_noise(clean, noise, timesteps), timesteps).sample
        loss = torch.nn.functional.mse_loss(predicted.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimizer.step()
        self.rate.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def sample(self, count: int, steps: int) -> torch.Tensor:
        """Images (count, 3, 128, 128) in [0, 1]."""
        pipeline = DDPMPipeline(self.unet.eval(), self.scheduler)
        pipeline.set_progress_bar_config(disable=True)
        images = pipeline(batch_size=count, num_inference_steps=steps, output_type="np").images
        return torch.from_numpy(images).permute(0, 3, 1, 2)


def main() -> None:
    """Train, sample and write as the command line says."""
    options = peer_parser(__doc__, batch_size=16, sampling_steps=1000).parse_args()
    torch.manual_seed(options.seed)
    unet = build_network(tuple(options.widths or WIDTHS)).to(options.device)
    recipe = Recipe(unet, options.steps)
    run_peer(
        options,
        "diffusers train_unconditional",
        count_parameters(unet),
        recipe.train,
        lambda count: recipe.sample(count, options.sampling_steps),
    )


if __name__ == "__main__":
    main()
