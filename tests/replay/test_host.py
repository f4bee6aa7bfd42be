"""The host replay against a record of episodes in plain Python lists."""

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyak.replay import DrawNumbers, EnvironmentSpec, Step, _walk, check_valid, host
from replay_record import (
    Record,
    assert_as_recorded,
    assert_drawable,
    draw,
    filled,
    make,
    plain,
    random_ends,
)

SCALAR = jax.ShapeDtypeStruct((), np.float32)


def scalar_step(obs: list[float], reward: list[float], last: list[bool], discount: list[float]) -> Step:
    """One step of environments whose observation is a number that counts up."""
    observation = np.array(obs, np.float32)
    zeros = np.zeros(len(obs), np.int32)
    reward_t, discount_t = np.array(reward, np.float32), np.array(discount, np.float32)
    return Step(observation, zeros, reward_t, discount_t, np.array(last), observation + 1)


# --- Against the record ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_envs", "per_lane", "end"),
    [
        (1, 1, 0.3),
        (1, 2, 1.0),
        (1, 3, 0.5),
        (1, 20, 0.1),
        pytest.param(2, 3, 0.3, marks=pytest.mark.slow),
        (3, 7, 0.2),
        pytest.param(4, 12, 0.05, marks=pytest.mark.slow),
        pytest.param(3, 5, 1.0, marks=pytest.mark.slow),
        (2, 4, 0.0),
    ],
)
def test_what_can_be_drawn_is_what_the_record_holds(num_envs: int, per_lane: int, end: float) -> None:
    generator = np.random.default_rng(num_envs + per_lane)
    record, replay = Record(num_envs), make(num_envs=num_envs, capacity=num_envs * per_lane)
    state = replay.init()
    for _ in range(400):
        state = replay.add(state, record.add(*random_ends(generator, num_envs, end)))
        check_valid(state)
        n, discount = int(generator.integers(1, per_lane + 1)), float(generator.choice([0.0, 0.5, 0.99, 1.0]))
        assert_drawable(record, state, n, discount)
        if replay.size(state):
            drawn = draw(generator, state, 8, n, discount)
            starts = assert_as_recorded(record, drawn.transition, n, discount)
            assert starts <= record.alive(per_lane + 1)
            assert not state.boundary[drawn.rows].any()


def test_thousands_of_wraps() -> None:
    generator = np.random.default_rng(0)
    record, replay = Record(2), make(num_envs=2, capacity=6)
    state = replay.init()
    for i in range(10_000):
        state = replay.add(state, record.add(*random_ends(generator, 2, 0.3)))
        if i % 97 == 0:
            check_valid(state)
            assert_drawable(record, state, n=2, discount=0.9)
    assert (state.written > 2500 * 4).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    num_envs=st.integers(1, 3),
    per_lane=st.integers(1, 8),
    n=st.integers(1, 8),
    discount=st.sampled_from([0.0, 0.5, 0.997, 1.0]),
    events=st.lists(
        st.tuples(st.sampled_from(["go", "end", "restart"]), st.integers(0, 7), st.integers(0, 7)), max_size=40
    ),
)
def test_any_order_of_steps_ends_and_restarts(
    num_envs: int, per_lane: int, n: int, discount: float, events: list[tuple[str, int, int]]
) -> None:
    record, replay = Record(num_envs), make(num_envs=num_envs, capacity=num_envs * per_lane)
    state = replay.init()
    for kind, mask, terminated in events:
        lanes = np.array([mask >> env & 1 for env in range(num_envs)], np.bool_)
        if kind == "restart":
            record.end(lanes)
            state = replay.end_episode(state, lanes)
        else:
            last = lanes if kind == "end" else np.zeros_like(lanes)
            ends = np.array([terminated >> env & 1 for env in range(num_envs)], np.bool_)
            state = replay.add(state, record.add(last, ends))
        check_valid(state)
        assert_drawable(record, state, min(n, per_lane), discount)


@pytest.mark.parametrize("steps", [9, 10, 11, 21, 22, 23])
@pytest.mark.parametrize("num_envs", [1, 2])
def test_capacity_steps_of_an_endless_episode_fit(num_envs: int, steps: int) -> None:
    record, replay, state = filled(num_envs, 10 * num_envs, steps, end=0.0)
    check_valid(state)
    assert replay.size(state) == min(steps, 10) * num_envs
    assert_drawable(record, state, n=3, discount=0.9)


def test_capacity_is_rounded_up_to_lanes() -> None:
    assert make(num_envs=3, capacity=10).init().boundary.shape == (3 * (4 + 1),)


def test_each_episode_end_takes_a_row() -> None:
    # 5 + 1 rows: the open head, and of one-step episodes as many pairs (start, last observation) as fit.
    _, replay, state = filled(1, 5, 50, end=1.0)
    assert replay.size(state) == 2
    # With 1 + 1 rows a step that ends its episode is gone at once.
    _, replay, state = filled(1, 1, 5, end=1.0)
    with pytest.raises(ValueError, match="Add steps first"):
        draw(0, state, 4)


# --- By hand --------------------------------------------------------------------------------------------------------


def test_by_hand_truncation_bootstraps_and_termination_does_not() -> None:
    replay = plain(SCALAR, num_envs=2, capacity=20)
    state = replay.init()
    for t in range(3):
        last = [t == 2, t == 2]
        # Lane 0 terminates at its third step, lane 1 is truncated there.
        step = scalar_step([t, 100 + t], [1.0 + t, 10.0 + t], last, [0.0 if t == 2 else 1.0, 1.0])
        state = replay.add(state, step)
    state = replay.add(state, scalar_step([50, 150], [7.0, 70.0], [False, False], [1.0, 1.0]))
    check_valid(state)
    lane = 11
    assert np.flatnonzero(~state.boundary).tolist() == [0, 1, 2, 4, lane, lane + 1, lane + 2, lane + 4]

    terminates = _walk.transitions(state, np.array([0, 1, 2, 4]), 2, 0.5)
    assert terminates.r_t.tolist() == [1.0 + 0.5 * 2.0, 2.0 + 0.5 * 3.0, 3.0, 7.0]
    assert terminates.discount_t.tolist() == [0.25, 0.0, 0.0, 0.5]
    assert terminates.obs_t.tolist() == [2.0, 3.0, 3.0, 51.0]  # the last is cut at the newest step

    truncates = _walk.transitions(state, np.array([0, 1, 2, 4]) + lane, 2, 0.5)
    assert truncates.discount_t.tolist() == [0.25, 0.25, 0.5, 0.5]
    assert truncates.obs_t.tolist() == [102.0, 103.0, 103.0, 151.0]


def test_one_step_keeps_rewards_and_discounts_to_the_bit() -> None:
    replay = plain(SCALAR, num_envs=1, capacity=100)
    state = replay.init()
    rewards = np.random.default_rng(1).normal(size=50).astype(np.float32)
    for t, reward in enumerate(rewards):
        state = replay.add(state, scalar_step([t], [reward], [t % 7 == 6], [float(t % 7 != 6)]))
    drawn = draw(2, state, 500, discount=0.997).transition
    t = drawn.obs_tm1.astype(int)
    np.testing.assert_array_equal(drawn.r_t, rewards[t])
    np.testing.assert_array_equal(drawn.discount_t, np.where(t % 7 == 6, 0, np.float32(0.997)))
    np.testing.assert_array_equal(drawn.obs_t, drawn.obs_tm1 + 1)


def test_the_walk_over_n_steps_at_one_is_the_fast_path() -> None:
    _, _, state = filled(3, 30, 100)
    rows = np.flatnonzero(~state.boundary)
    for fast, walked in zip(_walk.one_step(state, rows, 0.99), _walk.n_step(state, rows, 1, 0.99), strict=True):
        np.testing.assert_array_equal(fast, walked)
        assert fast.dtype == walked.dtype


def test_what_lies_in_a_boundary_row_never_reaches_a_window() -> None:
    record, _, state = filled(2, 20, 100)
    state.reward[state.boundary] = np.nan
    state.continuation[state.boundary] = np.nan
    assert_drawable(record, state, n=5, discount=0.9)


def test_restarted_environment_keeps_its_true_last_observation() -> None:
    replay = plain(SCALAR, num_envs=2, capacity=20)
    state = replay.init()
    state = replay.add(state, scalar_step([0, 10], [1.0, 1.0], [False, False], [1.0, 1.0]))
    state = replay.end_episode(state, np.array([True, False]))
    state = replay.add(state, scalar_step([90, 11], [5.0, 5.0], [False, False], [1.0, 1.0]))
    check_valid(state)
    drawn = _walk.transitions(state, np.flatnonzero(~state.boundary), 2, 1.0)
    assert drawn.obs_tm1.tolist() == [0.0, 90.0, 10.0, 11.0]
    assert drawn.obs_t.tolist() == [1.0, 91.0, 12.0, 12.0]
    assert drawn.r_t.tolist() == [1.0, 5.0, 6.0, 5.0]
    assert drawn.discount_t.tolist() == [1.0] * 4  # as a truncation does, it bootstraps


def test_lanes_that_were_not_stepped_keep_their_masks() -> None:
    replay = host.make(EnvironmentSpec(SCALAR, 3, action_mask=True), num_envs=2, capacity=8, batch_size=4)
    state = replay.init()
    legal = np.eye(3, dtype=np.bool_)

    def masked(t: int, last: list[bool]) -> Step:
        step = scalar_step([t, 10 + t], [1.0, 1.0], last, [1.0, 1.0])
        return step._replace(action_mask_tm1=legal[[t % 3, t % 3]], action_mask_t=legal[[(t + 1) % 3, (t + 1) % 3]])

    state = replay.add(state, masked(0, [True, False]))
    state = replay.add(state, masked(1, [False, False]), np.array([False, True]))
    state = replay.add(state, masked(2, [False, True]))
    state = replay.add(state, masked(3, [False, False]), np.array([True, False]))
    check_valid(state)
    drawn = _walk.transitions(state, np.flatnonzero(~state.boundary), 1, 1.0)
    assert drawn.obs_tm1.tolist() == [0.0, 2.0, 3.0, 10.0, 11.0, 12.0]
    assert drawn.action_mask_tm1.argmax(axis=1).tolist() == [0, 2, 0, 0, 1, 2]
    assert drawn.action_mask_t.argmax(axis=1).tolist() == [1, 0, 1, 1, 2, 0]
    assert (drawn.action_mask_tm1.sum(axis=1) == 1).all()


def test_closing_a_fresh_episode_changes_nothing() -> None:
    _, replay, state = filled(2, 8, 9, end=1.0)
    before = jax.tree.map(np.copy, state)
    after = replay.end_episode(state, np.array([True, True]))
    jax.tree.map(np.testing.assert_array_equal, before, after)


# --- Draws ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [3, 40, 200], ids=["short", "uneven lanes", "wrapped"])
@pytest.mark.parametrize("num_batches", [None, 6])
def test_draws_are_uniform_over_all_steps(steps: int, num_batches: int | None) -> None:
    _, _, state = filled(3, 90, steps, end=0.4)
    if steps == 40:
        assert len(set(state.written.tolist())) > 1
    rows = np.flatnonzero(~state.boundary)
    drawn = draw(3, state, 10_000, num_batches=num_batches).rows.reshape(-1)
    counts = np.bincount(drawn, minlength=len(state.boundary))
    assert counts[rows].sum() == drawn.size
    expected, freedom = drawn.size / len(rows), len(rows) - 1
    statistic = ((counts[rows] - expected) ** 2 / expected).sum()
    # Chi-square has mean `freedom` and variance 2 * freedom; the seed is fixed, so this cannot flake.
    assert abs(statistic - freedom) < 4 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("n", [1, 3])
def test_several_batches_are_one_draw_with_another_axis(n: int) -> None:
    record, _, state = filled(2, 40, 60)
    many = draw(4, state, 5, n, num_batches=7)
    flat = draw(4, state, 35, n)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.reshape(b.shape), b), many, flat)
    assert many.rows.shape == many.weights.shape == many.transition.r_t.shape == (7, 5)
    assert many.transition.obs_t.shape == (7, 5, 3)
    assert many.transition.extras_tm1["memory"].shape == (7, 5, 2)
    assert many.transition.action_mask_t.shape == (7, 5, 4)
    assert_as_recorded(record, many.transition, n, 0.99)
    assert draw(4, state, 5, n, num_batches=1).rows.shape == (1, 5)


@pytest.mark.parametrize("n", [1, 4])
def test_dtypes_and_weights(n: int) -> None:
    replay = plain(jax.ShapeDtypeStruct((2, 2), np.uint8), num_envs=1, capacity=8)
    obs = np.full((1, 2, 2), 255, np.uint8)
    step = Step(obs, np.int32([3]), np.float64([0.25]), np.float64([1.0]), np.array([False]), obs)
    frames = replay.add(replay.init(), step)  # Gymnasium's rewards are float64
    drawn = draw(0, frames, np.int64(6), n, np.float32(0.5))
    transition = drawn.transition
    assert transition.obs_tm1.dtype == transition.obs_t.dtype == np.uint8
    assert (transition.obs_tm1 == 255).all()
    assert transition.a_tm1.dtype == np.int32
    assert transition.r_t.dtype == transition.discount_t.dtype == drawn.weights.dtype == np.float32
    assert drawn.rows.dtype == np.int64
    assert drawn.weights.tolist() == [1.0] * 6
    assert transition.extras_tm1 == transition.action_mask_tm1 == transition.action_mask_t == ()


@pytest.mark.parametrize("n", [1, 3])
def test_draws_are_fresh_arrays(n: int) -> None:
    _, _, state = filled(1, 20, 50)
    drawn = draw(5, state, 16, n)
    before = jax.tree.map(np.copy, drawn)
    for leaf in jax.tree.leaves(drawn):
        assert not any(np.shares_memory(leaf, stored) for stored in jax.tree.leaves(state))
        assert leaf.flags.writeable
    for stored in jax.tree.leaves(state):
        stored[...] = 0
    jax.tree.map(np.testing.assert_array_equal, before, drawn)


@pytest.mark.parametrize("words", [2, 3, 4])
@pytest.mark.parametrize("options", [{}, {"priority_exponent": 1.0}, {"sequence_length": 2}], ids=str)
def test_the_key_alone_decides_the_draw(words: int, options: dict[str, Any]) -> None:
    _, replay, state = filled(2, 40, 60, batch_size=32, **options)
    _, other, same = filled(2, 40, 60, batch_size=32, **options)
    if "priority_exponent" in options:
        starts = np.flatnonzero(~state.boundary)
        for each in (state, same):
            replay.update_priorities(each, each.writing[starts], np.arange(len(starts)))
    drawn = replay.sample(np.arange(words, dtype=np.uint32), state, DrawNumbers())
    before = jax.tree.map(np.copy, state)
    for index in range(words):  # such as another learner step, the last of the words
        key = np.arange(words, dtype=np.uint32)
        key[index] += 1
        assert (replay.sample(key, state, DrawNumbers()).rows != drawn.rows).any()
    again = other.sample(jax.numpy.arange(words, dtype=np.uint32), same, DrawNumbers())
    jax.tree.map(np.testing.assert_array_equal, drawn, again)
    jax.tree.map(np.testing.assert_array_equal, before, state)


def test_the_key_of_a_run_and_the_learner_step_make_the_key_of_a_draw() -> None:
    _, replay, state = filled(2, 40, 60, batch_size=32)
    key = jax.random.key_data(jax.random.key(0))
    draws = [replay.sample(np.append(key, np.uint32(step)), state, DrawNumbers()).rows for step in (0, 1, 2, 1)]
    assert len({rows.tobytes() for rows in draws}) == 3
    np.testing.assert_array_equal(draws[1], draws[3])


def test_a_replay_goes_through_a_pytree_and_goes_on_equally() -> None:
    record, replay, state = filled(2, 20, 33)
    leaves, structure = jax.tree.flatten(state)
    assert all(type(leaf) is np.ndarray for leaf in leaves)
    restored = jax.tree.unflatten(structure, [leaf.copy() for leaf in leaves])
    step = record.add(np.array([True, False]), np.array([False, False]))
    jax.tree.map(np.testing.assert_array_equal, replay.add(state, step), replay.add(restored, step))
