"""Writes what docs/ and the README say of options and of agents, from where the program has it.

Run it after a change of options, of what their docstrings say, of an agent's config or of the catalogue:
``python docs/options.py``.
"""

import dataclasses
import pathlib
import re
import typing

import docstring_parser
import tyro

from polyak.agents import AGENTS, DQNConfig
from polyak.catalogue import AGENTS as CATALOGUE
from polyak.catalogue import COMMON, agents_table, links
from polyak.experiments import cli
from polyak.experiments.runs import config

FOLDER = pathlib.Path(__file__).parent
MARKED = re.compile(r"(<!-- options of (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
TABLE = re.compile(r"(<!-- agents -->\n).*?(<!-- end -->)", re.DOTALL)
SECTION = re.compile(r"^## (\w+)\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
OPTION = re.compile(r"^(\| `--([a-z-]+)` \|)[^|\n]*\|", re.MULTILINE)


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


def agents_page(text):
    """The text of the page of agents with its table made anew, and in each agent's section the entry and the options.

    An entry is the lines that begin with ``- papers:`` and ``- head:``; the second cell of a row that begins with an
    option is what the agent's config has.
    """
    text = TABLE.sub(lambda found: f"{found[1]}\n{agents_table('markdown')}\n{COMMON}\n\n{found[2]}", text)
    return SECTION.sub(lambda found: _section(found[1], found[0]) if found[1] in AGENTS else found[0], text)


def readme(text):
    """The text of the README with its table of agents made anew."""
    lines = ["| agent | | from |", "|---|---|---|"]
    for name, entry in CATALOGUE.items():
        first = entry.papers[0]
        lines.append(f"| [`{name}`](docs/agents.md#{name}) | {entry.summary} | [{first.authors}]({first.url}) |")
    made = "\n".join(lines)
    return TABLE.sub(lambda found: f"{found[1]}\n{made}\n\n{found[2]}", text)


def _section(name, text):
    entry, agent = CATALOGUE[name], AGENTS[name]
    parts = f"{entry.head}; loss: {entry.loss}; replay: {entry.replay}; default target: `{entry.target}`"
    for start, line in (("papers", links(entry)), ("head", parts)):
        text = re.sub(rf"^- {start}:.*$", lambda _, line=f"- {start}: {line}": line, text, flags=re.MULTILINE)
    return OPTION.sub(lambda found: f"{found[1]} {_shown(getattr(agent, found[2].replace('-', '_')))} |", text)


def _shown(value):
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


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


PAGES = {"command_line.md": page, "agents.md": agents_page, "../README.md": readme}

if __name__ == "__main__":
    for name, made_anew in PAGES.items():
        path = FOLDER / name
        path.write_text(made_anew(path.read_text()))
