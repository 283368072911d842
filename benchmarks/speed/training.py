"""Training speed: our loop beside diffusers' recipe and beside a bare loop over the same network.

    python -m benchmarks.speed.training [--data jets] [--preset small] [--profile]

Contenders take turns: our training loop as `training/train.py` runs it (loader, denoiser, loss, clipping,
AdamW, averaged weights); a bare loop over the same UNet and inputs of the same shape (forward, squared error,
backward, AdamW); and diffusers' `train_unconditional` recipe on images padded to 128x128, its UNet narrowed to as many
parameters as ours, in float32 as its example runs and in our precision. A last one multiplies large matrices: the share
of its rate is how near a loop is to the machine's limit. `--profile` prints where a step's time goes, by group of
operators.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import UNet2DModel
from torch.profiler import ProfilerActivity, profile

from benchmarks.peers.images import PADDED, LinearImages
from benchmarks.peers.unconditional import Recipe, build_network, count_parameters, equal_widths
from benchmarks.speed.contest import (
    Contender,
    Stopwatch,
    begin,
    count_flops,
    dataset_folder,
    matrix_product,
    parser,
    race,
    ratio,
    spread,
    training_settings,
)
from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.training.build import build_pipeline
from jet_diffusion.training.loop import TrainingLoop
from jet_diffusion.training.settings import TrainSettings
from jet_diffusion.training.train import make_state

GROUPS = {
    "convolution": "conv",
    "attention": "attention|softmax",
    "matrix product": r"::(addmm|mm|bmm|linear|matmul)|gemm",
    "normalisation": "group_norm|layer_norm|GroupNorm|RowwiseMoments",
    "optimiser and averages": "adamw|_foreach|multi_tensor|Optimizer|clip",
    "copies and casts": r"copy|::to\b|cat\b|CatArray|contiguous|clone|Memcpy|Memset|fill_|zero_",
    "resampling": "upsample|interpolate",
    "waiting for the loader": "DataLoader",
}
"""Operator group -> what its kernels' names hold; the first that fits counts, the rest is element-wise."""


def our_loop(settings: TrainSettings, accelerator: Accelerator, jets: JetDataset) -> TrainingLoop:
    """The loop of a fresh run, which writes nothing."""
    pipeline = build_pipeline(settings, jets, train_first_stage=False)
    return TrainingLoop(settings, accelerator, pipeline, make_state(settings, pipeline), jets)


def bare_loop(settings: TrainSettings, accelerator: Accelerator, loop: TrainingLoop) -> Contender:
    """Forward, squared error, backward and AdamW, over a copy of our UNet and one batch of noise."""
    like = loop.state.model.unet
    unet = type(like).from_config(like.config).to(accelerator.device)
    if settings.compile:
        unet.compile()
    optimizer = torch.optim.AdamW(unet.parameters(), lr=settings.learning_rate)
    size = settings.batch_size
    inputs = torch.randn(size, unet.config.in_channels, *unet.config.sample_size, device=accelerator.device)
    target = torch.randn(size, unet.config.out_channels, *unet.config.sample_size, device=accelerator.device)
    timesteps = torch.randint(0, 1000, (size,), device=accelerator.device)
    embedding = torch.randn(size, 4 * unet.config.block_out_channels[0], device=accelerator.device)

    def work() -> float:
        with accelerator.autocast():
            predicted = unet(inputs, timesteps, class_labels=embedding).sample
        torch.nn.functional.mse_loss(predicted.float(), target).backward()
        optimizer.step()
        optimizer.zero_grad()
        return size

    return Contender("bare loop, same UNet", work)


def recipe_loops(
    options: argparse.Namespace, accelerator: Accelerator, jets: JetDataset, unet: UNet2DModel
) -> list[Contender]:
    """The recipe of diffusers, loading its images as it trains: in float32, and in our precision if that is another."""
    images, rng, size = LinearImages(jets, fit_jets=1000), np.random.default_rng(0), options.recipe_batch
    contexts: dict[str, Callable[[], AbstractContextManager]] = {"float32": nullcontext}
    if accelerator.mixed_precision != "no":
        contexts[accelerator.mixed_precision] = accelerator.autocast

    def contender(precision: str) -> Contender:
        recipe = Recipe(unet, 10_000, contexts[precision])

        def work() -> float:
            recipe.train(images.batch(rng.integers(len(jets), size=size)).to(accelerator.device))
            return size

        return Contender(f"diffusers' recipe, {precision}", work)

    return [contender(precision) for precision in contexts]


def training_flops(unet: torch.nn.Module, shape: tuple[int, ...], conditional: bool) -> float:
    """Floating-point operations a jet of the network's forward and backward pass."""
    meta = type(unet).from_config(unet.config).to("meta")
    inputs = torch.empty(1, *shape, device="meta")
    labels = torch.empty(1, 4 * unet.config.block_out_channels[0], device="meta") if conditional else None
    timesteps = torch.zeros(1, device="meta")
    return count_flops(lambda: meta(inputs, timesteps, class_labels=labels).sample.sum().backward())


def print_profile(loop: TrainingLoop, settings: TrainSettings, steps: int = 3) -> None:
    """Where a step's time goes, by group of operators, and what the loader does meanwhile."""
    cuda = loop.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda) as trace:
        for _ in range(steps):
            loop.step()
    groups: dict[str, float] = dict.fromkeys([*GROUPS, "element-wise and other"], 0.0)
    for event in trace.key_averages():
        spent = event.self_device_time_total if cuda else event.self_cpu_time_total
        found = (name for name, pattern in GROUPS.items() if re.search(pattern, event.key))
        groups[next(found, "element-wise and other")] += spent / 1e3 / steps
    total = sum(groups.values())
    print(f"\nprofile of our loop, {total:.0f} ms a step of {settings.batch_size} jets on {loop.device.type}:")
    for name, spent in sorted(groups.items(), key=lambda item: -item[1]):
        print(f"  {name:<24}{spent:8.1f} ms {100 * spent / total:5.1f} %")
    begun = time.process_time()
    for step in range(steps):
        loop.loader.dataset[step]
    print(f"  the loader's process works {1e3 * (time.process_time() - begun) / steps:.0f} ms a step meanwhile")


def main() -> None:
    """Measure and print."""
    made = parser(__doc__)
    made.add_argument("--batch-size", type=int, default=64, help="of our loop and of the bare one")
    made.add_argument("--recipe-batch", type=int, default=16, help="of the recipe (default 16, its own)")
    made.add_argument("--profile", action="store_true", help="print where our step's time goes")
    options = made.parse_args()
    accelerator = begin(options)
    with dataset_folder(options.data) as data:
        settings = training_settings(options, data, f"--batch_size={options.batch_size}", "--max_steps=1000000")
        jets = JetDataset.load(data, "train")
        loop = our_loop(settings, accelerator, jets)
        unet = loop.state.model.unet
        parameters = count_parameters(unet)

        def work() -> float:
            loop.step()
            return settings.batch_size

        ours, bare = Contender("our loop, native", work), bare_loop(settings, accelerator, loop)
        peer_unet = build_network(equal_widths(parameters)).to(accelerator.device)
        if options.compile:
            peer_unet.compile()
        peers = recipe_loops(options, accelerator, jets, peer_unet)
        dtype = torch.float32 if accelerator.mixed_precision == "no" else torch.bfloat16
        limit = matrix_product(accelerator.device, dtype)
        watch = Stopwatch(accelerator.device, options.clock)
        race([ours, bare, *peers, limit], watch, options.rounds, options.seconds)
        flops = training_flops(unet, (unet.config.in_channels, *unet.config.sample_size), conditional=True)
        peer_flops = training_flops(peer_unet, (3, PADDED, PADDED), conditional=False)
        sizes = {ours: (parameters, flops), bare: (parameters, flops)}
        sizes |= dict.fromkeys(peers, (count_parameters(peer_unet), peer_flops))
        print(f"{'':<30}{'parameters':>12}{'GFLOP/jet':>11}  jets/s, median of {options.rounds} (lowest to highest)")
        for contender, (count, operations) in sizes.items():
            print(f"{contender.name:<30}{count:>12,}{operations / 1e9:>11.3g}  {spread(contender.rates)}")
        print(f"{limit.name}: {spread(limit.rates, 1e-9)} GFLOP/s")
        for other in (bare, *peers):
            print(f"ours / {other.name}: {ratio(ours, other)}")
        for contender in (ours, bare, peers[-1]):
            operations = sizes[contender][1]
            print(f"share of the matrix-product rate, {contender.name}: {ratio(contender, limit, operations)}")
        if options.profile:
            print_profile(loop, settings)


if __name__ == "__main__":
    main()
