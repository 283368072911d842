"""Where a jet's energy lies: moments, energy-flow polynomials and N-subjettiness of its deposits."""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise

import numpy as np

from jet_diffusion.observables.hits import TOWER_CENTRES, Array, Hits, Particles, divide, sum_by_jet
from jet_diffusion.schema import CHANNELS, NUM_TOWERS

RING_EDGES = (0.1, 0.2, 0.4, 0.7)
"""Outer radii of the first rings around the image's centre; the last ring is all the rest."""

MAX_SUBJETS = 3
SUBJET_SEPARATION = 0.25
"""Seeds of subjet axes are towers at least this far apart."""

LLOYD_STEPS = 3

_TOWER_ETA = np.repeat(TOWER_CENTRES, NUM_TOWERS)
_TOWER_PHI = np.tile(TOWER_CENTRES, NUM_TOWERS)
_SEPARATED = (
    np.hypot(np.subtract.outer(_TOWER_ETA, _TOWER_ETA), np.subtract.outer(_TOWER_PHI, _TOWER_PHI)) >= SUBJET_SEPARATION
)


class Substructure:
    """Shape of the energy flow, all channels together; angles are distances in (eta, phi).

    A deposit's weight is z, its fraction of the image's summed energy. All values of an empty jet are 0.

    Args:
        hits: the jets' non-zero values.
    """

    def __init__(self, hits: Hits) -> None:
        self.num_jets = hits.num_jets
        self.particles: Particles = hits.particles
        self._tower_energy = hits.tower_energy.sum(axis=1)

    def sum(self, weights: Array, per: Array | None = None, bins: int = 1) -> Array:
        """Sum `weights` over each jet's particles."""
        return sum_by_jet(self.particles.jet, self.num_jets, weights, per, bins)

    @cached_property
    def energy(self) -> Array:
        """(N,) summed energy, GeV."""
        return self.sum(self.particles.energy)

    @cached_property
    def fraction(self) -> Array:
        """(M,) z of each particle."""
        return divide(self.particles.energy, self.energy[self.particles.jet])

    @cached_property
    def centroid(self) -> tuple[Array, Array]:
        """(N,), (N,): energy-weighted mean eta and phi, from the image's centre."""
        return self.sum(self.fraction * self.particles.eta), self.sum(self.fraction * self.particles.phi)

    @cached_property
    def relative(self) -> tuple[Array, Array, Array]:
        """(M,) each: eta and phi of the particles from their jet's centroid, and the squared distance."""
        jet = self.particles.jet
        eta = self.particles.eta - self.centroid[0][jet]
        phi = self.particles.phi - self.centroid[1][jet]
        return eta, phi, eta**2 + phi**2

    @cached_property
    def channel_width(self) -> Array:
        """(N, 3): energy-weighted mean distance of each channel's deposits from the jet's centroid."""
        distance = np.sqrt(self.relative[2])
        energy = self.sum(self.particles.energy, self.particles.channel, len(CHANNELS))
        weighted = self.sum(self.particles.energy * distance, self.particles.channel, len(CHANNELS))
        return divide(weighted, energy)

    @cached_property
    def width(self) -> Array:
        """(N,) energy-weighted mean distance from the centroid."""
        return self.sum(self.fraction * np.sqrt(self.relative[2]))

    @cached_property
    def channel_dispersion(self) -> Array:
        """(N, 3) sqrt(sum E^2) / sum E of each channel (pTD): 1 for a single deposit."""
        energy = self.sum(self.particles.energy, self.particles.channel, len(CHANNELS))
        squared = self.sum(self.particles.energy**2, self.particles.channel, len(CHANNELS))
        return divide(np.sqrt(squared), energy)

    @cached_property
    def dispersion(self) -> Array:
        """(N,) sqrt(sum z^2) over all deposits (pTD)."""
        return np.sqrt(self.sum(self.fraction**2))

    @cached_property
    def rings(self) -> Array:
        """(N, 5) fraction of the energy in rings around the image's centre, `RING_EDGES`."""
        radius = np.hypot(self.particles.eta, self.particles.phi)
        ring = np.searchsorted(RING_EDGES, radius, side="right")
        return self.sum(self.fraction, ring, len(RING_EDGES) + 1)

    @cached_property
    def momentum(self) -> tuple[Array, Array]:
        """(N,), (N,): transverse momentum of the vector sum, and its mass, GeV.

        Each deposit is taken as massless with pT equal to its value; the mass does not depend on the jet's
        own eta, which the image does not hold. A negative squared mass (negative energies) gives minus its root.
        """
        pt, eta, phi = self.particles.energy, self.particles.eta, self.particles.phi
        # E - pz and E + pz keep the precision that E^2 - p^2 would lose.
        backward, forward = self.sum(pt * np.exp(-eta)), self.sum(pt * np.exp(eta))
        transverse2 = self.sum(pt * np.cos(phi)) ** 2 + self.sum(pt * np.sin(phi)) ** 2
        return np.sqrt(transverse2), signed_root(backward * forward - transverse2, 2)

    @cached_property
    def flow(self) -> tuple[Array, Array, Array]:
        """Energy-flow moments (N, 4), (N, 4), (N, 4, 4) from which polynomials with squared angles follow.

        The squared angle of two particles is a_i . b_j with a = (r^2, 1, -2 eta, -2 phi) and
        b = (1, r^2, eta, phi), so every path and cycle of particles is a product of 4x4 matrices
        sum z b a^T: linear in the number of hits (Komiske, Metodiev, Thaler, arXiv:1911.04491).
        """
        eta, phi, r2 = self.relative
        z = self.fraction
        one = self.sum(z)
        m_eta, m_phi, m_r2 = self.sum(z * eta), self.sum(z * phi), self.sum(z * r2)
        eta2, cross = self.sum(z * eta**2), self.sum(z * eta * phi)
        phi2 = m_r2 - eta2
        eta3, phi3, r4 = self.sum(z * r2 * eta), self.sum(z * r2 * phi), self.sum(z * r2**2)
        left = np.stack([m_r2, one, -2 * m_eta, -2 * m_phi], axis=-1)
        right = np.stack([one, m_r2, m_eta, m_phi], axis=-1)
        rows = [
            [m_r2, one, -2 * m_eta, -2 * m_phi],
            [r4, m_r2, -2 * eta3, -2 * phi3],
            [eta3, m_eta, -2 * eta2, -2 * cross],
            [phi3, m_phi, -2 * cross, -2 * phi2],
        ]
        matrix = np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
        return left, right, matrix

    def energy_flow_path(self, edges: int) -> Array:
        """(N,) energy-flow polynomial of a path of `edges` squared angles, as an angle (its 2 edges-th root)."""
        left, right, matrix = self.flow
        for _ in range(edges - 1):
            left = np.einsum("na,nab->nb", left, matrix)
        return signed_root(np.einsum("na,na->n", left, right), 2 * edges)

    def energy_flow_cycle(self, edges: int) -> Array:
        """(N,) energy-flow polynomial of a closed loop of `edges` squared angles, as an angle."""
        matrix = self.flow[2]
        power = np.linalg.matrix_power(matrix, edges) if len(matrix) else matrix
        return signed_root(np.trace(power, axis1=1, axis2=2), 2 * edges)

    @cached_property
    def principal_axes(self) -> Array:
        """(N, 2): root of the larger and of the smaller eigenvalue of the second moments of (eta, phi)."""
        matrix = self.flow[2]
        eta2, phi2, cross = -matrix[:, 2, 2] / 2, -matrix[:, 3, 3] / 2, -matrix[:, 2, 3] / 2
        middle, half = (eta2 + phi2) / 2, np.hypot((eta2 - phi2) / 2, cross)
        return np.stack([signed_root(middle + half, 2), signed_root(middle - half, 2)], axis=-1)

    @cached_property
    def subjettiness(self) -> Array:
        """(N, 3): tau_1, tau_2, tau_3 = sum z min_k dR_k with axes refined from the hottest separated towers.

        N-subjettiness with beta = 1 (Thaler, Van Tilburg, arXiv:1011.2268) but cheap axes: hottest towers at
        least `SUBJET_SEPARATION` apart, then three Lloyd steps on the towers.
        """
        return np.stack([self._tau(axes) for axes in range(1, MAX_SUBJETS + 1)], axis=-1)

    @cached_property
    def _seeds(self) -> tuple[Array, Array]:
        """(N, 3), (N, 3): eta and phi of the hottest separated towers."""
        remaining = self._tower_energy.copy()
        seeds = []
        for _ in range(MAX_SUBJETS):
            hottest = np.argmax(remaining, axis=1)
            seeds.append(hottest)
            remaining = np.where(_SEPARATED[hottest], remaining, -np.inf)
        towers = np.stack(seeds, axis=-1)
        return _TOWER_ETA[towers], _TOWER_PHI[towers]

    def _tau(self, num_axes: int) -> Array:
        jet, tower = np.nonzero(self._tower_energy)
        energy, places = self._tower_energy[jet, tower], (_TOWER_ETA[tower], _TOWER_PHI[tower])
        axes = [seeds[:, :num_axes] for seeds in self._seeds]
        for _ in range(LLOYD_STEPS):
            # Towers lie on a lattice: rounding gives those between two axes to the hotter one, wherever the jet is.
            nearest = _distances2(jet, *places, *axes).round(9).argmin(axis=1)
            total = sum_by_jet(jet, self.num_jets, energy, nearest, num_axes)
            moments = [sum_by_jet(jet, self.num_jets, energy * place, nearest, num_axes) for place in places]
            # An axis that has lost all its towers stays where it is.
            axes = [np.where(total == 0, axis, divide(m, total)) for axis, m in zip(axes, moments, strict=True)]
        particles = self.particles
        nearest2 = _distances2(particles.jet, particles.eta, particles.phi, *axes).min(axis=1)
        return self.sum(self.fraction * np.sqrt(nearest2))


def _distances2(jet: Array, eta: Array, phi: Array, axis_eta: Array, axis_phi: Array) -> Array:
    """(M, K) squared distances of deposits from their jet's K axes."""
    return (eta[:, None] - axis_eta[jet]) ** 2 + (phi[:, None] - axis_phi[jet]) ** 2


def ring_labels() -> list[str]:
    """What each of the rings covers, in words."""
    edges = (0.0, *RING_EDGES)
    inner = [rf"$\Delta R$ {low:g}-{high:g}" for low, high in pairwise(edges)]
    return [*inner, rf"$\Delta R$ > {edges[-1]:g}"]


def signed_root(values: Array, degree: int) -> Array:
    """The root of |values| with the sign of the values."""
    return np.sign(values) * np.abs(values) ** (1 / degree)
