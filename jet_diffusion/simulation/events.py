"""Proton collisions from Pythia 8: the hard scatters that make the jets, and those that pile up on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jet_diffusion.simulation.detector.kinds import CHARGED_HADRON, ELECTRON, MUON, NEUTRAL_HADRON, PHOTON
from jet_diffusion.simulation.libraries import load_pythia
from jet_diffusion.simulation.settings import SimulationSettings

GLUON, QUARK, ANY = 0, 1, -1
"""Which partons a scatter must end in: two gluons, two light quarks, or anything. The first two are labels."""

COMMON = (
    "Beams:eCM = 8000.",  # proton beams of 4 TeV, as in 2012; protons are Pythia's default
    "ParticleDecays:limitTau0 = on",
    "ParticleDecays:tau0Max = 100.",  # mm: K_S and hyperons decay, pions and K_L reach the detector
    "Check:event = off",
    "Print:quiet = on",
    "Random:setSeed = on",
)

HARD = {
    GLUON: ("HardQCD:gg2gg = on", "HardQCD:qqbar2gg = on"),
    QUARK: (
        "HardQCD:qq2qq = on",
        "HardQCD:gg2qqbar = on",
        "HardQCD:qqbar2qqbarNew = on",
        "HardQCD:nQuarkNew = 3",
    ),
    ANY: ("HardQCD:all = on", "HardQCD:nQuarkNew = 3"),
}

SPECTRUM_POWER = {GLUON: 0.8, QUARK: 0.0, ANY: 0.4}
"""Scatters are drawn with their cross section times pT-hat to this power, and no weight is kept. (tuned: mean and
spread of the jets' pT, the same for both classes)"""

MAX_PARTON_ETA = 1.5
"""Both partons must lie within this; with a jet farther out the image would leave the detector (`images`)."""

LIGHT_FLAVOURS = (1, 2, 3)
GLUON_ID = 21

CHARGED_IDS = (11, 13, 211, 321, 2212, 3112, 3222, 3312, 3334)
CHARGE_OF_POSITIVE_ID = (-1, -1, 1, 1, 1, -1, 1, -1, -1)
NEUTRINO_IDS = (12, 14, 16)

MIN_PT, MAX_SLOPE = 0.1, 10.1
"""Final particles below 0.1 GeV or with |pz / pT| above 10.1 (|eta| > 3) leave nothing in the images."""


@dataclass(frozen=True)
class Events:
    """Final particles of several collisions, flat: those of event i are `offsets[i]:offsets[i + 1]`.

    Attributes:
        offsets: (events + 1,) int64.
        momentum: (particles, 4) float64: px, py, pz, E in GeV.
        kind: (particles,) int8, see `kinds`.
        charge: (particles,) int8, in units of e.
        radius: (particles,) float64, distance from the beam at birth in metres.
        partons: (events, 2, 3) float64: eta, phi and PDG id of the two outgoing partons.
    """

    offsets: np.ndarray
    momentum: np.ndarray
    kind: np.ndarray
    charge: np.ndarray
    radius: np.ndarray
    partons: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1


class HardScatters:
    """A Pythia generator of hard scatters of one class.

    Args:
        label: GLUON, QUARK or ANY.
        seed: Pythia's seed, 1 to 900,000,000.
        settings: Gives the range of pT-hat.
    """

    def __init__(self, label: int, seed: int, settings: SimulationSettings) -> None:
        low, high = settings.pt_hat_range
        biased = (
            f"PhaseSpace:pTHatMin = {low}",
            f"PhaseSpace:pTHatMax = {high}",
            "PhaseSpace:bias2Selection = on",
            f"PhaseSpace:bias2SelectionPow = {SPECTRUM_POWER[label]}",
            f"PhaseSpace:bias2SelectionRef = {low}",
        )
        self._veto = _parton_veto(label)  # Pythia holds no reference of its own
        self._pythia = _start((*HARD[label], *biased), seed, self._veto)

    def batch(self, number: int) -> Events:
        """The next `number` collisions."""
        return _final_particles(self._pythia.nextBatch(number), partons=True)


class MinimumBias:
    """A Pythia generator of ordinary inelastic collisions, what piles up on the hard one."""

    def __init__(self, seed: int) -> None:
        self._pythia = _start(("SoftQCD:inelastic = on",), seed, None)

    def batch(self, number: int) -> Events:
        """The next `number` collisions; their `partons` are zeros."""
        return _final_particles(self._pythia.nextBatch(number), partons=False)


def _start(lines: tuple[str, ...], seed: int, veto: Any) -> Any:
    pythia = load_pythia().Pythia("", False)
    for line in (*COMMON, f"Random:seed = {seed}", *lines):
        if not pythia.readString(line):
            raise RuntimeError(f"Pythia does not know the setting {line!r}")
    if veto is not None:
        pythia.setUserHooksPtr(veto)
    if not pythia.init():
        raise RuntimeError("Pythia could not start")
    return pythia


def _parton_veto(label: int) -> Any:
    """A Pythia hook that stops scatters into other partons, or out of the acceptance, before they cost time."""
    wanted = {GLUON: (GLUON_ID,), QUARK: LIGHT_FLAVOURS, ANY: (*LIGHT_FLAVOURS, GLUON_ID)}[label]

    class PartonVeto(load_pythia().UserHooks):  # type: ignore[misc]
        def canVetoProcessLevel(self) -> bool:  # noqa: N802
            return True

        def doVetoProcessLevel(self, process: Any) -> bool:  # noqa: N802
            pair = (process[5], process[6])
            return any(abs(p.id()) not in wanted or abs(p.eta()) > MAX_PARTON_ETA for p in pair)

    return PartonVeto()


def _final_particles(record: Any, partons: bool) -> Events:
    """Pick the visible final particles out of Pythia's record (an awkward array of events)."""
    import awkward as ak

    particles = record.prt
    counts = ak.num(particles.id).to_numpy()
    flat = ak.flatten(particles)
    status, identity = flat.status.to_numpy(), flat.id.to_numpy()
    momentum = np.stack([flat.p[name].to_numpy() for name in ("px", "py", "pz", "e")], axis=-1)
    pt = np.hypot(momentum[:, 0], momentum[:, 1])
    visible = (status > 0) & (pt > MIN_PT) & (np.abs(momentum[:, 2]) < MAX_SLOPE * pt)
    visible &= ~np.isin(np.abs(identity), NEUTRINO_IDS)
    event = np.repeat(np.arange(len(counts)), counts)
    kind, charge = classify(identity[visible])
    vertex = flat.vProd[visible]
    x, y = (ak.to_numpy(ak.fill_none(vertex[name], 0.0)) for name in ("px", "py"))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(event[visible], minlength=len(counts)))])
    outgoing = np.zeros((len(counts), 2, 3))
    if partons:
        outgoing = _outgoing_partons(status, identity, momentum, event, len(counts))
    return Events(offsets, momentum[visible], kind, charge, np.hypot(x, y) * 1e-3, outgoing)


def _outgoing_partons(
    status: np.ndarray, identity: np.ndarray, momentum: np.ndarray, event: np.ndarray, number: int
) -> np.ndarray:
    """eta, phi and id of the two partons that leave the hard scatter: the first two of status -23."""
    hard = np.flatnonzero(status == -23)
    owner = event[hard]
    position = np.arange(len(hard)) - np.searchsorted(owner, owner)
    first_two = hard[position < 2].reshape(number, 2)
    px, py, pz = (momentum[first_two, axis] for axis in range(3))
    return np.stack([np.arcsinh(pz / np.hypot(px, py)), np.arctan2(py, px), identity[first_two]], axis=-1)


def classify(identity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kind and charge of final particles from their PDG ids.

    Args:
        identity: (particles,) integers, PDG Monte Carlo numbers.

    Returns:
        kind and charge, (particles,) int8 each.
    """
    absolute = np.abs(identity)
    charge = np.zeros(len(identity), dtype=np.int8)
    for number, positive in zip(CHARGED_IDS, CHARGE_OF_POSITIVE_ID, strict=True):
        charge[absolute == number] = positive
    charge[identity < 0] *= -1
    kind = np.where(charge != 0, CHARGED_HADRON, NEUTRAL_HADRON).astype(np.int8)
    for number, special in ((22, PHOTON), (11, ELECTRON), (13, MUON)):
        kind[absolute == number] = special
    return kind, charge
