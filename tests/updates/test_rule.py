"""A rule is data: its text, its data and the way between them; the steps at which it fires."""

import itertools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyak import updates
from polyak.updates import TargetRule

COUNTS = st.integers(1, 10**7)
STEP_SIZES = st.floats(1e-6, 1.0, exclude_max=True)
RULES = st.one_of(
    st.builds(updates.periodic, COUNTS),
    st.builds(updates.incremental, STEP_SIZES, COUNTS),
    st.builds(updates.incremental_cosine, STEP_SIZES, COUNTS, COUNTS),
    st.just(updates.frozen()),
    st.just(updates.none()),
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(RULES)
def test_the_text_comes_from_the_data_and_leads_back_to_it(rule):
    assert updates.parse(str(rule)) == rule
    assert str(updates.parse(str(rule))) == str(rule)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("periodic:500", TargetRule(1.0, 500, 0)),
        ("incremental:0.005", TargetRule(0.005, 1, 0)),
        ("incremental:5e-3", TargetRule(0.005, 1, 0)),
        ("incremental:0.005@4", TargetRule(0.005, 4, 0)),
        ("incremental:cosine(0.004)", TargetRule(0.004, 1, 20_000)),
        ("incremental:cosine(0.004,7)", TargetRule(0.004, 1, 7)),
        ("incremental:cosine(0.004, 7)@2", TargetRule(0.004, 2, 7)),
        ("frozen", TargetRule(0.0, 1, 0)),
        ("none", TargetRule(1.0, 0, 0)),
        (" periodic:1_000 ", TargetRule(1.0, 1000, 0)),
        ("periodic:500env", TargetRule(1.0, 200, 0)),
        ("incremental:0.1@5env", TargetRule(0.1, 2, 0)),
    ],
)
def test_texts_by_hand(text, rule):
    assert updates.parse(text, horizon=20_000, environment_steps_per_learner_step=Fraction(5, 2)) == rule


def test_a_rule_of_arrays_has_a_text_too():
    assert str(TargetRule(jnp.float32(0.005), jnp.int32(4))) == "incremental:0.005@4"
    assert str(TargetRule(np.float32(1.0), np.int64(500))) == "periodic:500"
    with pytest.raises(TypeError, match="got a traced rule; expected concrete fields"):
        jax.jit(lambda period: str(TargetRule(1.0, period)) and period)(5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("periodic:0.005", r"periodic:0.005.*Did you mean 'incremental:0.005'\?"),
        ("incremental:500", r"incremental:500.*Did you mean 'periodic:500'\?"),
        ("incremental:1.5", r"expected a step size in \(0, 1\]"),
        ("incremental:-0.1", r"expected a step size in \(0, 1\]"),
        ("incremental:nan", r"expected a step size in \(0, 1\]"),
        ("incremental:inf", r"expected a step size in \(0, 1\]"),
        ("incremental:0", r"never change. Did you mean 'frozen'"),
        ("incremental:", r"'' is not a step size"),
        ("incremental:0.1@0", r"'0' is not a period"),
        ("incremental:0.1@", r"'' is not a period"),
        ("periodic:0", r"'0' is not a period: an integer >= 1"),
        ("periodic:-5", r"'-5' is not a period"),
        ("periodic:5.5", r"'5.5' is not a period"),
        ("periodic:", r"'' is not a period"),
        ("periodic", r"'' is not a period"),
        ("periodic:1e3", r"'1e3' is not a period"),
        ("hard:500", r"Did you mean 'periodic:500'\?"),
        ("polyak:0.005", r"Did you mean 'incremental:0.005'\?"),
        ("ema:0.995", r"Did you mean 'incremental:0.005', the step size of a decay of 0.995\?"),
        ("perodic:500", r"Did you mean 'periodic:500'\?"),
        ("500", r"Did you mean 'periodic:500'\?"),
        ("0.005", r"Did you mean 'incremental:0.005'\?"),
        ("freeze", r"Did you mean 'frozen'\?"),
        ("none:3", r"Did you mean 'none'\?"),
        ("", r"got ''; expected one of periodic:K"),
        ("incremental:cosine(0.004,0)", r"'0' is not the number of steps in cosine"),
        ("periodic:3000000000", r"below 2\*\*31"),
        ("incremental:cosine(2)", r"Did you mean 'periodic:2'"),
        (
            "periodic:500env",
            r"the period is not a whole number of learner steps. The nearest valid periods: 498env or 501env",
        ),
    ],
)
def test_texts_that_do_not_parse_or_mean_the_wrong_thing(text, message):
    with pytest.raises(ValueError, match=message):
        updates.parse(text, horizon=100, environment_steps_per_learner_step=Fraction(3))


def test_what_only_a_run_knows_is_asked_for():
    with pytest.raises(ValueError, match=r"the ratio to learner steps is not known here. Give learner steps"):
        updates.parse("periodic:500env")
    with pytest.raises(ValueError, match=r"Write cosine\(0.004,STEPS\)"):
        updates.parse("incremental:cosine(0.004)")
    with pytest.raises(ValueError, match=r"Write cosine\(0.004,STEPS\)"):
        updates.parse("incremental:cosine(0.004)", horizon=0)
    with pytest.raises(TypeError, match="got 500"):
        updates.parse(500)


def test_named_targets():
    both = updates.parse_named("encoder=frozen periodic:3", ("q", "encoder"))
    assert both == {"encoder": updates.frozen(), "q": updates.periodic(3)}
    assert updates.parse_named("q = periodic: 5", ("q",)) == {"q": updates.periodic(5)}
    spaced = updates.parse_named("q=incremental:cosine(0.1, 7)@2 encoder=frozen", ("q", "encoder"))
    assert spaced == {"q": TargetRule(0.1, 2, 7), "encoder": updates.frozen()}
    with pytest.raises(ValueError, match="got the name 'encodr'; this agent's targets are q, encoder"):
        updates.parse_named("encodr=frozen", ("q", "encoder"))
    with pytest.raises(ValueError, match="'q' has two rules"):
        updates.parse_named("periodic:3 q=frozen", ("q",))
    with pytest.raises(ValueError, match="got an empty text"):
        updates.parse_named("  ", ("q",))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: updates.periodic(0), ValueError, "period: got 0; expected an integer >= 1"),
        (lambda: updates.periodic(0.005), ValueError, r"Did you mean incremental\(0.005\)"),
        (lambda: updates.periodic(True), TypeError, "period: got True"),
        (lambda: updates.incremental(500), ValueError, r"Did you mean a period of 500: periodic\(500\)"),
        (lambda: updates.incremental(0.0), ValueError, r"never change. To keep it constant, use frozen\(\)"),
        (lambda: updates.incremental(0.1, 0), ValueError, "period: got 0"),
        (lambda: updates.incremental_cosine(0.1, -1), ValueError, "horizon: got -1"),
        (lambda: updates.partition(updates.frozen(), {}), ValueError, "got no rules"),
        (
            lambda: updates.partition(updates.frozen(), {"a": "periodic:5"}),
            TypeError,
            r"Did you mean polyak.updates.parse",
        ),
        (lambda: updates.target.init(TargetRule(2.0, 1), 1.0), ValueError, "step_size: got 2.0"),
        (lambda: updates.target.init(TargetRule(1.0, -1), 1.0), ValueError, "period: got -1"),
    ],
)
def test_rules_out_of_range(make, error, message):
    with pytest.raises(error, match=message):
        make()


def firings(rule, increments):
    """The counts at which a target moves, brute force: whether it is the online tree after the call."""
    state, counts = updates.target.init(rule, jnp.zeros(())), []
    step = jax.jit(lambda online, state, increment: updates.target.update(rule, online, state, increment))
    for call, increment in enumerate(increments, start=1):
        state = step(jnp.float32(call), state, increment)
        if float(state.params) == call:
            counts.append(int(state.count))
    return counts


def test_a_rule_never_fires_at_zero_and_fires_at_each_multiple():
    assert firings(updates.periodic(5), [0, 0]) == []
    assert firings(updates.periodic(5), [1] * 16) == [5, 10, 15]
    assert firings(updates.periodic(1), [1] * 3) == [1, 2, 3]


def test_increments_that_do_not_divide_the_period_fire_once_at_each_crossing():
    assert firings(updates.periodic(500), [12] * 130) == [504, 1008, 1500]
    assert firings(updates.periodic(5), [12] * 3) == [12, 24, 36]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 12), st.lists(st.integers(0, 20), max_size=20))
def test_firing_is_crossing_a_multiple(period, increments):
    totals = list(itertools.accumulate(increments, initial=0))
    wanted = [b for a, b in itertools.pairwise(totals) if b // period > a // period]
    assert firings(updates.periodic(period), increments) == wanted


def test_a_counter_that_wraps_goes_on_firing():
    state = updates.target.init(updates.periodic(4), jnp.zeros(()))
    state = state._replace(count=jnp.asarray(2**32 - 2, jnp.uint32))
    seen = []
    for online in range(1, 9):
        state = updates.target.update(updates.periodic(4), jnp.float32(online), state)
        seen.append(float(state.params))
    assert seen == [0, 2, 2, 2, 2, 6, 6, 6]


def test_the_cosine_is_byols():
    base, total = 0.996, 50
    for step in range(total + 5):
        k = min(step, total)
        decay = 1 - (1 - base) * (math.cos(math.pi * k / total) + 1) / 2
        rule = updates.incremental_cosine(1 - base, horizon=total)
        assert float(updates.step_size_at(rule, step)) == pytest.approx(1 - decay, abs=1e-7)
