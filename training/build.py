"""From settings to the objects of a run: pipeline, trained module, noise-schedule check."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DModel
from numpy.typing import NDArray
from torch import nn
from tqdm.auto import tqdm

from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.errors import UserError
from jet_diffusion.hub import LOADABLE, training_scheduler
from jet_diffusion.pipelines.conditioner import Conditioner
from jet_diffusion.pipelines.denoiser import Denoiser, DenoiserOutput, PlainDenoiser
from jet_diffusion.pipelines.first_stage import Conditions
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.pipelines.notebook_baselines import BASELINES, BaselineNetwork
from jet_diffusion.pipelines.representation import Hits, Representation
from jet_diffusion.pipelines.schedulers import make_scheduler
from jet_diffusion.pipelines.spike_and_slab import SpikeAndSlabDenoiser
from jet_diffusion.pipelines.tower_representations import HitValueMap
from jet_diffusion.training.batches import Positions, SparseBatch
from jet_diffusion.training.first_stage import fit_first_stage
from jet_diffusion.training.fit import fit_conditioner, fit_representation, fit_spike_and_slab
from jet_diffusion.training.quantum import build_quantum_pipeline
from jet_diffusion.training.settings import PRESETS, NoiseSettings, TrainSettings, UNetSettings

SIGNAL_LIMIT = 1e-3
"""Largest alpha-bar at T that counts as no signal left."""

MIN_RATIO = 0.02
"""Noise level sigma/alpha below which a spike and slab is not trained: there every pixel is known."""

REPRESENTATION_JETS, PRIOR_JETS = 10_000, 50_000
"""Training jets, at most, that the representation and the one-pixel prior are fitted on."""

FIT_BATCH = 256
"""Jets that are fitted on at once."""

NORM_GROUPS = 16
"""Groups of the group normalisation, or as many as divide every width into two channels or more."""

STEP_POWER = 1.35
"""Timesteps of a spike and slab's sampling fall as (1 - i / steps)^STEP_POWER: closer at low noise."""


class TrainedModule(nn.Module):
    """All that is trained, as one module that wraps for several processes: embedding and UNet behind the denoiser.

    Args:
        pipeline: Whose components to train.
    """

    def __init__(self, pipeline: JetImagePipeline) -> None:
        super().__init__()
        self.unet, self.conditioner, self.denoiser = pipeline.unet, pipeline.conditioner, pipeline.denoiser

    def forward(
        self,
        x_t: torch.Tensor,
        timesteps: torch.Tensor,
        labels: torch.Tensor,
        pt: torch.Tensor,
        m0: torch.Tensor,
        ring_sums: torch.Tensor,
        dropped: torch.Tensor,
    ) -> DenoiserOutput:
        """The denoiser's output for noisy jets x_t (N, C, H, W) and their conditions."""
        embedding = None if self.conditioner is None else self.conditioner(labels, pt, m0, ring_sums, dropped)
        known = ring_sums.masked_fill(dropped[:, None], torch.nan) if ring_sums.shape[1] else None
        return self.denoiser(self.unet, x_t, timesteps, embedding, known)


def build_pipeline(
    settings: TrainSettings, jets: JetDataset, *, train_first_stage: bool = True, progress: bool = False
) -> JetImagePipeline:
    """The pipeline before the first step: everything fitted on training jets, weights by the seed.

    Args:
        settings: Of the run.
        jets: Training jets.
        train_first_stage: Whether to train the first stage, which takes a minute.
        progress: Whether to show bars.

    Raises:
        UserError: If the noise schedule leaves signal at T, or the jets do not fit the representation.
    """
    noise = noise_schedule(settings.noise)
    scheduler = training_scheduler(noise)
    check_signal_at_end(scheduler.alphas_cumprod, settings.noise.allow_signal_at_T)
    if settings.representation.name == "JetAmplitudeEncoder":
        batches = energy_batches(jets, REPRESENTATION_JETS)
        return build_quantum_pipeline(settings, jets, noise, batches, train_first_stage=train_first_stage)
    if "quantum" in (settings.unet.network.split("_")[0], settings.sampling.scheduler):
        raise UserError("quantum networks and schedulers need representation.name: JetAmplitudeEncoder")
    representation = build_representation(settings, jets)
    torch.manual_seed(settings.seed)
    denoiser = build_denoiser(settings, jets, representation, noise)
    unet = build_network(settings, denoiser.unet_channels(), representation.shape[1:])
    if isinstance(denoiser, SpikeAndSlabDenoiser):
        for parameter in unet.conv_out.parameters():
            nn.init.zeros_(parameter)
    conditioner = first_stage = None
    if settings.unet.conditioning != "none":
        labels, pt, m0 = (torch.tensor(column) for column in (jets.labels, jets.pt, jets.m0))
        ring_sums = all_ring_sums(jets, representation, progress) if settings.unet.conditioning == "rings" else None
        width = 4 * unet.config.block_out_channels[0]
        conditioner = fit_conditioner(Conditioner, labels, pt, m0, ring_sums, embedding_dim=width)
        conditions = Conditions(labels, pt, m0, torch.zeros(len(labels), 0) if ring_sums is None else ring_sums)
        first_stage = fit_first_stage(conditions, settings.seed, train=train_first_stage, progress=progress)
    pipeline = JetImagePipeline(
        unet=unet,
        scheduler=make_scheduler(settings.sampling.scheduler, scheduler.config),
        representation=representation,
        denoiser=denoiser,
        conditioner=conditioner,
        first_stage=first_stage,
        provenance=jets.simulated or "",
        step_power=STEP_POWER if isinstance(denoiser, SpikeAndSlabDenoiser) else 1.0,
        default_steps=settings.sampling.steps,
    )
    pipeline.check_scheduler()
    return pipeline


def noise_schedule(settings: NoiseSettings) -> dict[str, Any]:
    """The part of the settings that diffusers' schedulers take."""
    names = ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end")
    return {name: getattr(settings, name) for name in names}


def check_signal_at_end(alphas_cumprod: torch.Tensor, allow: bool) -> None:
    """Refuse a noise schedule at whose end jets can still be seen, for sampling starts from pure noise.

    Raises:
        UserError: With the signal's amplitude that is left, unless allowed.
    """
    left = alphas_cumprod[-1].item()
    if left >= SIGNAL_LIMIT and not allow:
        raise UserError(
            f"at T = {len(alphas_cumprod)} the noise schedule leaves {left**0.5:.4g} of the signal's amplitude "
            f"(alpha-bar {left:.3g}, accepted below {SIGNAL_LIMIT:g}): sampling would start from noise that training "
            "never saw. Raise beta_end or T, or set noise.allow_signal_at_T: true"
        )


def build_representation(settings: TrainSettings, jets: JetDataset) -> Representation:
    """Fit the representation on the first training jets.

    Raises:
        UserError: If the representation needs HCAL towers that the dataset does not have.
    """
    chosen: type[Representation] = LOADABLE["representation"][settings.representation.name]
    check_towers(settings, jets)
    arguments: dict[str, Any] = {}
    if issubclass(chosen, HitValueMap):
        with_rings = settings.unet.conditioning == "rings"
        arguments["ring_edges"] = tuple(settings.representation.ring_edges) if with_rings else ()
    return fit_representation(chosen, energy_batches(jets, REPRESENTATION_JETS), **arguments)


def check_towers(settings: TrainSettings, jets: JetDataset) -> None:
    """Refuse jets without HCAL towers for a representation that needs them.

    Raises:
        UserError: Naming one that does not.
    """
    chosen: type[Representation] = LOADABLE["representation"][settings.representation.name]
    if chosen.needs_hcal_towers and not jets.all_hcal_in_towers:
        raise UserError(
            f"{chosen.__name__} needs HCAL to be constant in 5x5 towers, which it is not in every jet of this "
            "dataset; set representation.name: PixelGrid"
        )


def build_denoiser(
    settings: TrainSettings, jets: JetDataset, representation: Representation, noise: dict[str, Any]
) -> Denoiser:
    """Fit spike and slab, or set up the plain denoiser.

    Raises:
        UserError: If spike and slab is asked of a representation in which zeros do not stand apart.
    """
    chosen = settings.denoiser
    if chosen.kind != "spike_and_slab":
        return PlainDenoiser(representation.shape[0], noise, prediction=chosen.kind)
    if not isinstance(representation, HitValueMap):
        raise UserError(
            f"denoiser.kind spike_and_slab needs zeros that stand apart from hits, which they do not in "
            f"{type(representation).__name__}; set denoiser.kind: epsilon, sample or v_prediction"
        )
    return build_spike_and_slab(settings, jets, representation, noise)


def fit_marginal(settings: TrainSettings, jets: JetDataset, pipeline: JetImagePipeline) -> SpikeAndSlabDenoiser | None:
    """What a plain denoiser's loss is compared with: the one-pixel denoiser, where zeros stand apart from hits."""
    if isinstance(pipeline.denoiser, SpikeAndSlabDenoiser) or not isinstance(pipeline.representation, HitValueMap):
        return None
    return build_spike_and_slab(settings, jets, pipeline.representation, noise_schedule(settings.noise))


def build_spike_and_slab(
    settings: TrainSettings, jets: JetDataset, representation: HitValueMap, noise: dict[str, Any]
) -> SpikeAndSlabDenoiser:
    """Fit spike and slab on training jets, of which it has far more numbers to learn than the representation."""
    chosen = settings.denoiser
    return fit_spike_and_slab(
        (representation.encode_hits(hits) for hits in hit_batches(jets, PRIOR_JETS)),
        representation,
        noise,
        inputs=tuple(chosen.inputs),
        crystal_channels=tuple(chosen.crystal_channels),
        min_ratio=MIN_RATIO,
    )


def build_network(
    settings: TrainSettings, channels: tuple[int, int], grid: tuple[int, int]
) -> UNet2DModel | BaselineNetwork:
    """The network of the settings.

    Raises:
        UserError: If the grid does not suit it, or a baseline is given settings it does not have.
    """
    options = settings.unet
    if options.network == "unet2d":
        return build_unet(options, channels, grid)
    foreign = [f"unet.{name}" for name in ("dropout", "gradient_checkpointing") if getattr(options, name)]
    if foreign:
        raise UserError(f"{options.network} has no {', '.join(foreign)}; leave it out")
    arguments: dict[str, Any] = {"in_channels": channels[0], "out_channels": channels[1]}
    if options.block_out_channels:
        arguments["block_out_channels"] = tuple(options.block_out_channels)
    if options.network == "deepfalcon_cnn":
        arguments["num_train_timesteps"] = settings.noise.num_train_timesteps
    network: BaselineNetwork = BASELINES[options.network](**arguments)
    halvings = len(network.config.block_out_channels) - 1
    if any(side % 2**halvings for side in grid):
        raise UserError(f"a grid of {grid[0]}x{grid[1]} cannot be halved {halvings} times by {options.network}")
    return network


def build_unet(settings: UNetSettings, channels: tuple[int, int], grid: tuple[int, int]) -> UNet2DModel:
    """A UNet2DModel of the preset, with whatever the settings override.

    Raises:
        UserError: If the grid cannot be halved often enough.
    """
    preset = PRESETS[settings.preset]
    widths = tuple(settings.block_out_channels or preset["block_out_channels"])
    attention = preset.get("attention", False)
    halvings = 2 ** (len(widths) - 1)
    if any(side % halvings for side in grid):
        raise UserError(f"a grid of {grid[0]}x{grid[1]} cannot be halved {len(widths) - 1} times; use fewer levels")
    plain_levels = len(widths) - 1
    unet = UNet2DModel(
        sample_size=grid,
        in_channels=channels[0],
        out_channels=channels[1],
        block_out_channels=widths,
        layers_per_block=1,
        down_block_types=(*["DownBlock2D"] * plain_levels, "AttnDownBlock2D" if attention else "DownBlock2D"),
        up_block_types=("AttnUpBlock2D" if attention else "UpBlock2D", *["UpBlock2D"] * plain_levels),
        norm_num_groups=norm_groups(widths),
        dropout=settings.dropout,
        add_attention=attention,
        class_embed_type=None if settings.conditioning == "none" else "identity",
    )
    return unet


def norm_groups(widths: tuple[int, ...]) -> int:
    """Groups of the group normalisation: a group of one channel would lose what timestep and conditions add to it."""
    groups = math.gcd(NORM_GROUPS, *widths)
    return groups // 2 if groups in widths and groups > 1 else groups


def energy_batches(jets: JetDataset, count: int) -> Iterator[torch.Tensor]:
    """Energies of jets spread evenly over the split."""
    for rows in parts_of(jets.spread(count)):
        yield torch.from_numpy(jets.energies(rows))


def hit_batches(jets: JetDataset, count: int) -> Iterator[Hits]:
    """The hits of jets spread evenly over the split."""
    for rows in parts_of(jets.spread(count)):
        yield SparseBatch.pack(Positions(0, rows, rows), jets).hits()


def parts_of(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Rows in parts of at most FIT_BATCH."""
    return [rows[start : start + FIT_BATCH] for start in range(0, len(rows), FIT_BATCH)]


def all_ring_sums(jets: JetDataset, representation: Representation, progress: bool = False) -> torch.Tensor:
    """(N, 2 rings) hit counts and energies (GeV) of the rings of every jet of the split.

    Args:
        jets: The split.
        representation: Knows the rings.
        progress: Whether to show a bar.

    Raises:
        UserError: If hits mean nothing in the representation.
    """
    if not isinstance(representation, HitValueMap):
        raise UserError(f"{type(representation).__name__} has no hits to count in rings; set unet.conditioning: jet")
    batches = hit_batches(jets, len(jets))
    bar = tqdm(batches, "ring sums", math.ceil(len(jets) / FIT_BATCH), leave=False, disable=not progress)
    return torch.cat([representation.ring_sums_of_hits(hits) for hits in bar])


def count_parameters(pipeline: JetImagePipeline) -> dict[str, int]:
    """Trained parameters of each component that has some."""
    parts = {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
    counts = {name: sum(parameter.numel() for parameter in part.parameters()) for name, part in parts.items()}
    return {name: count for name, count in counts.items() if count}


def settings_as_dict(settings: TrainSettings) -> dict[str, Any]:
    """Settings for config.yaml, without what is no part of the run."""
    return {name: value for name, value in asdict(settings).items() if name != "dry_run"}
