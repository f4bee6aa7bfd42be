"""The host replay against a record of episodes in plain Python lists."""

from typing import Any, NamedTuple

import jax
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyak.replay import HostReplay, Step, add, check_valid, end_episode, host, init, nbytes, sample, size

SPEC = jax.ShapeDtypeStruct((3,), np.int32)
EXTRAS = {"memory": jax.ShapeDtypeStruct((2,), np.float32), "mask": jax.ShapeDtypeStruct((), np.bool_)}


class Expected(NamedTuple):
    action: int
    r_t: float
    discount_t: float
    obs_t: tuple[int, int, int]


def action_of(env: int, episode: int, t: int) -> int:
    return env + 10 * episode + 1000 * t


def reward_of(env: int, episode: int, t: int) -> float:
    return float((env * 7 + episode * 13 + t * 29) % 101 - 50)


class Episode:
    """How many steps an episode has so far, whether it is over and whether it terminated."""

    def __init__(self) -> None:
        self.steps, self.over, self.terminated = 0, False, False


class Record:
    """Makes steps whose every field tells its (environment, episode, step), and knows what must be drawable."""

    def __init__(self, num_envs: int) -> None:
        self.lanes = [[Episode()] for _ in range(num_envs)]

    def add(self, last: np.ndarray, terminated: np.ndarray) -> Step:
        ids = [(env, len(lane) - 1, lane[-1].steps) for env, lane in enumerate(self.lanes)]
        for lane, is_last, is_terminated in zip(self.lanes, last, terminated, strict=True):
            lane[-1].steps += 1
            if is_last:
                lane[-1].over, lane[-1].terminated = True, bool(is_terminated)
                lane.append(Episode())
        obs = np.array(ids, np.int32)
        return Step(
            obs_tm1=obs,
            a_tm1=np.array([action_of(*i) for i in ids], np.int32),
            r_t=np.array([reward_of(*i) for i in ids], np.float32),
            discount_t=np.where(last & terminated, 0.0, 1.0).astype(np.float32),
            last=last,
            obs_t=obs + np.array([0, 0, 1], np.int32),
            extras_tm1={"memory": obs[:, 1:].astype(np.float32), "mask": obs[:, 2] % 2 == 0},
        )

    def end(self, lanes: np.ndarray) -> None:
        for lane, closed in zip(self.lanes, lanes, strict=True):
            if closed and lane[-1].steps:
                lane[-1].over = True
                lane.append(Episode())

    def alive(self, rows_per_lane: int) -> set[tuple[int, int, int]]:
        """Steps that the newest rows hold: one row each, one for the open head, one for each episode's end."""
        alive = set()
        for env, lane in enumerate(self.lanes):
            left = rows_per_lane - 1
            for index in reversed(range(len(lane))):
                left -= lane[index].over
                kept = max(0, min(left, lane[index].steps))
                alive |= {(env, index, lane[index].steps - 1 - i) for i in range(kept)}
                left -= lane[index].steps
                if left <= 0:
                    break
        return alive

    def expected(self, start: tuple[int, int, int], n: int, discount: float) -> Expected:
        env, index, t = start
        episode = self.lanes[env][index]
        k = min(n, episode.steps - t)
        r_t = sum(discount**i * reward_of(env, index, t + i) for i in range(k))
        terminates = episode.terminated and t + k == episode.steps
        return Expected(action_of(*start), r_t, 0.0 if terminates else discount**k, (env, index, t + k))


def assert_as_recorded(record: Record, transition: Any, n: int, discount: float) -> set[tuple[int, int, int]]:
    """Compares each transition with the record; returns the steps they start with."""
    starts = [tuple(obs) for obs in transition.obs_tm1.reshape(-1, 3).tolist()]
    expected = [record.expected(start, n, discount) for start in starts]
    assert transition.a_tm1.reshape(-1).tolist() == [e.action for e in expected]
    assert [tuple(obs) for obs in transition.obs_t.reshape(-1, 3).tolist()] == [e.obs_t for e in expected]
    # Sums are made in float64, so that only the last rounding to float32 is left.
    np.testing.assert_allclose(transition.r_t.reshape(-1), [e.r_t for e in expected], rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(transition.discount_t.reshape(-1), [e.discount_t for e in expected], rtol=1e-6)
    memory, mask = transition.extras_tm1["memory"].reshape(-1, 2), transition.extras_tm1["mask"].reshape(-1)
    assert [tuple(row) for row in memory.tolist()] == [start[1:] for start in starts]
    assert mask.tolist() == [start[2] % 2 == 0 for start in starts]
    return set(starts)


def assert_drawable(record: Record, state: HostReplay, n: int, discount: float) -> None:
    """Every start row, gathered: exactly the steps of the record that are alive, each once, all fields right."""
    rows = np.flatnonzero(~state.boundary)
    starts = assert_as_recorded(record, host._gather(state, rows, n, discount), n, discount)
    assert len(starts) == len(rows) == size(state)
    assert starts == record.alive(len(state.boundary) // len(state.head))


def random_ends(generator: np.random.Generator, num_envs: int, end: float) -> tuple[np.ndarray, np.ndarray]:
    return generator.random(num_envs) < end, generator.random(num_envs) < 0.5


def filled(num_envs: int, capacity: int, steps: int, end: float = 0.2, seed: int = 0) -> tuple[Record, HostReplay]:
    generator = np.random.default_rng(seed)
    record, state = Record(num_envs), init(SPEC, EXTRAS, num_envs=num_envs, capacity=capacity)
    for _ in range(steps):
        state = add(state, record.add(*random_ends(generator, num_envs, end)))
    return record, state


def scalar_step(obs: list[float], reward: list[float], last: list[bool], discount: list[float]) -> Step:
    """One step of environments whose observation is a number that counts up."""
    observation = np.array(obs, np.float32)
    zeros = np.zeros(len(obs), np.int32)
    reward_t, discount_t = np.array(reward, np.float32), np.array(discount, np.float32)
    return Step(observation, zeros, reward_t, discount_t, np.array(last), observation + 1)


SCALAR = jax.ShapeDtypeStruct((), np.float32)


# --- Against the record ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_envs", "per_lane", "end"),
    [
        (1, 1, 0.3),
        (1, 2, 1.0),
        (1, 3, 0.5),
        (1, 20, 0.1),
        (2, 3, 0.3),
        (3, 7, 0.2),
        (4, 12, 0.05),
        (3, 5, 1.0),
        (2, 4, 0.0),
    ],
)
def test_what_can_be_drawn_is_what_the_record_holds(num_envs: int, per_lane: int, end: float) -> None:
    generator = np.random.default_rng(num_envs + per_lane)
    record, state = Record(num_envs), init(SPEC, EXTRAS, num_envs=num_envs, capacity=num_envs * per_lane)
    for _ in range(400):
        state = add(state, record.add(*random_ends(generator, num_envs, end)))
        check_valid(state)
        n, discount = int(generator.integers(1, per_lane + 1)), float(generator.choice([0.0, 0.5, 0.99, 1.0]))
        assert_drawable(record, state, n, discount)
        if size(state):
            drawn = sample(generator, state, 8, n, discount)
            starts = assert_as_recorded(record, drawn.transition, n, discount)
            assert starts <= record.alive(per_lane + 1)
            assert not state.boundary[drawn.rows].any()


def test_thousands_of_wraps() -> None:
    generator = np.random.default_rng(0)
    record, state = Record(2), init(SPEC, EXTRAS, num_envs=2, capacity=6)
    for i in range(10_000):
        state = add(state, record.add(*random_ends(generator, 2, 0.3)))
        if i % 97 == 0:
            check_valid(state)
            assert_drawable(record, state, n=2, discount=0.9)
    assert (state.written > 2500 * 4).all()


EVENT = st.tuples(st.sampled_from(["go", "end", "restart"]), st.integers(0, 7), st.integers(0, 7))


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
    record, state = Record(num_envs), init(SPEC, EXTRAS, num_envs=num_envs, capacity=num_envs * per_lane)
    for kind, mask, terminated in events:
        lanes = np.array([mask >> env & 1 for env in range(num_envs)], np.bool_)
        if kind == "restart":
            record.end(lanes)
            state = end_episode(state, lanes)
        else:
            last = lanes if kind == "end" else np.zeros_like(lanes)
            ends = np.array([terminated >> env & 1 for env in range(num_envs)], np.bool_)
            state = add(state, record.add(last, ends))
        check_valid(state)
        assert_drawable(record, state, min(n, per_lane), discount)


@pytest.mark.parametrize("steps", [9, 10, 11, 21, 22, 23])
@pytest.mark.parametrize("num_envs", [1, 2])
def test_capacity_steps_of_an_endless_episode_fit(num_envs: int, steps: int) -> None:
    record, state = filled(num_envs, 10 * num_envs, steps, end=0.0)
    check_valid(state)
    assert size(state) == min(steps, 10) * num_envs
    assert_drawable(record, state, n=3, discount=0.9)


def test_capacity_is_rounded_up_to_lanes() -> None:
    assert init(SPEC, num_envs=3, capacity=10).boundary.shape == (3 * (4 + 1),)


def test_each_episode_end_takes_a_row() -> None:
    # 5 + 1 rows: the open head, and of one-step episodes as many pairs (start, last observation) as fit.
    _, state = filled(1, 5, 50, end=1.0)
    assert size(state) == 2
    # With 1 + 1 rows a step that ends its episode is gone at once.
    _, state = filled(1, 1, 5, end=1.0)
    with pytest.raises(ValueError, match="Add steps first"):
        sample(np.random.default_rng(0), state, 4)


# --- By hand --------------------------------------------------------------------------------------------------------


def test_by_hand_truncation_bootstraps_and_termination_does_not() -> None:
    state = init(SCALAR, num_envs=2, capacity=20)
    for t in range(3):
        last = [t == 2, t == 2]
        # Lane 0 terminates at its third step, lane 1 is truncated there.
        step = scalar_step([t, 100 + t], [1.0 + t, 10.0 + t], last, [0.0 if t == 2 else 1.0, 1.0])
        state = add(state, step)
    state = add(state, scalar_step([50, 150], [7.0, 70.0], [False, False], [1.0, 1.0]))
    check_valid(state)
    lane = 11
    assert np.flatnonzero(~state.boundary).tolist() == [0, 1, 2, 4, lane, lane + 1, lane + 2, lane + 4]

    terminates = host._gather(state, np.array([0, 1, 2, 4]), 2, 0.5)
    assert terminates.r_t.tolist() == [1.0 + 0.5 * 2.0, 2.0 + 0.5 * 3.0, 3.0, 7.0]
    assert terminates.discount_t.tolist() == [0.25, 0.0, 0.0, 0.5]
    assert terminates.obs_t.tolist() == [2.0, 3.0, 3.0, 51.0]  # the last is cut at the newest step

    truncates = host._gather(state, np.array([0, 1, 2, 4]) + lane, 2, 0.5)
    assert truncates.discount_t.tolist() == [0.25, 0.25, 0.5, 0.5]
    assert truncates.obs_t.tolist() == [102.0, 103.0, 103.0, 151.0]


def test_one_step_keeps_rewards_and_discounts_to_the_bit() -> None:
    state = init(SCALAR, num_envs=1, capacity=100)
    rewards = np.random.default_rng(1).normal(size=50).astype(np.float32)
    for t, reward in enumerate(rewards):
        state = add(state, scalar_step([t], [reward], [t % 7 == 6], [float(t % 7 != 6)]))
    drawn = sample(np.random.default_rng(2), state, 500, discount=0.997).transition
    t = drawn.obs_tm1.astype(int)
    np.testing.assert_array_equal(drawn.r_t, rewards[t])
    np.testing.assert_array_equal(drawn.discount_t, np.where(t % 7 == 6, 0, np.float32(0.997)))
    np.testing.assert_array_equal(drawn.obs_t, drawn.obs_tm1 + 1)


def test_the_walk_over_n_steps_at_one_is_the_fast_path() -> None:
    _, state = filled(3, 30, 100)
    rows = np.flatnonzero(~state.boundary)
    for fast, walked in zip(host._one_step(state, rows, 0.99), host._n_step(state, rows, 1, 0.99), strict=True):
        np.testing.assert_array_equal(fast, walked)
        assert fast.dtype == walked.dtype


def test_what_lies_in_a_boundary_row_never_reaches_a_window() -> None:
    record, state = filled(2, 20, 100)
    state.reward[state.boundary] = np.nan
    state.continuation[state.boundary] = np.nan
    assert_drawable(record, state, n=5, discount=0.9)


def test_restarted_environment_keeps_its_true_last_observation() -> None:
    state = init(SCALAR, num_envs=2, capacity=20)
    state = add(state, scalar_step([0, 10], [1.0, 1.0], [False, False], [1.0, 1.0]))
    state = end_episode(state, np.array([True, False]))
    state = add(state, scalar_step([90, 11], [5.0, 5.0], [False, False], [1.0, 1.0]))
    check_valid(state)
    drawn = host._gather(state, np.flatnonzero(~state.boundary), 2, 1.0)
    assert drawn.obs_tm1.tolist() == [0.0, 90.0, 10.0, 11.0]
    assert drawn.obs_t.tolist() == [1.0, 91.0, 12.0, 12.0]
    assert drawn.r_t.tolist() == [1.0, 5.0, 6.0, 5.0]
    assert drawn.discount_t.tolist() == [1.0] * 4  # as a truncation does, it bootstraps


def test_closing_a_fresh_episode_changes_nothing() -> None:
    _, state = filled(2, 8, 9, end=1.0)
    before = jax.tree.map(np.copy, state)
    after = end_episode(state, np.array([True, True]))
    jax.tree.map(np.testing.assert_array_equal, before, after)


# --- Draws ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [3, 40, 200], ids=["short", "uneven lanes", "wrapped"])
@pytest.mark.parametrize("num_batches", [None, 6])
def test_draws_are_uniform_over_all_steps(steps: int, num_batches: int | None) -> None:
    _, state = filled(3, 90, steps, end=0.4)
    if steps == 40:
        assert len(set(state.written.tolist())) > 1
    rows = np.flatnonzero(~state.boundary)
    drawn = sample(np.random.default_rng(3), state, 10_000, num_batches=num_batches).rows.reshape(-1)
    counts = np.bincount(drawn, minlength=len(state.boundary))
    assert counts[rows].sum() == drawn.size
    expected, freedom = drawn.size / len(rows), len(rows) - 1
    statistic = ((counts[rows] - expected) ** 2 / expected).sum()
    # Chi-square has mean `freedom` and variance 2 * freedom; the seed is fixed, so this cannot flake.
    assert abs(statistic - freedom) < 4 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("n", [1, 3])
def test_several_batches_are_one_draw_with_another_axis(n: int) -> None:
    record, state = filled(2, 40, 60)
    many = sample(np.random.default_rng(4), state, 5, n, num_batches=7)
    flat = sample(np.random.default_rng(4), state, 35, n)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.reshape(b.shape), b), many, flat)
    assert many.rows.shape == many.weights.shape == many.transition.r_t.shape == (7, 5)
    assert many.transition.obs_t.shape == (7, 5, 3)
    assert many.transition.extras_tm1["memory"].shape == (7, 5, 2)
    assert_as_recorded(record, many.transition, n, 0.99)
    assert sample(np.random.default_rng(4), state, 5, n, num_batches=1).rows.shape == (1, 5)


@pytest.mark.parametrize("n", [1, 4])
def test_dtypes_and_weights(n: int) -> None:
    frames = init(jax.ShapeDtypeStruct((2, 2), np.uint8), num_envs=1, capacity=8)
    obs = np.full((1, 2, 2), 255, np.uint8)
    step = Step(obs, np.int32([3]), np.float64([0.25]), np.float64([1.0]), np.array([False]), obs)
    frames = add(frames, step)  # Gymnasium's rewards are float64
    drawn = sample(np.random.default_rng(0), frames, np.int64(6), n, np.float32(0.5))
    transition = drawn.transition
    assert transition.obs_tm1.dtype == transition.obs_t.dtype == np.uint8
    assert (transition.obs_tm1 == 255).all()
    assert transition.a_tm1.dtype == np.int32
    assert transition.r_t.dtype == transition.discount_t.dtype == drawn.weights.dtype == np.float32
    assert drawn.rows.dtype == np.int64
    assert drawn.weights.tolist() == [1.0] * 6
    assert transition.extras_tm1 == ()


@pytest.mark.parametrize("n", [1, 3])
def test_draws_are_fresh_arrays(n: int) -> None:
    _, state = filled(1, 20, 50)
    drawn = sample(np.random.default_rng(5), state, 16, n)
    before = jax.tree.map(np.copy, drawn)
    for leaf in jax.tree.leaves(drawn):
        assert not any(np.shares_memory(leaf, stored) for stored in jax.tree.leaves(state))
        assert leaf.flags.writeable
    for stored in jax.tree.leaves(state):
        stored[...] = 0
    jax.tree.map(np.testing.assert_array_equal, before, drawn)


def test_the_generator_alone_decides_the_draw() -> None:
    _, state = filled(2, 40, 60)
    before = jax.tree.map(np.copy, state)
    generator = np.random.default_rng(6)
    first, second = sample(generator, state, 32), sample(generator, state, 32)
    jax.tree.map(np.testing.assert_array_equal, first, sample(np.random.default_rng(6), state, 32))
    assert (first.rows != second.rows).any()
    assert (first.rows != sample(np.random.default_rng(7), state, 32).rows).any()
    jax.tree.map(np.testing.assert_array_equal, before, state)


def test_a_replay_goes_through_a_pytree_and_goes_on_equally() -> None:
    record, state = filled(2, 20, 33)
    leaves, structure = jax.tree.flatten(state)
    assert all(type(leaf) is np.ndarray for leaf in leaves)
    restored = jax.tree.unflatten(structure, [leaf.copy() for leaf in leaves])
    step = record.add(np.array([True, False]), np.array([False, False]))
    jax.tree.map(np.testing.assert_array_equal, add(state, step), add(restored, step))


# --- Errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, -1, 1.0, 2.5, True, None, "3"])
def test_counts_are_integers_from_one(count: Any) -> None:
    _, state = filled(1, 20, 30)
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"^capacity: got .*expected an integer >= 1"):
        init(SPEC, num_envs=1, capacity=count)
    with pytest.raises(ValueError, match=r"^num_envs: got"):
        init(SPEC, num_envs=count, capacity=10)
    with pytest.raises(ValueError, match=r"^batch_size: got"):
        sample(generator, state, count)
    with pytest.raises(ValueError, match=r"^n: got"):
        sample(generator, state, 4, count)
    if count is not None:
        with pytest.raises(ValueError, match=r"^num_batches: got"):
            sample(generator, state, 4, num_batches=count)


@pytest.mark.parametrize("discount", [-0.01, 1.01, float("nan"), float("inf"), True, "0.9", None])
def test_discount_is_in_the_unit_interval(discount: Any) -> None:
    _, state = filled(1, 20, 30)
    with pytest.raises(ValueError, match=r"^discount: got .*expected a number in \[0, 1\]"):
        sample(np.random.default_rng(0), state, 4, discount=discount)


def test_n_is_at_most_a_lanes_capacity() -> None:
    record, state = filled(2, 20, 30)
    assert_as_recorded(record, sample(np.random.default_rng(0), state, 50, n=10).transition, 10, 0.99)
    with pytest.raises(ValueError, match="n: got 11; expected at most 10"):
        sample(np.random.default_rng(0), state, 4, n=11)


def test_an_empty_replay_says_to_add_steps() -> None:
    with pytest.raises(ValueError, match="Add steps first"):
        sample(np.random.default_rng(0), init(SPEC, num_envs=2, capacity=10), 4)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"obs_tm1": np.zeros((3,), np.int32)}, ValueError, r"^obs_tm1: got shape \(3,\); expected \(2, 3\)"),
        ({"obs_t": np.zeros((1, 3), np.int32)}, ValueError, r"^obs_t: got shape \(1, 3\)"),
        ({"obs_t": np.zeros((2, 1), np.int32)}, ValueError, r"^obs_t: got shape \(2, 1\)"),
        ({"obs_tm1": np.zeros((2, 3), np.float32)}, TypeError, r"^obs_tm1: got dtype float32; expected int32"),
        ({"a_tm1": np.int32(1)}, ValueError, r"^a_tm1: got shape \(\)"),
        ({"a_tm1": np.zeros(2)}, TypeError, r"^a_tm1: got dtype float64"),
        ({"r_t": 1.0}, TypeError, r"^r_t: got 1.0; expected an array \(2,\) of float32"),
        ({"r_t": np.zeros((2, 1), np.float32)}, ValueError, r"^r_t: got shape \(2, 1\)"),
        ({"discount_t": np.zeros(1, np.float32)}, ValueError, r"^discount_t: got shape \(1,\)"),
        ({"last": np.zeros(1, np.bool_)}, ValueError, r"^last: got shape \(1,\)"),
        ({"last": np.array([0, 1])}, TypeError, r"^last: got dtype int64; expected bool"),
        ({"extras_tm1": ()}, ValueError, r"^extras_tm1: got the structure"),
        (
            {"extras_tm1": {"memory": np.zeros((2,), np.float32), "mask": np.zeros(2, np.bool_)}},
            ValueError,
            r"^extras_tm1\['memory'\]: got shape \(2,\); expected \(2, 2\)",
        ),
    ],
)
def test_a_step_that_does_not_fit_is_refused_whole(change: dict[str, Any], error: type, message: str) -> None:
    record, state = filled(2, 20, 5)
    before = jax.tree.map(np.copy, state)
    step = record.add(np.array([False, True]), np.array([False, False]))
    with pytest.raises(error, match=message):
        add(state, step._replace(**change))
    jax.tree.map(np.testing.assert_array_equal, before, state)


def test_closing_lanes_needs_a_mask() -> None:
    _, state = filled(2, 20, 5)
    with pytest.raises(TypeError, match=r"^lanes: got dtype int64; expected bool"):
        end_episode(state, np.array([0, 1]))
    with pytest.raises(ValueError, match=r"^lanes: got shape \(1,\); expected \(2,\)"):
        end_episode(state, np.array([True]))


@pytest.mark.parametrize("num_envs", [1, 4])
def test_memory_is_counted_before_it_is_taken(num_envs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory(NamedTuple):
        available: int

    state = init(SPEC, EXTRAS, num_envs=num_envs, capacity=1000)
    needed = nbytes(SPEC, EXTRAS, num_envs=num_envs, capacity=1000)
    assert needed == sum(leaf.nbytes for leaf in jax.tree.leaves(state))

    # A byte less than one row per lane more: 1000 is then the most that fits, and the error says so.
    row = needed // (1000 + num_envs)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(needed + num_envs * row - 1))
    init(SPEC, EXTRAS, num_envs=num_envs, capacity=1000)
    with pytest.raises(ValueError, match=r"^capacity: got 1001, which needs .* GiB .* that fits is 1000;"):
        init(SPEC, EXTRAS, num_envs=num_envs, capacity=1001)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(0))
    with pytest.raises(ValueError, match="that fits is 0;"):
        init(SPEC, num_envs=num_envs, capacity=1)


def test_absurd_capacity_is_refused_without_allocating() -> None:
    with pytest.raises(ValueError, match="GiB that are free"):
        init(jax.ShapeDtypeStruct((84, 84, 4), np.uint8), num_envs=8, capacity=10**12)


@pytest.mark.parametrize("observation", [{"a": SPEC}, (4,), 1.0, jax.eval_shape(lambda: jax.random.key(0))])
def test_specs_are_arrays_of_numpy_dtypes(observation: Any) -> None:
    with pytest.raises(TypeError, match=r"^observation: got"):
        init(observation, num_envs=1, capacity=10)
    with pytest.raises(TypeError, match=r"^extras\['x'\]"):
        init(SPEC, {"x": jax.eval_shape(lambda: jax.random.key(0))}, num_envs=1, capacity=10)


@pytest.mark.parametrize(
    ("field", "index", "value", "message"),
    [
        ("boundary", 0, True, "num_valid is not"),
        ("boundary", 4, False, "head is not a boundary"),
        ("boundary", 9, False, "never written"),
        ("head", 0, 3, "head is not the row opened last"),
        ("num_valid", 0, 3, "num_valid is not"),
        ("written", 0, 0, "without an open row"),
    ],
)
def test_a_broken_replay_is_told(field: str, index: int, value: Any, message: str) -> None:
    _, state = filled(1, 10, 4, end=0.0)
    check_valid(state)
    getattr(state, field)[index] = value
    with pytest.raises(AssertionError, match=message):
        check_valid(state)
