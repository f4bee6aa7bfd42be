"""What starts at given rows of the host replay: windows that walk forward to the first boundary."""

from typing import Any

import numpy as np
import numpy.typing as npt
from jax import tree_util

from ._rows import HostReplay, next_rows
from .types import Sequence, Transition, Tree


def transitions(state: HostReplay, rows: npt.NDArray[np.int64], n: int, discount: float) -> Transition:
    """The transitions that start at ``rows``, which must be starts, over up to ``n`` steps."""
    reward, discount_t, end = one_step(state, rows, discount) if n == 1 else n_step(state, rows, n, discount)
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


def _observations(state: HostReplay, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """What was observed at ``rows``, with the frames before it in its episode where observations are stacked.

    In memory the frames of a stack lie one after the other, as they were stored; the last axis is theirs by strides.
    JAX lays it out when it takes the array, in a quarter of the time that NumPy takes to interleave the frames.
    """
    if not len(state.lags):
        return state.observation.take(rows, axis=0)
    per_lane = len(state.boundary) // len(state.head)
    position = rows % per_lane
    back = np.minimum(state.lags, state.episode_step.take(rows)[..., None])
    frames = (rows - position)[..., None] + (position[..., None] - back) % per_lane
    taken = state.observation.take(frames, axis=0)
    return np.moveaxis(taken.reshape(taken.shape[: frames.ndim + 2]), frames.ndim - 1, -1)


def _take(tree: Tree, rows: npt.NDArray[np.int64]) -> Tree:
    if isinstance(tree, tuple) and not tree:  # as for most agents; mapping over nothing costs two microseconds
        return ()
    return tree_util.tree_map(lambda leaf: leaf.take(rows, axis=0), tree)


_Window = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int64]]


def one_step(state: HostReplay, rows: npt.NDArray[np.int64], discount: float) -> _Window:
    return state.reward.take(rows), np.float32(discount) * state.continuation.take(rows), next_rows(state, rows)


def n_step(state: HostReplay, rows: npt.NDArray[np.int64], n: int, discount: float) -> _Window:
    """Rewards summed, discount of the bootstrap value, and the row to bootstrap from, for windows of up to ``n``."""
    per_lane = len(state.boundary) // len(state.head)
    position = rows % per_lane
    lane_start = rows - position
    each = np.arange(n).reshape(n, *(1,) * rows.ndim)  # [n, 1, ...]
    walk = lane_start + (position + each) % per_lane  # [n, ...]
    inside = np.logical_and.accumulate(~state.boundary.take(walk))
    steps = inside.sum(axis=0)
    powers = np.array([discount**i for i in range(n + 1)])
    # where, not a product: a boundary row may hold anything, NaN included.
    rewards = np.where(inside, state.reward.take(walk), np.float32(0))
    continuation = np.where(inside, state.continuation.take(walk), np.float32(1))
    total = (powers.take(each) * rewards).sum(axis=0)
    factor = powers.take(steps) * continuation.prod(axis=0, dtype=np.float64)
    return total.astype(np.float32), factor.astype(np.float32), lane_start + (position + steps) % per_lane


def sequences(state: HostReplay, rows: npt.NDArray[np.int64], length: int, discount: float) -> Sequence:
    """The sequences that start at ``rows``, which must be starts, of up to ``length`` steps and padded to them."""
    per_lane = len(state.boundary) // len(state.head)
    position = rows % per_lane
    lane_start = (rows - position)[..., None]
    position = position[..., None]
    walk = lane_start + (position + np.arange(length)) % per_lane  # [..., T]
    valid = np.logical_and.accumulate(~state.boundary.take(walk), axis=-1)
    reached = np.minimum(np.arange(length + 1), valid.sum(axis=-1, keepdims=True))
    seen = lane_start + (position + reached) % per_lane  # [..., T+1]
    at_the_newest = (seen[..., -1] - lane_start[..., 0]) == state.head.take(rows // per_lane)
    return Sequence(
        obs=_observations(state, seen),
        a_tm1=np.where(valid, state.action.take(walk), np.int32(0)),
        r_t=np.where(valid, state.reward.take(walk), np.float32(0)),
        discount_t=np.where(valid, np.float32(discount) * state.continuation.take(walk), np.float32(0)),
        valid=valid,
        first=state.episode_step.take(rows) == 0,
        complete=valid[..., -1] | ~at_the_newest,
        extras=_take(state.extras, rows),
        action_mask=_take(state.action_mask, seen),
    )
