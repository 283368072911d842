"""Sampling speed: our pipeline at its default steps beside the 128-pixel DDPM-1000 peer and our own DDPM-1000.

    python -m benchmarks.speed.sampling [MODEL] [--data jets] [--preset small] [--batch 1 64]

MODEL is a run's folder, a published model's, or a name on the Hub; without it an untrained network of `--preset` is
timed, which costs the same. Ours is timed as it is called, from conditions to energies. The peer is diffusers'
UNet2DModel of as many parameters on 3 x 128 x 128, sampled by DDPM in 1,000 steps: what is measured is the time of
one step (one evaluation of the network and the scheduler's step), over at least `--evaluations` of them, and a jet
costs 1,000 times that. Our own DDPM-1000 is taken from a call of its first, noisiest steps, conditions and energies
included. A model published with moment guidance is also timed without it, in as many steps; its DDPM-1000 has none.
`--graphs` lets CUDA graphs replay our network.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from diffusers import DDPMScheduler

from benchmarks.peers.images import PADDED
from benchmarks.peers.unconditional import build_network, count_parameters, equal_widths
from benchmarks.speed.contest import (
    Contender,
    Stopwatch,
    begin,
    dataset_folder,
    parser,
    race,
    ratio,
    spread,
    training_settings,
)
from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.hub import load_pipeline
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.pipelines.schedulers import make_scheduler
from jet_diffusion.training.build import build_pipeline

DDPM_STEPS = 1000
NO_GUIDANCE = ", no moment guidance"


def our_pipeline(options: argparse.Namespace) -> JetImagePipeline:
    """The model asked for, or an untrained one."""
    if options.model:
        return load_pipeline(options.model)
    with dataset_folder(options.data) as data:
        settings = training_settings(options, data)
        return build_pipeline(settings, JetDataset.load(data, "train"), train_first_stage=False)


def unguided(pipeline: JetImagePipeline) -> JetImagePipeline:
    """The same parts in a pipeline of its own, without moment guidance."""
    plain = JetImagePipeline(**pipeline.components, step_power=pipeline.config.step_power)
    plain.set_progress_bar_config(disable=True)
    return plain


def whole_calls(
    pipeline: JetImagePipeline, batch: int, steps: int, autocast: Callable[[], AbstractContextManager], note: str = ""
) -> Contender:
    """The pipeline as a user calls it; its amount is jets."""
    generator = torch.Generator().manual_seed(0)

    def work() -> float:
        with autocast():
            pipeline(batch, generator=generator, batch_size=batch, num_inference_steps=steps)
        return batch

    return Contender(f"ours, {type(pipeline.scheduler).__name__} in {steps} steps{note}", work)


def our_ddpm(
    pipeline: JetImagePipeline, batch: int, evaluations: int, autocast: Callable[[], AbstractContextManager]
) -> Contender:
    """Our network in DDPM-1000, by its first steps; its amount is jets, a thousandth of one for each step."""
    slow = unguided(pipeline)
    slow.register_modules(scheduler=make_scheduler("ddpm", pipeline.scheduler.config))
    timesteps = list(range(DDPM_STEPS - 1, DDPM_STEPS - 1 - evaluations, -1))
    generator = torch.Generator().manual_seed(0)

    def work() -> float:
        with autocast():
            slow(batch, generator=generator, batch_size=batch, timesteps=timesteps)
        return batch * evaluations / DDPM_STEPS

    return Contender(f"ours, DDPM in {DDPM_STEPS} steps{NO_GUIDANCE if pipeline.config.moment_guidance else ''}", work)


def peer_ddpm(
    parameters: int, batch: int, options: argparse.Namespace, device: torch.device, autocast: Callable
) -> Contender:
    """The 128-pixel peer's DDPM-1000, by some of its steps; its amount is jets, as in `our_ddpm`."""
    network = build_network(equal_widths(parameters)).to(device).eval()
    if options.compile:
        network.compile()
    scheduler = DDPMScheduler(num_train_timesteps=DDPM_STEPS, beta_schedule="linear")
    scheduler.set_timesteps(DDPM_STEPS)
    images = torch.randn(batch, 3, PADDED, PADDED, device=device)
    evaluations = options.evaluations if batch == 1 else max(1, options.evaluations // 10)

    @torch.no_grad()
    def work() -> float:
        state = images
        for timestep in scheduler.timesteps[:evaluations]:
            with autocast():
                predicted = network(state, timestep).sample
            state = scheduler.step(predicted.float(), timestep, state).prev_sample
        return batch * evaluations / DDPM_STEPS

    return Contender(f"peer, 128x128, {count_parameters(network):,}, DDPM in {DDPM_STEPS}", work)


def main() -> None:
    """Measure and print."""
    made = parser(__doc__, rounds=5, seconds=1.0)
    made.add_argument("model", nargs="?", help="run folder, model folder or name on the Hub")
    made.add_argument("--batch", type=int, nargs="+", default=[1, 64], help="jets at once (default 1 64)")
    made.add_argument("--steps", type=int, help="of our pipeline (default: the model's own)")
    made.add_argument("--evaluations", type=int, default=20, help="of a thousand that are timed a turn (default 20)")
    made.add_argument("--graphs", action="store_true", help="compile with CUDA graphs (mode reduce-overhead)")
    made.add_argument("--no-peer", action="store_true", help="ours alone")
    options = made.parse_args()
    accelerator = begin(options)
    pipeline = our_pipeline(options).to(accelerator.device)
    pipeline.set_progress_bar_config(disable=True)
    parameters = count_parameters(pipeline.unet)
    if options.graphs or options.compile:
        pipeline.unet.compile(mode="reduce-overhead" if options.graphs else None)
    steps = options.steps or pipeline.config.default_steps
    watch = Stopwatch(accelerator.device, options.clock)
    print(f"our network: {parameters:,} parameters; ms a jet: median of {options.rounds} (lowest to highest)")
    for batch in options.batch:
        ours = whole_calls(pipeline, batch, steps, accelerator.autocast)
        fast, slow = [ours], []
        if pipeline.config.moment_guidance:
            fast.insert(0, whole_calls(unguided(pipeline), batch, steps, accelerator.autocast, NO_GUIDANCE))
        if not options.no_peer:
            slow = [
                our_ddpm(pipeline, batch, options.evaluations, accelerator.autocast),
                peer_ddpm(parameters, batch, options, accelerator.device, accelerator.autocast),
            ]
        field = [*fast, *slow]
        race(field, watch, options.rounds, options.seconds)
        print(f"batch {batch}:")
        for contender in field:
            print(f"  {contender.name:<60}{spread([1 / rate for rate in contender.rates], 1000)} ms a jet")
        for place, one in enumerate(fast):
            for other in [*fast[:place], *slow]:
                print(f"  {one.name} / {other.name}: {ratio(one, other)} times the jets a second")


if __name__ == "__main__":
    main()
