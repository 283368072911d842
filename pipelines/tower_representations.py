"""Representations of the image as it is: towers of crystals, or the grid of pixels.

This file needs `hit_values.py` and what that needs beside it; to the Hub they travel as one file.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config

from .hit_values import HitValueMap  # noqa: TID251 - on the Hub they are one file
from .representation import SIDE, TOWER, TOWERS  # noqa: TID251


class TowerPatches(HitValueMap):
    """25x25 towers of 51 channels: 25 track and 25 ECAL crystals of each tower, and its one HCAL value.

    A space-to-depth rearrangement: a bijection for every jet whose HCAL is constant in its 5x5 blocks (as all of
    the real file's are), so the HCAL constraint holds exactly in whatever is decoded. Padded from 25 to 28 so
    that a UNet can halve it twice.

    Args:
        gap: Distance in x's raw scale between a zero and the smallest fitted hit; the fitted hits span 1.
        log_low, log_high: Per group, log energy at the 0.1 % and 99.9 % quantile of the hits.
        log_max: Per group, log energy of the most energetic hit.
        log_min: Per group, log energy of the least energetic hit; none if not known.
        mean, std: Per group, moments of the raw values over all pixels.
        ring_edges: Distances from the centre at which rings end (radians); none to take totals of whole channels.
        value_map: "log", "fourth_root" or "quantile": in what u is linear.
        knots: Per group, of the quantile map.
    """

    lossless = True
    conserves_energy = True
    needs_hcal_towers = True

    @register_to_config
    def __init__(
        self,
        gap: float = 1.0,
        log_low: tuple[float, ...] = (-5.0, -5.0, -5.0),
        log_high: tuple[float, ...] = (0.0, 0.0, 0.0),
        log_max: tuple[float, ...] = (0.0, 0.0, 0.0),
        mean: tuple[float, ...] = (0.0, 0.0, 0.0),
        std: tuple[float, ...] = (1.0, 1.0, 1.0),
        ring_edges: tuple[float, ...] = (),
        value_map: str = "log",
        knots: tuple[tuple[tuple[float, float], ...], ...] = (),
        log_min: tuple[float, ...] = (),
    ) -> None:
        self.check_rings()
        self.set_value_map()

    @property
    def channel_group(self) -> tuple[int, ...]:
        """25 track crystals, 25 ECAL crystals, one HCAL tower."""
        return (0,) * TOWER**2 + (1,) * TOWER**2 + (2,)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(51, 28, 28)."""
        return 2 * TOWER**2 + 1, 28, 28

    @property
    def grid(self) -> tuple[int, int]:
        """(25, 25) towers."""
        return TOWERS, TOWERS

    def to_grid(self, energies: torch.Tensor) -> torch.Tensor:
        """Space to depth; refuses HCAL that differs within a tower."""
        patches = F.pixel_unshuffle(energies, TOWER)  # (N, 75, 25, 25)
        hcal = patches[:, 2 * TOWER**2 :]
        broken = (hcal != hcal[:, :1]).flatten(1).any(1)
        if broken.any():
            raise ValueError(
                f"HCAL is not constant in 5x5 towers in {int(broken.sum())} of {len(broken)} jets, which "
                "TowerPatches needs; choose the representation PixelGrid for such files"
            )
        return patches[:, : 2 * TOWER**2 + 1]

    def from_grid(self, grid_energies: torch.Tensor) -> torch.Tensor:
        """Depth to space, each HCAL tower spread evenly over its 25 crystals."""
        hcal = grid_energies[:, -1:].expand(-1, TOWER**2, -1, -1)
        return F.pixel_shuffle(torch.cat([grid_energies[:, :-1], hcal], 1), TOWER)


class PixelGrid(HitValueMap):
    """The image itself, 125 padded to 128, or sum-pooled to cells of `pool` x `pool` crystals.

    Pooling sums energies and decoding spreads a cell's energy evenly over its crystals inside the image, so the
    energy per channel is conserved; with `pool` = 1 nothing is lost. With `pool` = 5 cells are towers.

    Args:
        pool: Crystals along each side of a cell; divides 128, or is 5.
        gap, log_low, log_high, log_max, log_min, mean, std, ring_edges, value_map, knots: As in `TowerPatches`.
    """

    conserves_energy = True
    needs_hcal_towers = False

    @register_to_config
    def __init__(  # noqa: PLR0913, PLR0917
        self,
        pool: int = 1,
        gap: float = 1.0,
        log_low: tuple[float, ...] = (-5.0, -5.0, -5.0),
        log_high: tuple[float, ...] = (0.0, 0.0, 0.0),
        log_max: tuple[float, ...] = (0.0, 0.0, 0.0),
        mean: tuple[float, ...] = (0.0, 0.0, 0.0),
        std: tuple[float, ...] = (1.0, 1.0, 1.0),
        ring_edges: tuple[float, ...] = (),
        value_map: str = "log",
        knots: tuple[tuple[tuple[float, float], ...], ...] = (),
        log_min: tuple[float, ...] = (),
    ) -> None:
        if pool < 1 or (128 % pool and pool != TOWER):
            raise ValueError(f"pool must divide 128 or be {TOWER}, got {pool}")
        self.check_rings()
        self.set_value_map()

    @property
    def lossless(self) -> bool:  # type: ignore[override]
        """True without pooling."""
        return self.config.pool == 1

    @property
    def channel_group(self) -> tuple[int, ...]:
        """Tracks, ECAL, HCAL."""
        return 0, 1, 2

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, 128 / pool, 128 / pool); 25 towers are padded to 28, as in `TowerPatches`."""
        side = 28 if self.config.pool == TOWER else 128 // self.config.pool
        return 3, side, side

    @property
    def grid(self) -> tuple[int, int]:
        """The cells that hold at least one crystal of the image."""
        return (-(-SIDE // self.config.pool),) * 2

    def to_grid(self, energies: torch.Tensor) -> torch.Tensor:
        """Sum the crystals of each cell."""
        pool = self.config.pool
        if pool == 1:
            return energies
        extra = self.grid[0] * pool - SIDE
        return F.avg_pool2d(F.pad(energies, (0, extra, 0, extra)), pool, divisor_override=1)

    def from_grid(self, grid_energies: torch.Tensor) -> torch.Tensor:
        """Spread each cell's energy evenly over its crystals inside the image."""
        pool = self.config.pool
        cell = torch.arange(SIDE, device=grid_energies.device) // pool
        width = torch.bincount(cell).to(grid_energies.dtype)
        spread = grid_energies / (width[:, None] * width[None, :])
        return spread[:, :, cell][:, :, :, cell]


NATIVE_REPRESENTATIONS = {"TowerPatches": TowerPatches, "PixelGrid": PixelGrid}
"""The representations of this file by name; `jet_diffusion.hub.LOADABLE` holds all."""
