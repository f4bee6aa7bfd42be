"""Writes the tables of options in docs/command_line.md from the dataclasses that the command line fills.

Run it after a change of options, or of what their docstrings say: ``python docs/options.py``.
"""

import dataclasses
import pathlib
import re
import typing

import docstring_parser
import tyro

from polyak.agents import DQNConfig
from polyak.experiments import cli, config

PAGE = pathlib.Path(__file__).parent / "command_line.md"
MARKED = re.compile(r"(<!-- options of (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def option_classes():
    """Every dataclass that the command line fills, by name: the commands, the run, the agent."""
    commands = [value for name, value in vars(cli).items() if name.endswith("Command")]
    return {kind.__name__: kind for kind in (*commands, config.RunConfig, DQNConfig)}


def table(kind):
    """A Markdown table of the options of one dataclass, without those of a dataclass inside it."""
    about = {entry.arg_name: entry.description for entry in docstring_parser.parse(kind.__doc__).params}
    types = typing.get_type_hints(kind, include_extras=True)
    lines = ["| option | default | meaning |", "|---|---|---|"]
    for field in dataclasses.fields(kind):
        hidden = tyro.conf.Suppress in getattr(types[field.name], "__metadata__", ())
        if not dataclasses.is_dataclass(types[field.name]) and not hidden:
            meaning = _meaning(about[field.name], types[field.name])
            lines.append(f"| {_option(field, types[field.name])} | {_default(field)} | {meaning} |")
    return "\n".join(lines) + "\n"


def page(text):
    """The text of the page with its tables made anew."""
    kinds = option_classes()
    return MARKED.sub(lambda found: f"{found[1]}\n{table(kinds[found[2]])}\n{found[3]}", text)


def _option(field, annotation):
    dashed, marks = field.name.replace("_", "-"), getattr(annotation, "__metadata__", ())
    if tyro.conf.Positional in marks:
        names = [mark.metavar for mark in marks if getattr(mark, "metavar", None)]
        return f"`{(names or [field.name.upper()])[0]}`"
    return f"`--{dashed}`, `--no-{dashed}`" if annotation is bool else f"`--{dashed}`"


def _default(field):
    if field.default is dataclasses.MISSING:
        return ""
    if isinstance(field.default, bool):
        return f"`--{'' if field.default else 'no-'}{field.name.replace('_', '-')}`"
    return f"`{' '.join(map(str, field.default)) if isinstance(field.default, tuple) else field.default}`"


def _meaning(description, annotation):
    text = " ".join(description.split()).replace("``", "`").replace("|", "\\|")
    choices = typing.get_args(annotation) if typing.get_origin(annotation) is typing.Literal else ()
    told = all(choice in text for choice in choices)
    return text if told else f"{text} One of {', '.join(f'`{choice}`' for choice in choices)}."


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
