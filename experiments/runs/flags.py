"""Flags of ``polyak train`` and ``polyak pretrain``: the flags of the parts that are there, in a group for each part.

The name of the agent, ``--preset`` and the flags of unions (``--head``, ``--core``, ...) choose the parts and are read
first. tyro then reads all flags, and prints all with ``--help-all``; ``--help`` prints those that are used most.
:func:`polyak.experiments.runs.config.make_run_config` makes the config of them, as it does of the fields of
``polyak.train``, and ``make_pretrain_config`` as it does of those of ``polyak.pretrain``.
"""

import dataclasses
import pathlib
import shlex
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import tyro

from ...agents.fields import Part, annotations_of, check_name, did_you_mean, kind_of, kinds_of
from ...agents.other_names import other_name
from ...agents.parts import absent, bringers, leaves, part_of_kind, replace
from ...agents.presets import AGENTS, DEFAULT_AGENT, DEFAULT_PRESET, Configs, make_configs, own_leaves
from ...agents.schedules import Schedule
from ...agents.settings import PRESETS
from .config import RUN_LEAVES, RunConfig, load_agent_module, make_run_config
from .flag_help import METAVARS, PRETRAIN_OPTIONS, SWEEP_OPTIONS, TRAIN_OPTIONS, Flag, about, short_help
from .pretrain_config import METHODS, PRETRAIN_LEAVES, PretrainConfig, make_pretrain_config

ALIASES = {"--wrapper": "wrappers"}


class _Page(NamedTuple):
    """Texts of a command's help.

    Attributes:
        usage: Command line, for the short help.
        description: Text above the options of the complete help; its first line is in the short help too.
        ending: Text below the options of the short help.
        options: Title of each group of the short help to the names of its options.
    """

    usage: str
    description: str
    ending: str
    options: Mapping[str, Sequence[str]]


def parse_run(arguments: Sequence[str], command: type, description: str, ending: str = "") -> tuple[RunConfig, Any]:
    """Read the arguments of ``polyak train``.

    Args:
        arguments: Arguments after the command; the first may be the name of an agent.
        command: Dataclass of the flags that are not of the run: ``--preset``, ``--out`` and so on.
        description: Text above the flags in the complete help; its first line is above those in the short help.
        ending: Text below the flags in the short help.

    Returns:
        The config of the run, and an instance of ``command``.

    Raises:
        ValueError: if a name is unknown, a flag is unknown or of a part that is not there, a flag has no value or too
            many, or a value is out of range; or if the file of ``--config`` cannot be read.
        SystemExit: if tyro cannot read a value, or after ``--help`` and ``--help-all``.
    """
    read = read_run(arguments, command, description, ending, "train")
    config = make_run_config(read.agent, read.preset, read.fields)
    _check_importable(config)
    return config, read.command


class ReadRun(NamedTuple):
    """Arguments of a command that trains.

    Attributes:
        agent: Name of the agent.
        preset: Name of the preset.
        fields: Name to value of all flags of a run.
        command: Instance of the dataclass of the other flags.
    """

    agent: str
    preset: str
    fields: dict[str, Any]
    command: Any


def read_run(
    arguments: Sequence[str],
    command: type,
    description: str,
    ending: str,
    name: str,
    defaults: Mapping[str, Any] = {},
) -> ReadRun:
    """Read the arguments of a command that trains, see :func:`parse_run`.

    Args:
        arguments: Arguments after the command.
        command: Dataclass of the flags that are not of the run.
        description: Text above the flags in the complete help.
        ending: Text below the flags in the short help.
        name: Name of the command.
        defaults: Defaults of the command for leaves of the run and of the loop, in place of those of a run.
    """
    named, rest = _name_first(arguments, AGENTS, "agent", "--env")
    given = given_words(rest)
    load_agent_module(_first(given, "agent_module") or "none")
    base = _base(given, named)
    agent = base.agent_name if base else named or DEFAULT_AGENT
    preset = base.preset if base else check_name(_first(given, "preset") or DEFAULT_PRESET, PRESETS, "preset")
    configs = Configs(base.agent, base.loop) if base else make_configs(agent, preset)
    own = {**(leaves(base) if base else own_leaves(agent)), **defaults}
    of_loop = {name: value for name, value in defaults.items() if name not in RUN_LEAVES}
    configs = Configs(configs.agent, replace(configs.loop, of_loop))
    flags = [*command_flags(command), *run_flags(configs, _kinds(given), own)]
    options = SWEEP_OPTIONS if name == "sweep" else TRAIN_OPTIONS
    page = _Page(f"polyak {name} {named or '[AGENT]'} [OPTIONS]", description, ending, options)
    fields, found = _parse(rest, command, flags, Configs, f"polyak {name} {agent}", page)
    return ReadRun(agent, preset, fields, found)


def parse_pretraining(
    arguments: Sequence[str], command: type, description: str, ending: str = ""
) -> tuple[PretrainConfig, Any]:
    """Read the arguments of ``polyak pretrain``; as :func:`parse_run` does, with the name of a method."""
    named, rest = _name_first(arguments, METHODS, "method", "--data")
    method = check_name(named or METHODS[0], METHODS, "method")
    flags = [*command_flags(command), *pretrain_flags(_kinds(given_words(rest)))]
    page = _Page(f"polyak pretrain {method} [OPTIONS]", description, ending, PRETRAIN_OPTIONS)
    fields, found = _parse(rest, command, flags, PretrainConfig, f"polyak pretrain {method}", page)
    return make_pretrain_config(method, fields), found


def _parse(
    arguments: Sequence[str], command: type, flags: Sequence[Flag], configs: type, prog: str, page: _Page
) -> tuple[dict[str, Any], Any]:
    """Name to value of the flags of a run, and an instance of ``command``; ``configs`` has the parts of all flags."""
    given = given_words(arguments)
    _check_names(given, flags, configs)
    if {"help", "h"} & given.keys():
        summary = f"{page.description.partition(chr(10))[0]} The defaults of {prog.split()[-1]} are in parentheses."
        print(short_help(flags, page.options, page.usage, summary, page.ending), end="")
        raise SystemExit(0)
    if "help_all" in given:
        arguments = ["--help"]
    else:
        _check_words(given, flags)
    groups: dict[str, list[Flag]] = {}
    for flag in flags:
        groups.setdefault(flag.group, []).append(flag)
    kinds = {group: _dataclass(inner) for group, inner in groups.items()}
    found: Any = tyro.cli(
        dataclasses.make_dataclass("Flags", [(group, kind, kind()) for group, kind in kinds.items()]),
        args=list(arguments),
        prog=prog,
        description=page.description,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.HelptextFromCommentsOff),
    )
    own, *parts = (vars(getattr(found, group)) for group in kinds)
    return {name: value for part in parts for name, value in part.items()}, command(**own)


def _name_first(
    arguments: Sequence[str], names: Collection[str], what: str, option: str
) -> tuple[str | None, list[str]]:
    """Name that comes first, or None, and the arguments after it."""
    rest = list(arguments)
    name = rest.pop(0) if rest and not rest[0].startswith("-") else None
    if name is not None and rest and not rest[0].startswith("-"):
        if rest[0] in names:
            raise ValueError(
                f"{what}: got {name!r} and {rest[0]!r}; expected one. Train each with a command of its own; polyak "
                "compare RUN RUN compares them."
            )
        raise ValueError(f"{what}: got {rest[0]!r} after {name!r}; expected an option, as in {option} {rest[0]}.")
    return name, rest


def _base(given: Mapping[str, Sequence[str]], named: str | None) -> RunConfig | None:
    """Config that the run begins with, from the file of ``--config``; None without it."""
    path = _first(given, "config")
    if path is None:
        return None
    if not path:
        raise ValueError("config: got an empty path; expected the config.json of a run, as in runs/RUN/config.json.")
    from .folders import read_config_file  # imports NumPy

    config = read_config_file(pathlib.Path(path))
    for name, value, has in (
        ("agent", named, config.agent_name),
        ("preset", _first(given, "preset"), config.preset),
    ):
        if value is not None and value != has:
            raise ValueError(
                f"config: {path} has the {name} {has!r}, and got {value!r} as well; give one or the other. Leave out "
                f"{value if name == 'agent' else f'--preset {value}'}, or --config."
            )
    return config


def _check_importable(config: RunConfig) -> None:
    """Check that no field stands for an object that a Python program gave."""
    terms = (text.partition("*")[2] for text in config.terms)
    texts = {"env": (config.env,), "network": (config.network,), "maker": (config.maker,)}
    for name, values in {**texts, "wrappers": config.wrappers, "terms": (*terms,)}.items():
        for text in values:
            if text.startswith("<"):
                raise ValueError(
                    f"{name}: got {text!r}, an object that a Python program gave and that no module has; expected "
                    f"MODULE:NAME. Put it into a module, and give --{name}, or train from Python with polyak.train."
                )


def command_flags(command: type) -> list[Flag]:
    """Flags of a command's own fields."""
    annotations = annotations_of(command)
    return [
        Flag(field.name, "command", annotations[field.name], field.default, command)
        for field in dataclasses.fields(command)
    ]


def run_flags(configs: Configs, given: Mapping[str, str] = {}, own: Mapping[str, Any] = {}) -> list[Flag]:
    """Flags of a run, its agent and its loop.

    Args:
        configs: Configs of agent and loop.
        given: Name to kind, of the unions whose part is to be of another kind than in ``configs``.
        own: Leaves of the run that the agent brings.

    Raises:
        ValueError: if a kind is unknown.

    >>> names = [flag.name for flag in run_flags(make_configs("dqn"), {"head": "quantile"})]
    >>> names.count("num_quantiles"), names.count("num_atoms"), names.count("env")
    (1, 0, 1)
    """
    annotations, defaults = annotations_of(RunConfig), {**leaves(RunConfig()), **own}
    return [
        *(Flag(name, "run", annotations[name], defaults[name], RunConfig) for name in RUN_LEAVES),
        *_flags(configs.agent, given, "agent"),
        *_flags(configs.loop, given, "loop"),
    ]


def pretrain_flags(given: Mapping[str, str] = {}) -> list[Flag]:
    """Flags of a pretraining run and of its method.

    >>> names = [flag.name for flag in pretrain_flags({"predictor": "none"})]
    >>> names.count("data"), names.count("target"), names.count("predictor_hidden")
    (1, 1, 0)
    """
    annotations, default = annotations_of(PretrainConfig), PretrainConfig()
    return [
        *(Flag(name, "run", annotations[name], getattr(default, name), PretrainConfig) for name in PRETRAIN_LEAVES),
        *_flags(default.byol, given, default.method),
    ]


def _flags(config: Any, given: Mapping[str, str], top: str, group: str | None = None) -> Iterator[Flag]:
    """Flags of a tree; a part and a union at its top have a group of their own, in which all below them is shown."""
    annotations = annotations_of(config.__class__)
    for field in dataclasses.fields(config):
        value, kinds = getattr(config, field.name), kinds_of(field)
        if kinds:
            kind = given.get(field.name) or kind_of(field, value)
            value = part_of_kind(field, value, kind)
            yield Flag(field.name, group or field.name, Literal[tuple(kinds)], kind, type(config))
        if isinstance(value, Part):
            yield from _flags(value, given, top, group or field.name)
        elif not kinds:
            yield Flag(field.name, group or top, annotations[field.name], value, type(config))


def given_words(arguments: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Name of each flag to the words after it."""
    found: dict[str, tuple[str, ...]] = {}
    name = None
    for argument in arguments:
        if argument.startswith("--") or argument == "-h":
            text, is_joined, word = argument.lstrip("-").partition("=")
            name = text.replace("-", "_")
            found[name] = (word,) if is_joined else ()
        elif name is not None:
            found[name] += (argument,)
    return found


def _first(given: Mapping[str, Sequence[str]], name: str) -> str | None:
    """First word after a flag; None if there is no word, or no such flag."""
    return next(iter(given.get(name, ())), None)


def _kinds(given: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {name: words[0] for name, words in given.items() if words}


def _check_names(given: Mapping[str, Sequence[str]], flags: Sequence[Flag], configs: type) -> None:
    switches = {f"no_{flag.name}" for flag in flags if flag.annotation is bool}
    known = {flag.name: flag.default for flag in flags}
    aliases = {alias.removeprefix("--") for alias, name in ALIASES.items() if name in known}
    brought, unknown = bringers(configs), []
    for name, words in given.items():
        if name in {*aliases, *known, *switches, "h", "help", "help_all"} or name.startswith("tyro_"):
            continue
        plain = name if name in brought else name.removeprefix("no_")
        if plain in brought:
            raise ValueError(absent(configs, known, plain, words[0] if words else plain == name))
        option, *options = (f"--{one.replace('_', '-')}" for one in (name, *known, *brought))
        hint = other_name(name, words, {*known, *brought}, flags=True) or did_you_mean(option, options)
        unknown.append(f"{option}: no such option.{hint}")
    if unknown:
        raise ValueError(" ".join(unknown))


def _check_words(given: Mapping[str, Sequence[str]], flags: Sequence[Flag]) -> None:
    """Check that a flag of one value has one, and that a switch has none."""
    for flag in flags:
        if typing.get_origin(flag.annotation) is tuple:
            continue
        for name in (flag.name, f"no_{flag.name}"):
            words, most = given.get(name), 0 if flag.annotation is bool else 1
            if words is None:
                continue
            option = f"--{name.replace('_', '-')}"
            if len(words) < most:
                example = f" Try {option} {shlex.quote(str(flag.default))}." if flag.default not in (None, "") else ""
                raise ValueError(f"{flag.name}: got no value after {option}; expected one.{example}")
            if len(words) > most:
                before = " ".join((option, *words[:most]))
                way_out = f" The agent comes first: polyak train {words[most]}." if words[most] in AGENTS else ""
                raise ValueError(f"{words[most]}: not read after {before}; expected an option.{way_out}")


def _dataclass(flags: Sequence[Flag]) -> type:
    """The flags of a group as the dataclass that tyro fills; values are checked when the config is made."""
    fields = [(flag.name, _annotation(flag), dataclasses.field(default=_default(flag))) for flag in flags]
    made = dataclasses.make_dataclass(flags[0].group.title(), fields, frozen=True)
    made.__doc__ = ""  # or dataclasses writes one, which help would show
    return made


def _annotation(flag: Flag) -> Any:
    is_schedule = flag.annotation is Schedule
    argument = tyro.conf.arg(
        help=about(flag),
        metavar="SCHEDULE" if is_schedule else METAVARS.get(flag.name),
        help_behavior_hint=f"(default: {flag.default})" if is_schedule else None,
        aliases=[alias for alias, name in ALIASES.items() if name == flag.name] or None,
    )
    # A schedule's text is read when the config is made, as it is from JSON and from Python.
    return Annotated[str if is_schedule else flag.annotation, argument]


def _default(flag: Flag) -> Any:
    return str(flag.default) if isinstance(flag.default, Schedule) else flag.default
