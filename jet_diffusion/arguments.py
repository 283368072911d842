"""Make the options of a command from a dataclass: from its fields, their types and its docstring.

Options are written with dashes and also accepted with underscores. `--flag` alone means true, and a list may be written
as words: `--classifiers observables voxels`. `--config FILE` reads options from YAML; what is given on the command line
wins.
"""

from __future__ import annotations

import difflib
import inspect
import json
import re
import shlex
import textwrap
from argparse import SUPPRESS, Action, ArgumentError
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from jet_diffusion.errors import UserError

Options = TypeVar("Options")

Scheduler = Literal["ddpm", "ddpm-large", "ddim", "dpm++", "sde-dpm++", "unipc", "euler"]
"""Names of `jet_diffusion.pipelines.schedulers.SCHEDULERS`, which takes long to import; a test compares both."""

Precision = Literal["auto", "no", "bf16"]
"""`jet_diffusion.precision.PRECISIONS`, likewise."""


class HelpFormatter(DefaultHelpFormatter):
    """Help with dashes, choices and defaults, in plain words."""

    def _get_help_string(self, action: Action) -> str:
        text = action.help or ""
        none = action.default is None or action.default is False or action.default in ([], SUPPRESS)
        if none or not hasattr(action, "_typehint"):
            return text
        default = " ".join(map(str, action.default)) if isinstance(action.default, list) else str(action.default)
        return f"{text} (default: {default.replace('%', '%%')})".strip()

    def _format_action_invocation(self, action: Action) -> str:
        if getattr(action, "is_positional", False):
            return str(action.metavar)
        if getattr(action, "_typehint", None) is bool:
            return ", ".join(action.option_strings)
        return super()._format_action_invocation(action)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.split("\n\n")
        return "\n\n".join(textwrap.fill(" ".join(each.split()), width, initial_indent=indent) for each in paragraphs)


def make_parser(prog: str, options: type) -> ArgumentParser:
    """The parser of a command's options.

    Args:
        prog: The command as it is called.
        options: A dataclass. Fields without a default are required: positional, if they are not `kw_only`, or options.
            One with a default is positional too if its metadata say "positional". The docstring describes the command,
            and each field under "Attributes".
    """
    description = (inspect.getdoc(options) or "").split("\nAttributes:")[0].strip()
    parser = ArgumentParser(
        prog=prog, description=description, formatter_class=HelpFormatter, exit_on_error=False, allow_abbrev=False
    )
    parser.add_argument("--config", action="config", metavar="FILE", help="a YAML file of these options")
    parser.add_class_arguments(options, as_group=False)
    for action in parser._actions:
        typehint = getattr(action, "_typehint", None)
        # What is shown; arguments are looked up by the names with underscores.
        action.option_strings = [_dashed(name) for name in action.option_strings if not name.endswith("+")]
        if action.dest == "print_config":
            action.help, action.metavar = "print all options as YAML, and stop", ""
        elif typehint is not None:
            action.metavar = _metavar(action.dest, typehint)
        elif type(action).__name__ == "_ActionConfigLoad":  # a file for one group of options
            action.help = SUPPRESS
    actions = {action.dest: action for action in parser._actions}
    positional = [actions[field.name] for field in fields(options) if _is_positional(field)]
    words = [f"{action.metavar}" if action.required else f"[{action.metavar}]" for action in positional]
    for action in positional:  # shown as such; each is parsed as an option, by which it may also be given
        action.is_positional = True  # type: ignore[attr-defined]
        parser._optionals._group_actions.remove(action)
        parser._positionals._group_actions.append(action)
    # What must be given is shown first.
    parser._optionals._group_actions.sort(key=lambda action: action.dest not in ("help", "config", "print_config"))
    head, rest = parser._optionals._group_actions[:3], parser._optionals._group_actions[3:]
    parser._optionals._group_actions[:] = [*head, *sorted(rest, key=lambda action: not action.required)]
    others = [action for action in parser._actions if action.required and action not in positional]
    words += [f"{action.option_strings[0]} {action.metavar}" for action in others]
    parser.usage = " ".join([prog, *words, "[options]"])
    return parser


def parse_options(prog: str, options: type[Options], argv: list[str]) -> Options:
    """A command's options from its arguments.

    Raises:
        UserError: For an unknown option, naming the nearest, or a value that is none; or from the options' own checks.
    """
    parser = make_parser(prog, options)
    try:
        namespace = parser.instantiate(parser.parse_args([*_spelled_out(parser, options, argv)]))
    except ArgumentError as error:
        raise UserError(_in_plain_words(parser, str(error))) from error
    return options(**{name: value for name, value in vars(namespace).items() if name != "config"})


def command_line(name: str, options: Any) -> str:
    """The command that these options are given with, for reports; defaults are left out."""
    positional: list[str] = []
    named: list[str] = []
    for field in fields(options):
        value = getattr(options, field.name)
        option = _dashed(f"--{field.name}")
        if _is_positional(field):
            positional += map(str, value) if isinstance(value, list) else [str(value)]
        elif value is True and field.default is False:
            named.append(option)
        elif value != (field.default_factory() if field.default_factory is not MISSING else field.default):
            named.append(f"{option}={_as_text(value)}")
    return shlex.join(["jet-diffusion", name, *positional, *named])


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` for a name like a known one, else nothing."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _spelled_out(parser: ArgumentParser, options: type, argv: list[str]) -> Iterator[str]:
    """Arguments as jsonargparse takes them: known options with underscores, each with its value.

    Raises:
        UserError: For an unknown option, or more words than there are positional ones.
    """
    waiting = list(argv)
    words: list[str] = []
    while waiting:
        argument = waiting.pop(0)
        if not argument.startswith("--"):
            if argument in ("-h", "--help"):
                yield argument
                continue
            words.append(argument)
            continue
        name, equals, value = argument.partition("=")
        name = "--" + name[2:].replace("-", "_")
        if name not in parser._option_string_actions:
            known = [_dashed(each) for each in parser._option_string_actions if each.startswith("--")]
            raise UserError(f"unknown option {_dashed(name)}{nearest(_dashed(name), known)}")
        typehint = getattr(parser._option_string_actions[name], "_typehint", None)
        if equals or (typehint is None and name != "--config"):
            yield name + equals + value
        elif typehint is bool and waiting[:1] not in (["true"], ["false"]):
            yield f"{name}=true"
        elif get_origin(_without_none(typehint)) is list and not _is_yaml_list(waiting):
            entries = []
            while waiting and not waiting[0].startswith("--"):
                entries.append(waiting.pop(0))
            yield f"{name}=[{', '.join(entries)}]"
        else:
            yield f"{name}={waiting.pop(0)}" if waiting and not waiting[0].startswith("--") else name
    yield from _placed(parser, options, words)


def _placed(parser: ArgumentParser, options: type, words: list[str]) -> Iterator[str]:
    """Words without an option's name, as the options they stand for; a list takes all that others leave.

    Raises:
        UserError: For more words than there are places.
    """
    positional = [field.name for field in fields(options) if _is_positional(field)]
    for place, name in enumerate(positional, 1):
        typehint = _without_none(getattr(parser._option_string_actions[f"--{name}"], "_typehint", None))
        if get_origin(typehint) is list:
            count = max(0, len(words) - (len(positional) - place))
            if count:
                yield f"--{name}={json.dumps(words[:count])}"
            words = words[count:]
        elif words:
            yield f"--{name}={words[0]}"
            words = words[1:]
    if words:
        raise UserError(f"there is no place for the argument {words[0]!r}; --help shows the usage")


def _is_yaml_list(waiting: list[str]) -> bool:
    return bool(waiting) and (waiting[0].startswith("[") or waiting[0] in ("null", "None"))


def _in_plain_words(parser: ArgumentParser, message: str) -> str:
    """A message of jsonargparse, in our words where it speaks of an option's value."""
    message = " ".join(message.split())
    actions = {action.dest: action for action in parser._actions}
    if found := re.match(r'Parser key "([^"]+)": (.*)', message):
        action, rest = actions.get(found[1]), found[2]
        name = "".join(action.option_strings[:1]) if action else ""
        name = name or found[1]
        typehint = getattr(action, "_typehint", None)
        value = re.search(r"(?:Got|Given) value: (.*)$", rest)
        if typehint is not None and value:
            return f"{name} must be {_described(typehint)}, got {value[1]}"
        return f"{name}: {rest}"
    if found := re.match(r"the following arguments are required: (.*)", message):
        names = (actions[name].option_strings[:1] if name in actions else [] for name in found[1].split(", "))
        shown = ["".join(name) or dest for name, dest in zip(names, found[1].split(", "), strict=True)]
        return f"{', '.join(shown)} must be given"
    if found := re.match(r"(?:Option|Group '([^']+)' does not accept option) '([^']+)'", message):
        key = f"{found[1]}.{found[2]}" if found[1] else found[2]
        return f"the configuration has an unknown option {key}{nearest(key, actions)}"
    return message


def _described(typehint: Any) -> str:
    """What is accepted, in words."""
    typehint = _without_none(typehint)
    if get_origin(typehint) is Literal:
        return "one of " + ", ".join(map(str, get_args(typehint)))
    if get_origin(typehint) is list:
        return f"a list, each entry {_described(get_args(typehint)[0])}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    return words.get(typehint, str(typehint))


def _metavar(dest: str, typehint: Any) -> str:
    typehint = _without_none(typehint)
    if get_origin(typehint) is Literal:
        return "{" + ",".join(map(str, get_args(typehint))) + "}"
    if get_origin(typehint) is list:
        return f"{_metavar(dest, get_args(typehint)[0])} ..."
    return {int: "N", float: "X"}.get(typehint, dest.rsplit(".", 1)[-1].upper())


def _without_none(typehint: Any) -> Any:
    if get_origin(typehint) in (Union, UnionType):
        others = [each for each in get_args(typehint) if each is not NoneType]
        return others[0] if len(others) == 1 else typehint
    return typehint


def _is_positional(field: Field[Any]) -> bool:
    required = field.default is MISSING and field.default_factory is MISSING
    return bool(field.metadata.get("positional")) or (required and not field.kw_only)


def _as_text(value: Any) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def parse_shard(text: str) -> tuple[int, int]:
    """`i/n` as numbers.

    Raises:
        UserError: It is written otherwise.
    """
    number, slash, shards = text.partition("/")
    if not (slash and number.isdecimal() and shards.isdecimal()):
        raise UserError(f"shard {text}: write i/n with i from 1 to n")
    return int(number), int(shards)
