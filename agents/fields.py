"""Fields of a config: their ranges as metadata, and the base class of parts, which checks them.

A part of a config is a frozen dataclass that inherits from :class:`Part`. This module imports nothing heavy.
"""

import dataclasses
import difflib
import functools
import itertools
import math
import numbers
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .schedules import Schedule


class Range(NamedTuple):
    """Range of the numbers that a field accepts.

    Attributes:
        lowest: Lowest number.
        highest: Highest number.
        exclusive: Whether ``lowest`` itself is excluded.
    """

    lowest: float = -math.inf
    highest: float = math.inf
    exclusive: bool = False

    def holds(self, number: float) -> bool:
        """Return whether a number is finite and in range.

        >>> Range(0, 1).holds(1), Range(0, exclusive=True).holds(0), Range(1).holds(math.inf)
        (True, False, False)
        """
        above = self.lowest < number if self.exclusive else self.lowest <= number
        return math.isfinite(number) and above and number <= self.highest

    def describe(self, name: str, is_integer: bool) -> str:
        """Describe the range for error messages.

        >>> Range(1).describe("n", True), Range(0, 1).describe("p", False), Range(1, 9).describe("n", True)
        ('an integer >= 1', '0 <= p <= 1', 'an integer, 1 <= n <= 9')
        """
        sign = "<" if self.exclusive else "<="
        if math.isfinite(self.lowest) and math.isfinite(self.highest):
            between = f"{self.lowest:g} {sign} {name} <= {self.highest:g}"
            return f"an integer, {between}" if is_integer else between
        noun = "an integer" if is_integer else "a finite number"
        if math.isfinite(self.lowest):
            return f"{noun} {'>' if self.exclusive else '>='} {self.lowest:g}"
        return f"{noun} <= {self.highest:g}" if math.isfinite(self.highest) else noun


def number(default: Any, within: Range = Range()) -> Any:
    """Make a field for a number, or for a tuple of numbers, in a range."""
    return dataclasses.field(default=default, metadata={"range": within})


def at_least(lowest: float, default: Any) -> Any:
    """Make a field for a number that is at least ``lowest``."""
    return number(default, Range(lowest))


def above(lowest: float, default: Any) -> Any:
    """Make a field for a number above ``lowest``."""
    return number(default, Range(lowest, exclusive=True))


def unit(default: Any) -> Any:
    """Make a field for a number in [0, 1]."""
    return number(default, Range(0, 1))


def scheduled(default: float | str, within: Range, whole: bool = False, restarts: bool = False) -> Any:
    """Make a field for a :class:`Schedule` whose numbers are all in a range.

    Args:
        default: Number or string.
        within: Range of the numbers.
        whole: Whether the numbers are integers.
        restarts: Whether the schedule may restart at each reset of the agent.
    """
    metadata = {"range": within, "whole": whole, "restarts": restarts}
    return dataclasses.field(default=Schedule.of(default), metadata=metadata)


def one_of(kinds: Mapping[str, type | None], default: Any, keeps: tuple[str, ...] = ()) -> Any:
    """Make a field for a union: one of several parts, each with a name, its kind; None stands for no part.

    Args:
        kinds: Mapping from kind to the type of its part.
        default: Default part.
        keeps: Names of leaves that a part of another kind copies from the part that it replaces.
    """
    return dataclasses.field(default=default, metadata={"kinds": dict(kinds), "keeps": keeps})


def kinds_of(field: dataclasses.Field[Any]) -> Mapping[str, type | None]:
    """Return the mapping from kind to part type of a union; empty for any other field."""
    kinds: Mapping[str, type | None] = field.metadata.get("kinds", {})
    return kinds


def kind_of(field: dataclasses.Field[Any], part: Any) -> str:
    """Return the kind of a union's part."""
    return next(name for name, kind in kinds_of(field).items() if kind is (None if part is None else type(part)))


@dataclasses.dataclass(frozen=True)
class Part:
    """Part of a config: a frozen dataclass that checks every field by its annotation and its range.

    NumPy scalars become Python numbers.

    Raises:
        TypeError: if a value has another type than its field.
        ValueError: if a value is out of range, or is not one of the choices.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Batch(Part):
    ...     size: int = at_least(1, 128)
    >>> Batch(size=0)
    Traceback (most recent call last):
    ValueError: size: got 0; expected an integer >= 1.
    """

    def __post_init__(self) -> None:
        """Check the fields; a part that checks more calls this method first."""
        kind: Any = type(self)
        annotations = annotations_of(kind)
        for field in dataclasses.fields(self):
            found = _checked(field, annotations[field.name], getattr(self, field.name))
            object.__setattr__(self, field.name, found)


def is_part_type(annotation: Any) -> bool:
    """Return whether the type of a field is a part, that is, neither a leaf nor a union."""
    return isinstance(annotation, type) and issubclass(annotation, Part)


@functools.cache
def annotations_of(part: Any) -> Mapping[str, Any]:
    """Return the mapping from field name to type of a part."""
    return typing.get_type_hints(part)


def check_name(name: Any, names: Iterable[str], what: str) -> str:
    """Return ``name`` if it is one of ``names``.

    Raises:
        ValueError: if it is not; the message begins with ``what`` and suggests the closest name.

    >>> check_name("dqm", ["dqn", "c51"], "agent")
    Traceback (most recent call last):
    ValueError: agent: got 'dqm'; expected one of dqn, c51. Did you mean 'dqn'?
    """
    names = list(names)
    if name not in names:
        raise ValueError(f"{what}: got {name!r}; expected one of {', '.join(names)}.{did_you_mean(name, names)}")
    return str(name)


def did_you_mean(name: Any, names: Iterable[str]) -> str:
    """Return a hint with the closest of ``names``; empty if no name is close.

    Case does not count, and a dash equals an underscore. A name of the same letters in another order is the closest.

    >>> did_you_mean("bach_size", ["batch_size", "burn_in"])
    " Did you mean 'batch_size'?"
    >>> did_you_mean("dnq", ["drq", "dqn"])
    " Did you mean 'dqn'?"
    """
    plain, known = _plain(str(name)), {_plain(other): other for other in names}
    reordered = [other for other in known if sorted(other) == sorted(plain)]
    close = reordered or difflib.get_close_matches(plain, known, n=3, cutoff=0.4)
    return f" Did you mean {known[max(close, key=lambda other: _common_prefix(plain, other))]!r}?" if close else ""


def _plain(name: str) -> str:
    return name.casefold().replace("-", "_")


def _common_prefix(one: str, other: str) -> int:
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _checked(field: dataclasses.Field[Any], annotation: Any, value: Any) -> Any:
    name, within = field.name, field.metadata.get("range") or Range()
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        value = value.item()
    if kinds := kinds_of(field):
        if (None if value is None else type(value)) not in kinds.values():
            raise TypeError(
                f"{name}: got {value!r} ({type(value).__name__}); expected a part of one of the "
                f"kinds {', '.join(kinds)}."
            )
        return value
    if is_part_type(annotation):
        return _of_type(name, value, annotation, f"a {annotation.__name__}")
    if annotation is Schedule:
        schedule = Schedule.of(value, name)
        _check_schedule(name, schedule, within, field.metadata.get("whole", False))
        if schedule.restarts and not field.metadata.get("restarts", False):
            raise ValueError(
                f"{name}: got {schedule.to_json()!r}; {name} does not begin again at a reset. Leave @resets out."
            )
        return schedule
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):  # X | None
        if value is None:
            return None
        annotation = next(kind for kind in typing.get_args(annotation) if kind is not type(None))
    if typing.get_origin(annotation) is typing.Literal:
        return check_name(value, typing.get_args(annotation), name)
    if typing.get_origin(annotation) is tuple:
        return _tuple(name, value, typing.get_args(annotation)[0], within)
    if annotation is bool:
        return _of_type(name, value, bool, "True or False")
    if annotation is str:
        return _of_type(name, value, str, f"a string, such as {field.default!r}" if field.default else "a string")
    return _number(name, value, annotation is int, within)


def _check_schedule(name: str, schedule: Schedule, within: Range, whole: bool) -> None:
    for end in schedule.extremes:
        if not within.holds(end) or (whole and schedule.is_constant and end != int(end)):
            raise ValueError(f"{name}: got {schedule.to_json()!r}; expected {within.describe(name, whole)}.")


def _number(name: str, value: Any, is_integer: bool, within: Range) -> Any:
    kind = numbers.Integral if is_integer else numbers.Real
    if isinstance(value, bool) or not isinstance(value, kind):
        expected = within.describe(name, is_integer) if is_integer else "a number"
        raise TypeError(f"{name}: got {value!r} ({type(value).__name__}); expected {expected}.")
    found = int(value) if is_integer else float(value)  # type: ignore[call-overload]
    if not within.holds(found):
        raise ValueError(f"{name}: got {value}; expected {within.describe(name, is_integer)}.")
    return found


def _tuple(name: str, value: Any, item: Any, within: Range) -> tuple[Any, ...]:
    names = typing.get_args(item)  # choices of a tuple of names, which may be empty; any other tuple has layer sizes
    if not isinstance(value, tuple | list):
        expected = "strings" if item is str else "names" if names else "a size for each layer"
        example = "my_module:name" if item is str else names[0] if names else 64
        raise TypeError(f"{name}: got {value!r}; expected {expected}, such as {(example,)}.")
    if item is str:
        return tuple(_of_type(name, text, str, "a tuple of strings") for text in value)
    if names:
        return tuple(check_name(choice, names, name) for choice in value)
    if not value:
        raise ValueError(
            f"{name}: got no layer; expected one or more. Try --{name.replace('_', '-')} 64, which is (64,) in Python."
        )
    return tuple(_number(name, size, True, within) for size in value)


def _of_type(name: str, value: Any, kind: Any, expected: str) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{name}: got {value!r} ({type(value).__name__}); expected {expected}.")
    return value
