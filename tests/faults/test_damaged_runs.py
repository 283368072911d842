"""Damaged run folders: file, place and remedy in one line; never another run's numbers."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from faulty_runs import train_here
from safetensors.torch import save_file

from jet_diffusion.cli import main
from jet_diffusion.errors import UserError
from jet_diffusion.hub import load_pipeline
from jet_diffusion.runs import RunFolder, file_digest

pytestmark = pytest.mark.integration


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def wrong_bytes(file):
    file.write_bytes(b"\xff\xfe\x00" + file.read_bytes()[3:])


def missing(file):
    file.unlink()


DAMAGED = [
    ("run.json", cut, "is not valid JSON .*line .*restore it from a copy"),
    ("run.json", wrong_bytes, r"is not valid JSON .*position 0.*restore it from a copy"),
    ("run.json", lambda file: file.write_text("[]"), r"must hold a JSON object, but holds \[\]"),
    ("run.json", lambda file: file.write_text("{}"), "lacks the run's dataset"),
    ("run.json", missing, "has checkpoints but no run.json"),
    ("config.yaml", wrong_bytes, "is not valid YAML .*restore it from a copy"),
    ("config.yaml", lambda file: file.write_text("a: [1\nb: 2"), "is not valid YAML .*line 2.*restore it"),
    ("config.yaml", lambda file: file.write_text("null"), "must hold all settings of a run"),
    ("config.yaml", missing, r"config\.yaml is missing; restore it"),
    ("metrics.jsonl", lambda file: file.write_bytes(b"\xff\xff\n" + file.read_bytes()), "line 1: .*remove that line"),
    ("metrics.jsonl", lambda file: file.write_text(file.read_text() + "{}\n[1]\n"), r"line \d+: .*remove that line"),
    ("checkpoints/step-00000003/state.json", cut, "not valid JSON .*from step 2 remove that folder.*--checkpoint 2"),
    ("checkpoints/step-00000003/state.json", wrong_bytes, "not valid JSON .*from step 2 remove that folder"),
    ("checkpoints/step-00000003/state.json", lambda file: file.write_text("{}"), "lacks the digests .*from step 2"),
    ("checkpoints/step-00000003/state.json", missing, "is missing; to train on from step 2 remove that folder"),
    ("checkpoints/step-00000003/averaged.safetensors", cut, "damaged: averaged.* from step 2 remove that folder"),
]


def no_safetensors(file):
    file.write_bytes(b"no safetensors")


def another_model(file):
    save_file({"unet.conv_in.bias": torch.zeros(2)}, file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_safetensors, r"averaged\.safetensors is damaged: .*; save or download the model again"),
        (another_model, r"lacks \d+ of the model's \d+ tensors, or has them in another shape: unet\.conv_in\.weight"),
    ],
)
def test_weights_of_something_else_are_refused_although_their_digest_is_right(run, change, message):
    checkpoint = run.checkpoint(3)
    change(checkpoint / "averaged.safetensors")
    facts = json.loads((checkpoint / "state.json").read_text())
    facts["sha256"]["averaged.safetensors"] = file_digest(checkpoint / "averaged.safetensors")
    (checkpoint / "state.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match=message):
        load_pipeline(run.path)


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGED)
def test_a_damaged_file_is_named_with_its_remedy(run, converted_folder, capsys, name, damage, message):
    """By whichever of training and publishing reads it first, through the command line."""
    damage(run.path / name)
    with pytest.raises(SystemExit) as end:
        main(["publish", str(run.path), "--repo=user/jets", "--dry-run"])
    line = capsys.readouterr().err
    assert end.value.code == 2, line
    assert line.count("\n") == 1
    assert str(run.path) in line
    assert re.search(message, line), line


@pytest.mark.integration
def test_training_refuses_checkpoints_without_a_record(run, go_on):
    run.record.unlink()
    with pytest.raises(FileNotFoundError, match=r"has checkpoints but no run\.json.*restore it from a copy"):
        go_on(run, "--max_steps=4", "--seed=7")
    with pytest.raises(FileNotFoundError, match=r"no run\.json"):
        load_pipeline(run.path)
    assert not run.begun


@pytest.mark.integration
def test_training_goes_on_from_the_checkpoint_before_a_damaged_one(run, go_on):
    cut(run.checkpoint("last") / "weights.safetensors")
    with pytest.raises(ValueError, match=r"step-00000003 is damaged: weights\.safetensors.*from step 2 remove that"):
        go_on(run, "--max_steps=4")
    shutil.rmtree(run.checkpoint("last"))
    go_on(run, "--max_steps=3")
    assert run.checkpoint_steps() == [1, 2, 3]


def test_the_only_checkpoint_has_none_before_it(run):
    for step in (1, 2):
        shutil.rmtree(run.checkpoint(step))
    cut(run.checkpoint("last") / "averaged.safetensors")
    with pytest.raises(ValueError, match="there is no checkpoint before it"):
        load_pipeline(run.path)


@pytest.mark.integration
def test_stray_files_beside_checkpoints_are_no_checkpoints(run, go_on):
    for name in ("step-backup", "step-00000009.old", "step-7", "step-"):
        (run.checkpoints / name).mkdir()
    (run.checkpoints / "step-00000008").write_text("a file")
    assert run.checkpoint_steps() == [1, 2, 3]
    assert go_on(run).checkpoint("last").name == "step-00000003"
    assert (run.checkpoints / "step-backup").is_dir()


def test_a_line_that_a_kill_cut_is_left_out(run):
    lines = run.read_metrics()
    with run.metrics.open("a") as file:
        file.write('{"kind": "train", "step": 4')
    assert run.read_metrics() == lines
    run.forget_after(2)
    assert run.read_metrics() == [line for line in lines if line["step"] <= 2]


@pytest.mark.integration
@pytest.mark.parametrize("lost", ["picture", "line", "history"])
def test_what_a_kill_left_out_is_made_at_the_next_start(run, go_on, whole_run, lost):
    """A kill between the last checkpoint and the last picture."""
    picture = run.samples / "step-00000003.png"
    if lost == "line":
        kept = [line for line in run.metrics.read_text().splitlines(keepends=True) if '"sample"' not in line]
        run.metrics.write_text("".join(kept))
    else:
        (picture if lost == "picture" else run.history).unlink()
    go_on(run)
    assert picture.is_file() and run.history.is_file()
    assert run.read_metrics("sample")[-1] == whole_run.read_metrics("sample")[-1]
    main(["publish", str(run.path), "--repo=user/jets", "--dry-run"])


@pytest.mark.integration
def test_a_finished_run_is_left_alone(run, go_on):
    before = {path: path.read_bytes() for path in (run.metrics, *run.samples.iterdir())}
    go_on(run)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.integration
def test_a_start_without_a_checkpoint_blocks_no_other(run, converted_folder):
    """The same folder with other settings, after a kill before the first checkpoint."""
    shutil.rmtree(run.checkpoints)
    train_here(converted_folder, run.path, "--max_steps=1", "--seed=5")
    assert RunFolder.open(run.path).read_config()["seed"] == 5
    assert [line["step"] for line in run.read_metrics("train")] == [1]
