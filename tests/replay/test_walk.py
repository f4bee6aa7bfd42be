"""Windows of steps: the future of transitions, the same walk under NumPy and JAX, and the shapes of draws."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyak.replay import DrawNumbers, Replay, ReplayState, Step, _walk, host_draws, stacking
from polyak.replay.host_draws import Plan
from replay_record import Record, action_of, filled, framed, legal_at, make, plain, random_ends, reward_of

FRAME = jax.ShapeDtypeStruct((1, 3), np.int32)
MOST = 10


def stacked(**options: Any) -> tuple[Replay, ReplayState]:
    generator, record = np.random.default_rng(0), Record(3)
    replay = make(FRAME, num_envs=3, capacity=60, stack=3, **options)
    state = replay.init()
    for _ in range(50):
        state = replay.add(state, framed(record.add(*random_ends(generator, 3, 0.2))))
    return replay, state


# --- The future of transitions --------------------------------------------------------------------------------------


def test_the_future_by_hand() -> None:
    replay = plain(jax.ShapeDtypeStruct((), np.float32), num_envs=1, capacity=20, future=3)
    state = replay.init()
    for number in range(6):  # an episode of 4 steps that terminates, then one of 2 steps so far
        obs = np.float32([number if number < 4 else number + 6])
        last, one = np.array([number == 3]), np.ones(1, np.float32)
        state = replay.add(state, Step(obs, np.int32([number]), one * number, one * ~last, last, obs + 1))
    transition, future = host_draws.gather(Plan((1,), 20, future=3), state, np.flatnonzero(~state.boundary), 2, 0.5)
    assert future.obs.tolist() == [
        [0, 1, 2, 3],
        [1, 2, 3, 4],
        [2, 3, 4, 4],
        [3, 4, 4, 4],
        [10, 11, 12, 12],
        [11, 12, 12, 12],
    ]
    assert future.a_tm1.tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 0], [3, 0, 0], [4, 5, 0], [5, 0, 0]]
    assert future.r_t.tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 0], [3, 0, 0], [4, 5, 0], [5, 0, 0]]
    assert future.valid.sum(axis=1).tolist() == [3, 3, 2, 1, 2, 1]
    half = [0.5, 0.5, 0.5]
    assert future.discount_t.tolist() == [half, [0.5, 0.5, 0], [0.5, 0, 0], [0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0]]
    assert future.first.tolist() == [True, False, False, False, True, False]
    assert future.complete.tolist() == [True, True, True, True, False, False]
    assert future.extras == future.n_steps == future.action_mask == ()
    np.testing.assert_array_equal(future.obs[:, 0], transition.obs_tm1)
    np.testing.assert_array_equal(future.a_tm1[:, 0], transition.a_tm1)


@pytest.mark.parametrize("num_batches", [None, 3])
def test_the_future_of_a_draw_is_that_of_the_record(num_batches: int | None) -> None:
    record, replay, state = filled(2, 60, 50, future=4, batch_size=20, num_batches=num_batches)
    drawn = replay.sample(np.uint32([1, 2, 3]), state, DrawNumbers(n_steps=3, discount=0.9))
    leading = drawn.rows.shape
    assert drawn.future.obs.shape == (*leading, 5, 3)
    assert drawn.future.action_mask.shape == (*leading, 5, 4)
    for index in np.ndindex(leading):
        env, episode, t = drawn.transition.obs_tm1[index].tolist()
        k = min(4, record.lanes[env][episode].steps - t)
        steps = [(env, episode, t + i) for i in range(k + 1)]
        assert [tuple(obs) for obs in drawn.future.obs[index].tolist()] == steps + steps[-1:] * (4 - k)
        assert drawn.future.a_tm1[index].tolist() == [action_of(*step) for step in steps[:k]] + [0] * (4 - k)
        assert drawn.future.r_t[index].tolist() == [reward_of(*step) for step in steps[:k]] + [0] * (4 - k)
        assert drawn.future.valid[index].tolist() == [True] * k + [False] * (4 - k)
        assert drawn.future.action_mask[index][:k].tolist() == [legal_at(*step) for step in steps[:k]]


def test_the_future_changes_nothing_of_the_transitions() -> None:
    _, replay, state = filled(2, 60, 50)
    _, ahead, same = filled(2, 60, 50, future=4)
    one, other = (
        each.sample(np.uint32([1, 2]), kept, DrawNumbers(n_steps=3)) for each, kept in ((replay, state), (ahead, same))
    )
    assert one.future == ()
    jax.tree.map(np.testing.assert_array_equal, one, other._replace(future=()))


def test_the_future_of_stacks_is_of_stacks() -> None:
    replay, state = stacked(future=2)
    future = replay.sample(np.uint32([1, 2]), state, DrawNumbers()).future
    assert future.obs.shape == (8, 3, 1, 3, 3)
    # Where the next step was taken, its two older frames are the two newer ones of the stack before.
    later, sooner = future.obs[:, 1:, ..., :-1], future.obs[:, :-1, ..., 1:]
    np.testing.assert_array_equal(later[future.valid], sooner[future.valid])


# --- NumPy and JAX --------------------------------------------------------------------------------------------------


def assert_close(expected: Any, found: Any) -> None:
    assert jax.tree.structure(expected) == jax.tree.structure(found)
    for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        assert one.shape == other.shape
        if one.dtype.kind == "f":
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-5)
        else:
            np.testing.assert_array_equal(one, other)


def kept(stack: int) -> ReplayState:
    return stacked(sequence_length=1)[1] if stack > 1 else filled(3, 60, 50, sequence_length=1)[2]


@pytest.mark.parametrize("stack", [1, 3])
def test_transitions_of_numpy_and_jax_are_equal(stack: int) -> None:
    state = kept(stack)
    rows = np.flatnonzero(~state.boundary)
    traced = jax.jit(lambda state, rows, n, discount: _walk.transitions(state, rows, n, discount, MOST))
    walk = jax.jit(lambda state, rows, n, discount: _walk.n_step(state, rows, n, discount, MOST))
    for n in (1, 3, 7, MOST):
        for discount in (0.0, 0.9, 0.997, 1.0):
            assert_close(_walk.transitions(state, rows, n, discount), traced(state, rows, n, discount))
            reward, discount_t, end = _walk.n_step(state, rows, n, discount)
            others = walk(state, rows, n, discount)
            np.testing.assert_array_equal(end, others[2])
            np.testing.assert_allclose(reward, others[0], rtol=1e-6, atol=1e-5)
            np.testing.assert_allclose(discount_t, others[1], rtol=1e-6)
    assert traced._cache_size() == walk._cache_size() == 1


@pytest.mark.parametrize("stack", [1, 3])
def test_sequences_of_numpy_and_jax_are_equal(stack: int) -> None:
    state = kept(stack)
    rows = np.flatnonzero(~state.boundary)[:48].reshape(2, 24)
    traced = jax.jit(lambda state, rows, n, discount: _walk.sequences(state, rows, 5, n, discount))
    future = jax.jit(lambda state, rows, discount: _walk.future(state, rows, 5, discount))
    for n, discount in ((1, 0.9), (3, 0.997)):
        assert_close(_walk.sequences(state, rows, 5, n, discount), traced(state, rows, n, discount))
        assert_close(_walk.future(state, rows, 5, discount), future(state, rows, discount))
    assert traced._cache_size() == future._cache_size() == 1


def test_frames_are_pushed_alike() -> None:
    generator = np.random.default_rng(0)
    frames = stacking.init(FRAME, 3, 4)
    others, push = jnp.asarray(frames), jax.jit(stacking.push)
    for number in range(12):
        newest = generator.integers(100, size=(3, 1, 3), dtype=np.int32)
        newest = newest[..., None] if number % 2 else newest
        first = generator.random(3) < 0.3
        frames, others = stacking.push(frames, newest, first), push(others, newest, first)
        assert type(frames) is np.ndarray
        assert others.dtype == frames.dtype
        np.testing.assert_array_equal(frames, others)


# --- Shapes of draws ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_batches", [None, 3])
@pytest.mark.parametrize("stack", [1, 3])
@pytest.mark.parametrize(
    "options",
    [{}, {"future": 4}, {"sequence_length": 5, "sequence_period": 2}, {"priority_exponent": 0.5}],
    ids=["transitions", "future", "sequences", "prioritized"],
)
def test_the_spec_of_a_draw_is_that_of_a_draw(options: dict[str, Any], stack: int, num_batches: int | None) -> None:
    options = options | {"batch_size": 6, "num_batches": num_batches}
    replay, state = stacked(**options) if stack > 1 else filled(3, 60, 50, **options)[1:]
    spec = replay.sample_spec()
    drawn = replay.sample(np.uint32([1, 2]), state, DrawNumbers(n_steps=2))
    # As a compiled program receives it: int64 is int32 there.
    assert spec == jax.eval_shape(lambda given: given, drawn)
    assert jax.tree.map(lambda leaf: leaf.shape, spec) == jax.tree.map(np.shape, drawn)
    assert len(jax.tree.leaves(spec.transition.extras if "sequence_length" in options else spec.transition.extras_tm1))
    assert spec.weights.shape == ((6,) if num_batches is None else (3, 6))


def test_the_spec_without_extras_and_masks() -> None:
    transition = plain(jax.ShapeDtypeStruct((84, 84), np.uint8), num_envs=1, capacity=100, batch_size=32, stack=4)
    found = transition.sample_spec().transition
    assert (found.obs_tm1.shape, found.obs_tm1.dtype) == ((32, 84, 84, 4), np.uint8)
    assert found.extras_tm1 == found.action_mask_tm1 == found.action_mask_t == ()


def test_the_spec_takes_no_memory_and_no_file(tmp_path: Any) -> None:
    replay = plain(FRAME, num_envs=1, capacity=10**15, storage=tmp_path / "observations")
    assert replay.sample_spec().rows.shape == (8,)
    assert list(tmp_path.iterdir()) == []
