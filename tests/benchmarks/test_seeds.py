from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def seeds(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.studies import seeds

    return seeds


def test_independent_means_differ_by_one_standard_error(seeds):
    rng = np.random.default_rng(0)
    pulls = [seeds.pull(rng.normal(size=300), rng.normal(size=200)) for _ in range(400)]
    assert np.mean(np.square(pulls)) == pytest.approx(1, abs=0.2)
    assert seeds.pull(rng.normal(1, size=300), rng.normal(size=200)) > 8


def test_parts_of_one_file_and_of_two_are_told_apart(seeds, write_file, jets, tmp_path, monkeypatch, capsys):
    (tmp_path / "other").mkdir()
    files = [str(write_file(jets, name)) for name in ("jets.hdf5", "other/jets.hdf5")]
    monkeypatch.setattr(sys, "argv", ["seeds", *files, "--size=24"])
    seeds.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("pairs")[0] for line in lines[-2:]] == ["one file, 2 ", "two files, 4 "]
    same = [line.split() for line in lines if line.startswith(("jets 0, jets 0", "jets 1, jets 1"))]
    assert len(same) == 2
    for row in same:  # the same jets in two files
        assert [float(value) for value in row[4:7]] == [0, 0, 0]
