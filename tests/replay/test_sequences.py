"""Sequences against a record of episodes."""

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyak.replay import Replay, ReplayState, Sample, Step, _walk, check_valid, sum_tree
from replay_record import (
    SPEC,
    Record,
    action_of,
    assert_drawable,
    assert_stacks,
    draw,
    filled,
    framed,
    legal_at,
    make,
    plain,
    random_ends,
    reward_of,
    rows_kept,
)

Id = tuple[int, int, int]
FRAME = jax.ShapeDtypeStruct((1, 3), np.int32)


def store(num_envs: int, per_lane: int, period: int, stack: int = 1, **options: Any) -> Replay:
    given = {"num_envs": num_envs, "capacity": num_envs * per_lane, "stack": stack, "sequence_period": period}
    return make(FRAME if stack > 1 else SPEC, **{"sequence_length": 1} | given | options)


def draw_sequences(
    source: int | np.random.Generator, state: ReplayState, batch_size: int, length: int, discount: float, **more: Any
) -> Sample:
    return draw(source, state, batch_size, 1, discount, sequence_length=length, **more)


def fitting(step: Step, state: ReplayState) -> Step:
    return framed(step) if len(state.lags) else step


def eligible(record: Record, state: ReplayState) -> set[Id]:
    return {step for step in record.alive(rows_kept(state)) if step[2] % int(state.sequence_period) == 0}


def assert_as_recorded(record: Record, state: ReplayState, sequence: Any, length: int, discount: float) -> list[Id]:
    """Compares every field of every sequence, step by step; returns the steps they start with."""
    obs = assert_stacks(sequence.obs, len(state.lags)) if len(state.lags) else sequence.obs
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[sequence.first.ndim :]), sequence._replace(obs=obs))
    starts = [tuple(start) for start in flat.obs[:, 0].tolist()]
    for index, (env, episode, t) in enumerate(starts):
        lived = record.lanes[env][episode]
        k = min(length, lived.steps - t)
        assert k >= 1
        seen = [(env, episode, t + min(i, k)) for i in range(length + 1)]
        padding = [0] * (length - k)
        ends = [0.0 if lived.terminated and t + i + 1 == lived.steps else np.float32(discount) for i in range(k)]
        assert [tuple(row) for row in flat.obs[index].tolist()] == seen
        assert flat.a_tm1[index].tolist() == [action_of(*step) for step in seen[:k]] + padding
        assert flat.r_t[index].tolist() == [reward_of(*step) for step in seen[:k]] + padding
        assert flat.discount_t[index].tolist() == ends + padding
        assert flat.valid[index].tolist() == [True] * k + [False] * (length - k)
        assert flat.first[index] == (t == 0)
        assert flat.complete[index] == (k == length or episode < len(record.lanes[env]) - 1)
        assert flat.extras["memory"][index].tolist() == [episode, t]
        assert flat.extras["mask"][index] == (t % 2 == 0)
        assert flat.action_mask[index].tolist() == [legal_at(*step) for step in seen]
    return starts


def assert_sequences(record: Record, state: ReplayState, length: int, discount: float) -> None:
    """Every start of a sequence, gathered: just those of the record, each once, all fields right."""
    rows = np.flatnonzero(state.sequence_start)
    starts = assert_as_recorded(record, state, _walk.sequences(state, rows, length, 1, discount), length, discount)
    assert len(starts) == len(set(starts))
    assert set(starts) == eligible(record, state)


@pytest.mark.parametrize(
    ("num_envs", "per_lane", "period", "stack", "end"),
    [
        (1, 1, 1, 1, 0.3),
        (1, 8, 2, 1, 0.1),
        (1, 20, 5, 4, 0.05),
        (2, 6, 3, 3, 0.3),
        (3, 7, 4, 1, 0.0),
        (3, 5, 1, 2, 1.0),
    ],
)
@pytest.mark.parametrize("prioritized", [False, True])
def test_what_can_be_drawn_is_what_the_record_holds(
    num_envs: int, per_lane: int, period: int, stack: int, end: float, prioritized: bool
) -> None:
    generator = np.random.default_rng(num_envs + per_lane)
    record, replay = (
        Record(num_envs),
        store(num_envs, per_lane, period, stack, priority_exponent=1.0 if prioritized else None),
    )
    state = replay.init()
    for _ in range(100):
        state = replay.add(state, fitting(record.add(*random_ends(generator, num_envs, end)), state))
        check_valid(state)
        length, discount = int(generator.integers(1, per_lane + 1)), float(generator.choice([0.0, 0.99, 1.0]))
        assert_sequences(record, state, length, discount)
        assert_drawable(record, state, length, discount)
        if eligible(record, state):
            drawn = draw_sequences(generator, state, 3, length, discount, num_batches=2)
            starts = assert_as_recorded(record, state, drawn.transition, length, discount)
            assert set(starts) <= eligible(record, state)
            assert drawn.weights.shape == drawn.rows.shape == drawn.transition.first.shape == (2, 3)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    num_envs=st.integers(1, 3),
    per_lane=st.integers(1, 8),
    period=st.integers(1, 4),
    stack=st.integers(1, 3),
    length=st.integers(1, 8),
    prioritized=st.booleans(),
    events=st.lists(
        st.tuples(
            st.sampled_from(["go", "go", "end", "some", "restart", "draw"]), st.integers(0, 7), st.integers(0, 7)
        ),
        max_size=50,
    ),
)
def test_any_order_of_steps_ends_restarts_and_draws(
    num_envs: int,
    per_lane: int,
    period: int,
    stack: int,
    length: int,
    prioritized: bool,
    events: list[tuple[str, int, int]],
) -> None:
    generator = np.random.default_rng(0)
    record, replay = (
        Record(num_envs),
        store(num_envs, per_lane, period, stack, priority_exponent=1.0 if prioritized else None),
    )
    state = replay.init()
    length, priorities = min(length, per_lane), {}
    for kind, mask, ended in events:
        lanes, last = (np.array([bits >> env & 1 for env in range(num_envs)], np.bool_) for bits in (mask, ended))
        if kind == "restart":
            record.end(lanes)
            state = replay.end_episode(state, lanes)
        elif kind == "draw":
            if not eligible(record, state):
                continue
            drawn = draw_sequences(generator, state, 4, length, 0.9, importance_exponent=0.5)
            starts = assert_as_recorded(record, state, drawn.transition, length, 0.9)
            if prioritized:
                new = generator.choice([0.0, 0.5, 0.7], 4)
                priorities |= dict(zip(starts, new.tolist(), strict=True))
                state = replay.update_priorities(state, drawn.rows, new)
        else:
            stepped = lanes if kind == "some" else np.ones_like(lanes)
            last = np.zeros_like(last) if kind == "go" else last
            state = replay.add(state, fitting(record.add(last, ~lanes, stepped), state), stepped)
        check_valid(state)
        assert_sequences(record, state, length, 0.9)
        if prioritized:
            rows = np.flatnonzero(state.priorities.leaves[: len(state.boundary)])
            kept = state.observation[rows].reshape(-1, 3).tolist()
            found = dict(zip(map(tuple, kept), state.priorities.leaves[rows].tolist(), strict=True))
            expected = {step: priorities.get(step, 1.0) for step in eligible(record, state)}
            assert found == {step: priority for step, priority in expected.items() if priority}


def test_thousands_of_wraps() -> None:
    generator = np.random.default_rng(0)
    record, replay = Record(2), store(2, 5, 3, 2, priority_exponent=1.0)
    state = replay.init()
    for i in range(6000):
        lanes = generator.random(2) < 0.7
        if i % 5 == 0:
            record.end(lanes)
            state = replay.end_episode(state, lanes)
        elif i % 2 == 0:
            state = replay.add(state, framed(record.add(*random_ends(generator, 2, 0.2), lanes)), lanes)
        else:
            state = replay.add(state, framed(record.add(*random_ends(generator, 2, 0.2))))
        if i % 29 == 0:
            check_valid(state)
            assert_sequences(record, state, 4, 0.9)
    assert (state.written > 700 * 7).all()


def test_by_hand() -> None:
    replay = plain(jax.ShapeDtypeStruct((), np.float32), num_envs=1, capacity=20, sequence_length=3, sequence_period=2)
    state = replay.init()
    for number in range(8):
        obs = np.float32(
            [number if number < 5 else number + 5]
        )  # an episode of 5 steps ends with 5, the next has 10, 11, 12
        last = np.array([number == 4])
        reward, continuation = np.float32([number + 1]), np.float32([number != 4])
        state = replay.add(state, Step(obs, np.int32([number]), reward, continuation, last, obs + 1))
    check_valid(state)
    found = _walk.sequences(state, np.flatnonzero(state.sequence_start), 3, 2, 0.5)
    # Starts at 0, 2 and 4 of the first episode, at 0 and 2 of the second, which goes on.
    assert found.obs.tolist() == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 5, 5], [10, 11, 12, 13], [12, 13, 13, 13]]
    assert found.r_t.tolist() == [[1, 2, 3], [3, 4, 5], [5, 0, 0], [6, 7, 8], [8, 0, 0]]
    assert found.a_tm1.tolist() == [[0, 1, 2], [2, 3, 4], [4, 0, 0], [5, 6, 7], [7, 0, 0]]
    half = [0.5, 0.5, 0.5]
    assert found.discount_t.tolist() == [half, [0.5, 0.5, 0.0], [0.0, 0.0, 0.0], half, [0.5, 0.0, 0.0]]
    assert found.valid.sum(axis=1).tolist() == [3, 3, 1, 3, 1]
    assert found.first.tolist() == [True, False, False, True, False]
    assert found.complete.tolist() == [True, True, True, True, False]
    assert found.extras == found.action_mask == ()
    # A closed episode starts anew: its next first step can start a sequence whatever came before.
    state = replay.end_episode(state, np.array([True]))
    state = replay.add(
        state, Step(np.float32([20]), np.int32([0]), reward, reward, np.array([False]), np.float32([21]))
    )
    assert state.observation[state.sequence_start].tolist() == [0, 2, 4, 10, 12, 20]


@pytest.mark.parametrize("prioritized", [False, True])
@pytest.mark.parametrize("zero", [False, True])
def test_draws_are_uniform_over_where_sequences_start(prioritized: bool, zero: bool) -> None:
    _, replay, state = filled(
        3, 90, 200, priority_exponent=1.0 if prioritized else None, sequence_length=2, sequence_period=3
    )
    starts = np.flatnonzero(state.sequence_start)
    if zero and prioritized:
        state = replay.update_priorities(state, state.writing[starts], np.zeros(len(starts)))
    drawn = draw_sequences(3, state, 1, 2, 0.9, num_batches=5000, importance_exponent=1.0)
    assert (drawn.weights == 1).all()
    counts = np.bincount(drawn.rows.reshape(-1) % len(state.boundary), minlength=len(state.boundary))
    assert counts[starts].sum() == 5000
    expected, freedom = 5000 / len(starts), len(starts) - 1
    statistic = ((counts[starts] - expected) ** 2 / expected).sum()
    assert abs(statistic - freedom) < 4 * np.sqrt(2 * freedom)
    assert len(starts) < replay.size(state)


def test_weights_of_sequences_by_hand() -> None:
    _, replay, state = filled(1, 10, 6, end=0.0, priority_exponent=1.0, sequence_length=2, sequence_period=2)
    assert state.priorities.leaves[:7].tolist() == [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0]
    state = replay.update_priorities(state, np.array([0, 2, 4]), np.array([1.0, 2.0, 5.0]))
    drawn = draw_sequences(0, state, 8, 2, 0.9, importance_exponent=1.0)
    assert drawn.rows.tolist() == [0, 2, 2, 4, 4, 4, 4, 4]
    np.testing.assert_allclose(drawn.weights, [1.0, 0.5, 0.5, 0.2, 0.2, 0.2, 0.2, 0.2], rtol=1e-7)


def test_dtypes_and_fresh_arrays() -> None:
    _, _, state = filled(2, 20, 50, sequence_length=2, sequence_period=2)
    drawn = draw_sequences(5, state, np.int64(4), np.int64(3), np.float32(0.5))
    sequence = drawn.transition
    assert sequence.obs.dtype == sequence.a_tm1.dtype == np.int32
    assert sequence.r_t.dtype == sequence.discount_t.dtype == drawn.weights.dtype == np.float32
    assert sequence.valid.dtype == sequence.first.dtype == np.bool_
    assert sequence.obs.shape == (4, 4, 3)
    assert sequence.action_mask.shape == (4, 4, 4)
    assert sequence.a_tm1.shape == sequence.r_t.shape == sequence.discount_t.shape == sequence.valid.shape == (4, 3)
    assert drawn.rows.dtype == np.int64
    for leaf in jax.tree.leaves(drawn):
        assert not any(np.shares_memory(leaf, stored) for stored in jax.tree.leaves(state))
        assert leaf.flags.writeable


def test_what_lies_in_a_boundary_row_never_reaches_a_sequence() -> None:
    record, _, state = filled(2, 20, 100, sequence_length=2, sequence_period=1)
    state.reward[state.boundary] = np.nan
    state.continuation[state.boundary] = np.nan
    assert_sequences(record, state, 5, 0.9)


@pytest.mark.parametrize("num_envs", [1, 3])
def test_what_is_counted_is_what_is_allocated(num_envs: int) -> None:
    for stack in (1, 4):
        replay = store(num_envs, 50, 5, stack)
        leaves = jax.tree.leaves(replay.init())
        assert replay.nbytes == (sum(leaf.nbytes for leaf in leaves), 0)
        assert all(type(leaf) is np.ndarray for leaf in leaves)


# --- Refused --------------------------------------------------------------------------------------------------------


def test_a_sequence_fits_into_a_lane() -> None:
    for stack, kept in ((1, 10), (3, 10)):
        replay = store(2, 10, 1, stack)
        state = replay.init()
        state = replay.add(state, fitting(Record(2).add(np.zeros(2, np.bool_), np.zeros(2, np.bool_)), state))
        draw_sequences(0, state, 4, kept, 0.9)
        message = rf"^sequence_length: got {kept + 1}; expected at most {kept}, .* larger capacity"
        with pytest.raises(ValueError, match=message):
            store(2, 10, 1, stack, sequence_length=kept + 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": -1}, r"^sequence_length: got -1; expected an integer >= 0"),
        ({"batch_size": 1.5}, r"^batch_size: got 1.5"),
        ({"num_batches": 0}, r"^num_batches: got 0"),
        ({"discount": 1.01}, r"^discount: got 1.01"),
        ({"importance_exponent": -0.1}, r"^importance_exponent: got -0.1"),
    ],
)
def test_arguments_out_of_their_range(change: dict[str, Any], message: str) -> None:
    _, _, state = filled(1, 10, 4, sequence_length=1)
    with pytest.raises(ValueError, match=message):
        draw_sequences(0, state, **({"batch_size": 4, "length": 2, "discount": 0.9} | change))


def test_returns_are_summed_within_a_sequence() -> None:
    _, _, state = filled(1, 10, 4, sequence_length=4)
    drawn = draw(0, state, 3, 4, num_batches=2, sequence_length=4).transition
    assert drawn.n_steps.tolist() == [[4, 4, 4]] * 2
    assert drawn.n_steps.dtype == np.int32
    with pytest.raises(ValueError, match=r"^n_steps: got 5; expected at most 4, the steps of a sequence.*larger seq"):
        draw(0, state, 3, 5, sequence_length=4)


@pytest.mark.parametrize("period", [-1, 0, 1.0, True, False, None])
def test_a_period_is_a_count(period: Any) -> None:
    with pytest.raises(ValueError, match=r"^sequence_period: got"):
        make(num_envs=1, capacity=10, sequence_length=2, sequence_period=period)


@pytest.mark.parametrize("prioritized", [False, True])
def test_without_sequences_there_is_none(prioritized: bool) -> None:
    exponent = 1.0 if prioritized else None
    with pytest.raises(ValueError, match=r"without sequences.*Add steps first"):
        draw_sequences(0, store(1, 10, 3, priority_exponent=exponent).init(), 4, 2, 0.9)
    options = {"priority_exponent": exponent, "sequence_length": 2, "sequence_period": 50}
    _, replay, state = filled(1, 4, 8, end=0.0, **options)  # the first steps are gone
    assert replay.size(state) == 4
    with pytest.raises(ValueError, match="without sequences"):
        draw_sequences(0, state, 4, 2, 0.9)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda state: state.sequence_start.__setitem__(1, True), "sequence_start is not every so many steps"),
        (lambda state: state.sequence_start.__setitem__(2, False), "sequence_start is not every so many steps"),
        (lambda state: state.episode_step.__setitem__(2, 4), "a row is not numbered after the one before"),
        (lambda state: sum_tree.assign(state.priorities, 1, 0.5), "a step that starts no sequence has a priority"),
    ],
)
def test_broken_sequences_are_told(damage: Any, message: str) -> None:
    _, _, state = filled(1, 10, 6, end=0.0, priority_exponent=1.0, sequence_length=2, sequence_period=2)
    check_valid(state)
    damage(state)
    with pytest.raises(AssertionError, match=message):
        check_valid(state)
