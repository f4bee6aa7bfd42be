"""Catch, the smallest task with images: a ball falls, and a paddle has to be under it (Osband et al., 2020, bsuite)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ....replay.types import EnvironmentSpec
from .types import FunctionalEnvironment, FunctionalStep


def catch(rows: int = 10, columns: int = 5) -> FunctionalEnvironment:
    """Make Catch as bsuite describes it.

    A ball starts in a random column of the top row and falls by one row at each step. The paddle starts in the middle
    of the bottom row; the actions 0, 1 and 2 move it left, not at all and right, and the walls stop it. An episode
    terminates after ``rows - 1`` steps, when the ball reaches the bottom row. The reward is then 1 if the paddle is in
    the ball's column, otherwise -1, and 0 at all other steps.

    Observations are the board ``[rows, columns]`` float32, with 1 at the ball and at the paddle and 0 elsewhere.

    Args:
        rows: Number of rows, at least 2.
        columns: Number of columns, at least 1.

    Raises:
        ValueError: if ``rows`` or ``columns`` is not an integer in its range.

    >>> environment = catch()
    >>> state, board = environment.init(jax.random.key(0))
    >>> board[0].sum(), board[-1]
    (Array(1., dtype=float32), Array([0., 0., 1., 0., 0.], dtype=float32))
    """
    for field, value, least in (("rows", rows, 2), ("columns", columns, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{field}: got {value!r}; expected an integer >= {least}.")
    cells = np.arange(rows * columns).reshape(rows, columns)
    bottom = (rows - 1) * columns

    def observe(state: jax.Array) -> jax.Array:
        row, column, paddle = state
        return jnp.asarray((cells == row * columns + column) | (cells == bottom + paddle), jnp.float32)

    def init(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        column = jax.random.randint(key, (), 0, columns)
        state = jnp.stack([jnp.int32(0), column, jnp.int32(columns // 2)])  # row and column of the ball, and paddle
        return state, observe(state)

    def step(key: jax.Array, state: jax.Array, action: Any) -> tuple[jax.Array, FunctionalStep]:
        del key
        row, column, paddle = state
        row, paddle = row + 1, jnp.clip(paddle + action - 1, 0, columns - 1)
        terminated = row == rows - 1
        r_t = jnp.float32(jnp.where(terminated, jnp.where(paddle == column, 1, -1), 0))
        state = jnp.stack([row, column, paddle])
        return state, FunctionalStep(observe(state), r_t, terminated, np.bool_(False))

    spec = EnvironmentSpec(jax.ShapeDtypeStruct((rows, columns), np.dtype(np.float32)), num_actions=3)
    return FunctionalEnvironment(spec, init, step, name="polyak/Catch-v0")
