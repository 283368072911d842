"""The way of a particle through the 3.8 T solenoid, from the beam line to the front of a calorimeter."""

from __future__ import annotations

import math

from jet_diffusion.simulation.compiled import compiled

FIELD = 3.8
"""Field of the CMS solenoid in tesla (JINST 3 (2008) S08004)."""

METRES_PER_GEV = 1 / (0.299792458 * FIELD)
"""Radius of curvature in metres of 1 GeV of pT: R = pT / (0.3 B)."""

ECAL_FACE = (1.29, 3.17)
"""Inner radius of the ECAL barrel and distance of its endcaps, in metres (JINST 3 (2008) S08004)."""

HCAL_FACE = (1.90, 4.00)
"""The same for the HCAL, whose barrel begins at 1.77 m: where the showers of hadrons have most of their energy."""


@compiled
def arrive(pt: float, eta: float, phi: float, charge: int, z: float, face: tuple[float, float]) -> tuple:
    """Where a particle from (0, 0, z) meets a calorimeter: a straight line if neutral, else a helix.

    Args:
        pt: Transverse momentum in GeV.
        eta: Pseudorapidity at the vertex.
        phi: Azimuth at the vertex.
        charge: In units of e.
        z: Position of the vertex along the beam, in metres.
        face: Radius of the barrel and |z| of the endcaps, in metres.

    Returns:
        (reached, eta, phi) of the point of impact, seen from the centre of the detector.
    """
    radius, end = face
    slope = math.sinh(eta)
    curvature_radius = pt * METRES_PER_GEV
    if charge == 0 or 2 * curvature_radius > radius:
        half_turn = 0.0 if charge == 0 else math.asin(radius / (2 * curvature_radius))
        path = radius if charge == 0 else 2 * curvature_radius * half_turn
        z_impact = z + path * slope
        if abs(z_impact) < end:
            return True, math.asinh(z_impact / radius), phi - charge * half_turn
    if slope == 0.0:
        return False, 0.0, 0.0
    plane = math.copysign(end, slope)
    path = (plane - z) / slope
    if charge == 0:
        return True, math.asinh(plane / path), phi
    half_turn = path / (2 * curvature_radius)
    if half_turn > math.pi:
        return False, 0.0, 0.0
    distance = 2 * curvature_radius * math.sin(half_turn)
    return True, math.asinh(plane / distance), phi - charge * half_turn
