"""Representations of the image as it is, towers of crystals or the grid of pixels, on a logarithmic scale.

A pixel without energy has a value of its own in x, well below that of the smallest hit. Each channel group (tracks,
ECAL, HCAL) is at zero mean and unit variance over the pixels that lie inside the image.
This file needs `representation.py` beside it; to the Hub they travel as one file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config

from .representation import GEV_PER_UNIT, GROUPS, SIDE, TOWER, TOWERS, Hits, Representation  # noqa: TID251

TAIL = 0.125
"""Energies below the fitted range share this fraction of the gap between zero and the smallest fitted hit."""

RENDER_DECADES = 3.0

CRYSTAL_WIDTH = 2 * math.pi / 360
"""Of a crystal in eta and in phi (radians)."""


class HitValueMap(Representation):
    """Base class of representations that map crystal by crystal, by the energy of a hit.

    A group's energies are sent to 0 if they are zero and else to ``gap + u``, where ``u`` is 0 at the lower and 1 at
    the upper quantile of the training hits. Between them and above (a tail without end) u is linear in log E; below,
    ``u = -d / (1 + d / c)`` with ``d`` the continued line and ``c = TAIL * gap``, so that every positive energy stays
    above zero's threshold. This is a bijection of [0, inf) onto its image. The result is then standardised by the
    group's mean and standard deviation over all pixels, zeros included; padding holds the value of a zero. Decoding
    never clamps an energy.

    Ring sums are the hit counts and energies of the three groups or, where `ring_edges` are given, of each group in
    rings about the image's centre. The edges are the distances in eta and phi (radians) at which one ring ends and the
    next begins. A pixel belongs to the ring that its centre lies in.
    """

    has_zero_gap = True

    def to_grid(self, energies: torch.Tensor) -> torch.Tensor:
        """Rearrange or sum energies (N, 3, 125, 125) into (N, C, *grid), still energies."""
        raise NotImplementedError

    def from_grid(self, grid_energies: torch.Tensor) -> torch.Tensor:
        """Undo `to_grid`: (N, C, *grid) into energies (N, 3, 125, 125)."""
        raise NotImplementedError

    def encode_hits(self, hits: Hits) -> torch.Tensor:
        """As `encode`, of jets given by their hits; nothing waits for the device.

        Negative energies become NaN. HCAL that is among the crystals must be constant in towers where `encode` asks
        for it.
        """
        return self._encode_at(hits.num_jets, *self._places_in_x(hits))

    def _encode(self, energies: torch.Tensor) -> torch.Tensor:
        jet, pixel, hits = self._hits_in_x(energies)
        if not (hits > 0).all():
            raise ValueError(f"energies must not be negative or NaN; the smallest is {hits.min().item()}")
        return self._encode_at(len(energies), jet, pixel, hits)

    def _encode_at(self, jets: int, jet: torch.Tensor, pixel: torch.Tensor, hits: torch.Tensor) -> torch.Tensor:
        """(jets, C, H, W) with hits (K,), energies, at the pixels (K,) of each jet's flattened x; zeros elsewhere."""
        zero = self.zero(hits.device)
        channel = pixel // math.prod(self.shape[1:])
        group = self._group(hits.device)[channel]
        raw = self.raw(hits.log(), group)
        values = (raw - self._fitted("mean", raw)[group]) / self._fitted("std", raw)[group]
        x = zero.view(-1, 1, 1).expand(jets, *self.shape).contiguous()
        x.view(jets, -1)[jet, pixel] = torch.where(hits == 0, zero[channel], values)  # -0.0 is no hit
        return x

    def _hits_in_x(self, energies: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(K,) jet, pixel of the flattened x, and energy of each hit of energies (N, 3, 125, 125)."""
        grid_energies = self.to_grid(energies)
        jet, channel, row, column = grid_energies.nonzero(as_tuple=True)  # hits are few: work on them alone
        height, width = self.shape[1:]
        return jet, (channel * height + row) * width + column, grid_energies[jet, channel, row, column]

    def _places_in_x(self, hits: Hits) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(K,) jet, pixel of the flattened x, and energy of each hit."""
        jet, place, energy = hits.crystals(1 if self.needs_hcal_towers else TOWER)
        return jet, self._once("pixels", energy.device, self._pixels)[place], energy

    def _pixels(self) -> torch.Tensor:
        """(3 * 125 * 125,) the pixel of the flattened x that each crystal lies in."""
        pixels = torch.arange(math.prod(self.shape)).view(1, *self.shape)
        return self.from_grid(pixels[:, :, : self.grid[0], : self.grid[1]]).flatten()

    def _decode(self, x: torch.Tensor, generators: list[torch.Generator] | None) -> torch.Tensor:
        inside = x[:, :, : self.grid[0], : self.grid[1]]
        hit = ~(inside <= self.hit_threshold(x.device).view(-1, 1, 1))  # a NaN stays visible
        jet, channel, row, column = hit.nonzero(as_tuple=True)
        group = self._group(x.device)[channel]
        values = inside[jet, channel, row, column]
        raw = values * self._fitted("std", values)[group] + self._fitted("mean", values)[group]
        grid_energies = torch.zeros_like(inside)
        grid_energies[jet, channel, row, column] = self._log_energy(raw, group).exp()
        return self.from_grid(grid_energies)

    def render(self, x: torch.Tensor) -> torch.Tensor:
        """Energies (N, 3, 125, 125) for looking at an x that is no jet yet; for pictures alone.

        As `decode`, but a value between that of a zero and the hit threshold, which decodes to nothing, is shown as
        a faint energy: RENDER_DECADES below the smallest fitted hit at zero, rising evenly in x.
        """
        group = self._group(x.device)
        threshold, zero = (limit.view(-1, 1, 1) for limit in (self.hit_threshold(x.device), self.zero(x.device)))
        climb = ((x - zero) / (threshold - zero))[:, :, : self.grid[0], : self.grid[1]]
        low = torch.tensor(self.config.log_low, device=x.device)[group].view(-1, 1, 1)
        faint = (low + math.log(10) * RENDER_DECADES * (climb - 1)).exp()
        faint = self.from_grid(torch.where((climb > 0.02) & (climb <= 1), faint, 0))
        return self.decode(x) + faint

    def zero(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """(C,) the value in x of a pixel without energy."""
        return self._standardise(torch.zeros(len(GROUPS), device=device))

    def hit_threshold(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """(C,) the value in x at and below which `decode` gives exactly zero."""
        return self._standardise(torch.full((len(GROUPS),), self.config.gap * (1 - TAIL), device=device))

    def limits(self, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
        """Two (C,) tensors: the range of x seen in fitting, from a zero to the most energetic hit."""
        return self.zero(device), self._hit_of("log_max", device)

    def snap_to_min_hit(self, x: torch.Tensor) -> torch.Tensor:
        """Hits below the smallest one fitted raised to it; as x is (N, C, H, W) if that one is not known.

        The map gives every x above the hit threshold an energy, however small; a mean over a pixel that may be hit and
        may be not can lie there, where no hit of a real jet does.
        """
        if not self.config.log_min:
            return x
        smallest = self._hit_of("log_min", x.device).view(-1, 1, 1)
        too_small = (x > self.hit_threshold(x.device).view(-1, 1, 1)) & (x < smallest)
        return torch.where(too_small, smallest, x)

    def ring_sums(self, energies: torch.Tensor) -> torch.Tensor:
        """(N, 2 rings): hit count of each of the `rings` as they count in x, then their energies in GeV."""
        return self._ring_sums_at(len(energies), *self._hits_in_x(energies))

    def ring_sums_of_hits(self, hits: Hits) -> torch.Tensor:
        """As `ring_sums`, of jets given by their hits; nothing waits for the device."""
        return self._ring_sums_at(hits.num_jets, *self._places_in_x(hits))

    def _ring_sums_at(self, jets: int, jet: torch.Tensor, pixel: torch.Tensor, hits: torch.Tensor) -> torch.Tensor:
        """(jets, 2 rings) of hits (K,), energies, at the pixels (K,) of each jet's flattened x."""
        device, count = hits.device, self.num_rings
        rings = self._once("pixel rings", device, lambda: self.rings().expand(-1, *self.shape[1:]).flatten())
        copies = self._once("copies", device, self._copies)[self._group(device)]
        in_gev = GEV_PER_UNIT * hits * copies[pixel // math.prod(self.shape[1:])]
        ring = jet * count + rings[pixel]
        sums = [hits.new_zeros(jets * count).index_add_(0, ring, one) for one in (hits.sign(), in_gev)]
        return torch.cat([values.view(jets, count) for values in sums], 1)

    @property
    def num_rings(self) -> int:
        """Rings of all groups."""
        return len(GROUPS) * (len(self.config.ring_edges) + 1)

    def rings(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """(C, 1, 1) or, with `ring_edges`, (C, H, W) the ring each pixel of x lies in; padding is in the last."""
        return self._once("rings", device, lambda: self._rings)

    @cached_property
    def _rings(self) -> torch.Tensor:
        """Worked out once: the loader asks for each batch."""
        groups = super().rings()
        if not self.config.ring_edges:
            return groups
        edges = torch.tensor(self.config.ring_edges, dtype=torch.float64)
        ring = torch.bucketize(torch.hypot(*self.positions()), edges).where(self.mask(), len(edges))
        return groups * (len(edges) + 1) + ring

    def check_rings(self) -> None:
        """Refuse edges that are not positive and rising, or leave a ring without pixels.

        Raises:
            ValueError: Saying which.
        """
        edges = list(self.config.ring_edges)
        if any(not 0 < edge < math.inf for edge in edges) or edges != sorted(set(edges)):
            raise ValueError(f"ring_edges must be positive and rise, got {edges}")
        inside = self.rings().expand(-1, *self.shape[1:])[:, : self.grid[0], : self.grid[1]]
        empty = (torch.bincount(inside.flatten(), minlength=self.num_rings) == 0).nonzero().flatten().tolist()
        if empty:
            named = ", ".join(f"{GROUPS[ring // (len(edges) + 1)]} {ring % (len(edges) + 1)}" for ring in empty)
            raise ValueError(f"ring_edges {edges} leave no pixel in rings (counted from 0): {named}")

    def positions(self) -> torch.Tensor:
        """(2, C, H, W) eta and phi of each pixel's centre from the image's (radians); zero in the padding."""
        crystal = CRYSTAL_WIDTH * (torch.arange(SIDE, dtype=torch.float64) - SIDE // 2)
        tower = crystal.view(TOWERS, TOWER).mean(1).repeat_interleave(TOWER)
        rows = torch.stack([crystal, crystal, tower])[None, :, :, None].expand(-1, -1, -1, SIDE)
        ones = self.to_grid(torch.ones_like(rows))
        positions = torch.zeros(2, *self.shape, dtype=torch.float64)
        for way, axis in zip((rows, rows.transpose(2, 3)), positions, strict=True):
            axis[:, : self.grid[0], : self.grid[1]] = (self.to_grid(way) / ones)[0]
        return positions

    def _copies(self) -> torch.Tensor:
        """(groups,) how many times a value of x is in the image: a tower's 25 crystals share one."""
        members = F.one_hot(self._group("cpu")).T.float()  # (groups, C)
        ones = members[:, :, None, None].expand(-1, -1, *self.grid)
        return self.from_grid(ones).sum((1, 2, 3)) / math.prod(self.grid) / members.sum(1)

    def energy_line(self) -> torch.Tensor:
        """(2, groups) offset and slope in x of the logarithm of a hit's energy / GeV; not of the bent tail."""
        names = ("log_low", "log_high", "mean", "std")
        low, high, mean, std = (self._fitted(name, torch.zeros(())) for name in names)
        unit = (GEV_PER_UNIT * self._copies()).log()
        return torch.stack([low + unit + (mean - self.config.gap) * (high - low), std * (high - low)])

    def _group(self, device: torch.device | str) -> torch.Tensor:
        return self._once("group", device, lambda: torch.tensor(self.channel_group))

    def _fitted(self, name: str, like: torch.Tensor) -> torch.Tensor:
        """A fitted value per group, on the device and in the precision of `like`."""

        def make() -> torch.Tensor:
            return torch.tensor(self.config[name], dtype=like.dtype)

        return self._once(f"{name} {like.dtype}", like.device, make)

    def _once(self, name: str, device: torch.device | str, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """What does not change, copied to each device once: a copy would wait for the device."""
        key = name, torch.device(device)
        if key not in self._constants:
            self._constants[key] = make().to(device)
        return self._constants[key]

    @cached_property
    def _constants(self) -> dict[tuple[str, torch.device], torch.Tensor]:
        return {}

    def _hit_of(self, name: str, device: torch.device | str) -> torch.Tensor:
        """(C,) the value in x of a hit of a fitted log energy."""
        log_energy = self._fitted(name, torch.zeros((), device=device))
        return self._standardise(self.raw(log_energy, torch.arange(len(GROUPS), device=device)))

    def _standardise(self, raw: torch.Tensor) -> torch.Tensor:
        """Raw values, one a group, to x values, one a model channel."""
        x = (raw - self._fitted("mean", raw)) / self._fitted("std", raw)
        return x[self._group(raw.device)]

    def raw(self, log_energy: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
        """Log energies of hits, with the group of each, to raw values above `gap * (1 - TAIL)`."""
        low, high = (self._fitted(name, log_energy)[group] for name in ("log_low", "log_high"))
        line = (log_energy - low) / (high - low)
        below = line.clamp(max=0)
        return self.config.gap + line.clamp(min=0) + below / (1 - below / (TAIL * self.config.gap))

    def _log_energy(self, raw: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
        """Undo `raw`."""
        low, high = (self._fitted(name, raw)[group] for name in ("log_low", "log_high"))
        u = raw - self.config.gap
        below = u.clamp(max=0)
        line = u.clamp(min=0) + below / (1 + below / (TAIL * self.config.gap))
        return low + line * (high - low)


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
        ring_edges: Distances from the centre at which rings end (radians); none to take whole channels.
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
        log_min: tuple[float, ...] = (),
    ) -> None:
        self.check_rings()

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
    """The image itself, 125 padded to 128.

    Args:
        gap, log_low, log_high, log_max, log_min, mean, std, ring_edges: As in `TowerPatches`.
    """

    lossless = True
    conserves_energy = True
    needs_hcal_towers = False

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
        log_min: tuple[float, ...] = (),
    ) -> None:
        self.check_rings()

    @property
    def channel_group(self) -> tuple[int, ...]:
        """Tracks, ECAL, HCAL."""
        return 0, 1, 2

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, 128, 128)."""
        return 3, 128, 128

    @property
    def grid(self) -> tuple[int, int]:
        """(125, 125) crystals."""
        return SIDE, SIDE

    def to_grid(self, energies: torch.Tensor) -> torch.Tensor:
        """The energies as they are."""
        return energies

    def from_grid(self, grid_energies: torch.Tensor) -> torch.Tensor:
        """The energies as they are."""
        return grid_energies


NATIVE_REPRESENTATIONS = {"TowerPatches": TowerPatches, "PixelGrid": PixelGrid}
"""The representations of this file by name; `jet_diffusion.hub.LOADABLE` holds all."""
