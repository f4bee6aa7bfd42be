"""Numbers that change over a run: their text, their values, and what does not parse."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyak.agents import Schedule

NUMBERS = st.floats(-1e12, 1e12, allow_nan=False)
KINDS = ["linear", "exponential", "horizon", "cosine"]


@st.composite
def schedules(draw, numbers=NUMBERS):
    kind = draw(st.sampled_from(["constant", *KINDS]))
    if kind == "constant":
        return Schedule(draw(numbers))
    if kind == "exponential":
        numbers = st.floats(1e-9, 1e9)
    if kind == "horizon":
        numbers = st.floats(-1e3, 0.999999)
    relative = draw(st.booleans())
    over = draw(st.floats(1e-9, 1.0) if relative else st.floats(1e-9, 1e12))
    return Schedule(draw(numbers), draw(numbers), over, relative, kind, restarts=not relative and draw(st.booleans()))


@given(schedules())
def test_the_text_and_the_json_of_a_schedule_are_read_as_that_schedule(schedule):
    assert Schedule.of(str(schedule)) == schedule
    assert Schedule.of(schedule.to_json()) == schedule
    assert Schedule.of(schedule) is schedule


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        (0.99, "0.99"),
        (np.float32(0.5), "0.5"),
        (" linear( 1, 0.05 ,25% ) ", "linear(1,0.05,25%)"),
        ("linear(5,1,10000)", "linear(5,1,10000)"),
        ("exponential(10,3,1e4)", "exponential(10,3,10000)"),
        ("cosine(1e-3,0,100%)", "cosine(0.001,0,100%)"),
        ("linear(1,0,0.07%)", "linear(1,0,0.07%)"),
        ("horizon(0.97, 0.997, 1e4) @resets", "horizon(0.97,0.997,10000)@resets"),
        (1e-13, "1e-13"),
    ],
)
def test_texts(value, text):
    assert str(Schedule.of(value)) == text


def test_values_by_hand():
    steps = [0, 5, 10, 40]
    assert Schedule.of("linear(1,0,50%)").value_at(steps, total=20).tolist() == [1.0, 0.5, 0.0, 0.0]
    assert Schedule.of("linear(1,0,10)").value_at(steps, total=999).tolist() == [1.0, 0.5, 0.0, 0.0]
    assert Schedule.of("exponential(16,1,10)").value_at(steps, total=20).tolist() == [16.0, 4.0, 1.0, 1.0]
    np.testing.assert_allclose(Schedule.of("cosine(2,0,20)").value_at(steps, total=20), [2, 1 + math.sqrt(0.5), 1, 0])
    # The n and the discount of BBF, 0, 5000 and 10 000 learner steps after a reset.
    since = [0, 5_000, 10_000, 20_000]
    n_steps = Schedule.of("exponential(10,3,10000)@resets").value_at(since, total=1)
    assert [round(value) for value in n_steps] == [10, 5, 3, 3]
    discount = Schedule.of("horizon(0.97,0.997,10000)@resets").value_at(since, total=1)
    np.testing.assert_allclose(discount, [0.97, 0.990513, 0.997, 0.997], atol=5e-7)
    assert Schedule.of(3).value_at(steps, total=20).tolist() == [3.0] * 4
    assert Schedule.of(3).value_at(7, total=20).shape == ()
    assert Schedule.of("linear(1,0,50%)").value_at(steps, total=20).dtype == np.float64


@given(schedules(), st.integers(0, 10**9), st.integers(1, 10**9))
def test_a_value_is_between_the_extremes(schedule, step, total):
    lowest, highest = schedule.extremes
    slack = 1e-9 * max(abs(lowest), abs(highest), schedule.kind == "horizon")  # whose 1 - value is rounded
    assert lowest - slack <= float(schedule.value_at(step, total)) <= highest + slack


@pytest.mark.parametrize(
    "text",
    ["", "often", "linear", "linear(1,2)", "linear(1,2,3,4)", "linear(a,1,2)", "step(1,2,3)", "nan", "inf", "1 2x"],
)
def test_a_text_that_does_not_parse(text):
    with pytest.raises(ValueError, match=r"^epsilon: got .*; expected a number, linear\(FROM,TO,OVER\), .*25%"):
        Schedule.of(text, "epsilon")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("linear(1,0,0%)", r"expected a percentage of the run in \(0, 100\] as its last number, such as 25%"),
        ("linear(1,0,101%)", r"expected a percentage of the run in \(0, 100\]"),
        ("cosine(1,0,0)", r"expected a number of steps > 0 as its last number"),
        ("linear(1,0,-5)", r"expected a number of steps > 0"),
        ("exponential(1,0,25%)", r"expected numbers > 0 for an exponential\. Try linear\(1,0,25%\)"),
        ("horizon(0.9,1,25%)", r"expected numbers < 1, which have a horizon"),
        ("linear(5,1,25%)@resets", r"expected a number of learner steps as its last number"),
    ],
)
def test_a_number_out_of_range(text, message):
    with pytest.raises(ValueError, match=rf"^epsilon: got '.*'; {message}"):
        Schedule.of(text, "epsilon")


@pytest.mark.parametrize("value", [None, True, [1], (1, 2)])
def test_a_value_of_another_type(value):
    with pytest.raises(TypeError, match=r"^epsilon: got .*; expected a number, linear"):
        Schedule.of(value, "epsilon")
