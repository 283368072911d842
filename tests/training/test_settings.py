from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import yaml

from jet_diffusion.errors import UserError
from jet_diffusion.hub import training_scheduler
from jet_diffusion.renames import flatten
from jet_diffusion.training.build import build_unet, check_signal_at_end, noise_schedule, norm_groups
from jet_diffusion.training.settings import (
    PRESETS,
    NoiseSettings,
    UNetSettings,
    changed_settings,
    check_settings,
    parse_settings,
)

CONFIGS = Path(__file__).parents[2] / "configs"
MINIMAL = ["--data=jets", "--run_dir=run"]
STATES = ["--representation.name=JetAmplitudeEncoder", "--unet.conditioning=jet"]


def test_file_and_dotted_options_merge_in_order(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("data: jets\nrun_dir: run\nbatch_size: 32\nunet:\n  preset: small\n  dropout: 0.1\n")
    settings = parse_settings(["--config", str(config), "--unet.dropout", "0.2", "--seed=3"])
    assert (settings.batch_size, settings.seed) == (32, 3)
    assert (settings.unet.preset, settings.unet.dropout) == ("small", 0.2)


def test_a_run_can_be_repeated_from_its_written_settings(tmp_path):
    settings = parse_settings([*MINIMAL, "--denoiser.inputs=[x_t,hit_value]", "--noise.beta_end=0.05"])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(asdict(settings)))
    assert parse_settings(["--config", str(tmp_path / "config.yaml")]) == settings


def test_options_may_be_written_with_dashes():
    settings = parse_settings(["--data=jets-of-mine", "--run-dir", "my-run", "--noise.beta-end=0.05"])
    assert (settings.data, settings.run_dir, settings.noise.beta_end) == ("jets-of-mine", "my-run", 0.05)


def test_dry_run_is_a_flag():
    assert parse_settings([*MINIMAL, "--dry-run"]).dry_run is True
    assert parse_settings(MINIMAL).dry_run is False


@pytest.mark.parametrize("options", [["--unet.preset=huge"], ["--batchsize=3"], ["--denoiser.kind=score"]])
def test_unknown_options_and_values_are_named(options):
    with pytest.raises(UserError, match=options[0].split("=")[0]):
        parse_settings([*MINIMAL, *options])


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
        (["--optimizer.group_weights=[1,2]"], "must be 3 positive numbers"),
        (["--optimizer.group_weights=[1,0,1]"], "must be 3 positive numbers"),
        (["--optimizer.group_weights=[1,1,.inf]"], "must be 3 positive numbers"),
        (["--optimizer.group_weights=[1,2,3]", *STATES], r"no channels to weigh; set optimizer\.group_weights: \[\]"),
        (["--optimizer.energy_weight=-1"], "must be finite and not negative, got -1"),
        (["--optimizer.energy_weight=.inf"], "must be finite and not negative, got inf"),
        (["--denoiser.kind=epsilon"], r"likelihood needs .* not epsilon; set optimizer\.loss: l2"),
        (["--unet.network=deepfalcon_cnn"], r"deepfalcon_cnn is unconditional; set unet\.conditioning: none"),
        (["--representation.name=ChannelMaxGrid"], r"no hits to count in rings; set unet\.conditioning: jet"),
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
    del old["optimizer"]["loss"]
    assert changed_settings(old, settings) == []
    other = replace(settings, optimizer=replace(settings.optimizer, loss="l1"))
    assert changed_settings(old, other) == ["optimizer.loss"]


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


@pytest.mark.parametrize(
    ("widths", "groups"), [((32, 48, 64), 16), ((8, 8, 8), 4), ((16, 64), 8), ((6, 9), 1), ((1, 7), 1)]
)
def test_every_group_of_the_normalisation_has_two_channels(widths, groups):
    assert norm_groups(widths) == groups


def test_the_defaults_are_the_recommended_model():
    settings = parse_settings(MINIMAL)
    check_settings(settings, processes=1)
    written = parse_settings(["--config", str(CONFIGS / "reference-tiny.yaml")])
    assert replace(written, data="jets", run_dir="run") == settings
    assert settings.unet.conditioning == "rings"
    assert settings.optimizer.loss == "likelihood"


def test_there_are_no_more_options_than_a_person_can_read():
    assert len(flatten(asdict(parse_settings(MINIMAL)))) <= 55


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_is_accepted(config):
    check_settings(parse_settings(["--config", str(config)]), processes=1)


def test_options_of_earlier_versions_are_converted(tmp_path, caplog):
    old = {"data": "jets", "run_dir": "run", "unet": {"conditional": True, "totals": False, "preset": "small"}}
    old |= {"optimizer": {"name": "adamw", "loss": "l2"}, "denoiser": {"hold_hits": True}}
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(old))
    settings = parse_settings(["--config", str(tmp_path / "old.yaml"), "--noise.min_ratio", "0.02", "--seed=4"])
    assert (settings.unet.conditioning, settings.unet.preset, settings.seed) == ("jet", "small", 4)
    assert "denoiser.hold_hits, optimizer.name, unet.conditional, unet.totals" in caplog.text
    assert parse_settings([*MINIMAL, "--unet.conditional=false"]).unet.conditioning == "none"
    with pytest.raises(ValueError, match=r"optimizer\.name is no option any more, and 'muon' cannot be had"):
        parse_settings([*MINIMAL, "--optimizer.name=muon"])
