"""Flags of ``polyak train`` and ``polyak pretrain``: those of the parts that are there, in a group for each part.

The name of the agent, ``--preset`` and the flags of unions (``--head``, ``--core``, ...) choose the parts and are read
first. tyro then reads all flags; :func:`polyak.experiments.runs.config.make_run_config` makes the config of them, as it
does of the fields of ``polyak.train``, and ``make_pretrain_config`` as it does of those of ``polyak.pretrain``.
"""

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import tyro

from ...agents.fields import Part, annotations_of, check_name, did_you_mean, kind_of, kinds_of
from ...agents.parts import absent, bringers, leaves, part_of_kind
from ...agents.presets import DEFAULT_AGENT, DEFAULT_PRESET, Configs, make_configs, own_leaves
from ...agents.schedules import Schedule
from ...agents.settings import PRESETS
from .config import RUN_LEAVES, RunConfig, load_agent_module, make_run_config
from .pretrain_config import METHODS, PRETRAIN_LEAVES, PretrainConfig, make_pretrain_config

_METAVARS = {
    "loggers": "NAME [NAME ...]",
    "wrappers": "MODULE:NAME [MODULE:NAME ...]",
    "env_kwargs": "JSON",
    "terms": "NAME=WEIGHT*MODULE:TERM",
}
_ALIASES = {"--wrapper": "wrappers"}


class Flag(NamedTuple):
    """Flag of a leaf, or of a union.

    Attributes:
        name: Name of the leaf.
        group: Part under which help shows it.
        annotation: Type of the value.
        default: Value without the flag; of a union, the name of the kind.
        owner: Dataclass of the field, whose docstring describes it.
    """

    name: str
    group: str
    annotation: Any
    default: Any
    owner: type


def parse_run(arguments: Sequence[str], command: type, description: str) -> tuple[RunConfig, Any]:
    """Read the arguments of ``polyak train``.

    Args:
        arguments: Arguments after the command; the first may be the name of an agent.
        command: Dataclass of the flags that are not of the run: ``--preset``, ``--out`` and so on.
        description: Text above the flags in the help.

    Returns:
        The config of the run, and an instance of ``command``.

    Raises:
        ValueError: if a name is unknown, a flag is unknown or of a part that is not there, or a value is out of range.
        SystemExit: if tyro cannot read a value, or after ``--help``.
    """
    rest = list(arguments)
    agent = rest.pop(0) if rest and not rest[0].startswith("-") else DEFAULT_AGENT
    given = dict(_given(rest))
    load_agent_module(given.get("agent_module", "none"))
    preset = check_name(given.get("preset") or DEFAULT_PRESET, PRESETS, "preset")
    flags = run_flags(make_configs(agent, preset), given, own_leaves(agent))
    fields, own = _parse(rest, command, flags, Configs, f"polyak train {agent}", description)
    return make_run_config(agent, preset, fields), own


def parse_pretraining(arguments: Sequence[str], command: type, description: str) -> tuple[PretrainConfig, Any]:
    """Read the arguments of ``polyak pretrain``; as :func:`parse_run` does, with the name of a method."""
    rest = list(arguments)
    method = rest.pop(0) if rest and not rest[0].startswith("-") else METHODS[0]
    check_name(method, METHODS, "method")
    flags = pretrain_flags(dict(_given(rest)))
    fields, own = _parse(rest, command, flags, PretrainConfig, f"polyak pretrain {method}", description)
    return make_pretrain_config(method, fields), own


def _parse(
    arguments: Sequence[str], command: type, flags: Sequence[Flag], configs: type, prog: str, description: str
) -> tuple[dict[str, Any], Any]:
    """Name to value of the flags of a run, and an instance of ``command``; ``configs`` has the parts of all flags."""
    _check_names(dict(_given(arguments)), [*flags, *command_flags(command)], configs)
    groups: dict[str, list[Flag]] = {}
    for flag in (*command_flags(command), *flags):
        groups.setdefault(flag.group, []).append(flag)
    kinds = {group: _dataclass(inner) for group, inner in groups.items()}
    found: Any = tyro.cli(
        dataclasses.make_dataclass("Flags", [(group, kind, kind()) for group, kind in kinds.items()]),
        args=list(arguments),
        prog=prog,
        description=description,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.HelptextFromCommentsOff),
    )
    own, *parts = (vars(getattr(found, group)) for group in kinds)
    return {name: value for part in parts for name, value in part.items()}, command(**own)


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


def _given(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Name and text of each flag; an empty text where none follows."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        if argument.startswith("--"):
            name, is_joined, text = argument[2:].partition("=")
            yield name.replace("-", "_"), text if is_joined or following.startswith("--") else following


def _check_names(given: Mapping[str, str], flags: Sequence[Flag], configs: type) -> None:
    switches = {f"no_{flag.name}" for flag in flags if flag.annotation is bool}
    known = {flag.name: flag.default for flag in flags}
    aliases = {alias.removeprefix("--") for alias, name in _ALIASES.items() if name in known}
    for name, text in given.items():
        if name in aliases or name in known or name in switches or name == "help" or name.startswith("tyro_"):
            continue
        plain = name if name in bringers(configs) else name.removeprefix("no_")
        if plain in bringers(configs):
            raise ValueError(absent(configs, known, plain, text or plain == name))
        option, *options = (f"--{one.replace('_', '-')}" for one in (name, *known, *bringers(configs)))
        raise ValueError(f"{option}: no such option.{did_you_mean(option, options)}")


def _dataclass(flags: Sequence[Flag]) -> type:
    """The flags of a group as the dataclass that tyro fills; values are checked when the config is made."""
    fields = [(flag.name, _annotation(flag), dataclasses.field(default=_default(flag))) for flag in flags]
    made = dataclasses.make_dataclass(flags[0].group.title(), fields, frozen=True)
    made.__doc__ = ""  # or dataclasses writes one, which help would show
    return made


def _annotation(flag: Flag) -> Any:
    about, is_schedule = attributes(flag.owner)[flag.name], flag.annotation is Schedule
    about = re.split(r"[.;] (?!None)", re.sub(r" \([^()]*\d{4}[^()]*\)", "", about))[0].removesuffix(".") + "."
    argument = tyro.conf.arg(
        help=about,
        metavar="SCHEDULE" if is_schedule else _METAVARS.get(flag.name),
        help_behavior_hint=f"(default: {flag.default})" if is_schedule else None,
        aliases=[alias for alias, name in _ALIASES.items() if name == flag.name] or None,
    )
    # A schedule's text is read when the config is made, as it is from JSON and from Python.
    return Annotated[str if is_schedule else flag.annotation, argument]


def _default(flag: Flag) -> Any:
    return str(flag.default) if isinstance(flag.default, Schedule) else flag.default


def attributes(owner: type) -> dict[str, str]:
    """Descriptions of a dataclass's fields, from its docstring and those of its bases.

    >>> attributes(RunConfig)["seed"]
    'Seed of all random numbers.'
    """
    texts = (inspect.cleandoc(base.__doc__ or "") for base in reversed(owner.__mro__))
    sections = "\n".join(text.partition("Attributes:\n")[2] for text in texts)
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", sections, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}
