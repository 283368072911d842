"""A Space from end to end: published to a Hub on loopback, downloaded as the Hub would, and started."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from urllib.request import urlopen

import pytest
from fakehub import FakeHub
from models import small_settings

from jet_diffusion.training.train import train

gradio_client = pytest.importorskip("gradio_client")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # of the client's libraries
]

DOWNLOAD = "from huggingface_hub import snapshot_download; "
DOWNLOAD += "snapshot_download('user/page', repo_type='space', local_dir='space')"


START = """
import importlib.metadata, runpy
found = importlib.metadata.version
def version(name):
    if name == "jet-diffusion":
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)
importlib.metadata.version = version
runpy.run_path("app.py", run_name="__main__")
"""
"""Runs the page as a Space does: with the package's folder beside it, but no record of its installation."""


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def run(environment, folder, *command):
    done = subprocess.run(
        [sys.executable, *command],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_published_space_shows_the_page_of_the_published_model(converted_folder, tmp_path):
    made = train(small_settings(converted_folder, tmp_path / "run", "--max_steps=2"))
    with FakeHub() as hub:
        publisher = hub.environment(tmp_path / "publisher")
        command = ["-m", "jet_diffusion", "publish", str(made.path), "--repo=user/jets", "--space=user/page"]
        said = run(publisher, tmp_path, *command)
        assert f"published at {hub.url}/user/jets" in said
        assert f"page at {hub.url}/spaces/user/page" in said
        pushed = hub.repos["spaces", "user/page"].files()
        assert {"README.md", "app.py", "requirements.txt", "jet_diffusion/__init__.py"} <= set(pushed)
        visitor = hub.environment(tmp_path / "visitor") | {"GRADIO_SERVER_PORT": str(free_port())}
        run(visitor, tmp_path, "-c", DOWNLOAD)
        server = subprocess.Popen(
            [sys.executable, "-u", "-c", START],
            env=visitor,
            cwd=tmp_path / "space",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            address = next(found[0] for line in server.stdout if (found := re.search(r"http://[\w.:]+", line)))
            with urlopen(address, timeout=60) as page:
                assert "by the model **user/jets**" in page.read().decode()
            text, *_ = gradio_client.Client(address, verbose=False).predict(
                "quark", "120", "", "2", "2", "0", api_name="/generate"
            )
            assert text.startswith("2 jets in")
        finally:
            server.terminate()
            error = server.communicate(timeout=60)[1]
    assert "Traceback" not in error
