"""Print the lowest releases that pyproject.toml admits, as requirements: `lowest.py EXTRA ... > lowest.txt`.

torch is left out: where it is installed already, nothing here replaces it.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]


def requirements(extras: list[str]) -> list[str]:
    """Requirements of the package and of some extras, and of the extras that these name."""
    own = PROJECT["name"] + "["
    wanted = list(PROJECT["dependencies"])
    for extra in extras:
        for line in PROJECT["optional-dependencies"][extra]:
            wanted += requirements(line.removeprefix(own).rstrip("]").split(",")) if line.startswith(own) else [line]
    return sorted(set(wanted))


def lowest(requirement: str) -> str:
    """`name>=1.2,<2` as `name==1.2`."""
    return requirement.partition(",")[0].replace(">=", "==")


if __name__ == "__main__":
    lines = [lowest(line) for line in requirements(sys.argv[1:]) if not line.startswith("torch>")]
    sys.stdout.write("\n".join(lines) + "\n")
