from __future__ import annotations

import ast
import collections
import graphlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHIPPING = ("pipelines", "quantum")
"""Folders whose files ship to the Hub."""

SCRIPTS = sorted(
    path for path in (ROOT / "training").glob("*.py") if "__main__" in path.read_text() and path.stem != "__init__"
)


def nodes(tree):
    """Everything in a file but what is for type checkers alone."""
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield child
            yield from nodes(child)


def imported(path):
    """Full names of the modules a file imports."""
    for node in nodes(ast.parse(path.read_text())):
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
    ("workflows",),
    ("training",),
    ("hub",),
    ("evaluation", "sampling"),
    ("quantum",),
    ("metrics", "simulation"),
    ("data",),
    ("arguments", "report", "runs", "observables", "plotting", "parallel"),
    ("schema", "io", "precision", "renames", "locks", "repositories"),
    ("__init__", "errors", "model_cards", "pipelines"),
    ("signals",),
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


def test_what_is_imported_exists():
    for _, path in files_of_the_package():
        for name in imported(path):
            module = ROOT.joinpath(*name.split("."))
            if name.split(".")[0] == "jet_diffusion":
                assert module.is_dir() or module.with_suffix(".py").is_file(), f"{path} imports {name}"


def test_no_circles():
    files = {path: part for part, path in files_of_the_package()}
    names = {"jet_diffusion." + ".".join(path.relative_to(ROOT / "jet_diffusion").with_suffix("").parts): path
             for path in files}  # fmt: skip
    sorter = graphlib.TopologicalSorter()
    for path in files:
        wanted = [name for name in imported(path) if name in names]
        sorter.add(path, *(names[name] for name in wanted))
    sorter.prepare()  # raises CycleError, which names the files


MOST_LINES, MOST_LINES_OF_A_FUNCTION, MOST_FILES = 400, 60, 15

LONG_FUNCTIONS = {("jet_image_pipeline", "__call__")}
"""The loop that samples jets is read as one piece."""

FULL_FOLDERS = {"pipelines", "commands"}
"""One file a component, as the Hub takes them, and one file a subcommand."""


def test_files_and_functions_are_short():
    for _, path in files_of_the_package():
        text = path.read_text()
        assert text.count("\n") <= MOST_LINES, path
        for node in ast.walk(ast.parse(text)):
            if (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                and (path.stem, node.name) not in LONG_FUNCTIONS
            ):
                lines = node.end_lineno - node.lineno + 1
                assert lines <= MOST_LINES_OF_A_FUNCTION, f"{path}: {node.name} has {lines} lines"


def test_folders_have_few_files():
    counts = collections.Counter(path.parent for _, path in files_of_the_package())
    full = {folder.name: count for folder, count in counts.items() if count > MOST_FILES}
    assert set(full) <= FULL_FOLDERS, full


def shipping_files():
    """Files that ship to the Hub: the pipelines, and what the loader knows of the quantum part with its helpers."""
    quantum = ROOT / "jet_diffusion" / "quantum"
    loader = (ROOT / "jet_diffusion" / "hub.py").read_text()
    waiting = [path for path in quantum.glob("*.py") if f"jet_diffusion.quantum.{path.stem}" in loader]
    found = set(ROOT.glob("pipelines/*.py")) | set(waiting)
    while waiting:
        for node in nodes(ast.parse(waiting.pop().read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                helper = quantum / f"{node.module}.py"
                waiting += {helper} - found
                found.add(helper)
    return found


def test_what_does_not_ship_raises_errors_a_user_can_mend():
    shipping = {path.resolve() for path in shipping_files()}
    assert {path.stem for path in shipping} >= {"denoiser", "simulator", "states"}
    for _, path in files_of_the_package():
        if path.resolve() in shipping or "evaluate_modules" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            raised = ast.unparse(node.exc) if isinstance(node, ast.Raise) and node.exc else ""
            assert not raised.startswith("ValueError"), f"{path}:{node.lineno} raises ValueError, not UserError"


def test_no_script_hides_a_module_that_is_imported():
    scripts = {path.stem for path in (ROOT / "training").glob("*.py")}
    modules = {name.split(".")[0] for _, path in files_of_the_package() for name in imported(path)}
    assert not scripts & modules
    assert importlib.util.find_spec("evaluate") is not None
    assert "evaluate" not in scripts


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
