from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from jet_diffusion.runs import RunFolder

ROOT = Path(__file__).parents[2]
STUDIES = ROOT / "benchmarks" / "studies"
FLOORS = {"fpd": 0.05, "mean_w1": 0.04}
POWERS = {"fpd": 0.5, "mean_w1": 0.25}


@pytest.fixture
def jets_seen(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.studies import jets_seen

    return jets_seen


def judged(jets, noise=None, **more):
    """A row whose excess is .1 (jets / 10,000)^-power, moved by so many of its errors."""
    row = {"training_jets": jets, "size": 300}
    for name, power in POWERS.items():
        excess = 0.1 * (jets / 10_000) ** -power
        error = 0.05 * excess
        moved = 0 if noise is None else noise.normal()
        row |= {name: FLOORS[name] + excess + moved * error, f"{name}_error": error, f"{name}_baseline": FLOORS[name]}
    return row | more


def write(folder, *rows):
    """One table of ablate.py, and the last row by itself as judge.py leaves it."""
    paths = [folder / "ablations.json", folder / "reference.json"]
    paths[0].write_text(json.dumps({f"row {number}": row for number, row in enumerate(rows[:-1])}))
    paths[1].write_text(json.dumps(rows[-1]))
    return paths


def test_a_power_law_is_found_again(jets_seen, tmp_path, capsys):
    paths = write(tmp_path, *(judged(jets) for jets in (10_000, 20_000, 40_000, 200_000)))
    picture = tmp_path / "jets_seen.png"
    jets_seen.main([*map(str, paths), "--target", "fpd=0.01", "--out", str(picture)])
    printed = capsys.readouterr().out
    assert "FPD: excess 0.1 " in printed
    assert "power 0.50" in printed
    assert "mean W1: excess 0.1 " in printed
    assert "power 0.25" in printed
    assert "excess 0.01 after 1e+06 jets" in printed  # a tenth, at the power of a half
    assert picture.stat().st_size > 10_000


def test_the_errors_of_the_fit_cover_the_truth(jets_seen):
    rng = np.random.default_rng(0)
    pulls, far = [], []
    for _ in range(300):
        rows = [judged(jets, rng) for jets in (10_000, 10_000, 20_000, 40_000, 80_000, 200_000)]
        law = jets_seen.PowerLaw.fit(jets_seen.Excess.of(rows, "fpd"))
        pulls.append((law.power - POWERS["fpd"]) / law.covariance[1, 1] ** 0.5)
        value, factor = law(np.array(1e6))
        far.append(np.log(value / 0.01) / np.log(factor))
    for found in (pulls, far):  # the errors are never less than the given ones, so the pulls are a little narrow
        assert abs(np.mean(found)) < 0.2
        assert 0.7 < np.std(found) < 1.2


def test_the_band_holds_the_jets_a_target_needs(jets_seen):
    rows = [judged(jets) for jets in (10_000, 20_000, 200_000)]
    centre, least, most = jets_seen.PowerLaw.fit(jets_seen.Excess.of(rows, "fpd")).jets_for(0.02)
    assert centre == pytest.approx(250_000, rel=0.01)
    assert least < centre < most
    growing = [judged(jets, fpd=FLOORS["fpd"] + jets / 1e6) for jets in (10_000, 20_000, 200_000)]
    assert jets_seen.PowerLaw.fit(jets_seen.Excess.of(growing, "fpd")).jets_for(1e-6)[0] == np.inf


def test_a_checkpoint_knows_the_jets_it_has_seen(jets_seen, tmp_path):
    from benchmarks.studies.judge import jets_seen as seen_by

    run = RunFolder(tmp_path)
    assert seen_by(run, "last") is None  # a pipeline folder
    config = {"batch_size": 8, "init_from": None}
    begun = SimpleNamespace(begun=True, read_config=lambda: config, checkpoint=lambda which: Path(f"step-{which:0>8}"))
    assert seen_by(begun, "30") == 240
    config["init_from"] = "another"
    assert seen_by(begun, "30") is None


def test_what_cannot_be_fitted_is_refused(jets_seen, tmp_path):
    rows = [judged(jets) for jets in (10_000, 20_000, 40_000)]
    with pytest.raises(ValueError, match=r"three numbers of jets seen, got \[10000\]"):
        jets_seen.Excess.of(rows[:1] * 3, "fpd")
    with pytest.raises(ValueError, match="fpd is not above its baseline after 20,000 jets"):
        jets_seen.Excess.of([rows[0], rows[1] | {"fpd": 0.04}, rows[2]], "fpd")
    with pytest.raises(ValueError, match=r"same number of jets, got \[300, 500\]"):
        jets_seen.read_rows(write(tmp_path, rows[0], rows[1] | {"size": 500}))
    with pytest.raises(ValueError, match="no fpd or mean_w1 with its error"):
        jets_seen.read_rows(write(tmp_path, {"training_jets": 10, "size": 300}, rows[0]))
    with pytest.raises(SystemExit):
        jets_seen.main(["ablations.json", "--target", "fpd=0"])
    unknown = {key: value for key, value in rows[0].items() if key != "training_jets"}
    with pytest.raises(ValueError, match="judge a training run"):
        jets_seen.read_rows(write(tmp_path, unknown, rows[0]))
