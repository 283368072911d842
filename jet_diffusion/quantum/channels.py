"""Noise channels on qubits: exactly, on density matrices, and by trajectories of pure states.

Strengths: dephasing of strength s shrinks the coherences of its qubit by 1 - s; amplitude damping takes an excited
qubit to |0> with probability s; local depolarising replaces its qubit by I/2 with probability s; the global one
replaces the whole state by I/d. All compose: strengths s and s' one after another are 1 - (1 - s)(1 - s').
"""

from __future__ import annotations

import math

import torch

from .simulator import apply_gates, basis_bits, num_qubits, ry, rz

CHANNELS = ("depolarizing", "dephasing", "amplitude_damping", "scramble")
"""Forward processes of the scheduler."""

MAX_DENSITY_QUBITS = 6
"""Density matrices of more qubits are not simulated: 4^n numbers each."""

PAULIS = torch.tensor([[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])


def kraus_operators(channel: str, strength: float) -> torch.Tensor:
    """(K, 2, 2) Kraus operators of a single-qubit channel.

    Raises:
        ValueError: For another channel, or a strength outside [0, 1].
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"a channel's strength lies in [0, 1], got {strength}")
    if channel == "depolarizing":
        weights = torch.tensor([1 - 3 * strength / 4, *[strength / 4] * 3])
        return weights.sqrt()[:, None, None] * PAULIS
    if channel == "dephasing":
        weights = torch.tensor([1 - strength / 2, strength / 2])
        return weights.sqrt()[:, None, None] * PAULIS[[0, 3]]
    if channel == "amplitude_damping":
        kept, fallen = math.sqrt(1 - strength), math.sqrt(strength)
        return torch.tensor([[[1, 0], [0, kept]], [[0, fallen], [0, 0]]], dtype=torch.complex64)
    raise ValueError(f"no Kraus operators of {channel!r}; there are depolarizing, dephasing, amplitude_damping")


def kraus(rho: torch.Tensor, channel: str, strength: float) -> torch.Tensor:
    """A single-qubit channel on every qubit of density matrices (B, 2^n, 2^n).

    Raises:
        ValueError: For more than `MAX_DENSITY_QUBITS` qubits, or as `kraus_operators`.
    """
    dimension, qubits = rho.shape[-1], num_qubits(rho)
    if qubits > MAX_DENSITY_QUBITS:
        raise ValueError(f"density matrices have at most {MAX_DENSITY_QUBITS} qubits here, got {qubits}")
    operators = kraus_operators(channel, strength).to(rho.dtype)
    for qubit in range(qubits):
        shape = (-1, 2**qubit, 2, 2 ** (qubits - qubit - 1), 2**qubit, 2, 2 ** (qubits - qubit - 1))
        parts = rho.reshape(shape)
        rho = torch.einsum("kij,bajcdle,kml->baicdme", operators, parts, operators.conj())
        rho = rho.reshape(-1, dimension, dimension)
    return rho


def depolarize(rho: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    """The global depolarising channel (1 - s) rho + s I/d, on (B, d, d) with strengths (B,)."""
    mixed = torch.eye(rho.shape[-1], dtype=rho.dtype, device=rho.device) / rho.shape[-1]
    weight = strength.view(-1, 1, 1).to(rho.dtype)
    return (1 - weight) * rho + weight * mixed


def trajectory(
    psi: torch.Tensor, channel: str, strength: torch.Tensor, generator: torch.Generator | None = None
) -> torch.Tensor:
    """One random pure state each, whose average is the channel's density matrix.

    Depolarising (global): with probability s a Pauli string drawn uniformly. Dephasing: Z on each qubit with
    probability s/2. Amplitude damping: quantum jumps, qubit by qubit.

    Args:
        psi: (B, 2^n) complex.
        channel: depolarizing, dephasing or amplitude_damping.
        strength: (B,) in [0, 1].
        generator: Draws the jumps.

    Raises:
        ValueError: For another channel.
    """
    qubits = num_qubits(psi)
    draws = torch.rand(len(psi), qubits + 1, generator=generator).to(psi.device)
    if channel == "depolarizing":
        which = torch.randint(4, (len(psi), qubits), generator=generator).to(psi.device)
        jumps = (draws[:, -1] < strength)[:, None]
        return apply_gates(psi, PAULIS.to(psi)[torch.where(jumps, which, 0)])
    if channel == "dephasing":
        flips = (draws[:, :-1] < strength[:, None] / 2).float()
        return psi * (1 - 2 * ((flips @ basis_bits(qubits).to(flips).T) % 2))
    if channel != "amplitude_damping":
        raise ValueError(f"no trajectories of {channel!r}; there are depolarizing, dephasing, amplitude_damping")
    for qubit in range(qubits):
        ground, excited = psi.reshape(len(psi), 2**qubit, 2, -1).unbind(2)
        weight = excited.abs().square().sum((1, 2))
        jumps = (draws[:, qubit] < strength * weight).view(-1, 1, 1)
        dimmed = (1 - strength).sqrt().view(-1, 1, 1) * excited
        parts = [torch.where(jumps, excited, ground), torch.where(jumps, 0, dimmed)]
        psi = torch.stack(parts, 2).reshape(len(psi), -1)
        psi = psi / psi.norm(dim=1, keepdim=True)
    return psi


def scramble(psi: torch.Tensor, angles: torch.Tensor, coupling: torch.Tensor) -> torch.Tensor:
    """One step of a scrambling circuit (arXiv:2310.05866): rz, ry, rz on each qubit, then ZZ rotations of all pairs.

    Args:
        psi: (B, 2^n) complex.
        angles: (B, n, 3).
        coupling: Angle of the ZZ rotations before the division by 2 sqrt(n), one for all or (B,).
    """
    qubits = angles.shape[1]
    gates = rz(angles[..., 2]) @ ry(angles[..., 1]) @ rz(angles[..., 0])
    spins = 1 - 2 * basis_bits(qubits).to(angles)
    pairs = (spins.sum(1).square() - qubits) / 2  # sum of Z_i Z_j over pairs
    phase = coupling.reshape(-1, 1) * pairs / (2 * qubits**0.5) / 2
    return apply_gates(psi, gates) * torch.polar(torch.ones_like(phase), -phase)


def scramble_angles(
    batch: int, qubits: int, size: float, generator: torch.Generator | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random angles (B, n, 3) in +-size pi/8 and one coupling in size (.4 to .6) for all, as the authors draw them."""
    angles = (torch.rand(batch, qubits, 3, generator=generator) - 0.5) * (math.pi / 4) * size
    return angles, (torch.rand((), generator=generator) * 0.2 + 0.4) * size
