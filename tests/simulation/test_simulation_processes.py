"""Simulated jets on one process and on two, with blocks of their full size."""

import pytest

pytest.importorskip("numba")
pytest.importorskip("pythia8mc")
pytest.importorskip("fastjet")

from jet_diffusion.simulation.generate import simulate
from jet_diffusion.simulation.settings import SimulationSettings


@pytest.mark.slow
def test_the_jets_do_not_depend_on_the_number_of_processes(tmp_path, small_pool):
    chosen = SimulationSettings(600, seed=4, pileup=5.0)
    simulate(chosen, tmp_path / "one.hdf5", workers=1)
    simulate(chosen, tmp_path / "two.hdf5", workers=2)
    assert (tmp_path / "one.hdf5").read_bytes() == (tmp_path / "two.hdf5").read_bytes()
