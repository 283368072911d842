"""The table of published facts, and the settings: neither needs the extra's libraries."""

import numpy as np
import pytest
from sample_jets import Jets

from jet_diffusion.cli import main
from jet_diffusion.data.bundled import sample_path
from jet_diffusion.simulation import facts
from jet_diffusion.simulation.settings import SimulationSettings
from jet_diffusion.simulation.validation import class_auc, validate


def rows(table):
    """The table's lines: quantity -> its other cells."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    return {line[0]: line[1:] for line in cells[2:]}


@pytest.fixture(scope="module")
def sample_table():
    return rows(validate(sample_path()))


def test_every_fact_is_in_the_table_with_its_value(sample_table):
    assert sample_table["pt mean"][0] == "117.1"
    assert sample_table["ecal non-zero % gluon"][0] == "1.74"
    assert sample_table["hcal mean quark"][0] == "3.3e-05"
    assert sample_table["tracks 50% quantile, rows 0-30"][0] == "0.00608"
    assert len([name for name in sample_table if name.startswith("grid: ")]) == len(facts.GRID_TRACKS)


def test_the_bundled_sample_agrees_in_its_calorimeters(sample_table):
    for channel in ("ecal", "hcal"):
        for label in ("gluon", "quark"):
            assert sample_table[f"{channel} mean {label}"][-1] == "met"


def test_measured_numbers_are_those_of_the_jets(write_file, jets):
    table = rows(validate(write_file(jets)))
    assert float(table["pt mean"][1]) == pytest.approx(jets.pt.mean(), rel=1e-3)
    gluons = jets.energies[jets.labels == 0]
    assert float(table["ecal non-zero % gluon"][1]) == pytest.approx(100 * (gluons[:, 1] > 0).mean(), rel=1e-3)
    assert float(table["tracks mean gluon"][1]) == pytest.approx(gluons[:, 0].mean(), rel=1e-3)
    tracks = jets.energies[:, 0, :31]
    assert float(table["tracks 50% quantile, rows 0-30"][1]) == pytest.approx(np.median(tracks[tracks > 0]), rel=1e-3)


def test_a_wrong_energy_scale_misses_its_target(write_file, jets):
    energies = jets.energies.copy()
    energies[:, 1] *= 2
    before, after = (rows(validate(write_file(jets._replace(energies=e)))) for e in (jets.energies, energies))
    assert float(after["ecal mean quark"][1]) == pytest.approx(2 * float(before["ecal mean quark"][1]), rel=1e-3)
    assert after["ecal mean quark"][-1] == "MISSED"
    assert after["ecal non-zero % quark"][1] == before["ecal non-zero % quark"][1]


def test_an_hcal_not_constant_in_towers_is_told(write_file, jets):
    jets.energies[0, 2, 62, 62] += 0.1
    assert rows(validate(write_file(jets)))["jets with an HCAL not constant in 5x5"][1] == "1"


def test_one_class_is_not_enough(write_file, jets):
    gluons = Jets(*(column[jets.labels == 0] for column in jets))
    with pytest.raises(ValueError, match="holds no quark jets"):
        validate(write_file(gluons))


def test_the_auc_tells_what_can_be_told_apart():
    rng = np.random.default_rng(1)
    labels = np.arange(4000) % 2
    same, different = rng.normal(size=(4000, 3)), rng.normal(size=(4000, 3)) + 3 * labels[:, None]
    auc, error = class_auc(same, labels)
    assert abs(auc - 0.5) < 4 * error
    assert class_auc(different, labels)[0] > 0.99


def test_the_command_prints_the_table(capsys):
    main(["simulate", "--validate", str(sample_path())])
    assert "targets met" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["a.hdf5", "--validate", "b.hdf5"]])
def test_the_command_wants_a_file_to_make_or_to_validate(argv, capsys):
    with pytest.raises(SystemExit):
        main(["simulate", *argv])
    assert "--validate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_jets": 0}, "num_jets must be at least 1, got 0"),
        ({"seed": -1}, "seed must not be negative"),
        ({"pileup": -1.0}, "pileup must be between 0 and 200"),
        ({"pt_min": 5.0}, "pt_min must be between 20 and 1000"),
        ({"process": "higgs"}, "must be one of qg, dijet, got 'higgs'"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        SimulationSettings(**{"num_jets": 1, "seed": 1, **wrong})


def test_the_default_scatters_are_those_of_the_docs():
    assert SimulationSettings(1, 1).pt_hat_range == pytest.approx((77, 170))
