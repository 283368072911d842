"""A block: the jets that one random stream makes, the unit of work and of resuming."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jet_diffusion.schema import IMAGE_SHAPE
from jet_diffusion.simulation.detector.particle_flow import reconstruct
from jet_diffusion.simulation.events import ANY, GLUON, GLUON_ID, QUARK, HardScatters
from jet_diffusion.simulation.images import draw_images
from jet_diffusion.simulation.jets import find_jets
from jet_diffusion.simulation.pileup import BEAM_SPOT_LENGTH, PileupPool, draw_overlay
from jet_diffusion.simulation.seeds import JET_STREAM, SHUFFLE_STREAM, pythia_seed, stream
from jet_diffusion.simulation.settings import SimulationSettings

JETS_PER_BLOCK = 500

BATCH_EVENTS = 40
"""Collisions generated at a time; part of what fixes the numbers, for jets of a batch share a random stream."""


class Block(NamedTuple):
    """Jets in the file's order: energies (jets, 3, 125, 125) in GeV/100, labels, pt and m0 in GeV, float32."""

    energies: np.ndarray
    labels: np.ndarray
    pt: np.ndarray
    m0: np.ndarray


class PackedBlock(NamedTuple):
    """A block without its zeros, fit to be sent between processes."""

    places: np.ndarray
    values: np.ndarray
    labels: np.ndarray
    pt: np.ndarray
    m0: np.ndarray

    @classmethod
    def pack(cls, block: Block) -> PackedBlock:
        """Keep the energies that are not zero, one in sixty."""
        places = np.flatnonzero(block.energies)
        return cls(places, block.energies.ravel()[places], *block[1:])

    def unpack(self) -> Block:
        """The block again, bit for bit."""
        energies = np.zeros((len(self.labels), *IMAGE_SHAPE), np.float32)
        energies.ravel()[self.places] = self.values
        return Block(energies, self.labels, self.pt, self.m0)


def make_block(settings: SimulationSettings, number: int, pool: PileupPool) -> Block:
    """Generate block `number`, both classes shuffled."""
    if settings.process == "qg":
        half = JETS_PER_BLOCK // 2
        parts = [_make_jets(settings, number, label, half, pool) for label in (GLUON, QUARK)]
    else:
        parts = [_make_jets(settings, number, ANY, JETS_PER_BLOCK, pool)]
    block = Block(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    order = stream(settings.seed, SHUFFLE_STREAM, number).permutation(JETS_PER_BLOCK)
    return Block(*(column[order] for column in block))


def _make_jets(settings: SimulationSettings, block: int, label: int, number: int, pool: PileupPool) -> Block:
    rng = stream(settings.seed, JET_STREAM, block, label - ANY)
    generator = HardScatters(label, pythia_seed(rng), settings)
    batches: list[Block] = []
    made = 0
    while made < number:
        batches.append(_make_batch(generator, rng, settings, pool))
        made += len(batches[-1].labels)
    return Block(*(np.concatenate(columns)[:number] for columns in zip(*batches, strict=True)))


def _make_batch(
    generator: HardScatters, rng: np.random.Generator, settings: SimulationSettings, pool: PileupPool
) -> Block:
    events = generator.batch(BATCH_EVENTS)
    particles = reconstruct(rng, events)
    vertices = rng.normal(0, BEAM_SPOT_LENGTH, len(events))
    crossing, before, after = (draw_overlay(rng, pool.num_events, settings.pileup, len(events)) for _ in range(3))
    jets = find_jets(events, particles, pool, crossing, settings.pt_min)
    energies, drawn = draw_images(rng, jets, events.offsets, particles, vertices, pool, (crossing, before, after))
    is_quark = np.abs(jets.parton[drawn]) != GLUON_ID
    columns = (is_quark, jets.pt[drawn], jets.mass[drawn])
    return Block(energies, *(column.astype(np.float32) for column in columns))
