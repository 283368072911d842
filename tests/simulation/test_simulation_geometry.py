"""Where a direction falls on the map, and where a particle meets a calorimeter."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("numba")

from jet_diffusion.simulation.detector.geometry import (
    BARREL_ROWS,
    COSH_ETA,
    ENDCAP_TOWER_EDGES,
    HB_TOWER_ROWS,
    NUM_COLUMNS,
    NUM_ROWS,
    ROW_CENTRES,
    ROW_EDGES,
    column_of,
    phi_difference,
    row_of,
)
from jet_diffusion.simulation.detector.propagation import ECAL_FACE, HCAL_FACE, METRES_PER_GEV, arrive

ETAS = st.floats(-2.99, 2.99)
PHIS = st.floats(-10, 10)


@given(ETAS)
def test_a_row_holds_the_etas_between_its_edges(eta):
    row = row_of(eta)
    assert ROW_EDGES[row] - 1e-9 <= eta <= ROW_EDGES[row + 1] + 1e-9


@given(ETAS)
def test_rows_are_mirrored_in_eta(eta):
    if np.abs(ROW_EDGES - eta).min() > 1e-9:
        assert row_of(-eta) == NUM_ROWS - 1 - row_of(eta)


@pytest.mark.parametrize("eta", [3.0, -3.0, 5.0, -40.0, math.inf, math.nan])
def test_beyond_eta_3_there_is_no_row(eta):
    assert row_of(eta) == -1


def test_the_rows_are_those_of_the_detector():
    assert len(ROW_EDGES) == NUM_ROWS + 1
    assert np.all(np.diff(ROW_EDGES) > 0)
    np.testing.assert_allclose(ROW_EDGES[list(BARREL_ROWS)], [-1.479, 1.479], atol=1e-3)
    np.testing.assert_allclose(ROW_EDGES[BARREL_ROWS[1] :: 5], ENDCAP_TOWER_EDGES, atol=1e-9)
    np.testing.assert_allclose(ROW_EDGES[5 * HB_TOWER_ROWS[1]], 16 * 0.087, atol=1e-3)
    np.testing.assert_allclose(COSH_ETA, np.cosh(ROW_CENTRES))


@given(PHIS, st.integers(-3, 3))
def test_columns_do_not_know_how_often_one_has_turned(phi, turns):
    column = column_of(phi)
    assert 0 <= column < NUM_COLUMNS
    shifted = column_of(phi + turns * 2 * math.pi)
    assert (shifted - column) % NUM_COLUMNS in {0, 1, NUM_COLUMNS - 1}  # one off only by rounding at an edge


@given(PHIS, PHIS)
def test_phi_differences_are_folded_and_right(first, second):
    difference = phi_difference(first, second)
    assert -math.pi - 1e-9 <= difference <= math.pi + 1e-9
    assert math.isclose(math.cos(difference), math.cos(first - second), abs_tol=1e-9)
    assert math.isclose(math.sin(difference), math.sin(first - second), abs_tol=1e-9)


@given(ETAS, PHIS, st.floats(0.2, 200))
def test_a_neutral_particle_from_the_centre_keeps_its_direction(eta, phi, pt):
    reached, impact_eta, impact_phi = arrive(pt, eta, phi, 0, 0.0, ECAL_FACE)
    if abs(eta) > 1e-3:
        assert reached
        assert math.isclose(impact_eta, eta, rel_tol=1e-6)
        assert impact_phi == phi


@given(ETAS, PHIS, st.floats(0.5, 200), st.floats(-0.15, 0.15))
def test_opposite_charges_bend_apart_by_the_same_angle(eta, phi, pt, z):
    plus, minus = (arrive(pt, eta, phi, charge, z, ECAL_FACE) for charge in (1, -1))
    assert plus[:2] == minus[:2]
    if plus[0]:
        assert math.isclose(phi - plus[2], minus[2] - phi, abs_tol=1e-9)
        assert phi - plus[2] >= 0


@given(st.floats(-2.5, 2.5), PHIS, st.sampled_from([1, -1]), st.sampled_from([ECAL_FACE, HCAL_FACE]))
def test_a_hard_track_is_nearly_straight(eta, phi, charge, face):
    pt = 1e5
    bent, straight = arrive(pt, eta, phi, charge, 0.0, face), arrive(pt, eta, phi, 0, 0.0, face)
    if straight[0]:
        assert bent[0]
        assert math.isclose(bent[1], straight[1], abs_tol=1e-4)
        assert math.isclose(bent[2], straight[2], abs_tol=1e-4)


def test_a_soft_particle_curls_up_before_the_barrel():
    softest = ECAL_FACE[0] / (2 * METRES_PER_GEV)
    assert arrive(1.01 * softest, 0.0, 0.0, 1, 0.0, ECAL_FACE)[0]
    assert not arrive(0.99 * softest, 0.0, 0.0, 1, 0.0, ECAL_FACE)[0]
    reached, eta, _ = arrive(0.99 * softest, 2.0, 0.0, 1, 0.0, ECAL_FACE)
    assert reached  # the endcap is nearer than a turn
    assert eta > 2.0


@given(st.floats(0.5, 20), st.floats(-1.0, 1.0), st.sampled_from([1, -1]))
def test_the_helix_is_the_circle_of_its_radius(pt, eta, charge):
    reached, impact_eta, impact_phi = arrive(pt, eta, 0.0, charge, 0.0, ECAL_FACE)
    if reached and abs(math.sinh(impact_eta) * ECAL_FACE[0]) < ECAL_FACE[1] - 1e-6:
        x, y = ECAL_FACE[0] * math.cos(impact_phi), ECAL_FACE[0] * math.sin(impact_phi)
        radius = pt * METRES_PER_GEV
        assert math.isclose(math.hypot(x, y + charge * radius), radius, rel_tol=1e-9)
        turned = 2 * math.asin(ECAL_FACE[0] / (2 * radius))
        assert math.isclose(math.sinh(impact_eta) * ECAL_FACE[0], radius * turned * math.sinh(eta), abs_tol=1e-9)
