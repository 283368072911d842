"""Measurements: run one as `python -m benchmarks.speed.NAME` at the top of the tree."""
