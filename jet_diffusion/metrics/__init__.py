"""Distances and two-sample tests between sets of jets."""
