"""The notebooks run from top to bottom with tiny sizes: their cells, one after the other, as one program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "docs" / "notebooks"


@pytest.mark.parametrize(
    "notebook",
    [
        pytest.param("quickstart", marks=pytest.mark.integration),
        pytest.param("generate_and_compare", marks=pytest.mark.slow),
    ],
)
def test_every_notebook_runs(notebook, tmp_path):
    cells = re.findall(r"^```python\n(.*?)^```$", (NOTEBOOKS / f"{notebook}.md").read_text(), re.DOTALL | re.MULTILINE)
    assert len(cells) > 4
    program = tmp_path / "cells.py"
    program.write_text("\n".join(cells))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JET_DIFFUSION_QUICK": "1", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_there_is_no_other_notebook():
    assert {path.stem for path in NOTEBOOKS.iterdir()} == {"quickstart", "generate_and_compare"}
