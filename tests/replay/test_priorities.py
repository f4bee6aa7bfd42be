"""Prioritized draws against exact probabilities, and priorities against a record of every step's."""

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyak.replay import ReplayState, Step, check_valid, sum_tree
from replay_record import (
    Record,
    assert_as_recorded,
    assert_drawable,
    draw,
    filled,
    make,
    random_ends,
    replay_of,
)

Id = tuple[int, int, int]


class Priorities:
    """What the priority of every step must be, by the step's (environment, episode, step)."""

    def __init__(self) -> None:
        self.of: dict[Id, float] = {}
        self.largest = 1.0
        self.drawn: dict[int, Id] = {}  # Sample.rows to the step, for ever

    def added(self, step: Step, stepped: np.ndarray) -> None:
        self.of |= {tuple(obs): self.largest for obs in step.obs_tm1[stepped].tolist()}

    def update(self, rows: np.ndarray, priorities: np.ndarray, exponent: float, alive: set[Id]) -> None:
        for row, priority in zip(rows.reshape(-1).tolist(), priorities.reshape(-1).tolist(), strict=True):
            if self.drawn[row] in alive:
                self.of[self.drawn[row]] = priority**exponent
                self.largest = max(self.largest, priority**exponent)


def check_all(record: Record, expected: Priorities, state: ReplayState) -> None:
    """Every live step has its priority, and nothing else has one."""
    check_valid(state)
    starts = np.flatnonzero(~state.boundary)
    steps = [tuple(obs) for obs in state.observation[starts].tolist()]
    assert set(steps) == record.alive(len(state.boundary) // len(state.head))
    # A NumPy power and a Python power may differ in the last bit.
    np.testing.assert_allclose(state.priorities.leaves[starts], [expected.of[step] for step in steps], rtol=1e-15)
    np.testing.assert_allclose(state.largest_priority, expected.largest, rtol=1e-15)


def checked_draw(
    record: Record, expected: Priorities, state: ReplayState, generator: np.random.Generator, **more: Any
) -> Any:
    """A draw of which every field agrees with the record, and every weight with the priorities."""
    n, exponent = int(generator.integers(1, len(state.boundary) // len(state.head))), float(generator.random())
    drawn = draw(generator, state, 4, n, 0.9, importance_exponent=exponent, **more)
    assert assert_as_recorded(record, drawn.transition, n, 0.9) <= record.alive(len(state.boundary) // len(state.head))
    steps = [tuple(obs) for obs in drawn.transition.obs_tm1.reshape(-1, 3).tolist()]
    for row, step in zip(drawn.rows.reshape(-1).tolist(), steps, strict=True):
        assert expected.drawn.setdefault(row, step) == step
    priorities = np.array([expected.of[step] for step in steps]).reshape(drawn.rows.shape)
    if any(expected.of[step] for step in record.alive(len(state.boundary) // len(state.head))):
        assert (priorities > 0).all()
        with_largest = priorities.min(axis=-1, keepdims=True)
        np.testing.assert_allclose(drawn.weights, (with_largest / priorities) ** exponent, rtol=1e-6)
    else:
        assert (drawn.weights == 1).all()
    assert drawn.weights.dtype == np.float32
    assert drawn.rows.dtype == np.int64
    return drawn


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    num_envs=st.integers(1, 3),
    per_lane=st.integers(1, 8),
    seed=st.integers(0, 2**16),
    events=st.lists(
        st.tuples(st.sampled_from(["go", "end", "some", "restart", "draw", "update", "update"]), st.integers(0, 7)),
        max_size=60,
    ),
)
def test_any_order_of_steps_draws_and_updates(
    num_envs: int, per_lane: int, seed: int, events: list[tuple[str, int]]
) -> None:
    generator = np.random.default_rng(seed)
    record, expected, seen = Record(num_envs), Priorities(), []
    replay = make(num_envs=num_envs, capacity=num_envs * per_lane, priority_exponent=1.0)
    state = replay.init()
    for kind, mask in events:
        lanes = np.array([mask >> env & 1 for env in range(num_envs)], np.bool_)
        if kind == "restart":
            record.end(lanes)
            state = replay.end_episode(state, lanes)
        elif kind in ("go", "end", "some"):
            stepped = lanes if kind == "some" else np.ones_like(lanes)
            last = lanes if kind == "end" else np.zeros_like(lanes)
            step = record.add(last, generator.random(num_envs) < 0.5, stepped)
            expected.added(step, stepped)
            state = replay.add(state, step, stepped if kind == "some" else None)
        elif kind == "draw" and state.num_valid.any():
            drawn = checked_draw(record, expected, state, generator, num_batches=[None, 1, 3][mask % 3])
            seen.append(drawn.rows)
        elif kind == "update" and seen:
            rows = seen[int(generator.integers(len(seen)))]  # it may be of long ago, and some of it overwritten
            priorities = generator.choice([0.0, 0.1, 1.0, 3.0], rows.shape)
            exponent = float(generator.choice([0.0, 0.5, 1.0]))
            expected.update(rows, priorities, exponent, record.alive(per_lane + 1))
            state = replay_of(state, priority_exponent=exponent).update_priorities(state, rows, priorities)
        check_all(record, expected, state)


@pytest.mark.parametrize(("num_envs", "per_lane"), [(1, 5), pytest.param(3, 4, marks=pytest.mark.slow)])
def test_thousands_of_wraps(num_envs: int, per_lane: int) -> None:
    generator = np.random.default_rng(num_envs)
    record, expected, late = Record(num_envs), Priorities(), []
    replay = make(num_envs=num_envs, capacity=num_envs * per_lane, priority_exponent=1.0)
    state = replay.init()
    everyone = np.ones(num_envs, np.bool_)
    for i in range(10_000):
        step = record.add(*random_ends(generator, num_envs, 0.2))
        expected.added(step, everyone)
        state = replay.add(state, step)
        if i % 11 == 0 and state.num_valid.any():
            late.append(checked_draw(record, expected, state, generator).rows)
            rows, priorities = late[-min(len(late), 1 + i % 2)], generator.exponential(size=4)
            expected.update(rows, priorities, 1.0, record.alive(per_lane + 1))
            state = replay.update_priorities(state, rows, priorities)
        if i % 97 == 0:
            check_all(record, expected, state)
    assert (state.written > 1900 * (per_lane + 1)).all()


def with_priorities(num_envs: int = 3, seed: int = 0, **filling: Any) -> tuple[Record, ReplayState, np.ndarray]:
    """A replay whose steps all have another priority, some of them 0; and the probability of every row."""
    record, _, state = filled(num_envs, 30 * num_envs, 80, priority_exponent=1.0, seed=seed, **filling)
    starts = np.flatnonzero(~state.boundary)
    generator = np.random.default_rng(seed)
    priorities = np.where(generator.random(len(starts)) < 0.2, 0.0, generator.exponential(size=len(starts)))
    state = replay_of(state, priority_exponent=0.7).update_priorities(state, state.writing[starts], priorities)
    check_valid(state)
    exact = np.zeros(len(state.boundary))
    exact[starts] = priorities**0.7
    return record, state, exact / exact.sum()


@pytest.mark.parametrize("num_batches", [None, 4000], ids=["stratified", "each alone"])
def test_frequencies_are_the_probabilities(num_batches: int | None) -> None:
    _, state, exact = with_priorities()
    size = 4000 if num_batches is None else 1
    draws = [draw(s, state, size, num_batches=num_batches).rows.reshape(-1) for s in range(20)]
    counts = np.bincount(np.concatenate(draws) % len(exact), minlength=len(exact))
    likely = exact > 0
    assert counts[~likely].sum() == 0
    expected, freedom = counts.sum() * exact[likely], likely.sum() - 1
    statistic = ((counts[likely] - expected) ** 2 / expected).sum()
    # Chi-square has mean `freedom` and variance 2 * freedom where draws are independent; slices make it smaller.
    bound = 4 * np.sqrt(2 * freedom)
    assert statistic < freedom + bound if num_batches is None else abs(statistic - freedom) < bound
    # Even in a single batch of slices no step is drawn more than once too often or too seldom.
    once = np.bincount(draws[0] % len(exact), minlength=len(exact))
    assert num_batches or (np.abs(once - 4000 * exact) < 2).all()


def test_new_steps_are_drawn_like_the_most_surprising_one() -> None:
    record, replay, state = filled(1, 10, 3, end=0.0, priority_exponent=1.0)
    assert state.priorities.leaves[:3].tolist() == [1.0, 1.0, 1.0]
    state = replay_of(state, priority_exponent=0.5).update_priorities(state, np.array([0]), np.array([9.0]))
    state = replay.update_priorities(state, np.array([0]), np.array([0.5]))
    state = replay.add(state, record.add(np.array([False]), np.array([False])))
    assert state.priorities.leaves[:5].tolist() == [0.5, 1.0, 1.0, 3.0, 0.0]
    assert float(state.largest_priority) == 3.0


def test_weights_by_hand() -> None:
    _, replay, state = filled(1, 10, 3, end=0.0, priority_exponent=1.0)
    state = replay.update_priorities(state, np.array([0, 1, 2]), np.array([1.0, 2.0, 5.0]))
    # P = 1/8, 2/8, 5/8 of N = 3 steps; N * P = 0.375, 0.75, 1.875; the slices [0, 1), .., [7, 8) hit each in turn.
    drawn = draw(0, state, 8, importance_exponent=1.0)
    assert drawn.rows.tolist() == [0, 1, 1, 2, 2, 2, 2, 2]
    np.testing.assert_allclose(drawn.weights, [1.0, 0.5, 0.5, 0.2, 0.2, 0.2, 0.2, 0.2], rtol=1e-7)
    half = draw(0, state, 8, importance_exponent=0.5).weights
    np.testing.assert_allclose(half[[0, 1, 3]], [1.0, 0.75**-0.5 / 0.375**-0.5, 1.875**-0.5 / 0.375**-0.5], rtol=1e-6)
    assert draw(0, state, 8).weights.tolist() == [1.0] * 8
    # Each batch by its own largest. Of two slices the first holds 1, 2 and a fifth of 5, the second the rest of 5.
    several = draw(0, state, 2, num_batches=40, importance_exponent=1.0)
    assert (several.weights.max(axis=-1) == 1).all()
    assert {0.2, 0.4, 1.0} == {round(float(weight), 6) for weight in several.weights.reshape(-1)}


def test_an_exponent_of_0_is_uniform() -> None:
    _, _, state = filled(1, 10, 4, end=0.0, priority_exponent=1.0)
    state = replay_of(state, priority_exponent=0.0).update_priorities(
        state, np.arange(4), np.array([0.0, 1e-9, 3.0, 1e9])
    )
    assert state.priorities.leaves[:5].tolist() == [1.0, 1.0, 1.0, 1.0, 0.0]
    assert float(state.largest_priority) == 1.0


def test_where_all_priorities_are_0_draws_are_uniform() -> None:
    record, replay, state = filled(2, 20, 12, priority_exponent=1.0)
    starts = np.flatnonzero(~state.boundary)
    state = replay.update_priorities(state, state.writing[starts], np.zeros(len(starts)))
    drawn = draw(0, state, 5000, importance_exponent=0.7, num_batches=2)
    assert_as_recorded(record, drawn.transition, 1, 0.99)
    assert (drawn.weights == 1).all()
    counts = np.bincount(drawn.rows.reshape(-1) % len(state.boundary), minlength=len(state.boundary))
    assert set(np.flatnonzero(counts)) == set(starts)
    expected, freedom = 10_000 / len(starts), len(starts) - 1
    statistic = ((counts[starts] - expected) ** 2 / expected).sum()
    assert abs(statistic - freedom) < 4 * np.sqrt(2 * freedom)
    # What is drawn so can be given a priority again.
    state = replay.update_priorities(state, drawn.rows[0, :1], np.array([2.0]))
    assert (draw(0, state, 9).rows == drawn.rows[0, 0]).all()


def test_steps_that_were_overwritten_are_passed_over() -> None:
    record, replay, state = filled(1, 4, 4, end=0.0, priority_exponent=1.0)
    rows = np.arange(4)
    for _ in range(2):  # rows 4 and 0 become starts, row 1 the head
        state = replay.add(state, record.add(np.array([False]), np.array([False])))
    state = replay.update_priorities(state, rows, np.array([7.0, 8.0, 2.0, 3.0]))
    assert state.priorities.leaves[:5].tolist() == [1.0, 0.0, 2.0, 3.0, 1.0]
    assert float(state.largest_priority) == 3.0  # nor do they count for it
    state = replay.end_episode(state, np.array([True]))  # row 2 becomes the head
    state = replay.update_priorities(state, rows, np.full(4, 0.5))
    assert state.priorities.leaves[:5].tolist() == [1.0, 0.0, 0.0, 0.5, 1.0]
    # The rows drawn now tell the second writing of row 0 from the first.
    assert set(draw(0, state, 99).rows.tolist()) == {5, 3, 4}
    check_valid(state)


def test_of_a_step_that_was_drawn_twice_the_last_priority_counts() -> None:
    _, replay, state = filled(1, 10, 3, end=0.0, priority_exponent=1.0)
    state = replay.update_priorities(
        state, np.array([[1, 0, 1], [2, 1, 0]]), np.array([[9.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    )
    assert state.priorities.leaves[:3].tolist() == [6.0, 5.0, 4.0]


def test_a_priority_may_come_as_the_learner_has_it() -> None:
    _, replay, state = filled(1, 10, 3, end=0.0, priority_exponent=1.0)
    state = replay.update_priorities(state, jax.numpy.array([0, 2]), jax.numpy.array([0.25, 4.0]))
    assert state.priorities.leaves[:3].tolist() == [0.25, 1.0, 4.0]
    before = jax.tree.map(np.copy, state)
    state = replay.update_priorities(state, np.zeros((0, 3), np.int64), np.zeros((0, 3)))
    jax.tree.map(np.testing.assert_array_equal, before, state)


def test_several_batches_have_a_draw_in_every_slice() -> None:
    record, state, exact = with_priorities()
    drawn = draw(4, state, 6, 3, num_batches=50)
    assert drawn.rows.shape == drawn.weights.shape == (50, 6)
    assert_as_recorded(record, drawn.transition, 3, 0.99)
    reached = exact.cumsum()[drawn.rows % len(exact)] * 6
    assert (np.floor(reached - exact[drawn.rows % len(exact)] * 6 - 1e-9) <= np.arange(6)).all()
    assert (reached > np.arange(6)).all()


def test_draws_of_one_key_are_equal_and_fresh() -> None:
    _, state, _ = with_priorities()
    first, second = draw(6, state, 32), draw(7, state, 32)
    before = jax.tree.map(np.copy, state)
    jax.tree.map(np.testing.assert_array_equal, first, draw(6, state, 32))
    assert (first.rows != second.rows).any()
    jax.tree.map(np.testing.assert_array_equal, before, state)
    assert not any(np.shares_memory(a, b) for a in jax.tree.leaves(first) for b in jax.tree.leaves(state))


def test_a_prioritized_replay_goes_through_a_pytree_and_goes_on_equally() -> None:
    record, state, _ = with_priorities()
    replay = replay_of(state)
    leaves, structure = jax.tree.flatten(state)
    assert all(type(leaf) is np.ndarray for leaf in leaves)
    restored = jax.tree.unflatten(structure, [leaf.copy() for leaf in leaves])
    step = record.add(np.array([True, False, False]), np.zeros(3, np.bool_))
    state, restored = replay.add(state, step), replay.add(restored, step)
    drawn = [draw(1, each, 32) for each in (state, restored)]
    jax.tree.map(np.testing.assert_array_equal, *drawn)
    jax.tree.map(np.testing.assert_array_equal, state, restored)


def test_a_uniform_replay_draws_as_before_whatever_the_importance_exponent() -> None:
    _, _, state = filled(2, 40, 60)
    assert state.priorities == state.largest_priority == state.writing == ()
    plain, weighed = (draw(0, state, 9, importance_exponent=exponent) for exponent in (0.0, 1.0))
    jax.tree.map(np.testing.assert_array_equal, plain, weighed)
    assert (plain.rows < len(state.boundary)).all()


def test_priorities_change_nothing_but_the_draw() -> None:
    record, state, _ = with_priorities()
    assert_drawable(record, state, n=4, discount=0.9)
    _, _, plain = filled(3, 90, 80)
    for field in ReplayState._fields[:10]:
        jax.tree.map(np.testing.assert_array_equal, getattr(plain, field), getattr(state, field))


# --- Refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "priorities", "exponent", "error", "message"),
    [
        ([0, 1], [1.0, -0.1], 1.0, ValueError, r"^priorities\[1\]: got -0.1; expected a finite number from 0"),
        ([[0, 1], [2, 0]], [[1, 1], [np.nan, 1]], 1.0, ValueError, r"^priorities\[1, 0\]: got nan"),
        ([0, 1], [np.inf, 1.0], 0.5, ValueError, r"^priorities\[0\]: got inf"),
        ([0, 1], [1.0, 1.7e308], 0.5, ValueError, r"^priorities\[1\]: got 1.7e\+308; .* to 1.6e\+307"),
        (0, -1.0, 0.5, ValueError, r"^priorities\[\]: got -1.0"),
        ([0, 1], [1.0], 0.5, ValueError, r"^priorities: got shape \(1,\); expected \(2,\)"),
        ([0.0, 1.0], [1.0, 1.0], 0.5, TypeError, r"^rows: got dtype float64; expected int64"),
        ([0, 1], [1.0, 1.0], 1.1, ValueError, r"^priority_exponent: got 1.1; expected a number in \[0, 1\]"),
        ([0, 1], [1.0, 1.0], float("nan"), ValueError, r"^priority_exponent: got nan"),
    ],
)
def test_priorities_that_cannot_be(rows: Any, priorities: Any, exponent: Any, error: type, message: str) -> None:
    _, _, state = filled(1, 10, 3, end=0.0, priority_exponent=1.0)
    before = jax.tree.map(np.copy, state)
    with pytest.raises(error, match=message):
        replay_of(state, priority_exponent=exponent).update_priorities(state, np.array(rows), np.array(priorities))
    jax.tree.map(np.testing.assert_array_equal, before, state)


def test_a_uniform_replay_has_no_priorities() -> None:
    _, replay, state = filled(1, 10, 3)
    with pytest.raises(
        ValueError, match=r"^state: got a replay without priorities; .*priority_exponent, for example 1\.0"
    ):
        replay.update_priorities(state, np.array([0]), np.array([1.0]))


@pytest.mark.parametrize("prioritized", [False, True])
def test_importance_exponent_is_in_the_unit_interval(prioritized: bool) -> None:
    _, _, state = filled(1, 10, 3, priority_exponent=1.0 if prioritized else None)
    with pytest.raises(ValueError, match=r"^importance_exponent: got 1.5; expected a number in \[0, 1\]"):
        draw(0, state, 4, importance_exponent=1.5)


def test_an_empty_prioritized_replay_says_to_add_steps() -> None:
    with pytest.raises(ValueError, match="Add steps first"):
        draw(0, make(num_envs=2, capacity=10, priority_exponent=1.0).init(), 4)


def broken_leaf(state: ReplayState, index: int, value: float) -> None:
    state.priorities.leaves[index] = value


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda state: broken_leaf(state, 0, -1.0), "a priority is negative or not finite"),
        (lambda state: broken_leaf(state, 0, np.nan), "a priority is negative or not finite"),
        (lambda state: broken_leaf(state, 4, 1.0), "a boundary has a priority"),
        (lambda state: broken_leaf(state, 15, 1.0), "a boundary has a priority"),
        (lambda state: broken_leaf(state, 0, 2.0), "largest_priority is not the largest"),
        (lambda state: broken_leaf(state, 0, 0.5), "a sum of priorities is not that of its parts"),
        (lambda state: sum_tree.assign(state.priorities, 0, 0.5), None),
        (lambda state: state.writing.__setitem__(2, 13), "writing is not as written"),
    ],
)
def test_broken_priorities_are_told(damage: Any, message: str | None) -> None:
    _, _, state = filled(1, 10, 4, end=0.0, priority_exponent=1.0)
    draw(0, state, 4)
    check_valid(state)
    damage(state)
    if message is None:  # told as stale, and so not broken
        check_valid(state)
    else:
        with pytest.raises(AssertionError, match=message):
            check_valid(state)
