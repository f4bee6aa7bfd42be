"""Rules of named targets and of parts of a target, and their text.

The text ``periodic:500 q/torso=none encoder=incremental:0.01`` holds three rules: for the first target ``q``, for the
modules of ``q`` whose paths begin with ``torso``, and for the target ``encoder``.

========================  ==========================================================================
text                      meaning
========================  ==========================================================================
``RULE``                  main rule of the first target
``NAME=RULE``             main rule of the target ``NAME``
``NAME/PREFIX=RULE``      rule of the leaves of ``NAME`` whose paths begin with ``PREFIX``
``/PREFIX=RULE``          rule of the leaves of the first target whose paths begin with ``PREFIX``
========================  ==========================================================================

A prefix consists of whole path components: ``torso`` matches ``torso/mlp/~/linear_0/w`` but not ``torso2/linear/w``.
If several prefixes match a leaf, the longest applies. If no prefix matches, the main rule applies.
"""

import difflib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ._tree import Tree, leaf_paths, some
from .rule import FORMS, TargetRule, check_rule, parse

_PREFIX = re.compile(r"[^\s/=:@()]+(/[^\s/=:@()]+)*")


class Partition(NamedTuple):
    """Main rule and rules of parts of a tree; accepted by every function that takes a rule.

    A partition is a pytree whose numbers may be traced. ``str(partition)`` is its text.

    Attributes:
        main: Rule of the leaves that belong to no part.
        parts: Mapping from a prefix of leaf paths to the rule of these leaves.
    """

    main: TargetRule
    parts: Mapping[str, TargetRule]

    def __str__(self) -> str:
        return f"{self.main} " + " ".join(f"/{prefix}={rule}" for prefix, rule in self.parts.items())


Rule = TargetRule | Partition


def partition(main: TargetRule, parts: Mapping[str, TargetRule]) -> Partition:
    """Make a rule with separate rules for parts of a tree.

    Args:
        main: Rule of the leaves that belong to no part.
        parts: Mapping from a prefix of leaf paths, in whole path components (``torso/mlp``), to a rule.

    Raises:
        ValueError: If there are no parts, a prefix is malformed, or a rule is out of range.
        TypeError: If a rule is not a ``TargetRule``.

    >>> from polyak.updates import none, periodic
    >>> rule = partition(periodic(2000), {"torso": none()})
    >>> str(rule)
    'periodic:2000 /torso=none'
    >>> parse_named(str(rule), names=("q",))["q"] == rule
    True
    """
    if not parts:
        raise ValueError(
            "parts: got no rules; expected at least one. For one rule for all leaves, pass the main rule alone."
        )
    for prefix in parts:
        if not _PREFIX.fullmatch(prefix):
            raise ValueError(
                f"parts: got the prefix {prefix!r}; expected whole components of a module path, without '=', ':', '@', "
                "parentheses or spaces. Example: 'torso/mlp'."
            )
    for rule in (main, *parts.values()):
        check_rule(rule)
    return Partition(main, dict(parts))


def rules_by_part(rules: Mapping[str, Rule]) -> dict[str, TargetRule]:
    """Flatten named rules to one mapping: key ``name`` for a main rule, ``name/prefix`` for the rule of a part.

    Args:
        rules: Mapping from a target's name to its rule or partition.

    >>> rules = parse_named("periodic:500 q/torso=none", names=("q",))
    >>> {name: str(rule) for name, rule in rules_by_part(rules).items()}
    {'q': 'periodic:500', 'q/torso': 'none'}
    """
    flat: dict[str, TargetRule] = {}
    for name, rule in rules.items():
        flat[name] = rule.main if isinstance(rule, Partition) else rule
        if isinstance(rule, Partition):
            flat |= {f"{name}/{prefix}": part for prefix, part in rule.parts.items()}
    return flat


def text_named(rules: Mapping[str, Rule]) -> str:
    """Text of the rules of named targets and their parts; :func:`parse_named` parses it to equal rules.

    Args:
        rules: Mapping from a target's name to its rule or partition, with concrete fields.

    Raises:
        TypeError: If a field is traced.

    >>> from polyak.updates import incremental, none, periodic
    >>> text_named({"q": partition(periodic(500), {"torso": none()}), "encoder": incremental(0.01)})
    'q=periodic:500 q/torso=none encoder=incremental:0.01'
    """
    return " ".join(f"{name}={rule}" for name, rule in rules_by_part(rules).items())


def parse_named(targets_text: str, names: Sequence[str], **parse_options: Any) -> dict[str, Rule]:
    """Parse the rules of named targets and of their parts, separated by spaces (see the table above).

    Args:
        targets_text: Text of the rules.
        names: Names of the targets; a rule without a name belongs to the first.
        **parse_options: Options of :func:`parse`, for every rule.

    Returns:
        Mapping from each name in the text to its ``TargetRule``, or to a :class:`Partition` if the target has parts.

    Raises:
        ValueError: If a name is unknown, a name or part is given twice, a target has parts but no main rule, a prefix
            is malformed, or a rule does not parse. A part that matches no parameter is detected later, by
            :func:`polyak.updates.target.init`.

    >>> rules = parse_named("periodic:500 q/torso=none encoder=incremental:0.01", names=("q", "encoder"))
    >>> {name: str(rule) for name, rule in rules.items()}
    {'q': 'periodic:500 /torso=none', 'encoder': 'incremental:0.01'}
    """
    mains: dict[str, TargetRule] = {}
    parts: dict[str, dict[str, TargetRule]] = {}
    # Spaces inside parentheses and next to the signs :, @ and = do not separate rules.
    for word in re.sub(r"\s+(?=[^(]*\))|(?<=[:@=])\s+|\s+(?=[:@=])", "", targets_text).split():
        key, equals, rule_text = word.rpartition("=")
        name, slash, prefix = key.partition("/")
        if slash or not equals:
            name = name or names[0]
        if name not in names:
            raise ValueError(f"target: got the name {name!r}; this agent's targets are {', '.join(names)}.")
        if slash and not _PREFIX.fullmatch(prefix):
            raise ValueError(f"target: got {key!r}; expected NAME/PREFIX, as in '{name}/torso' or '{name}/torso/mlp'.")
        found, label = (parts.setdefault(name, {}), prefix) if slash else (mains, name)
        if label in found:
            given = f"{name}/{prefix}" if slash else name
            raise ValueError(f"target: {given!r} has two rules in {targets_text!r}; give it one.")
        found[label] = parse(rule_text, **parse_options)
    if not mains and not parts:
        raise ValueError(f"target: got an empty text; expected one of {FORMS}.")
    for name in parts:
        if name not in mains:
            raise ValueError(
                f"target: {targets_text!r} has rules for parts of {name!r} but no main rule for {name!r}. "
                f"Write '{name}=RULE {targets_text.strip()}'."
            )
    return {name: partition(main, parts[name]) if name in parts else main for name, main in mains.items()}


def parts_of_leaves(rule: Rule, params: Tree, name: str = "") -> list[str]:
    """Prefix of the part of each leaf of ``params``, in the order of the leaves; empty if the main rule applies.

    Args:
        rule: Rule or partition.
        params: Tree of arrays.
        name: Name of the target in error messages.

    Raises:
        ValueError: If a part matches no leaf; the message lists the modules.

    >>> from polyak.updates import none, periodic
    >>> parts_of_leaves(partition(periodic(5), {"torso": none()}), {"head": {"w": 0.0}, "torso": {"b": 0.0, "w": 0.0}})
    ['', 'torso', 'torso']
    """
    paths = leaf_paths(params)
    if not isinstance(rule, Partition):
        return [""] * len(paths)
    labels = [_longest_prefix(rule.parts, path) for path in paths]
    for prefix in rule.parts:
        if prefix not in labels:
            raise ValueError(unmatched_message("target", f"{name}/", prefix, paths))
    return labels


def begins_with(path: str, prefixes: Iterable[str]) -> bool:
    """Return whether a path begins with one of the prefixes, in whole path components."""
    return any(f"{path}/".startswith(f"{prefix}/") for prefix in prefixes)


def _longest_prefix(prefixes: Iterable[str], path: str) -> str:
    return max((prefix for prefix in prefixes if begins_with(path, [prefix])), key=len, default="")


def unmatched_message(field: str, name: str, prefix: str, paths: list[str]) -> str:
    """Error message for a prefix that matches no parameter; ``name`` is written before the prefix."""
    modules = list(dict.fromkeys(path.rpartition("/")[0] or path for path in paths))
    beginnings = {"/".join(parts) for path in paths for parts in itertools.accumulate([c] for c in path.split("/"))}
    close = difflib.get_close_matches(prefix, sorted(beginnings - {prefix}), n=1)
    hint = f" Did you mean '{name}{close[0]}'?" if close else ""
    return f"{field}: no parameter matches '{name}{prefix}'; the modules are {some(modules, limit=30)}.{hint}"
