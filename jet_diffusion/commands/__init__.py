"""The subcommands of `jet-diffusion`, one file each: a dataclass `Options` and a `main` that takes it.

Nothing imports them but `cli`. The docstring of `Options` is the command's help. What takes long to import is imported
in `main`; not under TYPE_CHECKING either, for jsonargparse imports what stands there to resolve annotations.
"""

from __future__ import annotations

import re
from typing import Literal

from jet_diffusion.errors import UserError

Scheduler = Literal["ddpm", "ddpm-large", "ddim", "dpm++", "sde-dpm++", "unipc", "euler"]
"""Names of `jet_diffusion.pipelines.schedulers.SCHEDULERS`, which takes long to import."""

Precision = Literal["auto", "no", "bf16"]
"""`jet_diffusion.precision.PRECISIONS`, likewise."""


def require_repo(option: str, name: str | None) -> None:
    """Refuse a name that no repository on the Hub can have; None passes.

    Raises:
        UserError: Saying what is accepted.
    """
    if name is not None and not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name, re.ASCII):
        raise UserError(f"{option} must be a repository on the Hub, user/name, got {name!r}")
