from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from models import SMALL_UNET

from jet_diffusion.schema import CHANNELS
from jet_diffusion.training.settings import check_settings, parse_settings

ROOT = Path(__file__).parents[2]
STUDIES = ROOT / "benchmarks" / "studies"


@pytest.fixture
def ablate(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.studies import ablate

    return ablate


def rows_file(tmp_path, **changes):
    path = tmp_path / "rows.yaml"
    rows = [
        {
            "name": "no totals",
            "options": ["--unet.conditioning=jet"],
            "same_loss": False,
        }
    ]
    written = {"config": "configs/tiny.yaml", "options": [], "seeds": [0, 1], "rows": rows} | changes
    path.write_text(yaml.safe_dump(written))
    return path


def figures(name, w1, **more):
    made = {f"{figure}_baseline": 0.1 for figure in ("mean_w1", "fpd", "auc_observables")}
    made |= {f"occupancy_{channel}": 1.0 for channel in CHANNELS}
    made |= {"mean_w1": w1, "fpd": 0.3, "auc_observables": 0.7, "validation": 0.02, "spread": {"width": 0.9}}
    made |= {"training_jets": 10, "precision": "bf16"}
    return {"name": name, "jets_per_second": 1.0, **made, **more}


@pytest.mark.parametrize("name", ["ablations", "jets_seen"])
def test_the_rows_that_ship_can_be_trained(ablate, name):
    read = ablate.Ablation.read(STUDIES / f"{name}.yaml")
    assert sum(row.base for row in read.rows) >= 2
    for row in read.rows:
        given = [f"--config={read.config}", "--data=x", "--run_dir=y", *read.options, *row.options]
        check_settings(parse_settings(given), processes=1)


def test_one_seed_is_no_base_and_names_are_not_used_twice(ablate, tmp_path):
    with pytest.raises(ValueError, match="seeds needs two or more"):
        ablate.Ablation.read(rows_file(tmp_path, seeds=[0]))
    twice = [{"name": "A row", "options": []}, {"name": "a-row", "options": []}]
    with pytest.raises(ValueError, match="different names"):
        ablate.Ablation.read(rows_file(tmp_path, rows=twice))


def test_rows_are_told_in_deviations_of_the_seeds(ablate, tmp_path):
    rows = ablate.Ablation.read(rows_file(tmp_path)).rows
    made = {
        "base, seed 0": figures("base, seed 0", 0.20),
        "base, seed 1": figures("base, seed 1", 0.22),
        "no totals": figures("no totals", 0.31, validation=None, training_jets=None),
    }
    del made["base, seed 1"]["precision"]  # judged before it was written down
    text = ablate.table(rows, made)
    line = next(line for line in text.splitlines() if line.startswith("| no totals"))
    assert line.startswith("| no totals | - | 1.0 | 0.31 (+7.1) |")  # .10 over a deviation of .02 / sqrt 2
    assert "| 0.3 | 0.7 | - | - | - | - |" in line  # seeds that agree to all digits have no deviation; older files lack
    assert "mean W1 0.21 ± 0.014" in text
    assert "Sampled in precision bf16, that is not recorded." in text
    assert "no totals" not in ablate.table(rows, {name: made[name] for name in list(made)[:2]})


@pytest.mark.integration
def test_a_command_ends_with_who_runs_it(tmp_path):
    """A row that Dask gives to another worker must not be trained by an orphan of the first."""
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    run = "from pathlib import Path; from benchmarks.studies.ablate import logged; import sys; "
    run += f"logged([sys.executable, '-c', {code!r}], Path({str(tmp_path / 'log')!r}))"
    parent = subprocess.Popen([sys.executable, "-c", run], cwd=ROOT)
    deadline = time.monotonic() + 300
    while not (tmp_path / "log").exists() or not (tmp_path / "log").read_text().endswith("\n"):
        assert parent.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    child = psutil.Process(int((tmp_path / "log").read_text()))
    parent.kill()
    parent.wait()
    assert not psutil.wait_procs([child], timeout=60)[1]


@pytest.mark.slow
@pytest.mark.parametrize("share", ["--jobs=2", "--dask=local:2"])
def test_ablations_are_made_once(converted_folder, tmp_path, share):
    if "dask" in share:
        pytest.importorskip("distributed")
    options = [
        *SMALL_UNET,
        "--batch_size=4",
        "--max_steps=1",
        "--warmup_steps=0",
        "--sample_jets=1",
        "--validation_jets=4",
    ]
    options += ["--num_workers=0", "--validate_every=1", "--sampling.steps=2", "--cpu=true"]
    rows = rows_file(tmp_path, options=options)
    command = [sys.executable, "-m", "benchmarks.studies.ablate", str(converted_folder), str(converted_folder)]
    command += [str(tmp_path / "out"), f"--rows={rows}", "--size=10", share]
    logs = []
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stderr
        logs.append({log.name: log.read_text() for log in (tmp_path / "out").glob("*.log")})
    assert logs[0] == logs[1]
    done = subprocess.run([*command, "--seed=3"], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 1
    assert "no totals was begun with other options" in done.stdout
    done = subprocess.run([*command, "--only", "totals"], capture_output=True, text=True, timeout=900, check=False)
    assert "--only names ['totals']" in done.stderr
    found = json.loads((tmp_path / "out" / "ablations.json").read_text())
    assert set(found) == {"base, seed 0", "base, seed 1", "no totals"}
    assert found["base, seed 0"]["validation"] != found["base, seed 1"]["validation"]
    assert found["no totals"]["validation"] is None
    assert found["base, seed 1"]["validation"] > 0
