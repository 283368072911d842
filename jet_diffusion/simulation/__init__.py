"""Quark and gluon jets from Pythia 8 through a fast model of the CMS detector, in the file's own schema.

The chain, one module a step: `events` (Pythia), `tracker` and `propagation` and `calorimeter` (the detector),
`pileup` and `pileup_cache`, `particle_flow` and `jets` (what is called a jet, and which one is kept), `readout`
and `images` (what of the energy is written, and where), `block` and `generate` (many jets, reproducibly),
`validation` (against the published facts of the real file, `facts`). docs/simulation.md tells the physics and what
is wrong with it.
"""
