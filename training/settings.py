"""Everything a training run can be told: one dataclass, from a YAML file and dotted options on top of it."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from jsonargparse import ArgumentParser

from jet_diffusion.pipelines.tower_representations import NATIVE_REPRESENTATIONS
from jet_diffusion.schema import CHANNELS
from jet_diffusion.training.quantum_settings import QuantumSettings

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"block_out_channels": [32, 48, 64], "layers_per_block": 1},
    "small": {"block_out_channels": [64, 96, 128], "layers_per_block": 1},
    "base": {"block_out_channels": [96, 128, 160], "layers_per_block": 1, "attention": True},
}
"""UNet sizes by name; docs/training.md has parameters and cost on the default representation."""


@dataclass
class UNetSettings:
    """The network. A value left at None comes from the preset.

    Attributes:
        network: unet2d, diffusers' UNet2DModel; or a baseline, deepfalcon_cnn or deepfalcon_unet, of which only
            block_out_channels can be chosen, and which are unconditional; or quantum_filter, quantum_hybrid or
            quantum_cnn, see `quantum`.
        preset: tiny, small or base.
        block_out_channels: Channels of each level; every level but the last halves the grid.
        layers_per_block: Residual layers a level.
        attention: Self-attention on the coarsest level.
        norm_num_groups: Groups of the group normalisation; divides every entry of block_out_channels.
        dropout: Dropout within residual layers.
        conditional: Condition on class, pT and mass.
        totals: Condition on hits and energy of each channel, or ring of one, too; sampling draws them first, from
            training jets.
        gradient_checkpointing: Recompute activations in the backward pass, to save memory.
    """

    network: Literal[
        "unet2d", "deepfalcon_cnn", "deepfalcon_unet", "quantum_filter", "quantum_hybrid", "quantum_cnn"
    ] = "unet2d"
    preset: Literal["tiny", "small", "base"] = "tiny"
    block_out_channels: list[int] | None = None
    layers_per_block: int | None = None
    attention: bool | None = None
    norm_num_groups: int = 16
    dropout: float = 0.0
    conditional: bool = True
    totals: bool = False
    gradient_checkpointing: bool = False


@dataclass
class RepresentationSettings:
    """How energies become x.

    Attributes:
        name: TowerPatches or PixelGrid; or, lossy, ChannelMaxGrid (32x32) or ImageRangeGrid (64x64), which have no
            further settings; or JetAmplitudeEncoder, quantum states, see `quantum`.
        gap: Distance between zero and the smallest fitted hit, in units of the fitted hits' log range.
        pool: PixelGrid only: crystals along each side of a summed cell, a divisor of 128, or 5 for towers.
        ring_edges: TowerPatches and PixelGrid, with unet.totals: distances from the image's centre (radians) at which
            rings end, whose hits and energies are each a condition; [] for those of whole channels.
        value_map: TowerPatches and PixelGrid: the fitted energies are spread over x by their logarithm, by their fourth
            root, or evenly by quantiles; the last does not let energies be held, weighed and shown to the network.
        fit_jets: Training jets the value map is fitted on, at most.
    """

    name: Literal["TowerPatches", "PixelGrid", "ChannelMaxGrid", "ImageRangeGrid", "JetAmplitudeEncoder"] = (
        "TowerPatches"
    )
    gap: float = 1.0
    pool: int = 1
    ring_edges: list[float] = field(default_factory=list)
    value_map: Literal["log", "fourth_root", "quantile"] = "log"
    fit_jets: int = 10_000


@dataclass
class DenoiserSettings:
    """What the UNet's output means.

    Attributes:
        kind: spike_and_slab, or plain epsilon, sample or v_prediction.
        prior: spike_and_slab: occupancy and weights of the group's mixture by position, occupancy and hits' mean and
            width by position, the occupancy alone by position, or one of all per channel group.
        hold_hits: spike_and_slab, with unet.totals: make the probabilities of hits add up to the number asked for.
        hold_energies: The same for the energies of hits.
        hold_ratio: Noise level sigma/alpha up to which energies are held.
        crystal_channels: spike_and_slab: hidden channels of each layer of small convolutions at the image's own
            resolution, after the UNet; [] for none.
        components: spike_and_slab: Gaussians of a group's slab.
        fit_jets: spike_and_slab: training jets the prior and the slab are fitted on, at most.
        inputs: spike_and_slab: what the UNet sees (x_t, estimate, hit_probability, hit_value, previous, energy,
            missing_energy).
        min_variance: spike_and_slab: weight of the squared error is 1 / max(sigma^2, min_variance).
        snr_gamma: plain: min-SNR weighting of the loss if positive.
    """

    kind: Literal["spike_and_slab", "epsilon", "sample", "v_prediction"] = "spike_and_slab"
    prior: Literal["mixture", "position", "occupancy", "group"] = "position"
    hold_hits: bool = True
    hold_energies: bool = True
    hold_ratio: float = 0.5
    crystal_channels: list[int] = field(default_factory=list)
    components: int = 1
    fit_jets: int = 50_000
    inputs: list[str] = field(default_factory=lambda: ["x_t", "estimate"])
    min_variance: float = 0.05
    snr_gamma: float = 0.0


@dataclass
class NoiseSettings:
    """The training noise schedule.

    Attributes:
        num_train_timesteps: T.
        beta_schedule, beta_start, beta_end, rescale_betas_zero_snr: As in diffusers' DDPMScheduler.
        allow_signal_at_T: Train even if alpha-bar at T is 1e-3 or more, so that sampling starts from what training
            never saw.
        min_ratio: Noise levels below this sigma/alpha are not trained on.
        timestep_power: Timesteps are trained on as u^timestep_power of the way to T for u uniform: above 1, lower noise
            more often.
    """

    num_train_timesteps: int = 1000
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    rescale_betas_zero_snr: bool = False
    allow_signal_at_T: bool = False  # noqa: N815
    min_ratio: float = 0.0
    timestep_power: float = 1.0


@dataclass
class SamplingSettings:
    """How the model samples unless a call says otherwise; saved with it.

    Attributes:
        scheduler: A name of `SCHEDULERS` (posterior: spike_and_slab only), or quantum for quantum states.
        steps: Solver steps.
        step_power: Timesteps fall as (1 - i / steps)^step_power, where the scheduler lets us choose them: above 1 they
            lie closer at low noise; 1 spreads them as the scheduler does.
    """

    scheduler: Literal["posterior", "ddpm", "ddpm-large", "ddim", "dpm++", "sde-dpm++", "unipc", "euler", "quantum"] = (
        "sde-dpm++"
    )
    steps: int = 25
    step_power: float = 1.35


@dataclass
class OptimizerSettings:
    """The optimiser and what surrounds it.

    Attributes:
        name: adamw; or muon, for unet2d: Muon for the network's inner layers, AdamW for the rest, both at
            learning_rate (after 10,240 jets 5e-3 was the best of three).
        beta1, beta2, epsilon: AdamW's.
        weight_decay: Of both; without it AdamW is Adam.
        lr_schedule: constant_with_warmup (0 warm-up steps: constant) or cosine, by diffusers.
        max_grad_norm: Gradients are clipped to this norm; 0 clips nothing.
        fused: Use the fused implementation.
        balance: Average the loss over all pixels ("pixel") or over the three channel groups ("group").
        group_weights: Weight of each channel group's pixels (tracks, ECAL, HCAL) beside that; [] for equal ones.
        loss: Squared ("l2") or absolute ("l1") error; minus log-likelihood of the hits and their values ("likelihood",
            spike_and_slab only); or, for quantum states, 1 - fidelity ("infidelity").
        energy_weight: likelihood: additional weight of a hit's value, times its estimated energy over the mean hit's.
        condition_drop: Probability of hiding a jet's conditions, for classifier-free guidance.
    """

    name: Literal["adamw", "muon"] = "adamw"
    beta1: float = 0.9
    beta2: float = 0.99
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    lr_schedule: Literal["constant_with_warmup", "cosine"] = "cosine"
    max_grad_norm: float = 1.0
    fused: bool = True
    balance: Literal["pixel", "group"] = "pixel"
    group_weights: list[float] = field(default_factory=list)
    loss: Literal["l2", "l1", "likelihood", "infidelity"] = "l2"
    energy_weight: float = 0.0
    condition_drop: float = 0.0


@dataclass
class TrainSettings:
    """A training run.

    Attributes:
        data: Folder made by `jet-diffusion convert`, or a dataset on the Hub.
        run_dir: The run's folder; the same command goes on where it stopped.
        max_steps: Optimiser steps in all.
        batch_size: Jets a step, over all processes together.
        accumulation: Micro-batches each process splits its part of a step into.
        learning_rate: Peak learning rate.
        warmup_steps: Steps of linear warm-up.
        ema_decay: Decay of the averaged weights that samples, validation and the published model use; 0 uses the
            weights as they are.
        precision: "no" (float32) or "bf16", by accelerate; "auto" for bf16 where the device has instructions for it.
        memory_format: contiguous or channels_last.
        compile: Compile the UNet with torch.compile.
        seed: Seeds weights, data order, noise and timesteps.
        max_jets: Train on the first so many jets of the training split.
        num_workers: Loader processes that decode, encode and draw noise.
        checkpoint_every, keep_checkpoints: Steps between checkpoints, and how many of the last are kept.
        validate_every, validation_jets: Steps between validations (0: every epoch), and jets in them.
        sample_every, sample_jets: Steps between pictures of sampled jets (0: none until the end), and jets in them.
        log_every: Steps between log lines.
        trackers: accelerate's trackers by name (tensorboard, wandb, trackio).
        expect_processes: Refuse to run with any other number of processes.
        process_timeout: Seconds a process waits for the others before it ends with an error.
        init_from: A run or published model whose weights to start from.
        cpu: Stay on the CPU even if there is a GPU.
        dry_run: Say what would run, and stop.
    """

    data: str
    run_dir: str
    max_steps: int = 10_000
    batch_size: int = 64
    accumulation: int = 1
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    ema_decay: float = 0.999
    precision: Literal["auto", "no", "bf16"] = "auto"
    memory_format: Literal["contiguous", "channels_last"] = "contiguous"
    compile: bool = False
    seed: int = 0
    max_jets: int | None = None
    num_workers: int = 1
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    validate_every: int = 0
    validation_jets: int = 256
    sample_every: int = 0
    sample_jets: int = 64
    log_every: int = 20
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])
    expect_processes: int | None = None
    process_timeout: float = 600.0
    init_from: str | None = None
    cpu: bool = False
    dry_run: bool = False
    unet: UNetSettings = field(default_factory=UNetSettings)
    representation: RepresentationSettings = field(default_factory=RepresentationSettings)
    denoiser: DenoiserSettings = field(default_factory=DenoiserSettings)
    noise: NoiseSettings = field(default_factory=NoiseSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    quantum: QuantumSettings = field(default_factory=QuantumSettings)


RESUMABLE = ("max_steps", "checkpoint_every", "keep_checkpoints", "validate_every", "sample_every", "sample_jets",
             "log_every", "trackers", "num_workers", "cpu", "dry_run", "expect_processes", "process_timeout", "compile",
             "precision", "memory_format", "init_from", "accumulation", "run_dir", "data")  # fmt: skip
"""Options that may differ when a run goes on; any other change would make it another run."""


LEAST = {"max_steps": 1, "accumulation": 1, "checkpoint_every": 1, "keep_checkpoints": 1, "log_every": 1,
         "validation_jets": 1, "sample_jets": 1, "max_jets": 1, "validate_every": 0, "sample_every": 0,
         "num_workers": 0, "warmup_steps": 0, "seed": 0, "process_timeout": 1}  # fmt: skip
"""Smallest accepted value of an option."""


def parse_settings(argv: list[str] | None = None) -> TrainSettings:
    """Settings from `--config FILE` and `--any.option value`, later ones winning."""
    arguments = sys.argv[1:] if argv is None else argv
    parser = settings_parser()
    namespace = parser.instantiate(parser.parse_args([_underscored(argument) for argument in arguments]))
    return TrainSettings(**{name: value for name, value in vars(namespace).items() if name != "config"})


def _underscored(argument: str) -> str:
    """Options may be written with dashes; `--dry-run` needs no value."""
    if argument == "--dry-run":
        return "--dry_run=true"
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument[2:].partition("=")
    return "--" + name.replace("-", "_") + equals + value


def settings_parser() -> ArgumentParser:
    """The parser of a training run's options."""
    parser = ArgumentParser(prog="jet-diffusion train", description="Train a diffusion model of jet images.")
    parser.add_argument("--config", action="config", help="a YAML file of the options below")
    parser.add_class_arguments(TrainSettings)
    return parser


def check_settings(settings: TrainSettings, processes: int) -> None:
    """Refuse settings that contradict each other, before any work.

    Raises:
        ValueError: Saying which, what was seen and what is accepted.
    """
    share = processes * settings.accumulation
    if settings.batch_size < 1 or settings.batch_size % share:
        raise ValueError(
            f"batch_size {settings.batch_size} (jets a step over all processes) must be a multiple of "
            f"processes x accumulation = {processes} x {settings.accumulation}"
        )
    for name, least in LEAST.items():
        value = getattr(settings, name)
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if not settings.learning_rate > 0:
        raise ValueError(f"learning_rate must be positive, got {settings.learning_rate}")
    if not 0 <= settings.ema_decay < 1:
        raise ValueError(f"ema_decay must lie in [0, 1), got {settings.ema_decay}")
    if settings.sampling.steps < 1 or settings.sampling.steps > settings.noise.num_train_timesteps:
        raise ValueError(
            f"sampling.steps must lie in 1 to {settings.noise.num_train_timesteps} (noise.num_train_timesteps), "
            f"got {settings.sampling.steps}"
        )
    if settings.optimizer.name == "muon" and settings.unet.network != "unet2d":
        raise ValueError(f"optimizer.name muon is for unet.network unet2d, not for {settings.unet.network}")
    check_fitted(settings)
    check_optimizer(settings.optimizer)


def check_fitted(settings: TrainSettings) -> None:
    """Refuse settings of the representation and the denoiser that mean nothing.

    Raises:
        ValueError: Saying which, what was seen and what is accepted.
    """
    for name, part in (("representation", settings.representation), ("denoiser", settings.denoiser)):
        if part.fit_jets < 1:
            raise ValueError(f"{name}.fit_jets must be at least 1, got {part.fit_jets}")
    if not 0 <= settings.denoiser.hold_ratio < math.inf:
        raise ValueError(f"denoiser.hold_ratio must be finite and not negative, got {settings.denoiser.hold_ratio}")
    if settings.representation.ring_edges and not settings.unet.totals:
        raise ValueError("representation.ring_edges divide totals, and unet.totals is false")
    representation, value_map = settings.representation.name, settings.representation.value_map
    if value_map != "log" and representation not in NATIVE_REPRESENTATIONS:
        accepted = " and ".join(NATIVE_REPRESENTATIONS)
        raise ValueError(f"representation.value_map {value_map} is of {accepted}, not of {representation}")
    if value_map == "quantile":
        asked = {
            "denoiser.hold_energies: true": settings.unet.totals and settings.denoiser.hold_energies,
            "denoiser.inputs energy or missing_energy": {"energy", "missing_energy"} & set(settings.denoiser.inputs),
            "optimizer.energy_weight above 0": settings.optimizer.energy_weight,
        }
        if wrong := [name for name, is_asked in asked.items() if is_asked]:
            raise ValueError(
                f"{', '.join(wrong)}: energies of hits are known while denoising with representation.value_map log "
                f"or fourth_root, not with {value_map}"
            )


def check_optimizer(settings: OptimizerSettings) -> None:
    """Refuse settings of the optimiser and the loss that mean nothing.

    Raises:
        ValueError: Saying which, what was seen and what is accepted.
    """
    if not 0 <= settings.condition_drop < 1:
        raise ValueError(f"optimizer.condition_drop must lie in [0, 1), got {settings.condition_drop}")
    if not 0 <= settings.energy_weight < math.inf:
        raise ValueError(f"optimizer.energy_weight must be finite and not negative, got {settings.energy_weight}")
    if settings.energy_weight and settings.loss != "likelihood":
        raise ValueError(f"optimizer.energy_weight counts in the loss likelihood alone, not in {settings.loss}")
    weights = settings.group_weights
    if weights and (len(weights) != len(CHANNELS) or not all(0 < weight < math.inf for weight in weights)):
        raise ValueError(f"optimizer.group_weights must be {len(CHANNELS)} positive numbers or [], got {weights}")
    if weights and settings.loss == "infidelity":
        raise ValueError("optimizer.group_weights do not count in the loss infidelity, which is of whole images")


def changed_settings(old: dict[str, Any], settings: TrainSettings) -> list[str]:
    """Options, dotted, in which a run about to go on differs from the one begun, other than the resumable ones.

    An option that did not exist when the run was begun had its default.
    """
    defaults = TrainSettings(data=settings.data, run_dir=settings.run_dir)
    before, after = flatten(asdict(defaults)) | flatten(old), flatten(asdict(settings))
    return [key for key in after if before[key] != after[key] and key not in RESUMABLE]


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dictionary as one of dotted names."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
