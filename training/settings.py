"""All options of a training run: one dataclass, filled from a YAML file and from dotted options."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from jet_diffusion.arguments import Precision, Scheduler, parse_options
from jet_diffusion.errors import UserError
from jet_diffusion.renames import convert_arguments, convert_options, flatten
from jet_diffusion.schema import CHANNELS

WITH_RINGS = ("TowerPatches", "PixelGrid")
"""Representations in which hits can be counted in rings."""

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"block_out_channels": [32, 48, 64]},
    "small": {"block_out_channels": [64, 96, 128]},
    "base": {"block_out_channels": [96, 128, 160], "attention": True},
}
"""UNet sizes by name; docs/training.md has parameters and cost on the default representation."""

Input = Literal["x_t", "estimate", "hit_probability", "hit_value", "energy", "missing_energy"]
"""What a spike-and-slab UNet can see."""

NOTEBOOK_NETWORKS = ("deepfalcon_cnn", "deepfalcon_unet")


@dataclass
class UNetSettings:
    """The network.

    Attributes:
        network: unet2d is diffusers' UNet2DModel. deepfalcon_cnn and deepfalcon_unet are the models of two notebooks;
            they are unconditional, and only their block_out_channels can be chosen. quantum_filter, quantum_hybrid and
            quantum_cnn work on quantum states (docs/quantum.md).
        preset: Size of unet2d: tiny, small, or base, which has self-attention on the coarsest level.
        block_out_channels: Channels of each level, instead of the preset's. Every level but the last halves the grid.
        dropout: Dropout within residual layers.
        conditioning: What the model is given: nothing ("none"); class, pT and mass ("jet"); or also the hit count and
            energy of each ring of each channel ("rings"), which sampling draws first.
        gradient_checkpointing: Recompute activations in the backward pass, to save memory.
    """

    network: Literal[
        "unet2d", "deepfalcon_cnn", "deepfalcon_unet", "quantum_filter", "quantum_hybrid", "quantum_cnn"
    ] = "unet2d"
    preset: Literal["tiny", "small", "base"] = "tiny"
    block_out_channels: list[int] | None = None
    dropout: float = 0.0
    conditioning: Literal["none", "jet", "rings"] = "rings"
    gradient_checkpointing: bool = False


@dataclass
class RepresentationSettings:
    """How energies become the model's x.

    Attributes:
        name: TowerPatches (25x25 towers) and PixelGrid (pixels) lose nothing. ChannelMaxGrid (32x32) and ImageRangeGrid
            (64x64) are those of the notebooks. JetAmplitudeEncoder makes quantum states (docs/quantum.md).
        ring_edges: Distances from the image's centre (radians) at which rings end; [] for whole channels. Used with
            unet.conditioning rings.
    """

    name: Literal["TowerPatches", "PixelGrid", "ChannelMaxGrid", "ImageRangeGrid", "JetAmplitudeEncoder"] = (
        "TowerPatches"
    )
    ring_edges: list[float] = field(default_factory=lambda: [0.1, 0.2, 0.4, 0.7])


@dataclass
class DenoiserSettings:
    """What the UNet's output means.

    Attributes:
        kind: spike_and_slab; or a plain diffusion model that predicts epsilon, sample or v_prediction and ignores the
            options below.
        inputs: What the UNet sees (x_t, estimate, hit_probability, hit_value, energy, missing_energy).
        crystal_channels: Hidden channels of the crystal refiner, small convolutions at the image's own resolution after
            the UNet; [] for none.
    """

    kind: Literal["spike_and_slab", "epsilon", "sample", "v_prediction"] = "spike_and_slab"
    inputs: list[Input] = field(default_factory=lambda: ["x_t", "estimate", "energy", "missing_energy"])
    crystal_channels: list[int] = field(default_factory=lambda: [24, 24])


@dataclass
class NoiseSettings:
    """The training noise schedule.

    Attributes:
        num_train_timesteps: Number T of timesteps.
        beta_schedule: How beta rises, as in diffusers' DDPMScheduler.
        beta_start: First beta.
        beta_end: Last beta.
        allow_signal_at_T: Train even if alpha-bar at T is 1e-3 or more. Sampling then starts from pure noise, which
            training never saw.
    """

    num_train_timesteps: int = 1000
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    allow_signal_at_T: bool = False  # noqa: N815


@dataclass
class SamplingSettings:
    """How the model samples by default; saved with the model.

    Attributes:
        scheduler: Solver; quantum is for quantum states.
        steps: Solver steps.
    """

    scheduler: Literal[Scheduler, "quantum"] = "sde-dpm++"
    steps: int = 25


@dataclass
class OptimizerSettings:
    """The loss and the optimiser, AdamW without weight decay.

    Attributes:
        loss: Negative log-likelihood of hits and their values ("likelihood", spike_and_slab only); squared ("l2") or
            absolute ("l1") error; or 1 - fidelity of quantum states ("infidelity").
        energy_weight: With loss likelihood: how much more energetic hits count. The value of a hit has the weight 1
            plus this number times its estimated energy over that of the mean hit.
        group_weights: Weight of the pixels of tracks, ECAL and HCAL; [] for equal ones.
        lr_schedule: Learning-rate schedule of diffusers; both begin with the warm-up steps.
        condition_drop: Probability of hiding a jet's conditions, for classifier-free guidance.
    """

    loss: Literal["likelihood", "l2", "l1", "infidelity"] = "likelihood"
    energy_weight: float = 1.0
    group_weights: list[float] = field(default_factory=lambda: [5.0, 1.0, 6.0])
    lr_schedule: Literal["constant_with_warmup", "cosine"] = "cosine"
    condition_drop: float = 0.0


@dataclass
class QuantumSettings:
    """States, noise and circuits of 16x16 cells (docs/quantum.md).

    Attributes:
        layout: folded (qubits count the distance from the jet's axis) or image (cells in their order).
        channels: sum adds up the three channels; joint keeps them apart with two more qubits.
        unravelling: haar_mix, or classical noise that is re-encoded as a state at every step.
        order: Of quantum_filter: size of the largest sets of qubits that have an angle.
        bottleneck: Of quantum_hybrid: a circuit (pqc), one that is not trained (pqc_frozen), a convolution or none.
        skip: Of quantum_hybrid: skip connections around the bottleneck.
    """

    layout: Literal["folded", "image"] = "folded"
    channels: Literal["sum", "joint"] = "sum"
    unravelling: Literal["haar_mix", "classical"] = "haar_mix"
    order: int = 3
    bottleneck: Literal["pqc", "pqc_frozen", "conv", "none"] = "pqc"
    skip: bool = False


@dataclass
class TrainSettings:
    """Train a diffusion model of jet images; the defaults are the recommended model.

    The same command continues a run that was interrupted.

    Attributes:
        data: Folder made by `jet-diffusion convert`, or a dataset on the Hub: user/name is downloaded, hf://user/name
            is streamed.
        run_dir: Folder of the run.
        max_steps: Number of optimiser steps.
        batch_size: Jets of a step, over all processes together.
        learning_rate: Peak learning rate.
        warmup_steps: Steps of linear warm-up.
        ema_decay: Decay of the averaged weights that samples, validation and the published model use; 0 uses the
            weights as they are.
        max_jets: Train on the first N jets of the training split.
        precision: "no" is float32; "auto" is bf16 where the device has instructions for it, else float32.
        seed: Seeds weights, data order, noise and timesteps.
        num_workers: Processes that read the hits of coming batches; 0 reads them between steps.
        checkpoint_every: Steps between checkpoints.
        validate_every: Steps between validations (0: every epoch).
        sample_every: Steps between pictures of sampled jets (0: none until the end).
        dry_run: Print what would run, and stop.
        accumulation: Micro-batches into which each process splits its part of a step.
        compile: Compile the UNet with torch.compile.
        cpu: Stay on the CPU even if there is a GPU.
        expect_processes: Refuse to run with any other number of processes.
        keep_checkpoints: Keep this many of the last checkpoints, and the best one.
        validation_jets: Jets in a validation.
        sample_jets: Jets sampled for a picture.
        log_every: Steps between log lines.
        trackers: Experiment trackers of accelerate: tensorboard, wandb, trackio. Each is an extra of this package.
        init_from: A run or published model of the same configuration; training starts from its weights.
    """

    data: str = field(kw_only=True)
    run_dir: str = field(kw_only=True)
    max_steps: int = 3200
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    ema_decay: float = 0.998
    max_jets: int | None = None
    precision: Precision = "auto"
    seed: int = 0
    num_workers: int = 1
    checkpoint_every: int = 400
    validate_every: int = 0
    sample_every: int = 0
    dry_run: bool = False
    accumulation: int = 1
    compile: bool = False
    cpu: bool = False
    expect_processes: int | None = None
    keep_checkpoints: int = 2
    validation_jets: int = 512
    sample_jets: int = 64
    log_every: int = 20
    trackers: list[str] = field(default_factory=list)
    init_from: str | None = None
    unet: UNetSettings = field(default_factory=UNetSettings)
    representation: RepresentationSettings = field(default_factory=RepresentationSettings)
    denoiser: DenoiserSettings = field(default_factory=DenoiserSettings)
    noise: NoiseSettings = field(default_factory=NoiseSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    quantum: QuantumSettings = field(default_factory=QuantumSettings)


RESUMABLE = ("max_steps", "checkpoint_every", "keep_checkpoints", "validate_every", "sample_every", "sample_jets",
             "log_every", "trackers", "num_workers", "cpu", "dry_run", "expect_processes", "compile", "precision",
             "init_from", "accumulation", "run_dir", "data")  # fmt: skip
"""Options that may differ when a run goes on; any other change would make it another run."""


LEAST = {"max_steps": 1, "accumulation": 1, "checkpoint_every": 1, "keep_checkpoints": 1, "log_every": 1,
         "validation_jets": 1, "sample_jets": 1, "max_jets": 1, "validate_every": 0, "sample_every": 0,
         "num_workers": 0, "warmup_steps": 0, "seed": 0}  # fmt: skip
"""Smallest accepted value of an option."""

MAX_SEED = 2**32 - 1
"""Largest seed: from one step to the next it keys generators of 63 bits."""

MAX_TIMESTEPS = 100_000
"""Largest number of training timesteps, of which each costs memory and time."""


def parse_settings(argv: list[str] | None = None) -> TrainSettings:
    """Settings from `--config FILE` and `--any.option value`, later ones winning.

    Options of earlier versions are converted.
    """
    arguments = sys.argv[1:] if argv is None else argv
    return parse_options("jet-diffusion train", TrainSettings, convert_arguments(arguments))


def check_settings(settings: TrainSettings, processes: int) -> None:
    """Refuse settings that contradict each other, before any work.

    Raises:
        UserError: Saying which, what was seen and what is accepted.
    """
    share = processes * settings.accumulation
    if settings.batch_size < 1 or settings.batch_size % share:
        raise UserError(
            f"batch_size {settings.batch_size} (jets a step over all processes) must be a multiple of "
            f"processes x accumulation = {processes} x {settings.accumulation}"
        )
    for name, least in LEAST.items():
        value = getattr(settings, name)
        if value is not None and value < least:
            raise UserError(f"{name} must be at least {least}, got {value}")
    if settings.seed > MAX_SEED:
        raise UserError(f"seed must be at most {MAX_SEED}, got {settings.seed}")
    if not 0 < settings.learning_rate < math.inf:
        raise UserError(f"learning_rate must be positive and finite, got {settings.learning_rate}")
    if not 0 <= settings.ema_decay < 1:
        raise UserError(f"ema_decay must lie in [0, 1), got {settings.ema_decay}")
    if settings.sampling.steps < 1 or settings.sampling.steps > settings.noise.num_train_timesteps:
        raise UserError(
            f"sampling.steps must lie in 1 to {settings.noise.num_train_timesteps} (noise.num_train_timesteps), "
            f"got {settings.sampling.steps}"
        )
    check_noise(settings.noise)
    check_network(settings)
    check_choices(settings)


def check_batch(batch_size: int, num_jets: int) -> None:
    """Refuse a batch larger than the training split.

    Raises:
        UserError: With both sizes.
    """
    if batch_size > num_jets:
        raise UserError(f"batch_size {batch_size} is larger than the training split, which has {num_jets} jets")


def check_noise(noise: NoiseSettings) -> None:
    """Refuse a noise schedule that is none.

    Raises:
        UserError: Saying what was seen and what is accepted.
    """
    if not 1 <= noise.num_train_timesteps <= MAX_TIMESTEPS:
        raise UserError(f"noise.num_train_timesteps must lie in 1 to {MAX_TIMESTEPS}, got {noise.num_train_timesteps}")
    if not 0 < noise.beta_start <= noise.beta_end < 1:
        raise UserError(
            "noise.beta_start and noise.beta_end must satisfy 0 < beta_start <= beta_end < 1, "
            f"got {noise.beta_start} and {noise.beta_end}"
        )


def check_network(settings: TrainSettings) -> None:
    """Refuse a network without channels, and what it could not learn with.

    Raises:
        UserError: Saying what was seen and what is accepted.
    """
    levels, hidden = settings.unet.block_out_channels, settings.denoiser.crystal_channels
    edges = settings.representation.ring_edges
    if levels is not None and not (levels and all(width >= 1 for width in levels)):
        raise UserError(f"unet.block_out_channels must be numbers of channels, at least 1 each, got {levels}")
    if not all(width >= 1 for width in hidden):
        raise UserError(f"denoiser.crystal_channels must be at least 1 each, or [] for no layers, got {hidden}")
    if not 0 <= settings.unet.dropout < 1:
        raise UserError(f"unet.dropout must lie in [0, 1), got {settings.unet.dropout}")
    if edges != sorted(set(edges)) or not all(0 < edge < math.inf for edge in edges):
        raise UserError(f"representation.ring_edges must be positive and rise, got {edges}")
    if settings.quantum.order < 1:
        raise UserError(f"quantum.order must be at least 1, got {settings.quantum.order}")


def check_choices(settings: TrainSettings) -> None:
    """Refuse a network, representation, denoiser and loss that do not go together.

    Raises:
        UserError: Saying which, and what to set.
    """
    conditioning, loss = settings.unet.conditioning, settings.optimizer.loss
    weights, drop = settings.optimizer.group_weights, settings.optimizer.condition_drop
    if settings.unet.network in NOTEBOOK_NETWORKS and conditioning != "none":
        raise UserError(f"{settings.unet.network} is unconditional; set unet.conditioning: none")
    if conditioning == "rings" and settings.representation.name not in WITH_RINGS:
        raise UserError(f"{settings.representation.name} has no hits to count in rings; set unet.conditioning: jet")
    if loss == "likelihood" and settings.denoiser.kind != "spike_and_slab":
        raise UserError(
            f"optimizer.loss likelihood needs denoiser.kind spike_and_slab, not {settings.denoiser.kind}; "
            "set optimizer.loss: l2"
        )
    if weights and (len(weights) != len(CHANNELS) or not all(0 < weight < math.inf for weight in weights)):
        raise UserError(f"optimizer.group_weights must be {len(CHANNELS)} positive numbers or [], got {weights}")
    if weights and settings.representation.name == "JetAmplitudeEncoder":
        raise UserError("JetAmplitudeEncoder has no channels to weigh; set optimizer.group_weights: []")
    if not 0 <= drop < 1:
        raise UserError(f"optimizer.condition_drop must lie in [0, 1), got {drop}")
    if not 0 <= settings.optimizer.energy_weight < math.inf:
        raise UserError(
            f"optimizer.energy_weight must be finite and not negative, got {settings.optimizer.energy_weight}"
        )


def changed_settings(old: dict[str, Any], settings: TrainSettings) -> list[str]:
    """Options, dotted, in which a run about to go on differs from the one begun, other than the resumable ones.

    An option that did not exist when the run was begun had its default.
    """
    defaults = TrainSettings(data=settings.data, run_dir=settings.run_dir)
    before, after = flatten(asdict(defaults)) | convert_options(flatten(old)), flatten(asdict(settings))
    return [key for key in after if before[key] != after[key] and key not in RESUMABLE]
