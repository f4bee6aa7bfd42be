"""Catch, by hand and over all starts and policies of one column."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyak.experiments.environments.functional.catch import catch


def episode(environment, state, actions):
    """Outcomes of all actions from one state, leaves ``[T, ...]``."""

    def one(state, action):
        return environment.step(jax.random.key(0), state, action)

    return jax.lax.scan(one, state, actions)[1]


def test_an_episode_by_hand():
    environment = catch(rows=4, columns=3)
    state = jnp.array([0, 2, 1])  # the ball above column 2, the paddle in the middle
    outcome = jax.device_get(episode(environment, state, jnp.array([2, 2, 0])))
    boards = ["000 001 000 001", "000 000 001 001", "000 000 000 011"]  # the wall stops the second move
    wanted = np.array([[list(row) for row in board.split()] for board in boards], np.float32)
    np.testing.assert_array_equal(outcome.obs_t, wanted)
    assert outcome.r_t.tolist() == [0, 0, -1]
    assert outcome.terminated.tolist() == [False, False, True]
    assert not outcome.truncated.any()
    assert outcome.obs_t.dtype == outcome.r_t.dtype == np.float32


def test_every_column_can_be_caught_and_only_by_being_there():
    environment = catch()
    assert environment.spec.observation.shape == (10, 5)
    assert environment.spec.num_actions == 3
    columns = np.arange(5)
    starts = jnp.stack([jnp.array([0, column, 2]) for column in columns])
    follow = jnp.stack(
        [jnp.array([1 + np.sign(column - 2)] * abs(column - 2) + [1] * (9 - abs(column - 2))) for column in columns]
    )
    best = jax.jit(jax.vmap(lambda state, actions: episode(environment, state, actions)))(starts, follow)
    assert best.r_t.sum(1).tolist() == [1.0] * 5
    assert best.terminated.sum(1).tolist() == [1] * 5
    assert best.terminated[:, -1].all()
    moves = np.array(list(itertools.product(range(3), repeat=4)))  # in a board of 5 rows: all policies of one start
    small = catch(rows=5)
    both = jax.vmap(jax.vmap(lambda state, actions: episode(small, state, actions), (None, 0)), (0, None))
    r_t = np.asarray(jax.jit(both)(starts, jnp.asarray(moves)).r_t)
    paddle = np.full(len(moves), 2)
    for action in moves.T:
        paddle = np.clip(paddle + action - 1, 0, 4)
    np.testing.assert_array_equal(r_t[:, :, -1], np.where(paddle[None] == columns[:, None], 1.0, -1.0))
    assert not r_t[:, :, :-1].any()


def test_balls_start_in_every_column_equally_often():
    state, board = jax.jit(jax.vmap(catch().init))(jax.random.split(jax.random.key(0), 5000))
    counts = np.bincount(np.asarray(state[:, 1]), minlength=5)
    assert np.abs(counts - 1000).max() < 150
    assert (np.asarray(state)[:, [0, 2]] == [0, 2]).all()
    np.testing.assert_array_equal(np.asarray(board).sum((1, 2)), 2.0)
    np.testing.assert_array_equal(np.asarray(board)[:, 9, 2], 1.0)
    np.testing.assert_array_equal(np.asarray(board)[:, 0].argmax(1), state[:, 1])


@pytest.mark.parametrize("kwargs", [{"rows": 1}, {"columns": 0}, {"rows": 2.0}, {"columns": True}])
def test_the_board_has_a_size(kwargs):
    with pytest.raises(ValueError, match=rf"{next(iter(kwargs))}: got .*; expected an integer >= "):
        catch(**kwargs)
