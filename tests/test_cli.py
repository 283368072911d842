"""The command line: help, options from the command line and from a file, and what is refused."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, get_args, get_type_hints

import pytest
import torch
import yaml

import jet_diffusion
from jet_diffusion import cli
from jet_diffusion.arguments import Precision, Scheduler, command_line, make_parser, parse_options, parse_shard
from jet_diffusion.data.bundled import sample_path
from jet_diffusion.errors import UserError, checking, run_command
from jet_diffusion.evaluation.run import LEAST_JETS, SIZE
from jet_diffusion.metrics.classifiers import CLASSIFIERS
from jet_diffusion.metrics.tagger import ARCHITECTURES, STEPS
from jet_diffusion.pipelines.schedulers import SCHEDULERS
from jet_diffusion.precision import PRECISIONS
from jet_diffusion.simulation.settings import PROCESSES, SimulationSettings

SAMPLE = str(sample_path())
REFERENCE = str(Path(__file__).parents[1] / "reference" / "model")
HEAVY = ("torch", "diffusers", "transformers", "datasets", "matplotlib", "sklearn", "accelerate")


def options_of(name):
    return importlib.import_module(f"jet_diffusion.commands.{name.replace('-', '_')}").Options


@dataclass
class Cake:
    """Bake a cake.

    Twice.

    Attributes:
        flour: What to take, 80 % of it.
        bowl: Where to put it.
        num_eggs: How many.
        sugar: Grams; none if you omit it.
        icing: Colours.
        in_oven: Bake it too.
    """

    flour: str
    bowl: Path = field(kw_only=True)
    num_eggs: int = 3
    sugar: float | None = None
    icing: list[Literal["red", "blue"]] = field(default_factory=lambda: ["red"])
    in_oven: bool = False


def test_options_are_written_with_dashes_or_underscores():
    plain = parse_options("bake", Cake, ["rye", "--bowl=b", "--num-eggs", "4", "--in-oven", "--icing", "blue", "red"])
    assert plain == Cake("rye", bowl=Path("b"), num_eggs=4, icing=["blue", "red"], in_oven=True)
    other = ["--num_eggs=4", "--in_oven", "true", "--icing=[blue, red]", "--bowl", "b", "rye"]
    assert parse_options("bake", Cake, other) == plain
    assert parse_options("bake", Cake, ["--in-oven", "rye", "--bowl=b", "--icing"]).icing == []
    assert parse_options("bake", Cake, ["rye", "--bowl=b", "--sugar", "-5"]).sugar == -5


def test_options_come_from_a_file_and_the_command_line_wins(tmp_path):
    file = tmp_path / "cake.yaml"
    file.write_text(yaml.safe_dump({"flour": "rye", "bowl": "b", "num_eggs": 5, "icing": []}))
    assert parse_options("bake", Cake, [f"--config={file}"]) == Cake("rye", bowl=Path("b"), num_eggs=5, icing=[])
    assert parse_options("bake", Cake, ["--config", str(file), "--num-eggs=1", "oats"]).flour == "oats"
    assert parse_options("bake", Cake, ["--config", str(file), "--num-eggs=1", "oats"]).num_eggs == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rye", "--num-egs=3"], "unknown option --num-egs; did you mean --num-eggs?"),
        (["rye", "--zzz"], "unknown option --zzz"),
        (["--bowl=b"], "--flour must be given"),
        (["rye"], "--bowl must be given"),
        (["rye", "--bowl=b", "--num-eggs=x"], "--num-eggs must be a whole number, got x"),
        (["rye", "--bowl=b", "--num-eggs=1.5"], "--num-eggs must be a whole number, got 1.5"),
        (["rye", "--bowl=b", "--sugar=sweet"], "--sugar must be a number, got sweet"),
        (["rye", "--bowl=b", "--icing", "green"], "--icing must be a list, each entry one of red, blue, got green"),
        (["rye", "--bowl=b", "--in-oven=maybe"], "--in-oven must be true or false, got maybe"),
        (["rye", "--bowl=b", "--num-eggs"], "argument --num-eggs: expected one argument"),
        (["rye", "oats", "--bowl=b"], "there is no place for the argument 'oats'"),
        (["--config=absent.yaml"], "--config: File does not exist"),
    ],
)
def test_what_is_no_option_or_no_value_is_named(arguments, message):
    with pytest.raises(UserError) as refused:
        parse_options("bake", Cake, arguments)
    assert str(refused.value).startswith(message)


def test_an_unknown_key_of_a_file_is_named(tmp_path):
    file = tmp_path / "cake.yaml"
    file.write_text("flour: rye\nbowl: b\nnum_egs: 2\n")
    with pytest.raises(UserError, match=r"unknown option num_egs; did you mean num_eggs\?"):
        parse_options("bake", Cake, [f"--config={file}"])


def test_help_says_what_the_docstring_says():
    text = " ".join(make_parser("bake", Cake).format_help().split())
    assert text.startswith("usage: bake FLOUR --bowl BOWL [options] Bake a cake. Twice.")
    assert "FLOUR What to take, 80 % of it." in text
    assert "--num-eggs N How many. (default: 3)" in text
    assert "--sugar X Grams; none if you omit it. --icing" in text
    assert "--icing {red,blue} ... Colours. (default: red)" in text
    assert "--in-oven Bake it too." in text


def test_shards_are_written_as_one_of_many():
    assert parse_shard("3/16") == (3, 16)
    for wrong in ("3", "3/", "a/b", "-1/2"):
        with pytest.raises(UserError, match="write i/n"):
            parse_shard(wrong)


def test_a_command_line_can_be_given_again():
    cake = Cake("rye flour", bowl=Path("b"), num_eggs=4, icing=[], in_oven=True)
    line = command_line("bake", cake)
    assert line == "jet-diffusion bake 'rye flour' --bowl=b --num-eggs=4 '--icing=[]' --in-oven"
    assert parse_options("bake", Cake, ["rye flour", "--bowl=b", "--num-eggs=4", "--icing=[]", "--in-oven"]) == cake


def test_the_command_lists_its_commands(capsys):
    cli.main([])
    assert "  demo " in capsys.readouterr().out
    cli.main(["--help"])
    text = capsys.readouterr().out
    places = [text.index(f"\n  {name} ") for name in cli.names()]
    assert places == sorted(places)
    cli.main(["--version"])
    assert capsys.readouterr().out == f"jet-diffusion {jet_diffusion.__version__}\n"


def test_every_command_is_a_file_and_every_file_a_command():
    files = {path.stem for path in (Path(cli.__file__).parent / "commands").glob("*.py")} - {"__init__"}
    assert files == {name.replace("-", "_") for name in cli.names()}


@pytest.mark.parametrize("name", cli.names())
def test_every_option_is_explained(name, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: jet-diffusion {name}")
    assert "_" not in " ".join(word for word in text.split() if word.startswith("--"))
    if name != "train":
        parser = make_parser(name, options_of(name))
        assert all(action.help for action in parser._actions)


def refusal(capsys, *argv):
    """The one line that a refused command writes."""
    with pytest.raises(SystemExit) as end:
        cli.main(list(argv))
    assert end.value.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


BAD = [
    (["paint"], "there is no such command"),
    (["genrate"], "did you mean generate?"),
    (["inspect", "nothing.hdf5"], "nothing.hdf5"),
    (["inspect", SAMPLE, "--max-jets=0"], "--max-jets must be at least 1, got 0"),
    (["convert", SAMPLE, "out", "--val=0.6", "--test=0.4"], "must leave jets to train on"),
    (["convert", SAMPLE, "out", "--val=-0.1"], "--val must be at least 0"),
    (["convert", SAMPLE, "out", "--workers=0"], "--workers must be at least 1"),
    (["convert", SAMPLE, "out", "--private"], "--private is of the repository that --push-to makes"),
    (["train", "--dta=x"], "unknown option --dta; did you mean --data?"),
    (["train"], "must be given"),
    (["fit-guidance", "model", "data", "--out=s.json", "--rounds=0"], "--rounds must be at least 1"),
    (["fit-guidance", "model", "data", "--out=absent/s.json"], "there is no folder absent"),
    (["train-tagger", SAMPLE, "--out=t", "--steps=0"], "--steps must be at least 1"),
    (["train-tagger", SAMPLE, "--out=t", "--learning-rate=0"], "--learning-rate must be positive and finite"),
    (["train-tagger", SAMPLE, "--out=t", "--repo=jets"], "--repo must be a repository on the Hub, user/name"),
    (["train-tagger", SAMPLE, "--out=.", "--steps=1"], ". exists; choose another folder"),
    (["generate", REFERENCE, "g.hdf5"], "--num-jets must be given"),
    (["generate", REFERENCE, "g.hdf5", "--num-jets=0"], "--num-jets must be at least 1"),
    (["generate", REFERENCE, "g.hdf5", "--num-jets=2", "--scheduler=magic"], "--scheduler must be one of"),
    (["generate", REFERENCE, "g.hdf5", "--num-jets=2", "--pt=99", f"--like={SAMPLE}"], "not both"),
    (["generate", REFERENCE, "g.hdf5", "--num-jets=2", "--pt=-5"], "pt must be positive"),
    (["generate", REFERENCE, "g.hdf5", "--num-jets=2", "--steps=5000"], "num_inference_steps must be at most"),
    (["generate", REFERENCE, "g.hdf5", "--num-jets=2", "--checkpoint=best"], "has no checkpoints"),
    (["generate", REFERENCE, SAMPLE, "--num-jets=2"], "exists; delete it or choose another name"),
    (["generate", "no model", "g.hdf5", "--num-jets=2"], "no model is neither a folder nor"),
    (["evaluate", SAMPLE, SAMPLE, "--sweep=steps=5"], "--sweep needs a model to sample"),
    (["evaluate", SAMPLE, SAMPLE, "--steps=5"], "--steps needs a model to sample"),
    (["evaluate", SAMPLE, SAMPLE, "--checkpoint=best"], "--checkpoint needs a model to sample"),
    (["evaluate", REFERENCE, SAMPLE, "--sweep=5,10"], "--sweep takes steps=5,10,25"),
    (["evaluate", REFERENCE, SAMPLE, "--schedulers", "ddim"], "give --sweep"),
    (["evaluate", REFERENCE, SAMPLE, "--size=10"], f"--size must be at least {LEAST_JETS}, got 10"),
    (["evaluate", SAMPLE, SAMPLE, "--style=lhcb"], "--style must be one of cms, atlas"),
    (["evaluate", SAMPLE, SAMPLE, "--style=cms", "--no-pictures"], "--style cms is for pictures"),
    (["reconstruct", REFERENCE, SAMPLE, "--draws=1"], "--draws must be 0, or at least 2"),
    (["reconstruct", REFERENCE, SAMPLE, "--timesteps"], "--timesteps must name one"),
    (["serve", REFERENCE, "--port=0"], "--port must be 1 to 65535, got 0"),
    (["serve", REFERENCE, "--most-jets=0"], "--most-jets must be at least 1, got 0"),
    (["plot-steps", REFERENCE, "--columns=1"], "--columns must be at least 2"),
    (["plot-steps", REFERENCE, "--jet=2048"], "--jet must be 0 to 2047"),
    (["publish", "run", "--repo=user/jets", "--steps=-1"], "--steps must be at least 1, got -1"),
    (["publish", "run", "--repo=jets"], "--repo must be a repository on the Hub, user/name"),
    (["publish", "run", "--repo=u/j", "--private", "--dry-run"], "--dry-run pushes nothing"),
    (["publish", "run", "--repo=user/jets"], "run is not a training run"),
    (["simulate"], "give a file to write"),
    (["simulate", "s.hdf5", "--validate", SAMPLE], "give a file to write"),
    (["simulate", "s.hdf5", "--pileup=-1"], "pileup must be between"),
    (["simulate", "s.hdf5", "--num-jets=0"], "--num-jets must be at least 1"),
    (["notebook-artefacts", "run"], "run is not a training run"),
    (["notebook-artefacts", "run", "--num-jets=0"], "--num-jets must be at least 1"),
    (["quantum-report", "data", "--out=q", "--seeds=0"], "--seeds must be at least 1"),
    (["demo", "--num-jets=8"], "--num-jets must be 10 to 300, got 8"),
    (["demo", "--quick", "--max-steps=9"], "--quick trains nothing"),
    (["demo", "--max-steps=0"], "--max-steps must be at least 1"),
    (["demo", "--out=."], ". exists and is no earlier demo"),
]


@pytest.mark.parametrize(("argv", "message"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_bad_arguments_are_one_line_and_leave_nothing_behind(argv, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").touch()
    assert message in refusal(capsys, *argv)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_lines_of_an_error_are_set_apart(capsys):
    def refuse(_):
        raise UserError("jets.hdf5 is empty\n  take another:\nbigger ones.\n\nor none\x1b[2J")

    with pytest.raises(SystemExit):
        run_command("bake", refuse, [])
    said = "jet-diffusion bake: jets.hdf5 is empty; take another: bigger ones. or none\\x1b[2J\n"
    assert capsys.readouterr().err == said


def test_every_command_has_a_bad_argument_in_the_table():
    assert {argv[0] for argv, _ in BAD} >= set(cli.names())


def test_pushing_what_was_converted_otherwise_is_refused(converted_folder, capsys):
    line = refusal(capsys, "convert", SAMPLE, str(converted_folder), "--push-to=user/jets")
    assert "num_jets was 400 and is now 2048" in line


def test_a_renamed_command_still_works_and_says_so(capsys):
    with pytest.raises(SystemExit):
        cli.main(["fit-shapes", "model", "data", "--out=absent/s.json"])
    first, second = capsys.readouterr().err.splitlines()
    assert first == "jet-diffusion: fit-shapes is now called fit-guidance"
    assert second.startswith("jet-diffusion fit-guidance: there is no folder absent")


@pytest.mark.parametrize("asked", [["--tagger"], ["--classifiers", "resnet"]])
def test_classifiers_without_transformers_are_refused_before_work(asked, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    line = refusal(capsys, "evaluate", SAMPLE, "no such data", "--out", str(tmp_path / "report"), *asked)
    assert "run `pip install 'jet-diffusion[tagger]'`" in line


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("a bug")])
def test_a_bug_keeps_its_traceback(error, monkeypatch):
    def fail(_):
        raise error

    monkeypatch.setattr("jet_diffusion.commands.inspect.main", fail)
    with pytest.raises(type(error), match="a bug"):
        cli.main(["inspect", SAMPLE])


def test_only_the_checking_call_is_turned_into_a_user_error():
    with pytest.raises(UserError, match=r"^size: must be odd$"), checking("size"):
        raise ValueError("must be odd")
    with pytest.raises(KeyError), checking():
        raise KeyError("bug")


def test_choices_and_defaults_are_those_of_what_they_are_for():
    def choices(command, option):
        hint = get_type_hints(options_of(command))[option]
        return get_args(get_args(hint)[0] if option == "classifiers" else hint)

    assert get_args(Scheduler) == tuple(SCHEDULERS)
    assert get_args(Precision) == PRECISIONS
    assert choices("evaluate", "classifiers") == tuple(CLASSIFIERS)
    assert choices("train-tagger", "architecture") == tuple(ARCHITECTURES)
    assert choices("simulate", "process") == PROCESSES
    assert options_of("train-tagger").steps == STEPS
    assert options_of("evaluate").size == SIZE
    own = SimulationSettings(num_jets=1, seed=1)
    defaults = {each.name: each.default for each in fields(options_of("simulate"))}
    assert {name: defaults[name] for name in ("seed", "pileup", "pt_min", "process")} == {
        name: getattr(own, name) for name in ("seed", "pileup", "pt_min", "process")
    }


LOADED = """
import json, sys
from jet_diffusion import cli
found = {}
for name in cli.names():
    try:
        cli.main([name, "--help"])
    except SystemExit:
        pass
    found[name] = [heavy for heavy in json.loads(sys.argv[1]) if heavy in sys.modules]
import jet_diffusion
assert jet_diffusion.JetDataset.__name__ == "JetDataset" and "load_pipeline" in dir(jet_diffusion)
sys.stderr.write(json.dumps(found))
"""


@pytest.mark.integration
def test_help_imports_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", LOADED, json.dumps(HEAVY)], capture_output=True, text=True, timeout=600, check=True
    )
    assert set(json.loads(done.stderr)) == set(cli.names())
    assert not any(json.loads(done.stderr).values()), done.stderr


def test_the_package_exports_its_main_names():
    for name in jet_diffusion.__all__:
        assert getattr(jet_diffusion, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'load_jest'"):
        _ = jet_diffusion.load_jest
    assert jet_diffusion.load_pipeline(REFERENCE).unet.dtype == torch.float32
