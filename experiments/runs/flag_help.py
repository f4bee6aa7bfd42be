"""Texts of the flags of ``polyak train`` and ``polyak pretrain``, and the short help of the most used options."""

import argparse
import inspect
import re
import shutil
import textwrap
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from ...agents.schedules import Schedule

METAVARS = {
    "config": "FILE",
    "env": "ENV",
    "env_kwargs": "JSON",
    "initial": "RUN",
    "loggers": "NAME [NAME ...]",
    "out": "FOLDER",
    "target": "RULE",
    "average": "RULE",
    "terms": "NAME=WEIGHT*MODULE:TERM",
    "wrappers": "MODULE:NAME [MODULE:NAME ...]",
}
_COLUMN = 26
# Options of the short help, by group.
TRAIN_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "run": (
        "env",
        "steps",
        "num_envs",
        "loop",
        "seed",
        "seeds",
        "evaluate_every",
        "out",
        "config",
        "preset",
        "initial",
    ),
    "agent": ("target", "head", "bootstrap", "double", "self_prediction", "resets", "optimizer", "learning_rate"),
    "network": ("torso", "hidden_sizes", "core"),
    "draw": ("batch_size", "n_steps", "discount", "sampling"),
    "replay, cadence and exploration": ("replay_capacity", "learning_starts", "train_every", "epsilon"),
}
SWEEP_OPTIONS: Mapping[str, tuple[str, ...]] = {
    **TRAIN_OPTIONS,
    "run": tuple(name for one in TRAIN_OPTIONS["run"] for name in ((one, "lanes") if one == "seeds" else (one,))),
}
PRETRAIN_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "run": ("data", "steps", "batch_size", "seed", "probe_every", "out"),
    "byol": ("target", "optimizer", "learning_rate", "weight_decay"),
    "networks": ("torso", "hidden_sizes", "projection_size", "predictor"),
}


class Flag(NamedTuple):
    """Flag of a leaf, or of a union.

    Attributes:
        name: Name of the leaf.
        group: Part under which the complete help shows it.
        annotation: Type of the value.
        default: Value without the flag; of a union, the name of the kind.
        owner: Dataclass of the field, whose docstring describes it.
    """

    name: str
    group: str
    annotation: Any
    default: Any
    owner: type


def about(flag: Flag) -> str:
    """Return the first sentence of a flag's description, or the part before a semicolon, without citations.

    >>> from polyak.experiments.runs.config import RunConfig
    >>> about(Flag("workers", "run", int, 0, RunConfig))
    'Number of worker processes that step the environments.'
    """
    text = re.sub(r" \([^()]*\d{4}[^()]*\)", "", attributes(flag.owner)[flag.name])
    return re.split(r"[.;] (?!None)", text)[0].removesuffix(".") + "."


def attributes(owner: type) -> dict[str, str]:
    """Return the descriptions of a dataclass's fields, from its docstring and the docstrings of its bases.

    >>> from polyak.experiments.runs.config import RunConfig
    >>> attributes(RunConfig)["seed"]
    'Seed of all random numbers.'
    """
    texts = (inspect.cleandoc(base.__doc__ or "") for base in reversed(owner.__mro__))
    sections = "\n".join(text.partition("Attributes:\n")[2] for text in texts)
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", sections, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def short_help(
    flags: Sequence[Flag], groups: Mapping[str, Sequence[str]], usage: str, summary: str, ending: str
) -> str:
    """Format the help of the most used options, as wide as the terminal.

    Args:
        flags: All flags.
        groups: Title of each group to the names of its flags; a name without a flag is left out.
        usage: Command line.
        summary: Text above the options.
        ending: Text below the options.

    >>> from polyak.experiments.runs.config import RunConfig
    >>> text = short_help([Flag("seed", "run", int, 0, RunConfig)], {"run": ["seed"]}, "train", "Train.", "The end.")
    >>> text.splitlines()[5]
    '  --seed INT  Seed of all random numbers (0)'
    """
    known = {flag.name: flag for flag in flags}
    parser = argparse.ArgumentParser(
        usage=usage,
        description=textwrap.fill(summary, shutil.get_terminal_size().columns),
        epilog=ending,
        add_help=False,
        formatter_class=_Formatter,
    )
    for title, names in groups.items():
        group = parser.add_argument_group(title)
        for flag in (known[name] for name in names if name in known):
            metavar = {"action": "store_true"} if flag.annotation is bool else {"metavar": _metavar(flag)}
            group.add_argument(_option(flag), help=_line(flag).replace("%", "%%"), **metavar)  # type: ignore[arg-type]
    return parser.format_help()


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Options in a column, texts beside them, as wide as the terminal."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=_COLUMN, width=shutil.get_terminal_size().columns)


def _option(flag: Flag) -> str:
    """The flag; of a switch, the spelling that changes the default."""
    return f"--{'no-' if flag.default is True else ''}{flag.name.replace('_', '-')}"


def _metavar(flag: Flag) -> str:
    if flag.annotation is Schedule:
        return "SCHEDULE"
    if typing.get_origin(flag.annotation) is Literal:
        return "NAME"
    kinds = {int: "INT", int | None: "INT", float: "FLOAT", float | None: "FLOAT", tuple[int, ...]: "INT ..."}
    return METAVARS.get(flag.name) or kinds.get(flag.annotation, "TEXT")


def _line(flag: Flag) -> str:
    """Beginning of the description, then the choices with the default in parentheses, or the default."""
    choices = typing.get_args(flag.annotation) if typing.get_origin(flag.annotation) is Literal else ()
    text = re.split(r", (?!as in)| \(|; |: " if choices else r", (?!as in)| \(|; ", about(flag))[0].rstrip(".")
    if choices:
        return f"{text}: {', '.join(f'({name})' if name == flag.default else name for name in choices)}"
    if flag.default in (None, "") or isinstance(flag.default, bool):
        return text
    return f"{text} ({' '.join(map(str, flag.default)) if isinstance(flag.default, tuple) else flag.default})"
