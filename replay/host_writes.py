"""Writes to the host replay: adding steps and closing episodes."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ._checks import check_array, check_step
from ._rows import ReplayState, all_lanes, count_step, heads, lane_starts, mark_starts, open_episodes, open_next
from .types import Array, Step


def add(state: ReplayState, step: Step, valid: npt.NDArray[np.bool_] | None = None) -> ReplayState:
    """Add one step of every environment, in place; see ``Replay.add``."""
    extras = check_step(state, step)
    if valid is not None and b"\x00" in valid.tobytes():
        return _add_some(state, step, extras, valid)
    at = heads(state)
    state.observation[at] = step.obs_tm1
    state.action[at] = step.a_tm1
    state.reward[at] = step.r_t
    state.continuation[at] = step.discount_t
    for storage, value in extras:
        storage[at] = value
    state.boundary[at] = False
    more = state.priorities or len(state.episode_step)
    if more:
        mark_starts(state, at)
    every_lane = all_lanes(len(state.head))
    if type(at) is slice:
        state.num_valid[0] += 1
    else:
        np.add(state.num_valid, every_lane, out=state.num_valid)
    before, at = at, open_next(state, every_lane)
    state.observation[at] = step.obs_t
    if more:
        count_step(state, before, at)
    if extras:
        _keep_mask(state, at, step.action_mask_t)
    last = np.asarray(step.last)
    if b"\x01" in last.tobytes():  # several times faster than last.any()
        open_episodes(state, last)
    return state


def _add_some(
    state: ReplayState, step: Step, extras: list[tuple[npt.NDArray[Any], Array]], lanes: npt.NDArray[np.bool_]
) -> ReplayState:
    """``add`` for some of the lanes, for example if a vector environment uses a step to reset the others."""
    starts = lane_starts(len(state.head), len(state.boundary) // len(state.head))
    at = (state.head + starts)[lanes]
    fields = (
        (state.observation, step.obs_tm1),
        (state.action, step.a_tm1),
        (state.reward, step.r_t),
        (state.continuation, step.discount_t),
        *extras,
    )
    for storage, value in fields:
        storage[at] = value[lanes]
    state.boundary[at] = False
    if state.priorities or len(state.episode_step):
        mark_starts(state, at)
    np.add(state.num_valid, lanes, out=state.num_valid)
    open_next(state, lanes)
    before, at = at, (state.head + starts)[lanes]
    state.observation[at] = step.obs_t[lanes]
    count_step(state, before, at)
    if extras:
        _keep_mask(state, at, step.action_mask_t, lanes)
    open_episodes(state, np.asarray(step.last) & lanes)
    return state


def next_rows(state: ReplayState, count: int) -> npt.NDArray[np.int64]:
    """Written rows that will be overwritten when ``count`` more rows are opened in each lane.

    A copy of the observations in these rows can restore the file of the observations to its present content, as long as
    at most ``count`` rows of each lane have been opened since.

    Args:
        state: State of the replay; unchanged.
        count: Number of rows to be opened in each lane. A step opens one row, and two if it ends an episode.

    Returns:
        Indices ``[R]`` int64 into the flat arrays of the replay.

    >>> import jax
    >>> from polyak.replay import EnvironmentSpec, host
    >>> spec = EnvironmentSpec(jax.ShapeDtypeStruct((), np.float32), num_actions=2)
    >>> state = host.make(spec, num_envs=2, capacity=10, batch_size=1).init()
    >>> next_rows(state, 3).tolist()
    [0, 6]
    """
    rows = rows_ahead(state, count)
    return rows[is_written(state, rows)]


def rows_ahead(state: ReplayState, count: int) -> npt.NDArray[np.int64]:
    """Next ``count`` rows of each lane, beginning with the open row, ``[R]`` int64."""
    per_lane = len(state.boundary) // len(state.head)
    ahead: npt.NDArray[np.int64] = (state.head[:, None] + np.arange(min(count, per_lane))) % per_lane
    return (ahead + lane_starts(len(state.head), per_lane)[:, None]).ravel()


def is_written(state: ReplayState, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return whether each row has been written, ``[R]`` bool."""
    lanes, places = np.divmod(rows, len(state.boundary) // len(state.head))
    written: npt.NDArray[np.bool_] = places < state.written[lanes]
    return written


def _keep_mask(state: ReplayState, at: slice | npt.NDArray[np.int64], mask: Array, lanes: Any = slice(None)) -> None:
    if not isinstance(state.action_mask, tuple):
        state.action_mask[at] = mask[lanes]


def end_episode(state: ReplayState, lanes: npt.NDArray[np.bool_]) -> ReplayState:
    """Close the current episode of some lanes as truncated, in place; see ``Replay.end_episode``."""
    check_array("lanes", lanes, state.boundary, len(state.head))
    per_lane = len(state.boundary) // len(state.head)
    before = (state.head - 1) % per_lane + lane_starts(len(state.head), per_lane)
    open_episodes(state, np.asarray(lanes) & ~state.boundary[before])
    return state
