from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch
import yaml

from jet_diffusion.hub import training_scheduler
from jet_diffusion.training.build import build_unet, check_signal_at_end, noise_schedule
from jet_diffusion.training.settings import (
    PRESETS,
    NoiseSettings,
    UNetSettings,
    changed_settings,
    check_settings,
    parse_settings,
)

MINIMAL = ["--data=jets", "--run_dir=run"]


def test_file_and_dotted_options_merge_in_order(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("data: jets\nrun_dir: run\nbatch_size: 32\nunet:\n  preset: small\n  dropout: 0.1\n")
    settings = parse_settings(["--config", str(config), "--unet.dropout", "0.2", "--seed=3"])
    assert (settings.batch_size, settings.seed) == (32, 3)
    assert (settings.unet.preset, settings.unet.dropout) == ("small", 0.2)


def test_a_run_can_be_repeated_from_its_written_settings(tmp_path):
    settings = parse_settings([*MINIMAL, "--denoiser.inputs=[x_t,hit_value]", "--noise.min_ratio=0.5"])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(asdict(settings)))
    assert parse_settings(["--config", str(tmp_path / "config.yaml")]) == settings


def test_options_may_be_written_with_dashes():
    settings = parse_settings(["--data=jets-of-mine", "--run-dir", "my-run", "--noise.min-ratio=0.5"])
    assert (settings.data, settings.run_dir, settings.noise.min_ratio) == ("jets-of-mine", "my-run", 0.5)


def test_dry_run_is_a_flag():
    assert parse_settings([*MINIMAL, "--dry-run"]).dry_run is True
    assert parse_settings(MINIMAL).dry_run is False


@pytest.mark.parametrize("options", [["--unet.preset=huge"], ["--batchsize=3"], ["--denoiser.kind=score"]])
def test_unknown_options_and_values_end_with_usage(options, capsys):
    with pytest.raises(SystemExit):
        parse_settings([*MINIMAL, *options])
    assert options[0].split("=")[0].lstrip("-").split(".")[-1] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch_size=10", "--accumulation=4"], "multiple of processes x accumulation = 1 x 4"),
        (["--max_steps=0"], "max_steps must be at least 1"),
        (["--sample_jets=0"], "sample_jets must be at least 1"),
        (["--max_jets=0"], "max_jets must be at least 1"),
        (["--validate_every=-1"], "validate_every must be at least 0"),
        (["--learning_rate=0"], "learning_rate must be positive"),
        (["--ema_decay=1.0"], "ema_decay"),
        (["--optimizer.condition_drop=1.5"], "condition_drop"),
        (["--optimizer.name=muon", "--unet.network=quantum_filter"], "unet2d, not for quantum_filter"),
        (["--optimizer.group_weights=[1,2]"], "must be 3 positive numbers"),
        (["--optimizer.group_weights=[1,0,1]"], "must be 3 positive numbers"),
        (["--optimizer.group_weights=[1,1,.inf]"], "must be 3 positive numbers"),
        (["--optimizer.group_weights=[1,2,3]", "--optimizer.loss=infidelity"], "do not count in the loss infidelity"),
        (["--optimizer.energy_weight=1"], "counts in the loss likelihood alone, not in l2"),
        (["--optimizer.energy_weight=-1", "--optimizer.loss=likelihood"], "must be finite and not negative, got -1"),
        (["--optimizer.energy_weight=.inf", "--optimizer.loss=likelihood"], "must be finite and not negative, got inf"),
        (["--denoiser.fit_jets=0"], r"denoiser\.fit_jets must be at least 1"),
        (["--denoiser.hold_ratio=-0.1"], r"denoiser\.hold_ratio must be finite and not negative"),
        (
            ["--representation.value_map=quantile", "--unet.totals=true", "--denoiser.inputs=[x_t,energy]"],
            r"hold_energies: true, denoiser\.inputs energy or missing_energy: .* log or fourth_root, not with quantile",
        ),
        (
            ["--representation.value_map=quantile", "--optimizer.loss=likelihood", "--optimizer.energy_weight=1"],
            r"^optimizer\.energy_weight above 0: .* not with quantile",
        ),
        (["--representation.value_map=quantile", "--representation.name=ChannelMaxGrid"], "not of ChannelMaxGrid"),
        (["--representation.ring_edges=[0.1]"], r"ring_edges divide totals, and unet\.totals is false"),
    ],
)
def test_contradictions_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        check_settings(parse_settings([*MINIMAL, *options]), processes=1)


def test_only_what_changes_the_training_counts_as_changed():
    settings = parse_settings(MINIMAL)
    resumed = replace(settings, max_steps=99, num_workers=4, precision="no")
    assert changed_settings(asdict(settings), resumed) == []
    other = replace(settings, seed=1, unet=replace(settings.unet, dropout=0.5))
    assert changed_settings(asdict(settings), other) == ["seed", "unet.dropout"]


def test_an_option_newer_than_the_run_had_its_default():
    settings = parse_settings(MINIMAL)
    old = asdict(settings)
    del old["optimizer"]["name"]
    assert changed_settings(old, settings) == []
    muon = replace(settings, optimizer=replace(settings.optimizer, name="muon"))
    assert changed_settings(old, muon) == ["optimizer.name"]


@pytest.mark.parametrize(
    ("noise", "amplitude"),
    [
        (NoiseSettings(num_train_timesteps=50), "0.7"),  # one notebook's schedule
        (NoiseSettings(num_train_timesteps=300, beta_start=1e-8, beta_end=2e-6), "0.999"),  # the other's
    ],
)
def test_a_schedule_that_leaves_signal_is_refused_with_its_amplitude(noise, amplitude):
    alphas_cumprod = training_scheduler(noise_schedule(noise)).alphas_cumprod
    with pytest.raises(ValueError, match=rf"leaves {amplitude}\d* of the signal's amplitude.*allow_signal_at_T"):
        check_signal_at_end(alphas_cumprod, allow=False)
    check_signal_at_end(alphas_cumprod, allow=True)


def test_ordinary_schedules_pass():
    check_signal_at_end(training_scheduler(noise_schedule(NoiseSettings())).alphas_cumprod, allow=False)


@pytest.mark.parametrize(("preset", "most"), [("tiny", 1e6), ("small", 4e6), ("base", 8e6)])
def test_presets_keep_to_their_size(preset, most):
    with torch.device("meta"):
        unet = build_unet(UNetSettings(preset=preset), (102, 102), (28, 28))
    assert 0.5 * most < sum(parameter.numel() for parameter in unet.parameters()) <= most
    assert set(PRESETS) == {"tiny", "small", "base"}


def test_grids_and_groups_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="25x25 cannot be halved 2 times"):
        build_unet(UNetSettings(), (3, 3), (25, 25))
    with pytest.raises(ValueError, match="norm_num_groups 12"):
        build_unet(UNetSettings(norm_num_groups=12), (3, 3), (28, 28))
