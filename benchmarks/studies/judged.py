"""Read files of judged jets."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any


def read_judged(path: Path) -> dict[str, Any]:
    """Read the JSON that `judge` or `ablate` wrote; baselines that an older file calls floors get today's name."""

    def renamed(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {re.sub("_floor$", "_baseline", key): value for key, value in pairs}

    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=renamed)
    return found
