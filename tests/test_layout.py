from __future__ import annotations

import ast
import graphlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from jet_diffusion import cli
from jet_diffusion.commands import demo

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


FLOORS = (
    ("__main__",),
    ("cli",),
    ("commands",),
    ("training",),
    ("hub",),
    ("evaluation", "sampling"),
    ("quantum",),
    ("metrics", "simulation"),
    ("data",),
    ("report", "runs", "observables", "plotting"),
    ("schema", "io", "precision", "errors", "parallel"),
    ("__init__", "model_cards", "pipelines"),
)
"""Parts of the package from the top floor to the ground; a part imports its own and those below."""

FLOOR = {part: -height for height, parts in enumerate(FLOORS) for part in parts}


def part_of(module):
    """The part of the package a module `jet_diffusion.part...` belongs to."""
    names = module.split(".")
    return names[1] if len(names) > 1 else "__init__"


def files_of_the_package():
    """Every source file with its part; the folders linked into the package too."""
    for part in FLOOR:
        folder = ROOT / "jet_diffusion" / part
        for path in folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]:
            yield part, path


def test_every_file_stands_on_a_floor():
    parts = {path.stem for path in (ROOT / "jet_diffusion").iterdir() if path.is_dir() or path.suffix == ".py"}
    assert parts - {"__pycache__"} == set(FLOOR)


def test_what_ships_imports_nothing_of_ours():
    for path in (ROOT / "pipelines").glob("*.py"):
        names = {name.split(".")[0] for name in imported(path)}
        assert not names & {"jet_diffusion", "training", "pipelines"}, path


def test_nothing_imports_upwards():
    for part, path in files_of_the_package():
        for name in imported(path):
            if name.split(".")[0] == "jet_diffusion":
                other = part_of(name)
                below = FLOOR[other] < FLOOR[part]
                assert other == part or below, f"{path} imports {name}"


def test_no_circles():
    files = {path: part for part, path in files_of_the_package()}
    names = {"jet_diffusion." + ".".join(path.relative_to(ROOT / "jet_diffusion").with_suffix("").parts): path
             for path in files}  # fmt: skip
    sorter = graphlib.TopologicalSorter()
    for path in files:
        wanted = [name for name in imported(path) if name in names]
        sorter.add(path, *(names[name] for name in wanted))
    sorter.prepare()  # raises CycleError, which names the files


def test_no_script_hides_a_module_that_is_imported():
    scripts = {path.stem for path in (ROOT / "training").glob("*.py")}
    modules = {name.split(".")[0] for _, path in files_of_the_package() for name in imported(path)}
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
    assert paths
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
