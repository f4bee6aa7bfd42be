"""Flags of ``polyak sweep``: those of ``polyak train``. Several values after a flag are an axis of the grid."""

import dataclasses
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ...agents.fields import annotations_of, is_part_type, kinds_of
from .config import RunConfig
from .flags import ALIASES, given_words, read_run

# Lanes are trained by the device loop if it can run them, and write metrics.jsonl alone.
SWEEP_DEFAULTS: Mapping[str, Any] = {"loop": "auto", "loggers": ()}


class ReadSweep(NamedTuple):
    """Arguments of ``polyak sweep``.

    Attributes:
        agent: Name of the agent.
        preset: Name of the preset.
        fields: Name to value of the flags of a run that were given with one value.
        axes: Name to values of the flags of a run that were given with several values.
        command: Instance of the dataclass of the other flags.
    """

    agent: str
    preset: str
    fields: dict[str, Any]
    axes: dict[str, list[Any]]
    command: Any


def parse_sweep(arguments: Sequence[str], command: type, description: str, ending: str = "") -> ReadSweep:
    """Read the arguments of ``polyak sweep``.

    Args:
        arguments: Arguments after the command; the first may be the name of an agent.
        command: Dataclass of the flags that are not of the run.
        description: Text above the flags in the complete help.
        ending: Text below the flags in the short help.

    Raises:
        ValueError, SystemExit: as :func:`polyak.experiments.runs.flags.parse_run`; ValueError too if a flag is given
            twice, or a flag that is no field of a run has several values.
    """
    places = [place for place, word in enumerate(arguments) if _is_option(word)]
    names = [_name(arguments[place]) for place in places]
    several, found = _several(command), dict[str, Sequence[str]]()
    for name, begin, end in zip(names, places, [*places[1:], len(arguments)], strict=True):
        if names.count(name) > 1:
            option = f"--{name.replace('_', '-')}"
            way_out = f"Give all values after one {option}."
            if name in several:
                way_out = f"Its words are one value of the grid; try a sweep for each, or polyak.sweep({name}=[...])."
            raise ValueError(f"{name}: got {option} twice; expected it once. {way_out}")
        if name not in several and end - begin > 2:
            found[name] = arguments[begin + 1 : end]
    for name in found.keys() & annotations_of(command).keys():
        raise ValueError(f"{name}: got {' '.join(found[name])}; expected one value, because it is no field of a run.")
    firsts = _with_words(arguments, {name: words[0] for name, words in found.items()})
    read = read_run(firsts, command, description, ending, "sweep", SWEEP_DEFAULTS)
    given = {ALIASES.get(f"--{name}", name) for name in names}
    given |= {name.removeprefix("no_") for name in given}
    fields = {name: value for name, value in read.fields.items() if name in given or "config" in given}
    axes = {name: [fields.pop(name)] for name in found}
    for name, words in found.items():
        for word in words[1:]:
            other = read_run(_with_words(firsts, {name: word}), command, description, ending, "sweep", SWEEP_DEFAULTS)
            axes[name].append(other.fields[name])
    return ReadSweep(read.agent, read.preset, fields, axes, read.command)


def fields_of_several() -> set[str]:
    """Names of the fields of a run whose value is several words, as that of ``hidden_sizes``.

    >>> sorted(fields_of_several())
    ['hidden_sizes', 'loggers', 'terms', 'transition_sizes', 'wrappers']
    """
    return {name for name, annotation in _annotations().items() if typing.get_origin(annotation) is tuple}


def _several(command: type) -> set[str]:
    """Names of flags that have several words, or none."""
    switches = {name for name, of in {**_annotations(), **annotations_of(command)}.items() if of is bool}
    several = fields_of_several()
    aliases = {alias.removeprefix("--") for alias, name in ALIASES.items() if name in several}
    return several | aliases | switches | {f"no_{name}" for name in switches}


def _annotations() -> dict[str, Any]:
    return {name: of for kind in (RunConfig, *_part_types(RunConfig)) for name, of in annotations_of(kind).items()}


def _part_types(config: type) -> Iterator[type]:
    for field in dataclasses.fields(config):
        annotation = annotations_of(config)[field.name]
        kinds = [kind for kind in kinds_of(field).values() if kind is not None]
        for kind in kinds or ([annotation] if is_part_type(annotation) else []):
            yield kind
            yield from _part_types(kind)


def _is_option(word: str) -> bool:
    return word.startswith("--") or word == "-h"


def _name(option: str) -> str:
    return next(iter(given_words([option])))


def _with_words(arguments: Sequence[str], words: Mapping[str, str]) -> list[str]:
    """Arguments in which some flags have one other word."""
    found: list[str] = []
    name = ""
    for word in arguments:
        if _is_option(word):
            name = _name(word)
            found += [word, words[name]] if name in words else [word]
        elif name not in words:
            found.append(word)
    return found
