"""Windows of steps from start rows to the first boundary, for NumPy and JAX arrays.

The type of the arrays ``rows`` and ``state`` selects NumPy or JAX. Under JAX, ``n`` and ``discount`` may be traced, and
the static ``most`` is an upper bound of ``n``. ``state`` is a ``ReplayState``, or has its fields as JAX arrays.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import tree_util

from ._rows import ReplayState
from .types import Array, Sequence, Transition, Tree


def transitions(state: ReplayState, rows: Array, n: Any, discount: Any, most: int | None = None) -> Transition:
    """n-step transitions from ``rows``, which must be starts.

    Args:
        state: State of the replay.
        rows: Start rows, integers ``[...]``.
        n: Number of steps of a window, one or more.
        discount: Discount of the agent for one step.
        most: Upper bound of ``n``, required under JAX; None for ``n``.
    """
    single = (n if most is None else most) == 1
    reward, discount_t, end = one_step(state, rows, discount) if single else n_step(state, rows, n, discount, most)
    return Transition(
        obs_tm1=_observations(state, rows),
        a_tm1=state.action.take(rows),
        r_t=reward,
        discount_t=discount_t,
        obs_t=_observations(state, end),
        extras_tm1=_take(state.extras, rows),
        action_mask_tm1=_take(state.action_mask, rows),
        action_mask_t=_take(state.action_mask, end),
    )


def one_step(state: ReplayState, rows: Array, discount: Any) -> tuple[Array, Array, Array]:
    """``n_step`` for ``n = 1``: several times faster, equal results to the bit."""
    factor = _numpy_of(rows).float32(discount) * state.continuation.take(rows)
    return state.reward.take(rows), factor, next_rows(state, rows)


def n_step(
    state: ReplayState, rows: Array, n: Any, discount: Any, most: int | None = None
) -> tuple[Array, Array, Array]:
    """n-step return, discount of the bootstrap value and row to bootstrap from; float64 sums under NumPy."""
    xp = _numpy_of(rows)
    most, bounded = (n, False) if most is None else (most, True)
    per_lane = len(state.boundary) // len(state.head)
    position = rows % per_lane
    lane_start = rows - position
    each = xp.arange(most).reshape(most, *(1,) * rows.ndim)  # [most, 1, ...]
    walk = lane_start[None] + (position[None] + each) % per_lane  # [most, ...]
    taken = ~state.boundary.take(walk)
    inside = _until_first_false(xp, taken & (each < n) if bounded else taken, axis=0)
    steps = inside.sum(axis=0)
    powers = xp.asarray([discount**i for i in range(most + 1)])
    # where instead of a product, because boundary rows may contain any value, including NaN.
    rewards = xp.where(inside, state.reward.take(walk), np.float32(0))
    continuation = xp.where(inside, state.continuation.take(walk), np.float32(1))
    total = (powers.take(each) * rewards).sum(axis=0)
    factor = powers.take(steps) * continuation.prod(axis=0, dtype=powers.dtype)
    return total.astype(np.float32), factor.astype(np.float32), lane_start + (position + steps) % per_lane


def sequences(state: ReplayState, rows: Array, length: int, n: Any, discount: Any) -> Sequence:
    """Sequences of up to ``length`` steps from ``rows``, which must be starts, padded to ``length``."""
    return future(state, rows, length, discount)._replace(
        extras=_take(state.extras, rows), n_steps=_numpy_of(rows).full(rows.shape, n, np.int32)
    )


def future(state: ReplayState, rows: Array, length: int, discount: Any) -> Sequence:
    """``sequences`` without extras and without ``n_steps``."""
    xp = _numpy_of(rows)
    per_lane = len(state.boundary) // len(state.head)
    position = rows % per_lane
    lane_start = (rows - position)[..., None]
    position = position[..., None]
    each = xp.arange(length + 1).reshape(*(1,) * rows.ndim, length + 1)
    walk = lane_start + (position + each[..., :-1]) % per_lane  # [..., T]
    valid = _until_first_false(xp, ~state.boundary.take(walk), axis=-1)
    reached = xp.minimum(each, valid.sum(axis=-1, keepdims=True))
    seen = lane_start + (position + reached) % per_lane  # [..., T+1]
    at_the_newest = (seen[..., -1] - lane_start[..., 0]) == state.head.take(rows // per_lane)
    return Sequence(
        obs=_observations(state, seen),
        a_tm1=xp.where(valid, state.action.take(walk), np.int32(0)),
        r_t=xp.where(valid, state.reward.take(walk), np.float32(0)),
        discount_t=xp.where(valid, xp.float32(discount) * state.continuation.take(walk), np.float32(0)),
        valid=valid,
        first=state.episode_step.take(rows) == 0,
        complete=valid[..., -1] | ~at_the_newest,
        action_mask=_take(state.action_mask, seen),
    )


def next_rows(state: ReplayState, rows: Array) -> Array:
    """Next row in the lane of each row."""
    per_lane = len(state.boundary) // len(state.head)
    following = rows + 1
    if not isinstance(rows, np.ndarray):
        return jnp.where(following % per_lane == 0, following - per_lane, following)
    wrapped = following == per_lane if len(state.head) == 1 else following % per_lane == 0
    if np.count_nonzero(wrapped):  # rarely; this check is cheaper than a masked subtraction
        following[wrapped] -= per_lane
    return following


def _observations(state: ReplayState, rows: Array) -> Array:
    """Observations at ``rows``; with stacks, each has the earlier frames of its episode.

    In NumPy, the frames of a stack are contiguous in memory, and strides put them on the last axis. JAX changes the
    layout when it receives the array, in a quarter of the time that NumPy needs to interleave the frames.
    """
    if not len(state.lags):
        return state.observation.take(rows, axis=0)
    xp = _numpy_of(rows)
    per_lane = len(state.boundary) // len(state.head)
    position = rows % per_lane
    lags = state.lags.reshape(*(1,) * rows.ndim, len(state.lags))
    back = xp.minimum(lags, state.episode_step.take(rows)[..., None])
    frames = (rows - position)[..., None] + (position[..., None] - back) % per_lane
    taken = state.observation.take(frames, axis=0)
    return xp.moveaxis(taken.reshape(taken.shape[: frames.ndim + 2]), frames.ndim - 1, -1)


def _take(tree: Tree, rows: Array) -> Tree:
    if isinstance(tree, tuple) and not tree:  # the usual case; tree_map of an empty tree takes two microseconds
        return ()
    return tree_util.tree_map(lambda leaf: leaf.take(rows, axis=0), tree)


def _numpy_of(array: Array) -> Any:
    return np if isinstance(array, np.ndarray) else jnp


def _until_first_false(xp: Any, condition: Array, axis: int) -> Array:
    if xp is np:
        return np.logical_and.accumulate(condition, axis=axis)
    return jnp.cumprod(condition, axis=axis).astype(np.bool_)
