"""Jets: anti-kt with R = 0.5 (arXiv:0802.1189) on particle-flow candidates, matched to the hard partons.

The selection is the one of the real images (arXiv:1902.08276, sec. 2): each of the two partons has its own jet
within dR < 0.4, pT above the threshold and |eta| < 2, and the harder of the two is kept. pT and mass are those
of the raw jet: pile-up is not taken off, nor is the energy scale corrected.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from jet_diffusion.simulation.compiled import compiled
from jet_diffusion.simulation.detector.geometry import NUM_TOWER_COLUMNS, phi_difference
from jet_diffusion.simulation.detector.maps import Particles
from jet_diffusion.simulation.detector.particle_flow import PION_MASS
from jet_diffusion.simulation.events import Events
from jet_diffusion.simulation.libraries import load_fastjet
from jet_diffusion.simulation.pileup import Overlay, PileupPool

RADIUS = 0.5
MAX_ETA = 2.0
MATCHING_RADIUS = 0.4

REGION_RADIUS = 1.2
"""Only candidates this near to a parton are clustered. Anti-kt jets are round, and one within 0.4 of a parton has
nothing farther than 0.9 from it; the rest keeps its neighbours right."""


class Jets(NamedTuple):
    """Jets kept out of a batch of events, (jets,) each: number of the event, pt and mass in GeV, axis."""

    event: np.ndarray
    pt: np.ndarray
    mass: np.ndarray
    eta: np.ndarray
    phi: np.ndarray
    parton: np.ndarray


def find_jets(events: Events, particles: Particles, pool: PileupPool, overlay: Overlay, pt_min: float) -> Jets:
    """The leading matched jet of each event that has two; `Jets.parton` is the PDG id it is matched to."""
    momentum, offsets = _candidates_near_partons(events.offsets, particles, events.partons, pool, overlay)
    clustered = _cluster(momentum, offsets, pt_min)
    rows = [
        (event, *found)
        for event, jets in enumerate(clustered)
        if (found := _leading_matched(jets, events.partons[event])) is not None
    ]
    columns = np.array(rows, dtype=float).reshape(len(rows), len(Jets._fields)).T
    return Jets(columns[0].astype(np.int64), *columns[1:])


def _leading_matched(jets: np.ndarray, partons: np.ndarray) -> tuple[float, ...] | None:
    """pt, mass, eta, phi and parton id of the harder of two matched jets; `jets` fall in pt."""
    matches = []
    for eta, phi, identity in partons:
        delta_phi = (jets[:, 3] - phi + math.pi) % (2 * math.pi) - math.pi
        near = np.hypot(jets[:, 2] - eta, delta_phi) < MATCHING_RADIUS
        if not near.any():
            return None
        matches.append((int(np.argmax(near)), identity))
    if matches[0][0] == matches[1][0]:
        return None
    index, identity = min(matches)
    return (*jets[index], identity)


def _cluster(momentum: np.ndarray, offsets: np.ndarray, pt_min: float) -> list[np.ndarray]:
    """Per event, its jets above `pt_min` and within MAX_ETA: rows of pt, mass, eta, phi, falling in pt."""
    import awkward as ak

    fastjet: Any = load_fastjet()
    fields = {name: momentum[:, axis] for axis, name in enumerate(("px", "py", "pz", "E"))}
    layout = ak.contents.ListOffsetArray(ak.index.Index64(offsets), ak.zip(fields, with_name="Momentum4D").layout)
    definition = fastjet.JetDefinition(fastjet.antikt_algorithm, RADIUS)
    found = fastjet.ClusterSequence(ak.Array(layout), definition).inclusive_jets(min_pt=pt_min)
    counts = ak.num(found.px).to_numpy()
    px, py, pz, energy = (ak.flatten(found[name]).to_numpy() for name in ("px", "py", "pz", "E"))
    pt = np.hypot(px, py)
    mass = np.sqrt(np.maximum(0, energy**2 - pt**2 - pz**2))
    eta, phi = np.arcsinh(pz / pt), np.arctan2(py, px)
    jets = np.stack([pt, mass, eta, phi], axis=-1)
    per_event = np.split(jets, np.cumsum(counts)[:-1])
    return [j[np.argsort(-j[:, 0])][np.abs(j[np.argsort(-j[:, 0]), 2]) < MAX_ETA] for j in per_event]


@compiled
def _append(out: np.ndarray, count: int, pt: float, eta: float, phi: float, charged: bool) -> int:
    px, py, pz = pt * math.cos(phi), pt * math.sin(phi), pt * math.sinh(eta)
    mass = PION_MASS if charged else 0.0
    out[count, 0], out[count, 1], out[count, 2] = px, py, pz
    out[count, 3] = math.sqrt(px * px + py * py + pz * pz + mass * mass)
    return count + 1


@compiled
def _near(eta: float, phi: float, partons: np.ndarray) -> bool:
    for p in range(2):
        delta_eta, delta_phi = eta - partons[p, 0], phi_difference(phi, partons[p, 1])
        if delta_eta * delta_eta + delta_phi * delta_phi < REGION_RADIUS * REGION_RADIUS:
            return True
    return False


@compiled
def _candidates_near_partons(
    event_offsets: np.ndarray,
    particles: Particles,
    partons: np.ndarray,
    pool: PileupPool,
    overlay: Overlay,
) -> tuple[np.ndarray, np.ndarray]:
    """Momenta (px, py, pz, E in GeV) of the candidates around the partons, and the events' offsets in them."""
    number = len(event_offsets) - 1
    most = event_offsets[-1]
    for k in range(len(overlay.events)):
        i = overlay.events[k]
        most += pool.candidate_offsets[i + 1] - pool.candidate_offsets[i]
    out, offsets, count = np.empty((most, 4)), np.zeros(number + 1, np.int64), 0
    for event in range(number):
        for i in range(event_offsets[event], event_offsets[event + 1]):
            eta, phi, pt = particles.eta[i], particles.phi[i], particles.candidate[i]
            if pt > 0 and _near(eta, phi, partons[event]):
                count = _append(out, count, pt, eta, phi, particles.charge[i] != 0)
        for k in range(overlay.offsets[event], overlay.offsets[event + 1]):
            turn = overlay.turns[k] * 2 * math.pi / NUM_TOWER_COLUMNS
            i = overlay.events[k]
            for j in range(pool.candidate_offsets[i], pool.candidate_offsets[i + 1]):
                eta = -pool.candidates[j, 1] if overlay.mirrored[k] else pool.candidates[j, 1]
                phi = pool.candidates[j, 2] + turn
                if _near(eta, phi, partons[event]):
                    count = _append(out, count, pool.candidates[j, 0], eta, phi, pool.candidates[j, 3] > 0)
        offsets[event + 1] = count
    return out[:count], offsets
