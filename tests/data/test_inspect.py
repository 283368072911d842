"""`jet-diffusion inspect` tells what numpy tells."""

import numpy as np
import pytest

from jet_diffusion import cli
from jet_diffusion.data.hdf5 import QuarkGluonFile
from jet_diffusion.data.inspect import describe_energies, tally_energies
from jet_diffusion.schema import CHANNEL_LABELS


def rows(text):
    """Cells of every line of the channels' table."""
    lines = [line.split() for line in text.splitlines() if line.startswith(CHANNEL_LABELS)]
    return {(channel, name): cells for channel, name, *cells in lines if len(cells) == 5}


def test_the_table_agrees_with_numpy(jets, write_file):
    jets.energies[3, 1, 5, 5] = 900.0
    with QuarkGluonFile(write_file(jets)) as file:
        table = rows(describe_energies(tally_energies(file)[0]))
    assert len(table) == 9
    for (channel, name), cells in table.items():
        chosen = {"gluon": jets.labels == 0, "quark": jets.labels == 1, "both": jets.labels >= 0}[name]
        values = jets.energies[chosen, CHANNEL_LABELS.index(channel)].astype(np.float64)
        hits = values[values > 0]
        wanted = 100 * hits.size / values.size, values.mean(), hits.min(), quantile(hits, 0.999), hits.max()
        assert np.allclose([float(cell) for cell in cells], wanted, rtol=1.2e-3)


def quantile(hits, share):
    return np.quantile(hits, share, method="inverted_cdf")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_quantiles_are_those_of_the_non_zero(jets, write_file, share):
    with QuarkGluonFile(write_file(jets)) as file:
        tally, _ = tally_energies(file)
    hits = jets.energies[:, 1][jets.energies[:, 1] > 0]
    assert tally.quantile([0, 1], 1, share) == pytest.approx(quantile(hits, share), rel=3e-4)


def test_hcal_that_is_not_constant_is_reported(jets, write_file):
    jets.energies[[3, 9], 2, 60, 60] += 1
    with QuarkGluonFile(write_file(jets)) as file:
        assert "HCAL is constant in its 5x5 towers in all but 2 of 64 jets" in describe_energies(
            tally_energies(file)[0]
        )
        assert "in all but 1 of 5 jets" in describe_energies(tally_energies(file, max_jets=5)[0])
        with pytest.raises(ValueError, match="max_jets must be positive, not 0"):
            tally_energies(file, max_jets=0)


def test_empty_channels_and_a_lone_class_are_told(jets, write_file):
    jets.energies[:, 0] = 0
    jets.labels[:] = 1
    with QuarkGluonFile(write_file(jets)) as file:
        table = rows(describe_energies(tally_energies(file)[0]))
    assert table["Tracks", "quark"] == ["0.000", "0", "-", "-", "0"]
    assert ("ECAL", "gluon") not in table


def test_the_command_prints_and_draws(jets, write_file, tmp_path, capsys):
    path = write_file(jets, attrs={"simulated": "a toy"}, chunks=(32, 125, 125, 3), compression="lzf")
    cli.run("inspect", [str(path), "--out", str(tmp_path / "pictures")])
    text = capsys.readouterr().out
    assert "*** NOT COLLISION DATA: a toy ***" in text
    assert "(32, 125, 125, 3)" in text
    assert "lzf" in text
    cells = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    for label, name in enumerate(("gluon", "quark")):
        assert int(cells[name][0]) == (jets.labels == label).sum()
    assert [float(cell) for cell in cells["pt"]] != []
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"jets.png", "mean_images.png"}


def test_real_files_are_not_called_simulated(jets, write_file, tmp_path, capsys):
    cli.run("inspect", [str(write_file(jets)), "--out", str(tmp_path), "--max-jets", "10"])
    assert "NOT COLLISION DATA" not in capsys.readouterr().out
