"""Invariants of a replay."""

from typing import Any

import jax
import numpy as np
from jax import tree_util

from . import device_tree, sum_tree
from ._rows import ReplayState, writing_of
from ._walk import next_rows


def check_valid(state: ReplayState) -> None:
    """Check that the arrays of a replay are consistent, for tests and after a restore.

    Args:
        state: State of a host or device replay; unchanged.

    Raises:
        AssertionError: If an invariant is violated; the message names it.

    >>> import jax, numpy as np
    >>> from polyak.replay import EnvironmentSpec, host
    >>> spec = EnvironmentSpec(jax.ShapeDtypeStruct((), np.float32), num_actions=2)
    >>> check_valid(host.make(spec, num_envs=1, capacity=10, batch_size=2).init())
    """
    state = jax.device_get(state)
    num_envs, rows = len(state.head), len(state.boundary)

    def require(condition: Any, message: str) -> None:
        if not condition:
            raise AssertionError(f"{message}: {state.head=}, {state.written=}, {state.num_valid=}, {state.boundary=}")

    beside = tree_util.tree_leaves((state.extras, state.action_mask))
    stored = [state.observation, state.action, state.reward, state.continuation, *beside]
    require(all(len(leaf) == rows for leaf in stored), "arrays differ in their number of rows")
    require(num_envs >= 1 and rows % num_envs == 0 and rows >= 2 * num_envs, "rows do not divide into lanes of >= 2")
    require(state.written.shape == state.num_valid.shape == (num_envs,), "counters differ in their number of lanes")
    per_lane = rows // num_envs
    require((state.written >= 1).all(), "a lane without an open row")
    require((state.head == (state.written - 1) % per_lane).all(), "head is not the row opened last")
    boundary = state.boundary.reshape(num_envs, per_lane)
    require(boundary[np.arange(num_envs), state.head].all(), "head is not a boundary")
    # With the check of the head, this implies that a written row follows every start.
    never_written = np.arange(per_lane) >= state.written[:, None]
    require(boundary[never_written].all(), "a row that was never written is no boundary")
    require(((~boundary).sum(axis=1) == state.num_valid).all(), "num_valid is not the number of starts")
    if state.priorities:
        leaves = state.priorities.leaves
        require(np.isfinite(leaves).all() and (leaves >= 0).all(), "a priority is negative or not finite")
        require(not leaves[:rows][state.boundary].any() and not leaves[rows:].any(), "a boundary has a priority")
        require(leaves.max() <= state.largest_priority, "largest_priority is not the largest")
        on_device = isinstance(state.priorities, device_tree.SumTree)
        sums_are_valid = device_tree.is_valid if on_device else sum_tree.is_valid
        require(sums_are_valid(state.priorities), "a sum of priorities is not that of its parts")
        if not on_device:
            writing = writing_of(state.written, per_lane, max(1, len(state.lags)))
            require((writing == state.writing).all(), "writing is not as written")
    if len(state.lags):
        lost = (state.head[:, None] + np.arange(len(state.lags))) % per_lane
        require(np.take_along_axis(boundary, lost, 1).all(), "a start whose history is overwritten")
    if len(state.episode_step):
        starts = (~state.boundary).nonzero()[0]
        following = state.episode_step[next_rows(state, starts)]
        # On the device, the numbers of an endless episode begin again after about 2**30 steps.
        follows = (following == state.episode_step[starts] + 1) | (following < state.episode_step[starts] - 2**29)
        require(follows.all(), "a row is not numbered after the one before")
    if len(state.sequence_start):
        eligible = ~state.boundary & (state.episode_step % state.sequence_period == 0)
        require((state.sequence_start == eligible).all(), "sequence_start is not every so many steps of an episode")
        if state.priorities:
            require(not leaves[:rows][~eligible].any(), "a step that starts no sequence has a priority")
