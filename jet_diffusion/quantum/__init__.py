"""Quantum diffusion of jets on a simulator: states, channels, circuits, models made of them (docs/quantum.md)."""
