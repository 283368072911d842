"""Optional parts of the package: where one is missing, the error says which extra brings it."""

from __future__ import annotations

import importlib
from types import ModuleType

from jet_diffusion.errors import UserError


def require(module: str, extra: str, what: str) -> ModuleType:
    """Import a module that an extra of this package brings.

    Args:
        module: its name.
        extra: the extra in pyproject.toml.
        what: what needs it, as the error's first words.

    Raises:
        UserError: the module is not installed; the message holds the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{what} needs {error.name}, which is not installed: run `pip install 'jet-diffusion[{extra}]'`"
        ) from error
