"""A batched state-vector simulator: ry, rz and controlled-Z on psi (B, 2^n), differentiable, on any device.

The n single-qubit gates of a layer are one Kronecker product. Split in two halves it is a pair of matrices of side
2^(n/2), and psi, seen as a (2^(n/2), 2^(n/2)) matrix, becomes A psi B^T: two small matrix products a layer instead of
2 n sweeps over the state. A ring of controlled-Z gates is diagonal: a vector of signs. Qubit 0 is the most significant
bit of the index, as in PennyLane.
"""

from __future__ import annotations

from itertools import combinations

import torch


def ry(angle: torch.Tensor) -> torch.Tensor:
    """exp(-i angle Y / 2), (..., 2, 2) complex."""
    cosine, sine = torch.cos(angle / 2), torch.sin(angle / 2)
    rows = [torch.stack([cosine, -sine], -1), torch.stack([sine, cosine], -1)]
    return torch.stack(rows, -2).to(_complex(angle))


def rx(angle: torch.Tensor) -> torch.Tensor:
    """exp(-i angle X / 2), (..., 2, 2) complex."""
    cosine, sine = torch.cos(angle / 2).to(_complex(angle)), -1j * torch.sin(angle / 2)
    return torch.stack([torch.stack([cosine, sine], -1), torch.stack([sine, cosine], -1)], -2)


def rz(angle: torch.Tensor) -> torch.Tensor:
    """exp(-i angle Z / 2), (..., 2, 2) complex."""
    return torch.diag_embed(torch.polar(torch.ones_like(angle)[..., None], _half_turns(angle)))


def layer_gates(angles: torch.Tensor) -> torch.Tensor:
    """RZ(angles[..., 1]) RY(angles[..., 0]) of each qubit: (..., n, 2) real to (..., n, 2, 2) complex."""
    phase = torch.polar(torch.ones_like(angles[..., :1]), _half_turns(angles[..., 1]))
    return phase[..., None] * ry(angles[..., 0])


def kronecker(gates: torch.Tensor) -> torch.Tensor:
    """Tensor product of gates (..., n, 2, 2), the first qubit outermost: (..., 2^n, 2^n)."""
    product = gates[..., 0, :, :]
    for qubit in range(1, gates.shape[-3]):
        side = 2 * product.shape[-1]
        pairs = product[..., :, None, :, None] * gates[..., qubit, None, :, None, :]
        product = pairs.reshape(*gates.shape[:-3], side, side)
    return product


def apply_gates(psi: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
    """One gate on every qubit of each state.

    Args:
        psi: (B, 2^n) complex.
        gates: (n, 2, 2) for all states, or (B, n, 2, 2).

    Raises:
        ValueError: If the number of gates is not that of the state's qubits.
    """
    qubits = gates.shape[-3]
    if psi.shape[-1] != 2**qubits:
        raise ValueError(f"{qubits} gates act on states of {2**qubits} amplitudes, got {psi.shape[-1]}")
    if qubits == 1:
        return torch.einsum("...ij,bj->bi" if gates.ndim == 3 else "bij,bj->bi", gates.squeeze(-3), psi)
    rows = qubits // 2
    left, right = kronecker(gates[..., :rows, :, :]), kronecker(gates[..., rows:, :, :])
    matrix = psi.reshape(-1, 2**rows, 2 ** (qubits - rows))
    return (left @ matrix @ right.transpose(-1, -2)).flatten(1)


def apply_layer(psi: torch.Tensor, angles: torch.Tensor, sign: torch.Tensor | None = None) -> torch.Tensor:
    """One layer of the ansatz: ry and rz on each qubit, then controlled-Z gates.

    Args:
        psi: (B, 2^n) complex.
        angles: (n, 2) for all states, or (B, n, 2): of ry, then of rz.
        sign: (2^n,) from `cz_ring`; None for no entanglers.
    """
    rotated = apply_gates(psi, layer_gates(angles))
    return rotated if sign is None else rotated * sign


def run_circuit(psi: torch.Tensor, angles: torch.Tensor, sign: torch.Tensor | None = None) -> torch.Tensor:
    """Layers one after another: angles (L, n, 2)."""
    for layer in angles:
        psi = apply_layer(psi, layer, sign)
    return psi


def cz_signs(qubits: int, pairs: list[tuple[int, int]]) -> torch.Tensor:
    """(2^n,) +-1: controlled-Z on each pair of qubits."""
    bits = basis_bits(qubits)
    sign = torch.ones(2**qubits)
    for first, second in pairs:
        sign = sign * (1 - 2 * bits[:, first] * bits[:, second])
    return sign


def cz_ring(qubits: int) -> torch.Tensor:
    """(2^n,) signs of controlled-Z between neighbours in a ring; two qubits have one such gate, one has none."""
    return cz_signs(qubits, ring_pairs(qubits))


def ring_pairs(qubits: int) -> list[tuple[int, int]]:
    """The neighbours in a ring, each pair once."""
    return [(qubit, (qubit + 1) % qubits) for qubit in range(qubits if qubits > 2 else qubits - 1)]


def num_qubits(psi: torch.Tensor) -> int:
    """Qubits of states (B, 2^n) or density matrices (B, 2^n, 2^n)."""
    return psi.shape[-1].bit_length() - 1


def basis_bits(qubits: int) -> torch.Tensor:
    """(2^n, n) float: the bits of each index, the first qubit's first."""
    index = torch.arange(2**qubits)
    return ((index[:, None] >> torch.arange(qubits - 1, -1, -1)) & 1).float()


def walsh_functions(qubits: int, order: int) -> tuple[torch.Tensor, list[tuple[int, ...]]]:
    """(S, 2^n) values +-1 of the products of Z over each set of at most `order` qubits, and the sets."""
    subsets = [subset for size in range(order + 1) for subset in combinations(range(qubits), size)]
    spins = 1 - 2 * basis_bits(qubits)
    return torch.stack([spins[:, list(subset)].prod(1) for subset in subsets]), subsets


def _complex(angle: torch.Tensor) -> torch.dtype:
    return torch.complex128 if angle.dtype == torch.float64 else torch.complex64


def _half_turns(angle: torch.Tensor) -> torch.Tensor:
    """(..., 2) phases -angle/2 and angle/2 of |0> and |1>."""
    return torch.stack([-angle / 2, angle / 2], -1)
