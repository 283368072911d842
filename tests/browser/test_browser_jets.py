"""What the page computes: wishes and their refusals, the files that come of them, two visitors, and the Space."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from huggingface_hub import SpaceCard
from models import small_pipeline
from PIL import Image

from jet_diffusion import cli
from jet_diffusion.data.load import load_jets
from jet_diffusion.errors import UserError
from jet_diffusion.workflows.browser import jets, space
from jet_diffusion.workflows.browser.jets import JetBrowser, Wish

pytestmark = pytest.mark.integration

GOOD = {"num_jets": "3", "steps": "2", "seed": "1", "label": "quark", "pt": "120", "m0": "15.0"}


@pytest.fixture(scope="module")
def pipeline(converted_folder):
    return small_pipeline(converted_folder)


@pytest.fixture(scope="module")
def browser(pipeline, stand_in):
    return JetBrowser(pipeline, "user/jets", stand_in, most_jets=20)


def nothing(done, steps):
    pass


def test_a_wish_becomes_jets_pictures_and_a_file(browser, tmp_path):
    seen = []
    made = browser.make(Wish(**GOOD | {"num_jets": "17"}), tmp_path, lambda *args: seen.append(args))
    assert seen == [(done, 4) for done in range(5)]  # two batches of two steps
    jets = load_jets(made.file, generated=True)
    assert len(jets) == 17
    assert set(jets.labels) == {1}
    assert np.allclose(jets.pt, 120)
    assert len(made.jets) == 8
    assert made.jets[0][1] == "quark, pT 120 GeV, mass 15 GeV"
    for path in (*(path for path, _ in made.jets), made.sheet, made.observables):
        with Image.open(path) as picture:
            assert picture.width >= 700
    with Image.open(made.animation) as picture:
        assert picture.n_frames == 2
    assert made.text.startswith("17 jets in ")


@pytest.mark.slow
def test_a_seed_makes_the_same_jets_again_and_folders_keep_visitors_apart(browser, tmp_path):
    energies = []
    for name, seed in (("one", "1"), ("two", "1"), ("three", "2")):
        (tmp_path / name).mkdir()
        made = browser.make(Wish(**GOOD | {"seed": seed}), tmp_path / name, nothing)
        assert made.file.parent == tmp_path / name
        energies.append(load_jets(made.file, generated=True).energies())
    assert np.array_equal(energies[0], energies[1])
    assert not np.array_equal(energies[0], energies[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_jets": "21"}, "the number of jets must be a whole number from 1 to 20, not '21'"),
        ({"num_jets": "2.5"}, "the number of jets must be a whole number from 1 to 20, not '2.5'"),
        ({"num_jets": ""}, "the number of jets must be a whole number from 1 to 20, not ''"),
        ({"steps": "0"}, "the number of steps must be a whole number from 1 to 100, not '0'"),
        ({"seed": "-1"}, "the seed must be a whole number from 0"),
        ({"pt": "-5"}, "the pT must be a positive number of GeV, not '-5'"),
        ({"m0": "nan"}, "the mass must be a positive number of GeV, not 'nan'"),
        ({"m0": "heavy " * 9}, "the mass must be a positive number of GeV, not 'heavy heavy heavy he'"),
        ({"label": "top"}, "labels must be 0 or 'gluon', 1 or 'quark'"),
    ],
    ids=str,
)
def test_bad_wishes_are_refused_before_any_work(browser, tmp_path, change, message):
    def fail(done, steps):
        raise AssertionError("work began")

    with pytest.raises(UserError, match=re.escape(message)):
        browser.make(Wish(**GOOD | change), tmp_path, fail)
    assert not list(tmp_path.iterdir())


def test_what_progress_raises_ends_the_sampling(browser, tmp_path):
    def stop(done, steps):
        if done == 1:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        browser.make(Wish(**GOOD), tmp_path, stop)
    assert not list(tmp_path.iterdir())


def test_extrapolation_is_said(browser):
    low, high = browser.pipeline.first_stage.limits()[0].tolist()
    assert browser.outside({"pt": (low + high) / 2}) == ""
    assert f"pT {low:.0f} to {high:.0f} GeV" in browser.outside({"pt": 2 * high, "labels": "quark"})


def test_an_unconditional_model_has_no_conditions(converted_folder, stand_in, tmp_path):
    pipeline = small_pipeline(converted_folder, "--unet.conditioning=none")
    made = JetBrowser(pipeline, "model", stand_in).make(Wish("2", "2", "0"), tmp_path, nothing)
    assert [caption for _, caption in made.jets] == ["jet 0", "jet 1"]
    assert set(load_jets(made.file, generated=True).labels) == {-1}
    with pytest.raises(UserError, match="unconditional"):
        JetBrowser(pipeline, "model", stand_in).check(Wish("2", "2", "0", label="quark"))


def test_a_space_has_page_card_and_package(tmp_path, monkeypatch):
    monkeypatch.setattr(space, "require", lambda *_: SimpleNamespace(__version__="6.0.0"))
    folder = space.stage_space(tmp_path / "space", "user/page", "user/jets", "mit")
    card = SpaceCard.load(folder / "README.md").data.to_dict()
    assert card["sdk"] == "gradio"
    assert card["app_file"] == "app.py"
    assert card["python_version"] == "{}.{}".format(*sys.version_info)
    assert card["models"] == ["user/jets"]
    assert "torch" in (folder / "requirements.txt").read_text()
    assert 'load_browser("user/jets"' in (folder / "app.py").read_text()
    code = "import jet_diffusion.training, jet_diffusion.pipelines; print(jet_diffusion.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(folder))
    space.stage_space(folder, "user/page", "user/jets", "mit")  # replaces it
    (folder / "app.py").unlink()
    with pytest.raises(FileExistsError, match="no staged Space"):
        space.stage_space(folder, "user/page", "user/jets", "mit")
    shutil.rmtree(folder)


def refusal(capsys, *argv):
    with pytest.raises(SystemExit):
        cli.main(list(argv))
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_serve_names_the_extra_that_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert "pip install 'jet-diffusion[serve]'" in refusal(capsys, "serve", "model")


def test_serve_refuses_a_taken_port_and_a_wrong_model(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "gradio", SimpleNamespace())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"cannot listen at 127.0.0.1:{port}" in refusal(capsys, "serve", "model", f"--port={port}")
    assert "is no pipeline: it has no model_index.json" in refusal(capsys, "serve", str(tmp_path), f"--port={port}")


def test_serve_says_that_the_page_did_not_start(monkeypatch, capsys):
    def launch(**_):
        raise OSError("Cannot find empty port in range")

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setitem(sys.modules, "gradio", SimpleNamespace())
    page = SimpleNamespace(make_page=lambda _: SimpleNamespace(launch=launch))
    monkeypatch.setitem(sys.modules, "jet_diffusion.workflows.browser.page", page)
    monkeypatch.setattr(jets, "load_browser", lambda *_: None)
    assert f"the page did not start at 127.0.0.1:{port} within" in refusal(capsys, "serve", "model", f"--port={port}")
