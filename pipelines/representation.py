"""Representations: the two directions between `energies` and the model space `x`, in one object each.

`energies` are (N, 3, 125, 125) float32 in the file's unit (GeV/100); `x` is (N, C, H, W) float32. A representation is
fitted on training jets only and saved inside the pipeline. This file is self-contained so that it can travel to the
Hub.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from diffusers import ConfigMixin, SchedulerMixin

SIDE = 125
TOWER = 5
TOWERS = SIDE // TOWER
GROUPS = ("tracks", "ecal", "hcal")

GEV_PER_UNIT = 100.0


class Hits(NamedTuple):
    """The hits of N jets as lists, which take a hundredth of the memory of `energies`.

    Attributes:
        num_jets: N.
        jet, place, energy: (K,) jet (int64), place in the flattened (3, 125, 125) and energy of each crystal.
        tower_jet, tower, tower_energy: (T,) the same of HCAL towers: place in the flattened (25, 25), and the energy
            of each of the 25 crystals.
    """

    num_jets: int
    jet: torch.Tensor
    place: torch.Tensor
    energy: torch.Tensor
    tower_jet: torch.Tensor
    tower: torch.Tensor
    tower_energy: torch.Tensor

    def energies(self) -> torch.Tensor:
        """(N, 3, 125, 125)."""
        energies = torch.zeros(self.num_jets, 3 * SIDE**2, device=self.energy.device)
        jet, place, energy = self.crystals()
        energies[jet, place] = energy
        return energies.view(-1, 3, SIDE, SIDE)

    def crystals(self, a_tower: int = TOWER) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Jet, place and energy of all crystals.

        Args:
            a_tower: Crystals that a tower counts as along each side, the first of its 5.
        """
        device = self.tower.device
        corner = 2 * SIDE**2 + TOWER * (SIDE * (self.tower // TOWERS) + self.tower % TOWERS)
        side = torch.arange(a_tower, device=device)
        place = corner[:, None] + (SIDE * side[:, None] + side).flatten()
        jet, energy = (column[:, None].expand_as(place).flatten() for column in (self.tower_jet, self.tower_energy))
        pairs = ((self.jet, jet), (self.place, place.flatten()), (self.energy, energy))
        jet, place, energy = (torch.cat(pair) for pair in pairs)
        return jet, place, energy


# SchedulerMixin saves it: a DiffusionPipeline saves only components of the base classes that it knows.
class Representation(SchedulerMixin, ConfigMixin):
    """Base class: what every representation declares, and the checks of its two directions.

    Attributes:
        lossless: Whether decode(encode(energies)) gives the energies back (to float32 rounding).
        conserves_energy: Whether the energy per channel survives decode(encode(energies)).
        needs_hcal_towers: Whether HCAL must be constant in its 5x5 blocks.
        has_zero_gap: Whether a pixel without energy has a value of its own in x, well below any hit's.
    """

    config_name = "representation_config.json"
    lossless: ClassVar[bool]
    conserves_energy: ClassVar[bool]
    needs_hcal_towers: ClassVar[bool]
    has_zero_gap: ClassVar[bool]

    @property
    def channel_group(self) -> tuple[int, ...]:
        """Calorimeter channel (0 tracks, 1 ECAL, 2 HCAL) of each model channel."""
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one jet in model space."""
        raise NotImplementedError

    @property
    def grid(self) -> tuple[int, int]:
        """(height, width) of the pixels that hold data, at the top left of (H, W); all of them by default."""
        return self.shape[1:]

    def encode(self, energies: torch.Tensor) -> torch.Tensor:
        """Energies (N, 3, 125, 125) in GeV/100 to x (N, C, H, W).

        Raises:
            ValueError: If the shape is wrong or the representation needs HCAL towers and has none.
        """
        if energies.ndim != 4 or tuple(energies.shape[1:]) != (3, SIDE, SIDE):
            raise ValueError(f"energies must be (N, 3, {SIDE}, {SIDE}), got {tuple(energies.shape)}")
        return self._encode(energies.to(torch.float32))

    def encode_hits(self, hits: Hits) -> torch.Tensor:
        """As `encode`, of jets given by their hits.

        What `encode` refuses becomes NaN where looking for it would make the host wait for the device.
        """
        return self._encode(hits.energies())

    def decode(self, x: torch.Tensor, generators: list[torch.Generator] | None = None) -> torch.Tensor:
        """Model space x (N, C, H, W) to energies (N, 3, 125, 125) in GeV/100.

        Args:
            x: Jets in model space.
            generators: One a jet, for representations that draw what encoding dropped; the others need none.

        Raises:
            ValueError: If the shape is not the representation's.
        """
        if x.ndim != 4 or tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"x must be (N, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}")
        return self._decode(x.to(torch.float32), generators)

    def render(self, x: torch.Tensor) -> torch.Tensor:
        """Energies (N, 3, 125, 125) for looking at an x that is no jet yet; for pictures alone."""
        return self.decode(x)

    def mask(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """(H, W) bool: True where a pixel lies inside the image."""
        mask = torch.zeros(self.shape[1:], dtype=torch.bool, device=device)
        mask[: self.grid[0], : self.grid[1]] = True
        return mask

    def limits(self, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
        """Two (C,) tensors: the range of x seen in fitting, from a zero to the most energetic hit."""
        raise NotImplementedError

    def snap_to_min_hit(self, x: torch.Tensor) -> torch.Tensor:
        """Raise values of x (N, C, H, W) between a zero and the smallest hit seen in fitting to that hit."""
        return x

    def ring_sums(self, energies: torch.Tensor) -> torch.Tensor:
        """(N, 2 rings): hit count of each of the `rings` as they count in x, then their energies in GeV."""
        raise NotImplementedError

    def ring_sums_of_hits(self, hits: Hits) -> torch.Tensor:
        """As `ring_sums`, of jets given by their hits."""
        return self.ring_sums(hits.energies())

    def rings(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """(C, 1, 1) or (C, H, W) the ring that each pixel of x lies in.

        Tracks, ECAL and HCAL; or, where they are divided by distance, the rings of tracks, then of ECAL, then of HCAL.
        """
        return torch.tensor(self.channel_group, device=device).view(-1, 1, 1)

    def _encode(self, energies: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _decode(self, x: torch.Tensor, generators: list[torch.Generator] | None) -> torch.Tensor:
        raise NotImplementedError
