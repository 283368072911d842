"""Model C: QuDDPM (Zhang et al., arXiv:2310.05866), quantum in and quantum out, for ensembles of states of few qubits.

Forward: a scrambling circuit of T random steps takes an ensemble of states to one that looks Haar-random. Backward: one
trained circuit a step acts on the state and n_A ancillas in |0>; the ancillas are measured and their outcome forgotten,
so that no step is unitary. Each circuit is trained, from the noisy end, to make the ensemble of its step, judged by a
distance of ensembles: nothing says which state should become which.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn
from tqdm.auto import tqdm

from jet_diffusion.errors import UserError
from jet_diffusion.quantum.channels import scramble, scramble_angles
from jet_diffusion.quantum.simulator import cz_signs, kronecker, rx, ry

MAX_QUBITS = 4


@dataclass(frozen=True)
class QuDDPMSettings:
    """An experiment.

    Attributes:
        qubits: Of the data, at most `MAX_QUBITS`.
        ancillas: Fresh ones a step.
        steps: T.
        layers: Of each step's circuit.
        first_size, last_size: Sizes of the first and last scrambling step's angles, linear between.
        batch: States of the training ensemble, and of each iteration.
        iterations: Optimiser steps for each circuit.
        learning_rate: Peak, falling as a cosine.
        seed: Of everything random.
    """

    qubits: int = 2
    ancillas: int = 1
    steps: int = 20
    layers: int = 6
    first_size: float = 1.0
    last_size: float = 4.0
    batch: int = 100
    iterations: int = 300
    learning_rate: float = 0.02
    seed: int = 0


class QuDDPM(nn.Module):
    """T circuits on n + n_A qubits: rx and ry on each qubit, then controlled-Z along the line.

    Args:
        settings: Of the experiment.

    Attributes:
        angles: (T, L, n + n_A, 2).

    Raises:
        UserError: For more qubits than are simulated here.
    """

    sign: torch.Tensor

    def __init__(self, settings: QuDDPMSettings) -> None:
        super().__init__()
        if not 1 <= settings.qubits <= MAX_QUBITS or settings.ancillas < 1:
            raise UserError(
                f"QuDDPM has 1 to {MAX_QUBITS} qubits and at least one ancilla, got {settings.qubits} and "
                f"{settings.ancillas}"
            )
        self.settings = settings
        total = settings.qubits + settings.ancillas
        generator = torch.Generator().manual_seed(settings.seed)
        shape = (settings.steps, settings.layers, total, 2)
        self.angles = nn.Parameter(torch.randn(shape, generator=generator))
        self.register_buffer("sign", cz_signs(total, [(qubit, qubit + 1) for qubit in range(total - 1)]))

    def unitary(self, angles: torch.Tensor) -> torch.Tensor:
        """(D, D) the circuit of angles (L, n + n_A, 2), ancillas first."""
        layers = self.sign[:, None] * kronecker(rx(angles[..., 0]) @ ry(angles[..., 1]))
        product = layers[0]
        for layer in layers[1:]:
            product = layer @ product
        return product

    def backward_step(
        self, psi: torch.Tensor, angles: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """States (B, 2^n) after one circuit and the measurement of its ancillas, outcomes drawn by Born's rule."""
        dimension = psi.shape[1]
        branches = (psi @ self.unitary(angles)[:, :dimension].T).unflatten(1, (-1, dimension))
        probabilities = branches.abs().square().sum(2)
        drawn = torch.multinomial(probabilities.detach(), 1, generator=generator)[:, 0]
        rows = torch.arange(len(psi), device=psi.device)
        return branches[rows, drawn] / probabilities[rows, drawn].sqrt()[:, None]

    @torch.no_grad()
    def sample(self, psi: torch.Tensor, stop: int = 0, generator: torch.Generator | None = None) -> torch.Tensor:
        """States (B, 2^n) taken from the last step down to `stop`."""
        for step in range(self.settings.steps - 1, stop - 1, -1):
            psi = self.backward_step(psi, self.angles[step], generator)
        return psi


def diffuse(psi: torch.Tensor, settings: QuDDPMSettings, generator: torch.Generator) -> list[torch.Tensor]:
    """The ensembles at steps 0 (the data) to T, each (B, 2^n)."""
    ensembles = [psi]
    for size in torch.linspace(settings.first_size, settings.last_size, settings.steps).tolist():
        angles, coupling = scramble_angles(len(psi), settings.qubits, size, generator)
        ensembles.append(scramble(ensembles[-1], angles, coupling))
    return ensembles


def train_quddpm(
    data: torch.Tensor, settings: QuDDPMSettings, progress: bool = False
) -> tuple[QuDDPM, list[dict[str, float]]]:
    """Train the circuits one after another, from the noisy end.

    Args:
        data: (N, 2^n) states; each iteration draws `settings.batch` of them.
        settings: Of the experiment.
        progress: Whether to show a bar.

    Returns:
        The model, and a row a step: `step`, `loss` (mean of the last tenth of the iterations), `baseline` (the same
        distance between two halves of the target).
    """
    generator = torch.Generator().manual_seed(settings.seed + 1)
    model = QuDDPM(settings)
    targets = diffuse(data, settings, generator)
    curve: list[dict[str, float]] = []
    for step in tqdm(range(settings.steps - 1, -1, -1), disable=not progress, unit="circuit"):
        inputs = model.sample(haar(len(data), settings.qubits, generator), step + 1, generator)
        angles = nn.Parameter(model.angles[step].detach().clone())
        losses = _train_step(model, angles, inputs, targets[step], generator)
        with torch.no_grad():
            model.angles[step] = angles
        half = len(data) // 2
        baseline = mmd(targets[step][:half], targets[step][half:]).item()
        curve.append({"step": step, "loss": float(np.mean(losses[-max(1, len(losses) // 10) :])), "baseline": baseline})
    return model, curve


def _train_step(
    model: QuDDPM, angles: nn.Parameter, inputs: torch.Tensor, target: torch.Tensor, generator: torch.Generator
) -> list[float]:
    settings = model.settings
    optimizer = torch.optim.Adam([angles], lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.iterations)
    losses = []
    for _ in range(settings.iterations):
        rows = torch.randint(len(inputs), (2, settings.batch), generator=generator)
        made = model.backward_step(inputs[rows[0]], angles, generator)
        loss = mmd(made, target[rows[1]])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def mmd(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Maximum mean discrepancy with the fidelity kernel |<psi|psi'>|^2, as the authors' (diagonals included).

    Since the kernel is linear in the density matrix of each state, this is |rho - sigma|^2 of the ensembles' averages:
    it cannot tell ensembles apart that share an average.
    """
    kernels = [(a.conj() @ b.T).abs().square().mean() for a, b in ((first, first), (second, second), (first, second))]
    return kernels[0] + kernels[1] - 2 * kernels[2]


def wasserstein(first: torch.Tensor, second: torch.Tensor) -> float:
    """Optimal transport between ensembles of one size, at a cost of 1 - fidelity."""
    cost = 1 - (first.conj() @ second.T).abs().square().detach().numpy()
    rows, columns = linear_sum_assignment(cost)
    return float(cost[rows, columns].mean())


def haar(count: int, qubits: int, generator: torch.Generator) -> torch.Tensor:
    """(count, 2^n) Haar-random states."""
    psi = torch.randn(count, 2**qubits, dtype=torch.complex64, generator=generator)
    return psi / psi.norm(dim=1, keepdim=True)


def cluster(count: int, qubits: int, scale: float, generator: torch.Generator) -> torch.Tensor:
    """(count, 2^n) states near |0...0>: the authors' first task; other amplitudes are complex Gaussians of this scale.

    The scale is of each real and imaginary part: at .06 two qubits have a mean fidelity of .979 with |00>.
    """
    parts = torch.randn(2, count, 2**qubits, generator=generator)
    psi = torch.complex(parts[0], parts[1]) * scale
    psi[:, 0] = 1
    return psi / psi.norm(dim=1, keepdim=True)


def judge_ensemble(generated: torch.Tensor, data: torch.Tensor, start: torch.Tensor) -> dict[str, float]:
    """What the authors report of a generated ensemble: fidelity with |0...0>, MMD and Wasserstein distance to data."""
    return {
        "fidelity": generated[:, 0].abs().square().mean().item(),
        "data_fidelity": data[:, 0].abs().square().mean().item(),
        "start_fidelity": start[:, 0].abs().square().mean().item(),
        "mmd": mmd(generated, data).item(),
        "start_mmd": mmd(start, data).item(),
        "wasserstein": wasserstein(generated, data),
        "start_wasserstein": wasserstein(start, data),
    }


def run_cluster(
    settings: QuDDPMSettings, scale: float, train: int = 100, test: int = 500, trained: bool = True
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """The whole experiment on states near |0...0>: results on fresh test states, and the training curve.

    Args:
        settings: Of the experiment.
        scale: Of the data, see `cluster`.
        train: Training states.
        test: Fresh states and Haar-random starts to judge with.
        trained: False leaves the circuits random, the control.
    """
    generator = torch.Generator().manual_seed(settings.seed + 1000)
    data = cluster(train, settings.qubits, scale, generator)
    model, curve = train_quddpm(data, settings) if trained else (QuDDPM(settings), [])
    start = haar(test, settings.qubits, generator)
    made = model.sample(start, generator=generator)
    return judge_ensemble(made, cluster(test, settings.qubits, scale, generator), start), curve
