from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from jet_diffusion import cli
from jet_diffusion.training import demo

ROOT = Path(__file__).parents[1]
SHIPPING = ("pipelines", "quantum")
"""Folders whose files ship to the Hub."""

SCRIPTS = sorted(
    path for path in (ROOT / "training").glob("*.py") if "__main__" in path.read_text() and path.stem != "__init__"
)


def imported(path):
    """Full names of the modules a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # What ships is one file a component on the Hub: what it imports of its package is put into it.
            assert node.level == (1 if path.parent.name in SHIPPING and node.level else 0), f"{path} imports relatively"
            yield str(node.module)


def test_what_ships_imports_nothing_of_ours():
    for path in (ROOT / "pipelines").glob("*.py"):
        names = {name.split(".")[0] for name in imported(path)}
        assert not names & {"jet_diffusion", "training", "pipelines"}, path


def test_imports_point_one_way():
    for path in (ROOT / "jet_diffusion").rglob("*.py"):
        assert not any(name.startswith("jet_diffusion.training") for name in imported(path)), path


def test_no_script_hides_a_module_that_is_imported():
    scripts = {path.stem for path in (ROOT / "training").glob("*.py")}
    modules = {name.split(".")[0] for folder in ("training", "jet_diffusion") for path in (ROOT / folder).rglob("*.py")
               for name in imported(path)}  # fmt: skip
    assert not scripts & modules
    assert importlib.util.find_spec("evaluate") is not None
    assert "evaluate" not in scripts


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_a_module_with_a_main(name):
    module = importlib.import_module(cli.COMMANDS[name][0])
    with pytest.raises(SystemExit) as end:
        module.main(["--help"])
    assert end.value.code == 0


def test_the_command_lists_and_refuses(capsys):
    cli.main([])
    usage = capsys.readouterr().out
    assert all(name in usage for name in cli.COMMANDS)
    with pytest.raises(SystemExit) as end:
        cli.main(["paint"])
    assert end.value.code == 2
    assert "no command 'paint'" in capsys.readouterr().err


def test_errors_a_user_can_mend_are_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["inspect", str(tmp_path / "nothing.hdf5")])
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("jet-diffusion inspect: ")
    assert message.count("\n") == 1


def test_the_demo_refuses_what_its_report_cannot_take_before_it_trains(tmp_path):
    with pytest.raises(ValueError, match=r"must be 100 to 300 .* got 64 and None"):
        demo.main([f"--out={tmp_path / 'demo'}", "--num-jets=64"])
    assert not (tmp_path / "demo").exists()


RUN_ALL = """
import runpy, sys
for script in sys.argv[1:]:
    sys.path[0] = script.rsplit("/", 1)[0]  # as Python does for a script run by its path
    sys.argv = [script, "--help"]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        print(script, "ended with", end.code)
"""


@pytest.mark.integration
def test_every_script_runs_by_its_path(tmp_path):
    paths = [str(path) for path in SCRIPTS]
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, *paths], cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(paths) >= 5
    for path in paths:
        assert f"{path} ended with 0" in done.stdout
    assert done.stdout.count("usage: jet-diffusion") == len(paths)


@pytest.mark.slow
def test_the_demo_shows_jets(tmp_path):
    done = subprocess.run(
        ["jet-diffusion", "demo", f"--out={tmp_path / 'demo'}", "--max-steps=60", "--num-jets=100"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    picture = Path(done.stdout.strip().splitlines()[-1].removeprefix("picture: "))
    assert picture.is_file()
