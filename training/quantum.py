"""From settings to the pipeline of a run on quantum states."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from diffusers import ModelMixin

from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.errors import UserError
from jet_diffusion.pipelines.first_stage import Conditions
from jet_diffusion.pipelines.schedulers import make_scheduler
from jet_diffusion.quantum.class_conditioning import ClassConditioner
from jet_diffusion.quantum.encoding import JetAmplitudeEncoder
from jet_diffusion.quantum.filter_denoiser import QuantumFilterDenoiser
from jet_diffusion.quantum.hybrid_unet import AmplitudeCNN, HybridUNet2DModel
from jet_diffusion.quantum.pipeline import QuantumJetPipeline
from jet_diffusion.quantum.scheduler import QuantumChannelScheduler
from jet_diffusion.quantum.state_denoiser import StateDenoiser
from jet_diffusion.training.first_stage import fit_first_stage
from jet_diffusion.training.fit import fit_conditioner
from jet_diffusion.training.settings import TrainSettings

CNN_WIDTH, HYBRID_WIDTH = 9, 16
"""Channels of quantum_cnn and of quantum_hybrid."""

HYBRID_LAYERS = 8
"""Entangling layers of the circuit in the bottleneck of quantum_hybrid."""

NETWORKS = ("quantum_filter", "quantum_hybrid", "quantum_cnn")


def build_quantum_pipeline(
    settings: TrainSettings,
    jets: JetDataset,
    noise: dict[str, Any],
    batches: Iterator[torch.Tensor],
    *,
    train_first_stage: bool = True,
) -> QuantumJetPipeline:
    """The pipeline before the first step; the filter starts from the training jets' mean images.

    Args:
        settings: Of the run.
        jets: The training split.
        noise: Configuration of the noise schedule.
        batches: Energies of jets to fit the encoder on.
        train_first_stage: Whether to train the first stage.

    Raises:
        UserError: If the settings do not go together, or the scheduler does not suit.
    """
    check_quantum_settings(settings)
    options = settings.quantum
    names = ("layout", "channels")
    encoder = JetAmplitudeEncoder.fit(batches, **{name: getattr(options, name) for name in names})
    ring_sums, images = ring_sums_and_mean_images(jets, encoder)
    torch.manual_seed(settings.seed)
    network = build_network(settings, encoder, noise)
    if isinstance(network, QuantumFilterDenoiser):
        network.initialise(images)
    conditioner = first_stage = None
    if settings.unet.conditioning != "none":
        labels, pt, m0 = (torch.tensor(column) for column in (jets.labels, jets.pt, jets.m0))
        conditioner = fit_conditioner(ClassConditioner, labels, pt, m0, ring_sums, embedding_dim=1)
        first_stage = fit_first_stage(Conditions(labels, pt, m0, ring_sums), settings.seed, train=train_first_stage)
    # The prediction type is named, or other schedulers' from_config would take their own default.
    scheduler = QuantumChannelScheduler(**noise, unravelling=options.unravelling, prediction_type="sample")
    if settings.sampling.scheduler != "quantum":
        scheduler = make_scheduler(settings.sampling.scheduler, scheduler.config)
    pipeline = QuantumJetPipeline(
        unet=network,
        scheduler=scheduler,
        representation=encoder,
        denoiser=StateDenoiser(noise_schedule=noise, unravelling=options.unravelling),
        conditioner=conditioner,
        first_stage=first_stage,
        provenance=jets.simulated or "",
        step_power=1.0,
        default_steps=settings.sampling.steps,
    )
    pipeline.check_scheduler()
    return pipeline


def check_quantum_settings(settings: TrainSettings) -> None:
    """Refuse what quantum states have no use for.

    Raises:
        UserError: Saying what was asked and what is accepted.
    """
    wanted = {
        "unet.network": (settings.unet.network, NETWORKS),
        "optimizer.loss": (settings.optimizer.loss, ("infidelity", "l2", "l1")),
        "precision": (settings.precision, ("no",)),
        "unet.conditioning": (settings.unet.conditioning, ("jet", "none")),
    }
    wrong = [f"{name} {value!r} (accepted: {ok})" for name, (value, ok) in wanted.items() if value not in ok]
    if wrong:
        raise UserError(f"representation JetAmplitudeEncoder does not go with {'; '.join(wrong)}")


def build_network(settings: TrainSettings, encoder: JetAmplitudeEncoder, noise: dict[str, Any]) -> ModelMixin:
    """The network of the settings, for the encoder's states."""
    options, classes = settings.quantum, int(settings.unet.conditioning != "none")
    if settings.unet.network == "quantum_filter":
        return QuantumFilterDenoiser(encoder.num_qubits, noise, order=options.order)
    if settings.unet.network == "quantum_cnn":
        return AmplitudeCNN(encoder.side, CNN_WIDTH, settings.noise.num_train_timesteps)
    return HybridUNet2DModel(
        encoder.side,
        HYBRID_WIDTH,
        bottleneck=options.bottleneck,
        layers=HYBRID_LAYERS,
        skip=options.skip,
        class_dim=classes,
    )


def ring_sums_and_mean_images(jets: JetDataset, encoder: JetAmplitudeEncoder) -> tuple[torch.Tensor, torch.Tensor]:
    """Counts and energies (N, 6) of all jets' channels, and the mean probabilities (2, 2^n) of gluon and quark jets.

    Raises:
        UserError: If a class has no jets.
    """
    sums, ring_sums = torch.zeros(2, 2**encoder.num_qubits), []
    for start in range(0, len(jets), 256):
        rows = slice(start, min(start + 256, len(jets)))
        energies = torch.from_numpy(jets.energies(rows))
        psi, _ = encoder.encode_states(energies)
        sums.index_add_(0, torch.tensor(jets.labels[rows]), psi.abs().square())
        ring_sums.append(encoder.ring_sums(energies))
    counts = torch.bincount(torch.tensor(jets.labels), minlength=2)
    if not (counts > 0).all():
        raise UserError(f"the filter needs jets of both classes; there are {counts.tolist()} gluon and quark jets")
    return torch.cat(ring_sums), sums / counts[:, None]
