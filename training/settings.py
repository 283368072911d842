"""Everything a training run can be told: one dataclass, from a YAML file and dotted options on top of it."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from jet_diffusion.arguments import parse_options
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

Input = Literal["x_t", "estimate", "hit_probability", "hit_value", "previous", "energy", "missing_energy"]
"""What a spike-and-slab UNet can see."""

NOTEBOOK_NETWORKS = ("deepfalcon_cnn", "deepfalcon_unet")


@dataclass
class UNetSettings:
    """The network.

    Attributes:
        network: unet2d, diffusers' UNet2DModel; or a baseline, deepfalcon_cnn or deepfalcon_unet, of which only
            block_out_channels can be chosen, and which are unconditional; or quantum_filter, quantum_hybrid or
            quantum_cnn, see `quantum`.
        preset: Size of unet2d: tiny, small, or base, which has self-attention on the coarsest level.
        block_out_channels: Channels of each level, in place of the preset's; every level but the last halves the grid.
        dropout: Dropout within residual layers.
        conditioning: What jets are generated for: nothing ("none"); class, pT and mass ("jet"); or these and the hit
            count and energy of each ring of each channel ("rings"), which sampling draws first, from training jets.
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
    """How energies become x.

    Attributes:
        name: TowerPatches or PixelGrid; or, lossy, ChannelMaxGrid (32x32) or ImageRangeGrid (64x64); or
            JetAmplitudeEncoder, quantum states, see `quantum`.
        ring_edges: With unet.conditioning rings: distances from the image's centre (radians) at which rings end; [] for
            whole channels.
    """

    name: Literal["TowerPatches", "PixelGrid", "ChannelMaxGrid", "ImageRangeGrid", "JetAmplitudeEncoder"] = (
        "TowerPatches"
    )
    ring_edges: list[float] = field(default_factory=lambda: [0.1, 0.2, 0.4, 0.7])


@dataclass
class DenoiserSettings:
    """What the UNet's output means.

    Attributes:
        kind: spike_and_slab, or plain epsilon, sample or v_prediction, to which the options below do not apply.
        prior: What a pixel is before it is noised: a probability of a hit and a mixture of hit energies at each
            position ("mixture"), or one of each for a whole channel ("group").
        inputs: What the UNet sees (x_t, estimate, hit_probability, hit_value, previous, energy, missing_energy).
        crystal_channels: Hidden channels of each layer of small convolutions at the image's own resolution, after the
            UNet; [] for none.
    """

    kind: Literal["spike_and_slab", "epsilon", "sample", "v_prediction"] = "spike_and_slab"
    prior: Literal["mixture", "group"] = "mixture"
    inputs: list[Input] = field(default_factory=lambda: ["x_t", "estimate", "previous", "energy", "missing_energy"])
    crystal_channels: list[int] = field(default_factory=lambda: [24, 24])


@dataclass
class NoiseSettings:
    """The training noise schedule.

    Attributes:
        num_train_timesteps: T.
        beta_schedule, beta_start, beta_end: As in diffusers' DDPMScheduler.
        allow_signal_at_T: Train even if alpha-bar at T is 1e-3 or more, so that sampling starts from what training
            never saw.
    """

    num_train_timesteps: int = 1000
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    allow_signal_at_T: bool = False  # noqa: N815


@dataclass
class SamplingSettings:
    """How the model samples unless a call says otherwise; saved with it.

    Attributes:
        scheduler: A name of `SCHEDULERS`, or quantum for quantum states.
        steps: Solver steps.
    """

    scheduler: Literal["ddpm", "ddpm-large", "ddim", "dpm++", "sde-dpm++", "unipc", "euler", "quantum"] = "sde-dpm++"
    steps: int = 25


@dataclass
class OptimizerSettings:
    """The loss and the optimiser, AdamW without weight decay.

    Attributes:
        loss: Minus log-likelihood of the hits and their values ("likelihood", spike_and_slab only); squared ("l2") or
            absolute ("l1") error; or, for quantum states, 1 - fidelity ("infidelity").
        energy_weight: Of likelihood: additional weight of a hit's value, times its estimated energy over the mean
            hit's.
        group_weights: Weight of the pixels of tracks, ECAL and HCAL; [] for equal ones.
        lr_schedule: constant_with_warmup (0 warm-up steps: constant) or cosine, by diffusers.
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
        layout: folded (qubits count the distance from the jet's axis) or image (cells as they lie).
        channels: sum of the three, or joint, in two more qubits.
        unravelling: haar_mix, or classical noise that is re-encoded as a state at every step.
        order: quantum_filter: largest sets of qubits that have an angle.
        bottleneck: quantum_hybrid: pqc, pqc_frozen, conv or none.
        skip: quantum_hybrid: skip connections around the bottleneck.
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

    The same command goes on with a run where it stopped.

    Attributes:
        data: Folder made by `jet-diffusion convert`, or a dataset on the Hub.
        run_dir: The run's folder; the same command goes on where it stopped.
        max_steps: Optimiser steps in all.
        batch_size: Jets a step, over all processes together.
        learning_rate: Peak learning rate.
        warmup_steps: Steps of linear warm-up.
        ema_decay: Decay of the averaged weights that samples, validation and the published model use; 0 uses the
            weights as they are.
        max_jets: Train on the first so many jets of the training split.
        precision: "no" (float32) or "bf16", by accelerate; "auto" for bf16 where the device has instructions for it.
        seed: Seeds weights, data order, noise and timesteps.
        num_workers: Loader processes that decode, encode and draw noise.
        checkpoint_every: Steps between checkpoints.
        validate_every: Steps between validations (0: every epoch).
        sample_every: Steps between pictures of sampled jets (0: none until the end).
        dry_run: Say what would run, and stop.
        accumulation: Micro-batches each process splits its part of a step into.
        compile: Compile the UNet with torch.compile.
        cpu: Stay on the CPU even if there is a GPU.
        expect_processes: Refuse to run with any other number of processes.
        keep_checkpoints: How many of the last checkpoints are kept, beside the best.
        validation_jets: Jets in a validation.
        sample_jets: Jets sampled for a picture.
        log_every: Steps between log lines.
        trackers: accelerate's trackers by name (tensorboard, wandb, trackio); each is an extra of this package.
        init_from: A run or published model of the same configuration whose weights to start from.
    """

    data: str = field(kw_only=True)
    run_dir: str = field(kw_only=True)
    max_steps: int = 3200
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    ema_decay: float = 0.998
    max_jets: int | None = None
    precision: Literal["auto", "no", "bf16"] = "auto"
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
