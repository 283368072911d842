"""The subcommands of `jet-diffusion`, one file each: a dataclass `Options` and a `main` that takes it.

Nothing imports them but `cli`. The docstring of `Options` is the command's help. What takes long to import is imported
in `main`; not under TYPE_CHECKING either, for jsonargparse imports what stands there to resolve annotations.
"""

from __future__ import annotations

import re

from jet_diffusion.errors import UserError


def require_repo(option: str, name: str | None) -> None:
    """Refuse a name that no repository on the Hub can have; None passes.

    Raises:
        UserError: Saying what is accepted.
    """
    if name is not None and not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name, re.ASCII):
        raise UserError(f"{option} must be a repository on the Hub, user/name, got {name!r}")
