"""A process that loads a published model as anybody does: by diffusers, without this package."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

STRANGER = """
import json, sys, importlib.abc
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "jet_diffusion":
            raise ModuleNotFoundError("jet_diffusion is not installed here")
sys.meta_path.insert(0, Absent())
import numpy as np, torch
from diffusers import DiffusionPipeline
source, saved, out, conditions = sys.argv[1:]
def jets(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    return pipeline(3, **json.loads(conditions), num_inference_steps=4, generator=generator).images
pipeline = DiffusionPipeline.from_pretrained(source, trust_remote_code=True)
first = jets(pipeline)
pipeline.save_pretrained(saved)
second = jets(DiffusionPipeline.from_pretrained(saved, trust_remote_code=True))
np.savez(out, first=first, second=second, provenance=pipeline.config.provenance)
"""


def run_stranger(source, tmp_path, environment, conditions='{"labels": 1}'):
    script = tmp_path / "stranger.py"
    script.write_text(STRANGER)
    out = tmp_path / "jets.npz"
    done = subprocess.run(
        [sys.executable, str(script), str(source), str(tmp_path / "saved"), str(out), conditions],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return np.load(out)
