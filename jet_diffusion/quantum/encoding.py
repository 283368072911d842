"""Jets as quantum states: the energies of coarse cells become probabilities, their roots the amplitudes of qubits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config

from jet_diffusion.pipelines.random_numbers import RandomNumbers
from jet_diffusion.pipelines.representation import Representation

from .states import to_images, to_states

SIDE = 125
PADDED = 128
GEV_PER_UNIT = 100.0
LAYOUTS = ("folded", "image")
CHANNELS = ("sum", "joint")


class JetAmplitudeEncoder(Representation):
    """Amplitude encoding of a coarse jet: psi = sqrt(E_cell / E_total), 8 qubits for 16x16 cells.

    The image is padded to 128 and summed over square cells; what lies below a cell, the total energy and all phases
    are dropped. Decoding spreads a cell's energy evenly over its crystals inside the image and gives every jet the
    training jets' mean total, which a pipeline replaces by one drawn for the jet's class.

    Layout `folded` numbers the rows (and columns) by one sign qubit, which side of the axis, and magnitude qubits, how
    far from it, so that jets are states of small index; `image` keeps the cells as they lie, for convolutions.
    Channels `sum` adds up tracks, ECAL and HCAL, and decoding shares the sum by the training jets' mean shares;
    `joint` keeps their sharing of energy in two more qubits, one each for rows and columns, as quadrants of an image
    of twice the side: tracks and ECAL above, HCAL and nothing below.

    Args:
        grid: Cells along each side, a power of two from 2 to 64.
        layout: A name of `LAYOUTS`.
        channels: A name of `CHANNELS`.
        channel_share: Mean share of tracks, ECAL and HCAL in the training jets' energy.
        mean_total: Mean total energy of the training jets, GeV/100.
    """

    lossless = False
    conserves_energy = False
    needs_hcal_towers = False
    has_zero_gap = False

    @register_to_config
    def __init__(
        self,
        grid: int = 16,
        layout: str = "folded",
        channels: str = "sum",
        channel_share: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3),
        mean_total: float = 1.0,
    ) -> None:
        if grid not in (2, 4, 8, 16, 32, 64):
            raise ValueError(f"grid must be a power of two from 2 to 64, got {grid}")
        if layout not in LAYOUTS or channels not in CHANNELS:
            raise ValueError(f"layout is one of {LAYOUTS}, channels of {CHANNELS}; got {layout!r} and {channels!r}")

    @property
    def channel_group(self) -> tuple[int, ...]:
        """Real and imaginary part belong to one group."""
        return 0, 0

    @property
    def side(self) -> int:
        """Rows and columns of a state seen as an image."""
        return self.cells if self.config.channels == "sum" else 2 * self.cells

    @property
    def cells(self) -> int:
        """Cells along each side of the jet."""
        return int(self.config.grid)

    @property
    def num_qubits(self) -> int:
        """8 for 16x16 cells, 10 with the channels."""
        return 2 * (self.side.bit_length() - 1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(2, side, side): real and imaginary amplitudes."""
        return 2, self.side, self.side

    @classmethod
    def fit(cls, batches: Iterable[torch.Tensor], **settings: Any) -> JetAmplitudeEncoder:
        """Average the channels' shares and the total over training jets.

        Args:
            batches: Tensors of energies (n, 3, 125, 125).
            settings: `grid`, `layout`, `channels`.
        """
        channel_energies = torch.cat([energies.double().sum((2, 3)) for energies in batches])
        totals = channel_energies.sum(1)
        if not (totals > 0).all():
            raise ValueError(f"{int((totals <= 0).sum())} of {len(totals)} jets are empty: they have no state")
        share = (channel_energies / totals[:, None]).mean(0)
        return cls(**settings, channel_share=tuple(share.tolist()), mean_total=totals.mean().item())

    def pool(self, energies: torch.Tensor) -> torch.Tensor:
        """Energies (N, 3, 125, 125) summed over cells: (N, 3, grid, grid), GeV/100."""
        size = PADDED // self.cells
        padded = F.pad(energies.to(torch.float32), (0, PADDED - SIDE, 0, PADDED - SIDE))
        return F.avg_pool2d(padded, size, divisor_override=1)

    def spread(self, cells: torch.Tensor) -> torch.Tensor:
        """Each cell's energy (N, 3, grid, grid) evenly over its crystals inside the image."""
        cell = torch.arange(SIDE, device=cells.device) // (PADDED // self.cells)
        width = torch.bincount(cell, minlength=self.cells).to(cells.dtype).clamp(min=1)
        return (cells / (width[:, None] * width[None, :]))[:, :, cell][:, :, :, cell]

    def encode_states(self, energies: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """States (N, 2^n) complex64 and totals (N,) GeV/100 of energies (N, 3, 125, 125).

        Raises:
            ValueError: If a jet is empty, or holds negative or no finite energies.
        """
        cells = self.pool(energies)
        totals = cells.sum((1, 2, 3))
        if not ((cells >= 0).flatten(1).all(1) & (totals > 0) & totals.isfinite()).all():
            raise ValueError(
                "a jet that is empty, or has negative or no finite energies, has no state; of "
                f"{len(cells)} jets {int((totals <= 0).sum())} are empty"
            )
        summed = cells.sum(1) if self.config.channels == "sum" else quadrants(cells)
        probabilities = self.arrange(summed) / totals.view(-1, 1, 1)
        return probabilities.sqrt().flatten(1).to(torch.complex64), totals

    def decode_states(self, psi: torch.Tensor, totals: torch.Tensor) -> torch.Tensor:
        """Cells (N, 3, grid, grid), GeV/100, of states (N, 2^n): total times Born probability.

        Probability in the empty slot of `joint` is a failed measurement and shared by the others.
        """
        image = self.rearrange(psi.abs().square().unflatten(1, (self.side, self.side)))
        if self.config.channels == "sum":
            cells = image[:, None] * torch.tensor(self.config.channel_share, device=image.device).view(-1, 1, 1)
        else:
            cells = from_quadrants(image)
        return cells * (totals / cells.sum((1, 2, 3))).view(-1, 1, 1, 1)

    def cells_of(self, x: torch.Tensor, totals: torch.Tensor | None = None) -> torch.Tensor:
        """Cells (N, 3, grid, grid) of states x, scaled to their total energies, or to the mean if none are given."""
        mean = torch.full((len(x),), self.config.mean_total, device=x.device)
        return self.decode_states(to_states(x), mean if totals is None else totals)

    def ring_sums(self, energies: torch.Tensor) -> torch.Tensor:
        """(N, 6): cells that hold energy in tracks, ECAL and HCAL, then their energies in GeV."""
        cells = self.pool(energies)
        return torch.cat([(cells > 0).sum((2, 3)).float(), GEV_PER_UNIT * energies.sum((2, 3))], 1)

    def arrange(self, image: torch.Tensor) -> torch.Tensor:
        """Put rows and columns (..., side, side) into the order of the qubits."""
        order = self.order(image.device)
        return image[..., order, :][..., order]

    def rearrange(self, image: torch.Tensor) -> torch.Tensor:
        """Undo `arrange`."""
        place = self.order(image.device).argsort()
        return image[..., place, :][..., place]

    def order(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """(side,) the row that each index stands for, in each quadrant alike."""
        cells, half = self.cells, self.cells // 2
        order = torch.arange(cells, device=device)
        if self.config.layout == "folded":
            order = torch.cat([order[half:], order[:half].flip(0)])
        return order if self.side == cells else torch.cat([order, cells + order])

    def limits(self, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
        """No amplitude of a unit state lies outside."""
        largest = torch.full((2,), float(self.side), device=device)
        return -largest, largest

    def _encode(self, energies: torch.Tensor) -> torch.Tensor:
        return to_images(self.encode_states(energies)[0])

    def _decode(self, x: torch.Tensor, random: RandomNumbers | None) -> torch.Tensor:
        return self.spread(self.cells_of(x))


def quadrants(cells: torch.Tensor) -> torch.Tensor:
    """Three channels (N, 3, g, g) as the quadrants of (N, 2 g, 2 g), the last one empty."""
    tracks, ecal, hcal = cells.unbind(1)
    return torch.cat([torch.cat([tracks, ecal], 2), torch.cat([hcal, torch.zeros_like(hcal)], 2)], 1)


def from_quadrants(image: torch.Tensor) -> torch.Tensor:
    """Undo `quadrants`."""
    side = image.shape[-1] // 2
    return torch.stack([image[:, :side, :side], image[:, :side, side:], image[:, side:, :side]], 1)
