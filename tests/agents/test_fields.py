"""Ranges in the metadata of fields: what each part accepts and refuses, read from the parts themselves."""

import dataclasses
import math
import re
import typing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config_tools import leaf_fields, part_types, values
from polyak.agents.fields import Part, Range, above, at_least, check_name, kinds_of, number, scheduled, unit
from polyak.agents.schedules import Schedule

CHANGE = scheduled("linear(1,3,50%)", Range(1, 5), whole=True)
NAN, INFINITY = float("nan"), float("inf")
LEAVES = [pytest.param(leaf, id=f"{leaf.part.__name__}.{leaf.name}") for leaf in leaf_fields()]
NUMBERS = [leaf for leaf in LEAVES if leaf.values[0].annotation in (int, float, Schedule)]
# Cross-checks of a part need another field beside an extreme one.
BESIDE = {"sequence_length": {"sequence_period": 1}, "worker_timeout": {"workers": 1}}
# The lowest number of these is refused with a reason of its own.
EXPLAINED = {
    "priority_exponent": r"^priority_exponent: got 0.0, which is uniform sampling. Try --sampling uniform",
    "learning_rate": "^learning_rate: got 0, with which nothing is learnt; expected a number > 0",
}


def make(leaf, value):
    """The part with one field changed, checked by itself alone."""
    fields = {leaf.name: value, **BESIDE.get(leaf.name, {})}
    if leaf.name in ("v_min", "v_max"):
        fields = {"v_min": value, "v_max": value + 1} if leaf.name == "v_min" else {"v_min": value - 1, "v_max": value}
    return leaf.part(**fields)


def refused(leaf, value, kind=ValueError):
    with pytest.raises(kind) as caught:
        make(leaf, value)
    return str(caught.value)


@pytest.mark.parametrize("leaf", NUMBERS)
def test_the_ends_of_a_range_are_accepted_and_numbers_beyond_are_refused(leaf):
    lowest, highest, exclusive = leaf.within
    is_integer = leaf.annotation is int or leaf.whole
    step = 1 if is_integer else 1e-6
    expected = rf"^{leaf.name}: got .*; expected {re.escape(leaf.within.describe(leaf.name, is_integer))}\.$"
    if math.isfinite(lowest):
        assert re.search(expected, refused(leaf, lowest - step))
        if exclusive:
            assert re.search(expected, refused(leaf, lowest))
            make(leaf, lowest + step)
        elif leaf.name in EXPLAINED:
            assert re.search(EXPLAINED[leaf.name], refused(leaf, lowest))
        elif leaf.name != "steps":  # a run of one step learns nothing
            assert _value(make(leaf, lowest), leaf) == lowest
    if math.isfinite(highest):
        assert _value(make(leaf, highest), leaf) == highest
        assert re.search(expected, refused(leaf, highest + step))


def _value(part, leaf):
    value = getattr(part, leaf.name)
    return value.initial if isinstance(value, Schedule) else value


def test_every_number_has_a_range_but_returns():
    without = {leaf.values[0].name for leaf in NUMBERS if leaf.values[0].within == Range()}
    assert without == {"v_min", "v_max", "stop_at_return"}


@pytest.mark.parametrize("leaf", NUMBERS)
def test_numbers_that_are_none(leaf):
    kind = TypeError if leaf.annotation is int else ValueError
    for value in (NAN, INFINITY, -INFINITY):
        assert refused(leaf, value, kind).startswith(f"{'v_min' if leaf.name == 'v_max' else leaf.name}: got ")
    for value in (True, "1x", [1]):
        with pytest.raises((TypeError, ValueError), match=rf"^{leaf.name}: got {re.escape(repr(value))}"):
            leaf.part(**{leaf.name: value})
    if leaf.annotation is int:
        assert "expected an integer" in refused(leaf, max(leaf.within.lowest, 1) + 0.5, TypeError)


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_value_of_another_type(leaf):
    annotation, name = leaf.annotation, leaf.name
    message = rf"^{name}: got "
    if annotation is bool:
        for value in ("no", 1, None):
            with pytest.raises(TypeError, match=rf"{message}.*; expected True or False\.$"):
                leaf.part(**{name: value})
    elif annotation is str and name not in ("agent_name", "preset"):
        with pytest.raises(TypeError, match=rf"{message}3 \(int\); expected a string"):
            leaf.part(**{name: 3})
    elif typing.get_origin(annotation) is typing.Literal:
        choices = ", ".join(typing.get_args(annotation))
        with pytest.raises(ValueError, match=rf"{message}'neither'; expected one of {choices}\."):
            leaf.part(**{name: "neither"})
    elif typing.get_origin(annotation) is tuple:
        with pytest.raises(TypeError, match=rf"{message}8; expected .*, such as \("):
            leaf.part(**{name: 8})
    if not leaf.takes_none:
        with pytest.raises((TypeError, ValueError), match=r": got None"):
            leaf.part(**{name: None})


@pytest.mark.parametrize("part", [part for part in part_types() if any(map(kinds_of, dataclasses.fields(part)))])
def test_a_part_of_another_union(part):
    for field in dataclasses.fields(part):
        if kinds_of(field):
            with pytest.raises(TypeError, match=rf"^{field.name}: got .*; expected a part of one of the kinds .*\.$"):
                part(**{field.name: Range()})


@given(st.data())
def test_what_the_metadata_allows_is_accepted(data):
    leaf = data.draw(st.sampled_from([leaf.values[0] for leaf in LEAVES]))
    if leaf.part.__name__ in ("RunConfig", "LoopConfig", "AgentConfig") or leaf.name in ("v_min", "v_max"):
        return  # parts and fields that are checked together
    value = data.draw(values(leaf))
    try:
        made = leaf.part(**{leaf.name: value})
    except ValueError as error:
        assert leaf.name in (*EXPLAINED, "sequence_length", "sequence_period"), error  # noqa: PT017
    else:
        assert getattr(made, leaf.name) == (Schedule.of(value) if leaf.annotation is Schedule else value)


@dataclasses.dataclass(frozen=True)
class Numbers(Part):
    count: int = at_least(1, 2)
    rate: float = above(0, 0.5)
    share: float = unit(0.5)
    level: float | None = number(None, Range(highest=0))
    change: Schedule = CHANGE


def test_numbers_of_numpy_become_pythons_own():
    part = Numbers(count=np.int64(3), rate=np.float32(0.25), change=np.int32(2))
    assert (type(part.count), type(part.rate), type(part.change.initial)) == (int, float, int)
    assert Numbers(rate=1).rate == 1.0
    assert type(Numbers(rate=1).rate) is float


def test_a_schedule_of_integers_may_pass_between_them_but_not_stand_there():
    assert str(Numbers(change="linear(5,1,50%)").change) == "linear(5,1,50%)"
    with pytest.raises(ValueError, match=r"^change: got 1.5; expected an integer, 1 <= change <= 5\.$"):
        Numbers(change=1.5)
    with pytest.raises(ValueError, match=r"^change: got 'linear\(6,1,50%\)'; expected an integer, 1 <= change <= 5\.$"):
        Numbers(change="linear(6,1,50%)")


def test_a_choice_that_is_close_gets_a_hint():
    with pytest.raises(
        ValueError, match=r"^error: got 'hubr'; expected one of squared, huber\. Did you mean 'huber'\?$"
    ):
        check_name("hubr", ("squared", "huber"), "error")
