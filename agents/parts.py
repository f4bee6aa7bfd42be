"""Configs as trees of parts: read and replace leaves by their flat names, convert to JSON and back.

A config is a part (:class:`polyak.agents.fields.Part`) whose fields are leaves, parts, or unions of parts
(:func:`polyak.agents.fields.one_of`). Leaf names are unique in a config, so that a name identifies one leaf.
The module imports nothing heavy.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from .fields import Part, annotations_of, check_name, did_you_mean, is_part_type, kind_of, kinds_of
from .other_names import other_name
from .schedules import Schedule

Config = TypeVar("Config", bound=Part)


def leaves(config: Any) -> dict[str, Any]:
    """Return the mapping from name to value of all leaves; a union is a leaf too, and its value is a kind.

    >>> from polyak.agents.config import Network
    >>> list(leaves(Network()).items())[-3:]
    [('activation', 'relu'), ('normalize_features', False), ('core', 'none')]
    """
    found: dict[str, Any] = {}
    for field, value in _fields(config):
        if kinds_of(field):
            found[field.name] = kind_of(field, value)
        if isinstance(value, Part):
            found |= leaves(value)
        elif not kinds_of(field):
            found[field.name] = value
    return found


def replace(config: Config, fields: Mapping[str, Any]) -> Config:
    """Replace leaves by name, and parts of unions by a kind or by a part.

    A part of another kind keeps some leaves of the part it replaces, such as ``dueling`` (``keeps`` of
    :func:`polyak.agents.fields.one_of`).

    Args:
        config: Tree of parts; not changed.
        fields: Mapping from name to new value.

    Raises:
        ValueError: if a name is unknown (the message suggests the closest name), if it belongs to a part that the
            config does not have (the message names the flag that adds the part), or if a value is out of range.
        TypeError: if a value has another type than its leaf.

    >>> from polyak.agents.config import AgentConfig, Categorical
    >>> replace(AgentConfig(), {"head": "categorical", "num_atoms": 21}).head.num_atoms
    21
    >>> replace(AgentConfig(), {"num_atoms": 21})
    Traceback (most recent call last):
    ValueError: num_atoms: got 21, but head is 'scalar'; only categorical and hl_gauss have it. Try --head categorical.
    """
    used: set[str] = set()
    replaced: Config = _replaced(config, fields, used)
    for name, value in fields.items():
        if name not in used:
            raise ValueError(absent(type(config), leaves(replaced), name, value))
    return replaced


def bringers(config_type: Any) -> dict[str, dict[str, list[str]]]:
    """Return the mapping from leaf name to the unions that can add the leaf: union name to the kinds that have it.

    >>> from polyak.agents.config import AgentConfig
    >>> bringers(AgentConfig)["burn_in"]
    {'core': ['lstm']}
    """
    found: dict[str, dict[str, list[str]]] = {}
    for field in dataclasses.fields(config_type):
        for kind, kind_type in kinds_of(field).items():
            if kind_type is None:
                continue
            for inner in dataclasses.fields(kind_type):
                found.setdefault(inner.name, {}).setdefault(field.name, []).append(kind)
        if is_part_type(annotation := annotations_of(config_type)[field.name]):
            found |= bringers(annotation)
    return found


def part_of_kind(field: dataclasses.Field[Any], before: Any, value: Any) -> Any:
    """Make the part of a kind, with the leaves that its union keeps from the current part.

    Args:
        field: Field of the union.
        before: Current part of the union.
        value: Name of a kind; any other value is returned unchanged.

    Raises:
        ValueError: if no kind has that name; the message suggests the closest name.
    """
    if not isinstance(value, str):
        return value
    kind = kinds_of(field)[check_name(value, kinds_of(field), field.name)]
    if kind is None or type(before) is kind:
        return None if kind is None else before
    names = {inner.name for inner in dataclasses.fields(kind)} & {*field.metadata["keeps"]}
    return kind(**{name: getattr(before, name) for name in names if hasattr(before, name)})


def absent(config_type: type, current: Mapping[str, Any], name: str, value: Any) -> str:
    """Return the error message for a leaf that a config does not have, with the flag that adds it or the closest name.

    Args:
        config_type: Type of the config.
        current: Leaves of the config.
        name: Name of the leaf.
        value: Given value.

    >>> from polyak.agents.config import Network
    >>> absent(Network, leaves(Network()), "lstm_size", 8)
    "lstm_size: got 8, but core is 'none'; only lstm has it. Try --core lstm."
    """
    brought = bringers(config_type).get(name)
    if not brought:
        known = {*current, *bringers(config_type)}
        hint = other_name(name, value, known) or did_you_mean(name, sorted(known))
        return f"field: got {name!r}; it does not exist.{hint}"
    union, kinds = next(iter(brought.items()))
    has = f"{', '.join(kinds[:-1])} and {kinds[-1]} have it" if len(kinds) > 1 else f"{kinds[0]} has it"
    flag = f"--{union.replace('_', '-')}"
    return f"{name}: got {value!r}, but {union} is {current[union]!r}; only {has}. Try {flag} {kinds[0]}."


def to_json(config: Any) -> dict[str, Any]:
    """Convert a config to JSON types; a union's part has its kind as ``"kind"``, and None becomes null.

    >>> from polyak.agents.config import Network
    >>> list(to_json(Network()).items())[2:]
    [('hidden_sizes', [120, 84]), ('activation', 'relu'), ('normalize_features', False), ('core', None)]
    """
    written: dict[str, Any] = {}
    for field, value in _fields(config):
        if isinstance(value, Part):
            kind = {"kind": kind_of(field, value)} if kinds_of(field) else {}
            written[field.name] = kind | to_json(value)
        elif isinstance(value, Schedule):
            written[field.name] = value.to_json()
        else:
            written[field.name] = list(value) if isinstance(value, tuple) else value
    return written


def from_json(default: Config, values: Mapping[str, Any], path: str = "") -> Config:
    """Read a config from JSON, the inverse of :func:`to_json`; an absent field has its value in ``default``.

    Raises:
        ValueError: if a field or a kind is unknown, or a value is out of range; the message has the path.
        TypeError: if a value has another type than its field.

    >>> from polyak.agents.config import Network
    >>> from_json(Network(), {"core": {"kind": "lstm", "lstm_size": 8}}).core
    LSTM(lstm_size=8, burn_in=0)
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"{path.rstrip('.') or 'config'}: got {values!r}; expected an object of fields.")
    fields = {field.name: field for field in dataclasses.fields(default)}
    found: dict[str, Any] = {}
    for name, value in values.items():
        check_name(name, fields, f"field of {path.rstrip('.') or 'the config'}")
        found[name] = _read(fields[name], getattr(default, name), value, f"{path}{name}")
    try:
        return dataclasses.replace(default, **found)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{path}{error}") from None


def _fields(config: Any) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    return ((field, getattr(config, field.name)) for field in dataclasses.fields(config))


def _replaced(config: Any, values: Mapping[str, Any], used: set[str]) -> Any:
    """Replace values from the leaves up, make each part once, and add the names that the tree has to ``used``."""
    found: dict[str, Any] = {}
    for field, value in _fields(config):
        if field.name in values and (kinds_of(field) or not isinstance(value, Part)):
            used.add(field.name)
            found[field.name] = values[field.name]
        if kinds_of(field) and field.name in values:
            value = found[field.name] = part_of_kind(field, value, values[field.name])
        if isinstance(value, Part) and (inner := _replaced(value, values, used)) is not value:
            found[field.name] = inner
    return dataclasses.replace(config, **found) if found else config


def _read(field: dataclasses.Field[Any], default: Any, value: Any, path: str) -> Any:
    kinds = kinds_of(field)
    if not kinds:
        return from_json(default, value, f"{path}.") if isinstance(default, Part) else value
    if value is None and None in kinds.values():
        return None
    if not isinstance(value, Mapping) or "kind" not in value:
        raise TypeError(f'{path}: got {value!r}; expected an object with "kind": {", ".join(kinds)}.')
    kind = kinds[check_name(value["kind"], kinds, f"{path}.kind")]
    if kind is None:
        return None
    before: Any = default if type(default) is kind else kind()
    return from_json(before, {name: leaf for name, leaf in value.items() if name != "kind"}, f"{path}.")
