"""Kinds of particle the detector tells apart."""

from __future__ import annotations

PHOTON, ELECTRON, MUON, CHARGED_HADRON, NEUTRAL_HADRON = range(5)
