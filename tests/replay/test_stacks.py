"""Stacks of frames against a record of episodes, and against what is acted on."""

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyak.replay import Replay, Step, check_valid, stacking
from replay_record import (
    Record,
    assert_as_recorded,
    assert_drawable,
    assert_stacks,
    draw,
    framed,
    make,
    newest_of,
    plain,
    random_ends,
    rows_kept,
)

FRAME = jax.ShapeDtypeStruct((1, 3), np.int32)
CHANNEL = jax.ShapeDtypeStruct((1, 3, 1), np.int32)


def stacked(num_envs: int, per_lane: int, stack: int, channel: bool = False, **options: Any) -> Replay:
    spec = CHANNEL if channel else FRAME
    return make(spec, num_envs=num_envs, capacity=num_envs * per_lane, stack=stack, **options)


@pytest.mark.parametrize("channel", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("num_envs", "per_lane", "stack", "end"),
    [(1, 1, 2, 0.3), (1, 2, 4, 1.0), (1, 20, 4, 0.1), (2, 3, 3, 0.3), (3, 7, 2, 0.2), (3, 5, 4, 1.0), (2, 4, 6, 0.0)],
)
def test_what_can_be_drawn_is_what_the_record_holds(
    num_envs: int, per_lane: int, stack: int, end: float, channel: bool
) -> None:
    generator = np.random.default_rng(num_envs + per_lane)
    record, replay = Record(num_envs), stacked(num_envs, per_lane, stack, channel)
    state = replay.init()
    for _ in range(150):
        state = replay.add(state, framed(record.add(*random_ends(generator, num_envs, end)), channel))
        check_valid(state)
        n, discount = int(generator.integers(1, per_lane + 1)), float(generator.choice([0.0, 0.99, 1.0]))
        assert_drawable(record, state, n, discount)
        if replay.size(state):
            transition = newest_of(draw(generator, state, 8, n, discount, num_batches=2).transition, state)
            assert assert_as_recorded(record, transition, n, discount) <= record.alive(rows_kept(state))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    num_envs=st.integers(1, 3),
    per_lane=st.integers(1, 8),
    stack=st.integers(2, 5),
    n=st.integers(1, 8),
    prioritized=st.booleans(),
    events=st.lists(
        st.tuples(st.sampled_from(["go", "go", "end", "some", "restart", "draw"]), st.integers(0, 7)), max_size=50
    ),
)
def test_any_order_of_steps_ends_restarts_and_draws(
    num_envs: int, per_lane: int, stack: int, n: int, prioritized: bool, events: list[tuple[str, int]]
) -> None:
    generator = np.random.default_rng(0)
    record, replay = (
        Record(num_envs),
        stacked(num_envs, per_lane, stack, priority_exponent=1.0 if prioritized else None),
    )
    state = replay.init()
    drawn, n = {}, min(n, per_lane)
    for kind, mask in events:
        lanes = np.array([mask >> env & 1 for env in range(num_envs)], np.bool_)
        if kind == "restart":
            record.end(lanes)
            state = replay.end_episode(state, lanes)
        elif kind == "draw":
            if replay.size(state):
                batch = draw(generator, state, 4, n, importance_exponent=0.5)
                steps = assert_stacks(batch.transition.obs_tm1, stack).tolist()
                drawn |= dict(zip(batch.rows.tolist(), map(tuple, steps), strict=True)) if prioritized else {}
        else:
            stepped = lanes if kind == "some" else np.ones_like(lanes)
            last = lanes if kind == "end" else np.zeros_like(lanes)
            state = replay.add(state, framed(record.add(last, ~last, stepped)), stepped)
        check_valid(state)
        assert_drawable(record, state, n, 0.9)
        if drawn:  # the steps that were ever drawn and are still there get a priority, and no others
            state = replay.update_priorities(state, np.array(list(drawn)), np.full(len(drawn), 0.5))
            with_it = state.observation[np.flatnonzero(state.priorities.leaves[: len(state.boundary)] == 0.5), 0]
            assert {tuple(step) for step in with_it.tolist()} == set(drawn.values()) & record.alive(rows_kept(state))
            check_valid(state)


def test_thousands_of_wraps() -> None:
    generator = np.random.default_rng(0)
    record, replay = Record(2), stacked(2, 3, 4, priority_exponent=1.0)
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
            assert_drawable(record, state, n=2, discount=0.9)
    assert (state.written > 700 * 7).all()


@pytest.mark.parametrize("steps", [9, 10, 11, 14, 21, 22, 23, 40])
@pytest.mark.parametrize("num_envs", [1, 2])
def test_capacity_steps_of_an_endless_episode_fit(num_envs: int, steps: int) -> None:
    record, replay = Record(num_envs), stacked(num_envs, 10, 4)
    state = replay.init()
    never = np.zeros(num_envs, np.bool_)
    for _ in range(steps):
        state = replay.add(state, framed(record.add(never, never)))
    assert replay.size(state) == min(steps, 10) * num_envs
    assert_drawable(record, state, n=10, discount=0.9)
    with pytest.raises(ValueError, match="n_steps: got 11; expected at most 10"):
        draw(0, state, 4, 11)


def test_by_hand() -> None:
    replay = plain(jax.ShapeDtypeStruct((1, 1), np.uint8), num_envs=1, capacity=10, stack=3)
    state = replay.init()
    for number, last in ((1, False), (2, False), (3, True), (7, False)):  # 4 is the true last observation
        obs = np.full((1, 1, 1), number, np.uint8)
        one = np.ones(1, np.float32)
        state = replay.add(state, Step(obs, np.zeros(1, np.int32), one, one, np.array([last]), obs + np.uint8(1)))
    drawn = draw(0, state, 200, 2).transition
    stacks = zip(drawn.obs_tm1.reshape(-1, 3).tolist(), drawn.obs_t.reshape(-1, 3).tolist(), strict=True)
    pairs = {(tuple(obs_tm1), tuple(obs_t)) for obs_tm1, obs_t in stacks}
    assert pairs == {((1, 1, 1), (1, 2, 3)), ((1, 1, 2), (2, 3, 4)), ((1, 2, 3), (2, 3, 4)), ((7, 7, 7), (7, 7, 8))}
    assert drawn.obs_tm1.dtype == np.uint8
    assert drawn.obs_tm1.flags.writeable
    assert not any(np.shares_memory(obs, state.observation) for obs in (drawn.obs_tm1, drawn.obs_t))
    assert not np.shares_memory(drawn.obs_tm1, drawn.obs_t)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    num_envs=st.integers(1, 3),
    stack=st.integers(1, 5),
    channel=st.booleans(),
    ends=st.lists(st.integers(0, 7), min_size=1, max_size=20),
)
def test_what_is_acted_on_is_what_is_drawn(num_envs: int, stack: int, channel: bool, ends: list[int]) -> None:
    record = Record(num_envs)
    spec = CHANNEL if channel else FRAME
    frames = stacking.init(spec, num_envs, stack)
    assert frames.dtype == np.int32
    replay = make(spec, num_envs=num_envs, capacity=100, stack=stack)
    state = replay.init()
    acted, first = {}, np.ones(num_envs, np.bool_)
    for mask in ends:
        last = np.array([mask >> env & 1 for env in range(num_envs)], np.bool_)
        step = framed(record.add(last, last), channel)
        before, frames = frames, stacking.push(frames, step.obs_tm1, first)
        assert not np.shares_memory(before, frames)
        for observation, seen in zip(step.obs_tm1.reshape(-1, 3).tolist(), frames, strict=True):
            acted[tuple(observation)] = seen
        assert_stacks(frames, stack)
        state, first = replay.add(state, step), last
    drawn = draw(0, state, 64).transition
    if stack == 1:  # the replay keeps the shape of single observations
        drawn = drawn._replace(obs_tm1=drawn.obs_tm1.reshape(64, 1, 3, 1))
    for observation in drawn.obs_tm1:
        expected = acted[tuple(observation[0, :, -1].tolist())]
        np.testing.assert_array_equal(observation, expected)
        assert observation.dtype == expected.dtype


def test_stacks_go_on_from_any_layout() -> None:
    frames = stacking.init(FRAME, 2, 3)
    for number in range(5):
        frames = stacking.push(frames, np.full((2, 1, 3), number, np.int32), np.array([number == 0, number == 3]))
    again = np.ascontiguousarray(frames)
    newest = np.full((2, 1, 3), 9, np.int32)
    never = np.zeros(2, np.bool_)
    np.testing.assert_array_equal(stacking.push(frames, newest, never), stacking.push(again, newest, never))
    assert frames[:, 0, 0].tolist() == [[2, 3, 4], [3, 3, 4]]


def test_an_atari_step_takes_little_more_than_its_frame() -> None:
    frame = jax.ShapeDtypeStruct((84, 84), np.uint8)
    per_step = plain(frame, num_envs=1, capacity=1_000_000, stack=4, priority_exponent=1.0).nbytes.memory / 1_000_000
    assert 84 * 84 < per_step < 7_200


@pytest.mark.parametrize("num_envs", [1, 3])
def test_what_is_counted_is_what_is_allocated(num_envs: int) -> None:
    given = {"num_envs": num_envs, "capacity": 50, "stack": 4, "priority_exponent": 1.0}
    replay = make(CHANNEL, **given)
    leaves = jax.tree.leaves(replay.init())
    assert replay.nbytes.memory == sum(leaf.nbytes for leaf in leaves)
    assert all(type(leaf) is np.ndarray for leaf in leaves)


@pytest.mark.parametrize("shape", [(), (4,), (84, 84, 3), (84, 84, 4), (2, 84, 84, 1)])
def test_only_frames_are_stacked(shape: tuple[int, ...]) -> None:
    spec = jax.ShapeDtypeStruct(shape, np.uint8)
    message = r"^observation: got shape .*; expected one frame, \(H, W\) or \(H, W, 1\), for a stack of 4"
    with pytest.raises(ValueError, match=message):
        plain(spec, num_envs=1, capacity=10, stack=4)
    plain(spec, num_envs=1, capacity=10, stack=1)
    with pytest.raises(ValueError, match=message):
        stacking.init(spec, 1, 4)


@pytest.mark.parametrize("stack", [0, -1, 2.0, True, None])
def test_a_stack_is_a_count(stack: Any) -> None:
    with pytest.raises(ValueError, match=r"^stack: got"):
        plain(FRAME, num_envs=1, capacity=10, stack=stack)
    with pytest.raises(ValueError, match=r"^stack: got"):
        stacking.init(FRAME, 1, stack)


@pytest.mark.parametrize(
    ("observation", "error", "message"),
    [
        (np.zeros((2, 1, 4), np.int32), ValueError, r"^observation: got shape \(2, 1, 4\); expected \(2, 1, 3\)"),
        (np.zeros((1, 1, 3), np.int32), ValueError, r"^observation: got shape \(1, 1, 3\)"),
        (np.zeros((2, 1, 3, 2), np.int32), ValueError, r"^observation: got shape \(2, 1, 3, 2\)"),
        (np.zeros((2, 1, 3)), TypeError, r"^observation: got dtype float64; expected int32"),
        (3, TypeError, r"^observation: got 3; expected an array"),
    ],
)
def test_frames_that_do_not_fit(observation: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        stacking.push(stacking.init(FRAME, 2, 3), observation, np.zeros(2, np.bool_))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda state: state.episode_step.__setitem__(6, 7), "a row is not numbered after the one before"),
        (lambda state: (state.boundary.__setitem__(4, False), state.num_valid.__iadd__(1)), "history is overwritten"),
    ],
)
def test_a_broken_stack_is_told(damage: Any, message: str) -> None:
    record, replay = Record(1), stacked(1, 6, 3)
    state = replay.init()
    never = np.zeros(1, np.bool_)
    for _ in range(12):  # written 13 of 9 rows: the head is 3, and 4 and 5 are history
        state = replay.add(state, framed(record.add(never, never)))
    check_valid(state)
    damage(state)
    with pytest.raises(AssertionError, match=message):
        check_valid(state)
