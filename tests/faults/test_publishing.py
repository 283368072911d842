"""What is published: swapped in one go, and nothing from outside the run folder."""

from __future__ import annotations

import os
import shutil

import pytest

from jet_diffusion import io
from jet_diffusion.workflows.stage import stage


@pytest.fixture
def staged(run, tmp_path):
    return stage(run, tmp_path / "model", "user/jets")


@pytest.mark.parametrize("kill", ["before the new one comes", "before the old one goes"])
def test_a_killed_replacement_loses_nothing(run, staged, tmp_path, monkeypatch, kill):
    (staged / "mark").touch()

    class Killed(BaseException):
        pass

    def die(*_, **__):
        raise Killed

    if kill == "before the new one comes":
        renames = []

        def rename(old, new):
            renames.append(new)
            return die() if len(renames) == 2 else os.rename(old, new)

        monkeypatch.setattr(io.os, "replace", rename)
    else:
        monkeypatch.setattr(io.shutil, "rmtree", die)
    new = tmp_path / "new"
    shutil.copytree(run.path / "initial", new)
    with pytest.raises(Killed):
        io.replace_folder(new, staged)
    monkeypatch.undo()
    io.restore_folder(staged)
    assert (staged / "mark").exists() is (kill == "before the new one comes")
    assert (staged / "model_index.json").is_file()
    assert not (tmp_path / ".model.replaced").exists()


def test_a_replaced_folder_is_there_at_every_moment_but_one(run, staged, tmp_path, monkeypatch):
    seen = []
    rmtree = shutil.rmtree
    monkeypatch.setattr(io.shutil, "rmtree", lambda path, **more: (seen.append(staged.exists()), rmtree(path, **more)))
    stage(run, staged, "user/other")
    assert seen and all(seen)
    assert "user/other" in (staged / "README.md").read_text()


@pytest.mark.parametrize("name", ["history.png", "training_jets.npy", "samples/step-00000003.png", "evaluation"])
def test_links_that_leave_the_run_folder_are_refused(run, tmp_path, name):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "report.json").write_text("private")
    (run.path / name).unlink(missing_ok=True)
    (run.path / name).symlink_to(secret if name == "evaluation" else secret / "report.json")
    with pytest.raises(ValueError, match=rf"{name} is a symbolic link to .*secret.*, outside the run's folder"):
        stage(run, tmp_path / "model", "user/jets")
    assert not (tmp_path / "model").exists()


def test_links_within_the_run_folder_and_to_it_are_no_harm(run, tmp_path):
    (run.path / "newest.png").symlink_to(run.history)
    (tmp_path / "link").symlink_to(run.path)
    run = type(run)(tmp_path / "link")
    assert (stage(run, tmp_path / "model", "user/jets") / "history.png").is_file()
