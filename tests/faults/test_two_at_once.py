"""Two commands never work on one folder or file: the second is told by whom, before any work."""

from __future__ import annotations

import os

import pytest
from models import small_pipeline

from jet_diffusion.locks import hold
from jet_diffusion.sampling import generate as generating
from jet_diffusion.sampling.generate import generate

pytestmark = pytest.mark.integration


def told(purpose):
    return rf"in use by `{purpose}` \(process {os.getpid()} on .*, since 20"


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.integration
def test_the_second_training_is_told(run, go_on):
    before = files(run.path)
    with hold(run.path, "train"), pytest.raises(BlockingIOError, match=told("train")):
        go_on(run, "--max_steps=4")
    assert files(run.path) == before
    assert [path.name for path in run.path.parent.iterdir()] == ["run"]


def test_the_second_generate_is_told(converted_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(generating, "sample_batches", lambda *_, **__: pytest.fail("it worked before it asked"))
    with hold(tmp_path / "jets.hdf5", "generate"), pytest.raises(BlockingIOError, match=told("generate")):
        generate(small_pipeline(converted_folder), tmp_path / "jets.hdf5", 2, steps=2)
    assert list(tmp_path.iterdir()) == []


def test_the_second_simulation_is_told(tmp_path):
    pytest.importorskip("pythia8mc")
    from jet_diffusion.simulation.generate import simulate
    from jet_diffusion.simulation.settings import SimulationSettings

    with hold(tmp_path / "jets.hdf5", "simulate"), pytest.raises(BlockingIOError, match=told("simulate")):
        simulate(SimulationSettings(num_jets=5, seed=0, pileup=0), tmp_path / "jets.hdf5")
    assert list(tmp_path.iterdir()) == []


def test_a_refused_generate_leaves_nothing(converted_folder, tmp_path, monkeypatch):
    pipeline = small_pipeline(converted_folder)
    with pytest.raises(ValueError, match=r"seed must lie in 0 to"):
        generate(pipeline, tmp_path / "jets.hdf5", 2, seed=2**64, steps=2)

    def fail(*_, **__):
        raise MemoryError
        yield

    monkeypatch.setattr(generating, "sample_batches", fail)
    with pytest.raises(MemoryError):
        generate(pipeline, tmp_path / "jets.hdf5", 2, seed=1, steps=2)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    generate(pipeline, tmp_path / "jets.hdf5", 2, seed=2, steps=2)
    assert [path.name for path in tmp_path.iterdir()] == ["jets.hdf5"]
