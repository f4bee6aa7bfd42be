"""Writes the tables of options and of agents in docs/ and the README, and the keywords of polyak.train for editors.

Run it after a change of options, of their docstrings, or of the table of agents: ``python docs/options.py``.
"""

import dataclasses
import json
import pathlib
import re
import textwrap
import types
import typing

import tyro

from polyak.agents import AGENTS, PRESETS, Configs, make_configs
from polyak.agents.fields import Part, annotations_of, is_part_type, kinds_of
from polyak.agents.parts import leaves
from polyak.agents.schedules import Schedule
from polyak.agents_table import head_column, links, loss_column, replay_column
from polyak.experiments import cli
from polyak.experiments.runs.config import RUN_LEAVES, RunConfig
from polyak.experiments.runs.flag_help import attributes
from polyak.experiments.runs.flags import pretrain_flags, run_flags
from polyak.experiments.runs.pretrain_config import PRETRAIN_LEAVES, PretrainConfig

FOLDER = pathlib.Path(__file__).parent
MARKED = re.compile(r"(<!-- options of (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
TABLE = re.compile(r"(<!-- agents -->\n).*?(<!-- end -->)", re.DOTALL)
NUMBERS = re.compile(r"(<!-- numbers -->\n).*?(<!-- end -->)", re.DOTALL)
SECTION = re.compile(r"^## (\w+)\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
SCORE = re.compile(r"^\| \[`(\w+)`\]\(#\w+\) \| [^|]* \| ([\d.]+) ", re.MULTILINE)  # column `training`
OPTION = re.compile(r"(?<!`)--[\w-]+")
CITATION = re.compile(r" \([^()]*\d{4}[^()]*\)")


def tables():
    """Name to table of options: those of each command, and those of each group of ``polyak train --help-all``."""
    commands = [value for name, value in vars(cli).items() if name.endswith("Command")]
    return {command.__name__: _command_table(command) for command in commands} | _train_tables()


def page(text):
    """The text of the page of the command line with its tables written again."""
    found = tables()
    return MARKED.sub(lambda match: f"{match[1]}\n{found[match[2]]}\n{match[3]}", text)


def agents_page(text):
    """The text of the page of agents with its table written again, and in each section the lines and the numbers."""
    text = _with_agents(text, "", text)
    return SECTION.sub(lambda found: _section(found[1], found[0]) if found[1] in AGENTS else found[0], text)


def readme(text):
    """The text of the README with its table of agents written again."""
    return _with_agents(text, "docs/agents.md", (FOLDER / "agents.md").read_text())


def _with_agents(text, page, scored):
    """A text with its table of agents written again: links to the sections of a page, and scores from its text."""
    scores = dict(SCORE.findall(scored))
    rows = []
    for name, entry in AGENTS.items():
        paper = entry.papers[0]
        cells = [f"[`{name}`]({page}#{name})", entry.summary, f"[{paper.authors}]({paper.url})"]
        rows.append(f"| {' | '.join([*cells, scores.get(name, 'not measured')])} |")
    made = "\n".join(["| agent | idea | paper | score |", "|---|---|---|---|", *rows])
    return TABLE.sub(lambda found: f"{found[1]}\n{made}\n\n{found[2]}", text)


def own_numbers(name):
    """Names of the leaves of an agent's own: those of its difference, and those that a preset gives it."""
    own = [*AGENTS[name].difference, *(leaf for preset in PRESETS.values() for leaf in preset.get(name, {}))]
    return list(dict.fromkeys(own))


def _section(name, text):
    entry, configs = AGENTS[name], make_configs(name)
    parts = {"head": head_column(configs), "loss": loss_column(configs), "replay": replay_column(configs)}
    begins = f"- begins with: {f'[`{entry.begins_with}`](#{entry.begins_with})' if entry.begins_with else 'nothing'}; "
    begins += "; ".join(f"{part}: {words}" for part, words in parts.items())
    papers = OPTION.sub(r"`\g<0>`", links(entry))
    for start, line in (("papers", f"- papers: {papers}"), ("begins with", begins)):
        text = re.sub(rf"^- {start}:.*$", lambda _, line=line: line, text, flags=re.MULTILINE)
    return NUMBERS.sub(lambda found: f"{found[1]}\n{_numbers(name)}\n{found[2]}", text)


def _numbers(name):
    found = [leaves(make_configs(name, preset)) for preset in PRESETS]
    lines = [f"| option | {' | '.join(f'`{preset}`' for preset in PRESETS)} |", "|---" * (1 + len(PRESETS)) + "|"]
    for leaf in own_numbers(name):
        values = " | ".join(_breakable(_shown(values[leaf])) if leaf in values else "" for values in found)
        lines.append(f"| `--{leaf.replace('_', '-')}` | {values} |")
    return "\n".join(lines) + "\n"


def _breakable(text):
    """The text with a place at which a narrow cell of a table breaks a schedule."""
    return text.replace(")@", ")<wbr>@")


def _train_tables():
    """One table for each group of flags, with the kinds of the parts that bring a flag."""
    return _flag_tables(Configs(), lambda given: run_flags(make_configs("dqn"), given))


def pretraining_page(text):
    """The text of the page of pretraining with the tables of its options written again."""
    tables = _flag_tables(PretrainConfig(), pretrain_flags)
    found = {group: table.replace("(#schedules)", "(command_line.md#schedules)") for group, table in tables.items()}
    return MARKED.sub(lambda match: f"{match[1]}\n{found[match[2]]}\n{match[3]}", text)


def _flag_tables(config, flags_of):
    kinds, rows = _kinds(config), {}
    for given in ({}, *({union: kind} for union, kind in kinds.values())):
        for flag in flags_of(given):
            union, kind = kinds.get(flag.owner, ("", ""))
            chosen = flag.name in {union for union, _ in kinds.values()}  # a union's own flag: its default alone
            default = flag.default if not chosen else leaves(config)[flag.name]
            meaning = _meaning(CITATION.sub("", attributes(flag.owner)[flag.name]), flag.annotation)
            row = (_option(flag.name, flag.annotation), _default(default), meaning)
            rows.setdefault(flag.group, {}).setdefault(row, {}).setdefault(union, []).append(kind)
    return {group: _train_table(found) for group, found in rows.items()}


def _train_table(rows):
    lines = ["| option | with | default | meaning |", "|---|---|---|---|"]
    for (option, default, meaning), brought in rows.items():
        ((union, kinds),) = brought.items()
        by = f"`--{union.replace('_', '-')}` {', '.join(f'`{kind}`' for kind in dict.fromkeys(kinds))}" if union else ""
        lines.append(f"| {option} | {by} | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def _kinds(config):
    """Type of each part of a union to the union's name and the kind's."""
    found = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        found |= {part: (field.name, kind) for kind, part in kinds_of(field).items() if part is not None}
        if isinstance(value, Part):
            found |= _kinds(value)
    return found


def _command_table(command):
    """A Markdown table of a command's own options."""
    types = typing.get_type_hints(command, include_extras=True)
    lines = ["| option | default | meaning |", "|---|---|---|"]
    for field in dataclasses.fields(command):
        annotation, meaning = types[field.name], attributes(command)[field.name]
        default = "" if field.default is dataclasses.MISSING else _default(field.default)
        lines.append(f"| {_option(field.name, annotation)} | {default} | {_meaning(meaning, annotation)} |")
    return "\n".join(lines) + "\n"


def _shown(value):
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _option(name, annotation):
    dashed, marks = name.replace("_", "-"), getattr(annotation, "__metadata__", ())
    if tyro.conf.Positional in marks:
        names = [mark.metavar for mark in marks if getattr(mark, "metavar", None)]
        return f"`{(names or [name.upper()])[0]}`"
    return f"`--{dashed}`, `--no-{dashed}`" if annotation is bool else f"`--{dashed}`"


def _default(value):
    return f"`{shown}`" if (shown := _shown(value)) else ""


def _meaning(description, annotation):
    text = " ".join(description.split()).replace("``", "`").replace("|", "\\|")
    choices = typing.get_args(annotation) if typing.get_origin(annotation) is typing.Literal else ()
    named = all(str(choice) in text for choice in choices)
    text = text if named else f"{text} One of {', '.join(f'`{choice}`' for choice in choices)}."
    return text.replace("a schedule", "a [schedule](#schedules)")


# Types of the fields that polyak.train and polyak.pretrain take as more than their configs hold.
TAKEN = {
    "env": "str | Callable[..., Any] | gymnasium.Env[Any, Any]",
    "env_kwargs": "str | Mapping[str, Any]",
    "wrappers": "Sequence[str | Callable[[Any], Any]]",
    "network": "str | Network | hk.Transformed | hk.TransformedWithState | Callable[[Any], Any] | None",
    "terms": "Mapping[str, tuple[float, str | Callable[..., Any]]]",
    "initial": "str | pathlib.Path | Run | Pretrained | None",
    "data": "str | pathlib.Path",
}
KEYWORDS = '''"""Keywords of ``polyak.train`` and ``polyak.pretrain``, for editors; written by docs/options.py."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict

import gymnasium
import haiku as hk

{imports}
from ...agents.schedules import Schedule
from ...networks import Network
from .finished import Pretrained, Run


{classes}
'''


def keywords():
    """The text of the module with the fields of polyak.train and polyak.pretrain as a TypedDict each."""
    parts = set()
    run = [*_leaf_fields(RunConfig, RUN_LEAVES), *_leaf_fields(Configs)]
    pretraining = [*_leaf_fields(PretrainConfig, PRETRAIN_LEAVES), *_leaf_fields(PretrainConfig, ("byol",))]
    classes = _typed_dict("TrainFields", "polyak.train", run, parts)
    classes += "\n\n\n" + _typed_dict("PretrainFields", "polyak.pretrain", pretraining, parts)
    modules = {}
    for part in sorted(parts, key=lambda part: (part.__name__.isupper() is False, part.__name__)):
        modules.setdefault(part.__module__.removeprefix("polyak."), []).append(part.__name__)
    imports = "\n".join(_import(module, names) for module, names in sorted(modules.items()))
    return KEYWORDS.format(imports=imports, classes=classes)


def _import(module, names):
    line = f"from ...{module} import {', '.join(names)}"
    if len(line) <= 120:
        return line
    return "\n".join([f"from ...{module} import (", *(f"    {name}," for name in names), ")"])


def _leaf_fields(config, names=None):
    """Each leaf and each union in a type of parts, in the parts of all kinds: its dataclass, its field, its type."""
    for field in dataclasses.fields(config):
        annotation = annotations_of(config)[field.name]
        if names is not None and field.name not in names:
            continue
        if is_part_type(annotation):
            yield from _leaf_fields(annotation)
            continue
        yield config, field, annotation
        for kind in kinds_of(field).values():
            if kind is not None:
                yield from _leaf_fields(kind)


def _typed_dict(name, function, fields, parts):
    lines, seen = [f"class {name}(TypedDict, total=False):", f'    """Keywords of :func:`{function}`."""', ""], {}
    for owner, field, annotation in fields:
        text = TAKEN.get(field.name) or _type_text(field, annotation, parts)
        if seen.get(field.name, text) != text:
            raise ValueError(f"{field.name}: got the types {seen[field.name]} and {text}; expected one type.")
        if field.name not in seen:
            seen[field.name] = text
            about = re.split(r"[.;] (?!None)", CITATION.sub("", attributes(owner)[field.name]))[0].rstrip(".")
            lines.append(_declared(field.name, text))
            lines += textwrap.wrap(f'"""{about}."""', 116, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def _declared(name, text):
    line = f"    {name}: {text}"
    if len(line) <= 120:
        return line
    return f"    {name}: (\n        {text.replace(' | ', chr(10) + ' ' * 8 + '| ')}\n    )"


def _type_text(field, annotation, parts):
    """The type of a field as polyak.train takes it, as text; adds the parts of a union to ``parts``."""
    if kinds := kinds_of(field):
        found = [kind for kind in kinds.values() if kind is not None]
        parts.update(found)
        absent = ["None"] if None in kinds.values() else []
        return " | ".join([_literal(kinds), *(kind.__name__ for kind in found), *absent])
    if annotation is Schedule:
        return "float | str | Schedule"
    if isinstance(annotation, types.UnionType):
        return " | ".join(_type_text(field, kind, parts) for kind in typing.get_args(annotation))
    if typing.get_origin(annotation) is tuple:
        return f"Sequence[{_type_text(field, typing.get_args(annotation)[0], parts)}]"
    if typing.get_origin(annotation) is typing.Literal:
        return _literal(typing.get_args(annotation))
    return "None" if annotation is types.NoneType else annotation.__name__


def _literal(choices):
    return f"Literal[{', '.join(json.dumps(choice) for choice in choices)}]"


PAGES = {"command_line.md": page, "pretraining.md": pretraining_page, "agents.md": agents_page, "../README.md": readme}

if __name__ == "__main__":
    for name, write in PAGES.items():
        path = FOLDER / name
        path.write_text(write(path.read_text()))
    (FOLDER.parent / "experiments" / "runs" / "keywords.py").write_text(keywords())
