"""Muon: momentum whose matrices are made orthogonal before the step (kellerjordan.github.io/posts/muon, 2024)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration, by Jordan et al.: singular values from about 0.01 on go to 0.7 to 1.2."""

ITERATIONS = 5

MOMENTUM = 0.95

LIKE_ADAM = 0.2
"""Root mean square of a step over the learning rate, about that of AdamW (Liu et al., arXiv:2502.16982)."""


class MuonAdamW(torch.optim.AdamW):
    """Muon for the groups of parameters with `muon`, AdamW for the others, at the same learning rates.

    torch.optim.Muon takes no convolutions, whose kernels are flattened here to (outputs, inputs x height x width), and
    computes in bfloat16, for which many a CPU has no instructions.

    Its arguments are AdamW's; `weight_decay` is that of both, and each group says by `muon` whether its parameters are
    matrices or convolutions for Muon.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of all groups; the gradients of Muon's are used up by it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["muon"]:
                for parameter in group["params"]:
                    self._turn(parameter, group["lr"], group["weight_decay"])
        super().step()
        return loss

    def _turn(self, parameter: torch.Tensor, learning_rate: float, weight_decay: float) -> None:
        if parameter.grad is None:
            return
        state = self.state[parameter]
        if not state:
            # AdamW expects a number of steps of every parameter when its state is loaded.
            state |= {"step": torch.zeros(()), "momentum": torch.zeros_like(parameter)}
        state["step"] += 1
        average = state["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
        update = orthogonal(parameter.grad.lerp(average, MOMENTUM).flatten(1))
        parameter.mul_(1 - learning_rate * weight_decay)
        parameter.add_(update.reshape(parameter.shape), alpha=-learning_rate * LIKE_ADAM * max(update.shape) ** 0.5)
        parameter.grad = None  # so that AdamW passes it over


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Matrix (rows, columns) of the same singular vectors with all singular values near one; zeros stay zeros."""
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.T).T  # the product with itself is smaller
    a, b, c = COEFFICIENTS
    matrix = matrix / matrix.norm().clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = matrix @ matrix.T
        matrix = a * matrix + (b * gram + c * gram @ gram) @ matrix
    return matrix


def parameter_groups(model: nn.Module, network: nn.Module) -> list[dict[str, Any]]:
    """Groups for `MuonAdamW`: the inner matrices and convolutions of the model's network, and all else of the model.

    The network's first and last layers, biases and gains, which are no maps between hidden features, go to AdamW.
    """
    matrices = [parameter for parameter in network.parameters() if parameter.ndim >= 2][1:-1]
    mine = {id(parameter) for parameter in matrices}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in mine]
    return [{"params": matrices, "muon": True}, {"params": rest, "muon": False}]
