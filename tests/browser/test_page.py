"""The page in a real Chromium: what a visitor sees and does, in a wide and in a narrow window."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys

import pytest
from models import small_pipeline

from jet_diffusion.data.load import load_jets

pytest.importorskip("gradio")
playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium"),
    pytest.mark.filterwarnings("default"),  # of the libraries that drive the browser
]
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 400, "height": 800}
PATIENCE = 180_000  # ms


@pytest.fixture(scope="module")
def address(converted_folder, tmp_path_factory):
    """Of `jet-diffusion serve`, which must end in one line when it is interrupted."""
    model = tmp_path_factory.mktemp("served") / "model"
    small_pipeline(converted_folder).save_pretrained(model)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jet_diffusion", "serve", str(model), f"--port={port}"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stdout.readline().startswith("loading the model"), server.stderr.read()
        line = server.stdout.readline()
        assert line == f"open http://127.0.0.1:{port} in a browser; Ctrl-C ends\n", server.stderr.read()
        yield f"http://127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGINT)
        error = server.communicate(timeout=60)[1]
    assert server.returncode == 128 + signal.SIGINT
    assert error.splitlines()[-1].startswith("jet-diffusion serve: stopped by SIGINT")


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def visit(chromium, address, size):
    page = chromium.new_page(viewport=size)
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.get_by_role("button", name="Generate").wait_for()
    return page


def ask(page, **numbers):
    """Fill the form and press the button; the names are beginnings of labels."""
    for name, value in numbers.items():
        page.get_by_label(name.replace("_", " ")).first.fill(value)
    page.get_by_role("button", name="Generate").click()


def test_a_visitor_makes_looks_and_downloads(chromium, address, tmp_path):
    page = visit(chromium, address, WIDE)
    page.get_by_label("quark").check()
    ask(page, pT="120", number_of_jets="3", steps="2")
    page.get_by_text("3 jets in").wait_for()
    assert page.locator(".grid-wrap img").count() == 3
    with page.expect_download() as download:
        page.get_by_text("Jets (HDF5)").click()
    file = tmp_path / "jets.hdf5"
    download.value.save_as(file)
    jets = load_jets(file, generated=True)
    assert set(jets.labels) == {1}
    assert jets.pt.tolist() == [120.0] * 3
    for tab in ("Denoising", "Observables"):
        page.get_by_role("tab", name=tab).click()
        page.locator("img:visible").first.wait_for()
    page.screenshot(path=tmp_path / "wide.png")


def test_a_bad_value_is_refused_in_place(chromium, address):
    page = visit(chromium, address, WIDE)
    ask(page, number_of_jets="1000")
    page.get_by_text("the number of jets must be a whole number from 1 to 64").wait_for()
    ask(page, number_of_jets="2", steps="2")
    page.get_by_text("2 jets in").wait_for()


def test_a_long_job_can_be_stopped(chromium, address):
    page = visit(chromium, address, WIDE)
    ask(page, number_of_jets="64", steps="100")
    page.get_by_text("denoising").first.wait_for()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped.").wait_for()


def test_two_visitors_see_their_own_jets(chromium, address):
    first, second = (visit(chromium, address, WIDE) for _ in range(2))
    ask(first, number_of_jets="2", steps="2")
    first.get_by_text("2 jets in").wait_for()
    assert second.locator(".grid-wrap img").count() == 0
    second.reload()
    second.get_by_role("button", name="Generate").wait_for()
    assert second.locator(".grid-wrap img").count() == 0


def test_a_narrow_window_needs_no_sideways_scrolling(chromium, address):
    page = visit(chromium, address, NARROW)
    ask(page, number_of_jets="2", steps="2")
    page.get_by_text("2 jets in").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
