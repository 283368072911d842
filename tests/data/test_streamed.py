"""A split that is streamed from the loopback Hub is the one on disk; each fault is one line."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pytest
from fakehub import FakeHub

from jet_diffusion.data import convert as conversion
from jet_diffusion.data.bundled import sample_path

SAME = """
import pickle, sys
import numpy as np
from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.data.files.streamed import SHARDS_HELD, StreamedJets, open_split
local, streamed = JetDataset.load(sys.argv[1], "train"), open_split("hf://user/jets", "train")
assert isinstance(streamed, StreamedJets) and not isinstance(open_split(sys.argv[1], "train"), StreamedJets)
assert len(streamed.shards) == 26 > SHARDS_HELD and sum(streamed.shards) == len(local) == 320
assert streamed.fingerprint == local.fingerprint and streamed.metadata == local.metadata
for name in ("labels", "pt", "m0", "content_hash"):
    one, two = getattr(streamed, name), getattr(local, name)
    assert one.dtype == two.dtype and (one == two).all(), name
assert streamed.simulated == local.simulated and streamed.all_hcal_in_towers == local.all_hcal_in_towers
draw = np.random.default_rng(0)
for rows in (draw.permutation(320), draw.integers(0, 320, 50), slice(100, 130), [7], []):
    for one, two in zip(streamed.hits(rows), local.hits(rows), strict=True):
        assert one.dtype == two.dtype and np.array_equal(one, two), rows
    assert len(streamed._held) <= SHARDS_HELD
assert (streamed.energies([319, 0, 5, 5]) == local.energies([319, 0, 5, 5])).all()
try:
    streamed.hits([320])
except IndexError:
    pass
else:
    raise AssertionError
fork = pickle.loads(pickle.dumps(streamed))
assert not fork._held and (fork.energies([9]) == local.energies([9])).all()
first, few = open_split("hf://user/jets", "train[:100]"), JetDataset.load(sys.argv[1], "train[:100]")
assert first.fingerprint == few.fingerprint and (first.energies([99]) == few.energies([99])).all()
assert sum(first.shards) == len(first) == 100
assert (streamed.spread(999) == np.arange(320)).all()
assert len(np.unique(np.searchsorted(np.cumsum(streamed.shards), streamed.spread(40), side="right"))) <= 4
"""

FAULTS = """
import json, sys, time
from jet_diffusion.data.files.streamed import open_split
time.sleep = lambda seconds: None
lines = {}
for name in json.loads(sys.argv[1]):
    try:
        jets = open_split(f"hf://{name}", "training" if name == "user/split" else "train")
        jets.energies([0, len(jets) - 1])
        lines[name] = "read"
    except Exception as error:
        lines[name] = f"{type(error).__name__}: {error}"
print(json.dumps(lines))
"""

LINES = {
    "user/whole": "read",
    "user/late": "read",
    "user/missing": r"FileNotFoundError: user/missing on the Hub is not whole: it lacks data/train-00003.parquet; push",
    "user/changed": r"UserError: data/train-00025.parquet of user/changed is not what was converted: its digest",
    "user/cut-off": r"UserError: data/train-00025.parquet of user/cut-off is damaged: ",
    "user/other": r"UserError: data/train-00001.parquet of user/other is of another dataset \(\d+ jets, \d+ by jet",
    "user/split": r"UserError: user/split has no split training; it has train, validation, test",
    "user/empty": r"FileNotFoundError: user/empty on the Hub is no converted dataset: it holds no jet_diffusion.json",
    "user/old": r"UserError: user/old was converted before shards had digests: convert and push it again",
    "user/none": r"FileNotFoundError: user/none is neither a folder nor a dataset on the Hub",
    "no name": r"FileNotFoundError: no name is neither a folder nor the name of a dataset on the Hub, user/name",
    "user/cut": r"ConnectionError: data/train-\d+.parquet of user/cut cannot be read: the Hub cannot be reached",
    "user/half": r"ConnectionError: data/train-\d+.parquet of user/half cannot be read: the Hub cannot be reached",
    "user/403": r"PermissionError: jet_diffusion.json of user/403 cannot be read: the Hub refuses access to user/403",
    "user/gone": r"ConnectionError: user/gone cannot be streamed: the Hub cannot be reached \(\w+\); try again later",
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """400 jets in shards of few."""
    out = tmp_path_factory.mktemp("streamed") / "jets"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversion, "BLOCK_JETS", 16)
        conversion.convert(sample_path(), out, max_jets=400)
    return out


@pytest.mark.integration
def test_a_streamed_split_is_the_one_on_disk(shards, tmp_path):
    with FakeHub() as hub:
        hub.put("datasets", "user/jets", shards)
        environment = hub.environment(tmp_path / "home")
        subprocess.run([sys.executable, "-c", SAME, str(shards)], check=True, env=environment, cwd=tmp_path)
    assert not [*(tmp_path / "home").rglob("*.parquet")]


@pytest.mark.integration
def test_a_dataset_that_cannot_be_streamed_is_one_line(shards, tmp_path):
    with FakeHub() as hub:
        for name in LINES.keys() - {"user/none", "no name"}:
            folder = shutil.copytree(shards, tmp_path / name)
            shard, last = (folder / "data" / f"train-000{number}.parquet" for number in ("03", "25"))
            if name == "user/missing":
                shard.unlink()
            elif name == "user/changed":
                data = bytearray(last.read_bytes())
                data[50] ^= 1
                last.write_bytes(data)
            elif name == "user/cut-off":
                last.write_bytes(last.read_bytes()[:-100])
            elif name == "user/other":
                shutil.copy(folder / "data" / "validation-00000.parquet", folder / "data" / "train-00001.parquet")
            elif name == "user/empty":
                (folder / "jet_diffusion.json").unlink()
            elif name == "user/old":
                metadata = json.loads((folder / "jet_diffusion.json").read_text())
                del metadata["shards"]
                (folder / "jet_diffusion.json").write_text(json.dumps(metadata))
            hub.put("datasets", name, folder)
        hub.faults["resolve", "user/late"] = [503, 3]
        hub.faults["resolve", "user/403"] = [403, 10**6]
        hub.faults["info", "user/gone"] = ["cut", 10**6]
        hub.faults["resolve", "user/cut"] = ["cut", 10**6, 1]  # the metadata pass
        hub.faults["resolve", "user/half"] = ["half", 10**6, 1]
        environment = hub.environment(tmp_path / "home")
        done = subprocess.run(
            [sys.executable, "-c", FAULTS, json.dumps([*LINES])],
            check=True, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
    lines = json.loads(done.stdout)
    wrong = {name: lines[name] for name, line in LINES.items() if not re.match(line, lines[name])}
    assert not wrong
