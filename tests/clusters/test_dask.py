"""Simulation, conversion and evaluation on Dask's workers: the same bits as one process, whoever dies."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tasks import number_and_process, raise_for

pytest.importorskip("distributed")

import dask
from distributed import LocalCluster

from jet_diffusion.data import convert as convert_module
from jet_diffusion.data.bundled import sample_path
from jet_diffusion.data.convert import convert
from jet_diffusion.evaluation.run import evaluate_jets
from jet_diffusion.evaluation.two_sample import train_and_test
from jet_diffusion.parallel import Workers, dask_client, run_in_order, workers

pytestmark = pytest.mark.integration
PORT = 18786


@pytest.fixture
def small_conversion(monkeypatch):
    """Blocks of 50 jets, and the sample's first 400 converted in one process."""
    monkeypatch.setattr(convert_module, "BLOCK_JETS", 50)

    def make(out, **options):
        return convert(sample_path(), out, max_jets=400, **options)

    return make


def contents(folder):
    """Every file by its name in the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def processes_of_dask(arguments):
    return subprocess.Popen([sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip


@pytest.fixture
def scheduler():
    """A function that starts a scheduler with two workers and returns (address, its process)."""
    started = []

    def start():
        address = f"tcp://127.0.0.1:{PORT}"
        for arguments in (
            ["dask_scheduler", "--host=127.0.0.1", f"--port={PORT}", "--no-dashboard"],
            ["dask_worker", address, "--nworkers=2", "--nthreads=1", "--no-dashboard"],
        ):
            started.append(processes_of_dask(arguments))
        return address, started[-2]

    yield start
    for process in started:
        process.terminate()
    for process in started:
        process.wait(60)


def test_a_worker_that_dies_is_made_good():
    results = []
    with dask_client("local:2") as client:
        for number, pid in run_in_order(client, number_and_process, ((number,) for number in range(12))):
            results.append(number)
            if number == 2:
                os.kill(pid, signal.SIGKILL)
    assert results == list(range(12))


def test_errors_of_the_work_are_the_workers_own():
    with workers("local:1") as pool, pytest.raises(FileNotFoundError, match="no file 3"):
        pool.run(raise_for, [(3,)])


@pytest.mark.parametrize("number", [1, 3])
def test_conversion_is_the_same_for_any_number_of_workers(small_conversion, tmp_path, number):
    for name in ("one", "dask"):
        (tmp_path / name).mkdir()
    small_conversion(tmp_path / "one" / "jets")
    small_conversion(tmp_path / "dask" / "jets", dask=f"local:{number}")
    one, other = contents(tmp_path / "one"), contents(tmp_path / "dask")
    assert len(one) > 20
    assert one == other


def test_conversion_goes_on_after_the_scheduler_has_gone(small_conversion, scheduler, tmp_path):
    for name in ("one", "dask"):
        (tmp_path / name).mkdir()
    small_conversion(tmp_path / "one" / "jets")
    address, process = scheduler()
    partial = tmp_path / "dask" / ".jets.partial"

    def kill_after_the_first_block():
        while not any(partial.glob("block-*.json")):
            time.sleep(0.005)
        process.kill()

    killer = threading.Thread(target=kill_after_the_first_block)
    killer.start()
    with pytest.raises(ConnectionError, match=r"scheduler at tcp://127.* went away; .* the same command goes on"):
        small_conversion(tmp_path / "dask" / "jets", dask=address)
    killer.join()
    assert not (tmp_path / "dask" / "jets").exists()
    done = len(list(partial.glob("block-*.json")))
    assert 1 <= done < 8, "it was killed too late to test anything"
    small_conversion(tmp_path / "dask" / "jets", dask="local:2")
    assert contents(tmp_path / "one") == contents(tmp_path / "dask")


def test_simulated_jets_are_the_same_when_a_worker_dies(tmp_path, monkeypatch, small_pool):
    for library in ("numba", "pythia8mc", "fastjet"):
        pytest.importorskip(library)
    from small_blocks import FEW

    from jet_diffusion.simulation import block, generate
    from jet_diffusion.simulation.pileup_cache import pool_folder
    from jet_diffusion.simulation.settings import SimulationSettings

    monkeypatch.setattr(generate, "JETS_PER_BLOCK", FEW)
    monkeypatch.setattr(block, "JETS_PER_BLOCK", FEW)
    settings = SimulationSettings(5 * FEW + 3, seed=4, pileup=2.0)
    generate.simulate(settings, tmp_path / "one.hdf5")
    shutil.rmtree(pool_folder())  # the workers make the pile-up too
    in_order, killed = generate.run_in_order, []

    def with_a_death(client, function, calls):
        for number, packed in enumerate(in_order(client, function, calls)):
            if number == 1:
                address, pid = next(iter(client.run(os.getpid).items()))
                os.kill(pid, signal.SIGKILL)
                killed.append(address)
            yield packed

    monkeypatch.setattr(generate, "run_in_order", with_a_death)
    with dask.config.set({"distributed.worker.preload": [str(Path(__file__).with_name("small_blocks.py"))]}):
        generate.simulate(settings, tmp_path / "dask.hdf5", dask="local:2")
    assert killed
    assert (tmp_path / "one.hdf5").read_bytes() == (tmp_path / "dask.hdf5").read_bytes()


def test_evaluation_is_the_same(stand_in):
    real, generated = stand_in.split([620, 320], np.random.default_rng(0))
    one, other = (
        evaluate_jets(real, generated, size=310, classifiers=["observables"], jobs=jobs).report
        for jobs in (1, "local:2")
    )
    assert "auc_observables" in [result.name for result in one.results]
    np.testing.assert_equal([vars(result) for result in other.results], [vars(result) for result in one.results])
    np.testing.assert_equal(other.tables, one.tables)


@pytest.mark.slow
def test_networks_train_the_same_on_threads_of_one_worker(stand_in):
    """torch's random state belongs to all threads of a process."""
    real, other = stand_in.split([300, 300], np.random.default_rng(0))
    calls = [("voxels", real, other, seed) for seed in (0, 1)]
    here = Workers().run(train_and_test, calls)
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0") as cluster,
        workers(cluster.scheduler_address) as pool,
    ):
        there = pool.run(train_and_test, calls)
    assert [test.auc for test in there] == [test.auc for test in here]
    assert here[0].auc != here[1].auc


def test_a_refused_source_is_refused_by_the_workers(jets, write_file, small_conversion, tmp_path):
    """A faulty jet in one of several files, and the same words as in one process."""
    good = write_file(jets, "good.hdf5")
    jets.energies[5, 0, 0, 0] = -1
    sources, said = [good, write_file(jets, "bad.hdf5")], []
    for address in (None, "local:1"):
        with pytest.raises(ValueError, match="1 jet with an energy below 0") as refused:
            convert(sources, tmp_path / "out", dask=address)
        said.append(str(refused.value))
    assert said[0] == said[1]
    assert not list(tmp_path.glob("*out*"))
    with pytest.raises(ValueError, match="leave out one of the two"):
        convert(sources, tmp_path / "out", dask="local:1", drop_bad=True)


def test_jets_are_appended_by_the_workers(jets, write_file, small_conversion, tmp_path):
    more = write_file(jets)
    for name, address in (("here", None), ("there", "local:2")):
        (tmp_path / name).mkdir()
        small_conversion(tmp_path / name / "jets")
        convert(more, tmp_path / name / "jets", append=True, dask=address)
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


def test_wrong_addresses_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="local:N"), dask_client("local:none"):
        pass
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(ConnectionError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1: start"),
        dask_client("tcp://127.0.0.1:1"),
    ):
        pass
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(ValueError, match=r"--dask needs distributed, .*'jet-diffusion\[dask\]'"),
        dask_client("local:1"),
    ):
        pass
