"""Fixtures shared by all tests; every session has Hugging Face caches of its own and no network."""

from __future__ import annotations

import os
import shutil
import tempfile

_HOME = tempfile.mkdtemp(prefix="jet-diffusion-tests-")
os.environ.update(  # the libraries read these when they are imported
    HF_HOME=_HOME,
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    MPLBACKEND="Agg",
    OMP_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
)

import h5py  # noqa: E402
import hypothesis  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from sample_jets import Jets  # noqa: E402

from jet_diffusion.data.bundled import sample_path  # noqa: E402
from jet_diffusion.data.convert import convert  # noqa: E402
from jet_diffusion.data.hdf5 import QuarkGluonFile  # noqa: E402
from jet_diffusion.data.load import load_jets  # noqa: E402

hypothesis.settings.register_profile("jets", deadline=None, derandomize=True, max_examples=30)
hypothesis.settings.load_profile("jets")


def pytest_unconfigure():
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def _first_jets():
    with QuarkGluonFile(sample_path()) as file:
        return Jets(file.energies(0, 64), file.labels[:64], file.pt[:64], file.m0[:64])


@pytest.fixture
def jets(_first_jets):
    """The sample's first 64 jets; a copy, contiguous as (64, 3, 125, 125)."""
    return Jets(*(np.array(column, order="C") for column in _first_jets))


@pytest.fixture(scope="session")
def stand_in():
    """All jets of the sample, held sparsely, with their observables."""
    sample = load_jets(sample_path(), None, np.random.default_rng(0))
    _ = sample.observables
    return sample


@pytest.fixture
def write_file(tmp_path):
    """A function that writes jets to an HDF5 file; keywords go to the creation of `X_jets`."""

    def write(jets, name="jets.hdf5", attrs=None, **storage):
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            file.attrs.update(attrs or {})
            file.create_dataset("X_jets", data=np.moveaxis(jets.energies, 1, -1), **storage)
            for key, column in (("y", jets.labels), ("pt", jets.pt), ("m0", jets.m0)):
                file[key] = column.astype(np.float32)
        return path

    return write


@pytest.fixture(scope="session")
def converted_folder(tmp_path_factory):
    """The sample's first 400 jets, converted."""
    out = tmp_path_factory.mktemp("converted") / "jets"
    convert(sample_path(), out, max_jets=400)
    return out


@pytest.fixture(scope="session")
def small_pool(tmp_path_factory):
    """A pool of two shards of twenty pile-up events, in a folder of its own: what simulates pile-up takes seconds."""
    from jet_diffusion.simulation import pileup_cache

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(pileup_cache.FOLDER_VARIABLE, str(tmp_path_factory.mktemp("pileup")))
        patch.setattr(pileup_cache, "POOL_SHARDS", 2)
        patch.setattr(pileup_cache, "SHARD_EVENTS", 20)
        yield
