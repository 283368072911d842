"""The demo: what it prints and leaves, with and without a reference model."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from models import small_pipeline

import jet_diffusion
from jet_diffusion import cli
from jet_diffusion.observables.table import quick_table
from jet_diffusion.workflows.demo import format_tables


def test_the_table_has_a_line_for_each_average(jets):
    half = jets.energies / 2
    lines = format_tables({"one": quick_table(jets.energies, half), "other": quick_table(jets.energies, half)})
    header, *rows = lines.splitlines()
    assert header.split() == ["average", "of", "a", "jet", "simulated", "one", "other"]
    assert [row.split()[0] for row in rows] == ["tracks", "ecal", "hcal"] * 2
    numbers = [float(word) for word in rows[0].split() if word[0].isdigit()]
    real, _, one, _, other, _ = numbers
    assert one == other == pytest.approx(real / 2, rel=0.02)


@pytest.mark.integration
def test_the_quick_demo_samples_the_reference_model_alone(converted_folder, tmp_path, capsys):
    model = tmp_path / "model"
    small_pipeline(converted_folder).save_pretrained(model)
    cli.main(["demo", "--quick", f"--out={tmp_path / 'demo'}", f"--reference={model}", "--num-jets=10"])
    said = capsys.readouterr().out
    assert "[1/2]" in said
    assert "[2/2]" in said
    assert "jet-diffusion inspect FILE.hdf5" in said
    assert (tmp_path / "demo" / "reference.png").is_file()
    assert not (tmp_path / "demo" / "run").exists()


def test_an_installed_package_says_where_a_reference_model_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jet_diffusion, "__file__", str(tmp_path / "site-packages" / "jet_diffusion" / "__init__.py"))
    with pytest.raises(SystemExit):
        cli.main(["demo", "--quick", f"--out={tmp_path / 'demo'}"])
    (line,) = capsys.readouterr().err.splitlines()
    assert "reference/model of the source tree" in line
    assert "--reference user/name" in line
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
def test_the_demo_ends_with_picture_and_commands(tmp_path):
    done = subprocess.run(
        ["jet-diffusion", "demo", "--out=demo", "--max-steps=2", "--num-jets=10"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().splitlines()
    assert lines[-1].split()[:2] == ["jet-diffusion", "train"]
    for name in ("reference model", "short training"):
        (picture,) = [line.split(": ")[1] for line in lines[-6:] if line.startswith(f"picture ({name})")]
        assert Path(picture).is_file()
    assert (tmp_path / "demo" / "published" / "README.md").is_file()
