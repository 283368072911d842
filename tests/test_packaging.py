"""What is installed: one version, declared dependencies, and an sdist and a wheel that each work alone."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import jet_diffusion
from jet_diffusion.errors import require

ROOT = Path(__file__).parents[1]
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODULES = {"scikit-learn": "sklearn", "pyyaml": "yaml", "pillow": "PIL", "huggingface-hub": "huggingface_hub"}
"""Distributions whose module has another name."""

UNSEEN = {"jinja2"}
"""Needed without an import of ours: huggingface_hub fills the cards' templates with it."""

WANTED = {
    "jet_diffusion/__init__.py",
    "jet_diffusion/py.typed",
    "jet_diffusion/data/bundled/quark_gluon_sample.hdf5",
    "jet_diffusion/data/bundled/demo.yaml",
    "jet_diffusion/model_cards/model_card.md",
    "jet_diffusion/pipelines/jet_image_pipeline.py",
    "jet_diffusion/training/train.py",
}

TRY = """
import sys
import jet_diffusion.pipelines.jet_image_pipeline, jet_diffusion.training.train
from importlib.metadata import version
from jet_diffusion.data.bundled import sample_path
from jet_diffusion.data.hdf5 import QuarkGluonFile
assert jet_diffusion.__file__.startswith(sys.prefix), jet_diffusion.__file__
assert version("jet-diffusion") == jet_diffusion.__version__
with QuarkGluonFile(sample_path()) as file:
    print(file.energies(0, 2).shape)
"""


def declared(lines):
    return {re.match(r"[\w-]+", line).group().lower() for line in lines}


def imported():
    """Modules the package imports, by name before the first dot."""
    found = set()
    for folder in ("jet_diffusion", "pipelines", "training"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    found |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    found.add(str(node.module).split(".")[0])
    return found - set(sys.stdlib_module_names) - {"jet_diffusion"}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    extras = PROJECT["optional-dependencies"]
    needed = {MODULES.get(name, name) for name in declared(PROJECT["dependencies"])}
    for_parts = ("dask", "metrics", "serve", "simulation", "tagger")
    optional = {name for extra in for_parts for name in declared(extras[extra])}
    found = imported()
    assert needed - UNSEEN <= found
    assert found <= needed | optional


def test_a_missing_extra_is_named_with_the_command_that_installs_it():
    assert require("json", "none", "this").__name__ == "json"
    with pytest.raises(ValueError, match=r"a tagger needs no_such_module.*pip install 'jet-diffusion\[tagger\]'"):
        require("no_such_module", "tagger", "a tagger")


@pytest.mark.integration
def test_the_default_installation_needs_no_extra():
    """Everything but the parts named after an extra imports without any of them."""
    extras = [
        "evaluate",
        "dask",
        "distributed",
        "transformers",
        "tensorboard",
        "pennylane",
        "qiskit",
        "numba",
        "awkward",
        "fastjet",
        "gradio",
        "mplhep",
    ]
    commands = ["convert", "evaluate", "generate", "publish", "demo", "train_tagger", "simulate", "serve"]
    code = f"import sys; sys.modules |= dict.fromkeys({extras})\n" + "\n".join(
        f"import jet_diffusion.commands.{name}" for name in commands
    )
    run([sys.executable, "-c", code + "\nimport jet_diffusion.training.train"], ROOT)


def run(command, folder, **environment):
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=300, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """An sdist of the tree, and a wheel built from it."""
    work = tmp_path_factory.mktemp("built")
    tree, dist = work / "tree", work / "dist"
    tree.mkdir()
    dist.mkdir()
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("jet_diffusion", "pipelines", "training", "model_cards", "tests"):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=ignored)
    run([sys.executable, "-c", f"from setuptools.build_meta import build_sdist; build_sdist({str(dist)!r})"], tree)
    (sdist,) = dist.glob("*.tar.gz")
    run([*PIP, "wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={dist}", str(sdist)], work)
    (wheel,) = dist.glob("*.whl")
    return {"sdist": sdist, "wheel": wheel}


@pytest.mark.slow
def test_sdist_and_wheel_hold_files_and_no_tests(built):
    with tarfile.open(built["sdist"]) as archive:
        members = {member.name.split("/", 1)[1]: member for member in archive if "/" in member.name}
    assert not [name for name, member in members.items() if member.issym() or member.islnk()]
    wheel = set(zipfile.ZipFile(built["wheel"]).namelist())
    for names in (set(members), wheel):
        assert names >= WANTED
        assert not [name for name in names if name.startswith("tests")]
    assert {name.split("/")[0] for name in wheel} == {
        "jet_diffusion",
        f"jet_diffusion-{jet_diffusion.__version__}.dist-info",
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sdist", "wheel"])
def test_each_works_in_a_fresh_environment(built, kind, tmp_path):
    environment = tmp_path / "venv"
    run([sys.executable, "-m", "venv", "--without-pip", str(environment)], tmp_path)
    (site,) = environment.glob("lib/python*/site-packages")
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (site / "libraries.pth").write_text("\n".join(libraries) + "\n")
    python = str(environment / "bin" / "python")
    install = ["install", "--no-deps", "--no-build-isolation", "--force-reinstall", str(built[kind])]
    run([*PIP, f"--python={python}", *install], tmp_path)
    assert run([python, "-c", TRY], tmp_path, PYTHONPATH="").strip() == "(2, 3, 125, 125)"
    help_text = run([str(environment / "bin" / "jet-diffusion"), "--help"], tmp_path, PYTHONPATH="")
    assert "convert" in help_text
