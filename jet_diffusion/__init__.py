"""Diffusion models of quark/gluon calorimeter jet images."""

__version__ = "0.1.0"
