"""What a user chooses about a simulation, and all that decides which jets come out."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from jet_diffusion.errors import UserError

PROCESSES = ("qg", "dijet")
"""`qg`: both partons gluons, or both light quarks, half of the jets each. `dijet`: every QCD 2 -> 2 process."""


@dataclass(frozen=True)
class SimulationSettings:
    """The settings that, with the versions of the libraries, fix every number of a simulated file.

    Attributes:
        num_jets: Jets to make.
        seed: Master seed, a non-negative integer.
        pileup: Mean number of further collisions in the same bunch crossing. (tuned: tracks and towers far from
            the jet)
        pt_min: Lowest jet pT kept, in GeV; the hard scatters run from 77 to 170 GeV for 70, else in proportion.
        process: One of PROCESSES.
    """

    num_jets: int
    seed: int
    pileup: float = 22.5
    pt_min: float = 70.0
    process: str = "qg"

    def __post_init__(self) -> None:
        """Reject settings that make no jets.

        Raises:
            UserError: If one is out of its range; the message names it, what was seen and what is accepted.
        """
        if self.num_jets < 1:
            raise UserError(f"num_jets must be at least 1, got {self.num_jets}")
        if self.seed < 0:
            raise UserError(f"seed must not be negative, got {self.seed}")
        if not 0 <= self.pileup <= 200:
            raise UserError(f"pileup must be between 0 and 200 collisions, got {self.pileup}")
        if not 20 <= self.pt_min <= 1000:
            raise UserError(f"pt_min must be between 20 and 1000 GeV, got {self.pt_min}")
        if self.process not in PROCESSES:
            raise UserError(f"process must be one of {', '.join(PROCESSES)}, got {self.process!r}")

    @property
    def pt_hat_range(self) -> tuple[float, float]:
        """Lowest and highest pT of the hard scatter, in GeV."""
        return self.pt_min * 77 / 70, self.pt_min * 170 / 70

    def attributes(self) -> dict[str, int | float | str]:
        """The settings as they are written into the file."""
        return asdict(self)
