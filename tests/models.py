"""A pipeline small enough for unit tests, built as the trainer builds it."""

from __future__ import annotations

import torch

from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.pipelines.moment_guidance import MOMENTS
from jet_diffusion.training.build import build_pipeline
from jet_diffusion.training.settings import parse_settings

SMALL_UNET = [
    "--unet.block_out_channels=[8,8,8]",
    "--unet.conditioning=jet",
    "--representation.ring_edges=[]",
    "--denoiser.inputs=[x_t,estimate]",
    "--denoiser.crystal_channels=[]",
    "--optimizer.loss=l2",
    "--optimizer.group_weights=[]",
]
"""Less than the recommended model, so that tests are fast and each asks for the part it is about."""


VARIANCES = dict.fromkeys(MOMENTS, 0.003)


def tilt(strength, **others):
    """Settings of moment guidance of the same strength for all moments but those named."""
    return {"strengths": {**dict.fromkeys(MOMENTS, strength), **others}, "variances": VARIANCES, "ratios": [0.5, 20.0]}


def small_settings(folder, run, *options):
    """Settings of a run that trains in seconds."""
    fixed = ["--batch_size=8", "--precision=no", "--cpu=true", "--trackers=[]", "--num_workers=0"]
    fixed += ["--validation_jets=8", "--sample_jets=2", "--log_every=1", "--warmup_steps=1"]
    return parse_settings([f"--data={folder}", f"--run_dir={run}", *SMALL_UNET, *fixed, *options])


def small_pipeline(folder, *options, perturb=True):
    """A pipeline of random weights; a fresh one's last layer is zero, so it is moved unless told otherwise."""
    jets = JetDataset.load(folder, "train")
    pipeline = build_pipeline(small_settings(folder, "unused", *options), jets, train_first_stage=False)
    if perturb:
        torch.manual_seed(1)
        torch.nn.init.normal_(pipeline.unet.conv_out.weight, std=0.02)
    pipeline.unet.eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
