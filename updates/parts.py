"""Named targets and the parts of a target: several rules in one text.

``periodic:500 q/torso=none encoder=incremental:0.01`` gives the first named target (``q``) one rule, the modules of it
whose paths begin with ``torso`` another, and the target ``encoder`` a third.

========================  ==========================================================================
words of a text           meaning
========================  ==========================================================================
``RULE``                  the main rule of the first named target
``NAME=RULE``             the main rule of the target ``NAME``
``NAME/PREFIX=RULE``      the rule of its leaves whose path is ``PREFIX`` or continues it
``/PREFIX=RULE``          the same for the first named target
========================  ==========================================================================

A prefix consists of whole path components: ``torso`` matches ``torso/mlp/~/linear_0/w``, and not ``torso2/linear/w``.
Where several prefixes match a leaf, the longest wins; where none does, the main rule holds.
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
    """A main rule and the rules of parts of the tree; it stands wherever a rule stands.

    It is data, as a rule is: a pytree whose numbers may be traced. ``str(partition)`` is its text.

    Attributes:
        main: Rule of all leaves that no part holds.
        parts: Mapping from a prefix of the leaves' paths to their rule.
    """

    main: TargetRule
    parts: Mapping[str, TargetRule]

    def __str__(self) -> str:
        return f"{self.main} " + " ".join(f"/{prefix}={rule}" for prefix, rule in self.parts.items())


Rule = TargetRule | Partition


def partition(main: TargetRule, parts: Mapping[str, TargetRule]) -> Partition:
    """Give parts of a tree rules of their own.

    Args:
        main: Rule of all leaves that no part holds.
        parts: Mapping from a prefix of leaf paths, in whole path components (``torso/mlp``), to a rule.

    Raises:
        ValueError: there are no parts, a prefix is malformed, or a rule is out of range.
        TypeError: a rule is no ``TargetRule``.

    >>> from polyak.updates import none, periodic
    >>> rule = partition(periodic(2000), {"torso": none()})
    >>> str(rule)
    'periodic:2000 /torso=none'
    >>> parse_named(str(rule), names=("q",))["q"] == rule
    True
    """
    if not parts:
        raise ValueError("parts: got no rules; expected at least one. Use the main rule alone if that is meant.")
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
    """Flatten named rules: ``name`` for a main rule and ``name/prefix`` for the rule of a part.

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
    """Write the text of named targets and their parts; :func:`parse_named` leads back to the same rules.

    Args:
        rules: Mapping from a target's name to its rule or partition, with concrete fields.

    Raises:
        TypeError: a field is traced.

    >>> from polyak.updates import incremental, none, periodic
    >>> text_named({"q": partition(periodic(500), {"torso": none()}), "encoder": incremental(0.01)})
    'q=periodic:500 q/torso=none encoder=incremental:0.01'
    """
    return " ".join(f"{name}={rule}" for name, rule in rules_by_part(rules).items())


def parse_named(targets_text: str, names: Sequence[str], **parse_options: Any) -> dict[str, Rule]:
    """Read the rules of several named targets and of their parts (see the table above), with spaces between them.

    Args:
        targets_text: Text of the rules.
        names: Names of the targets there are; a rule without a name is the first one's.
        **parse_options: Options of :func:`parse`, for every rule.

    Returns:
        Mapping from each name in the text to its ``TargetRule``, or to a :class:`Partition` where it has parts.

    Raises:
        ValueError: an unknown name, a name or part given twice, a part of a target without a main rule, a malformed
            prefix, or a rule that does not parse. Whether a part matches any parameter is known only to
            :func:`polyak.updates.target.init`.

    >>> rules = parse_named("periodic:500 q/torso=none encoder=incremental:0.01", names=("q", "encoder"))
    >>> {name: str(rule) for name, rule in rules.items()}
    {'q': 'periodic:500 /torso=none', 'encoder': 'incremental:0.01'}
    """
    mains: dict[str, TargetRule] = {}
    parts: dict[str, dict[str, TargetRule]] = {}
    # A space inside parentheses or beside a sign parts nothing.
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
                f"target: {targets_text!r} has rules of parts of {name!r} and none of the rest of it. "
                f"Write '{name}=RULE {targets_text.strip()}'."
            )
    return {name: partition(main, parts[name]) if name in parts else main for name, main in mains.items()}


def parts_of_leaves(rule: Rule, params: Tree, name: str = "") -> list[str]:
    """The prefix that gives each leaf of ``params`` its rule, in the order of the leaves; empty for the main rule.

    Args:
        rule: Rule or partition.
        params: Tree of arrays.
        name: Name of the target, for messages.

    Raises:
        ValueError: no leaf follows one of the parts; the message lists the modules that exist.

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
    """Whether a path is one of the prefixes or continues it, in whole path components."""
    return any(f"{path}/".startswith(f"{prefix}/") for prefix in prefixes)


def _longest_prefix(prefixes: Iterable[str], path: str) -> str:
    return max((prefix for prefix in prefixes if begins_with(path, [prefix])), key=len, default="")


def unmatched_message(field: str, name: str, prefix: str, paths: list[str]) -> str:
    """Message about a prefix, written ``name`` and then the prefix, that no parameter follows."""
    modules = list(dict.fromkeys(path.rpartition("/")[0] or path for path in paths))
    beginnings = {"/".join(parts) for path in paths for parts in itertools.accumulate([c] for c in path.split("/"))}
    close = difflib.get_close_matches(prefix, sorted(beginnings - {prefix}), n=1)
    hint = f" Did you mean '{name}{close[0]}'?" if close else ""
    return f"{field}: no parameter follows '{name}{prefix}'; the modules are {some(modules, limit=30)}.{hint}"
