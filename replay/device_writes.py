"""Writes to the device replay: adding steps and closing episodes, as traceable functions.

Each function reads the rows that it closes before it writes, and the indices of the writes depend on what it read. So
XLA can write in place, without a copy of an array with ``R`` rows. An index of ``R`` or more drops a write.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from . import device_tree
from ._checks import check_array, check_step
from ._rows import ReplayState
from .types import Array, Step

MOST_ROWS = 2**29
_LONGEST = 2**30


def laps_of(num_envs: int, per_lane: int) -> int:
    """Number of times that a lane is filled before ``ReplayState.written`` begins again, so that no number overflows.

    ``row + rows * lap`` fits into uint32, and ``written`` into int32.
    """
    return min(2**32 // (num_envs * per_lane), (2**31 - 1) // per_lane - 1)


def writings(state: ReplayState, rows: Array) -> Array:
    """Numbers that identify the starts in ``rows`` among earlier ones, uint32; see ``ReplayState.writing``."""
    num_envs, number = len(state.head), len(state.boundary)
    per_lane = number // num_envs
    newest = state.written[rows // per_lane] - 1 + max(0, len(state.lags) - 1)
    lap = (newest - rows % per_lane) // per_lane % laps_of(num_envs, per_lane)
    return rows.astype(jnp.uint32) + np.uint32(number) * lap.astype(jnp.uint32)


class _Move(NamedTuple):
    """Move of the heads of all lanes for a step or for the end of an episode; fields ``[N]``.

    Attributes:
        head: Head after the move.
        moved: Whether the head moves.
        closed: Row of the start that the move removes.
        lost: Whether this row was a start.
    """

    head: Array
    moved: Array
    closed: Array
    lost: Array


def add(state: ReplayState, step: Step, valid: Array | None = None) -> ReplayState:
    """Add one step of every environment; see ``Replay.add``."""
    extras = check_step(state, step)
    num_envs, rows = len(state.head), len(state.boundary)
    if valid is None:
        stepped: Any = jnp.ones(num_envs, jnp.bool_)
    else:
        check_array("valid", valid, state.boundary, num_envs)
        stepped = valid
    at = state.head + _lanes(state)
    first = _move(state, state.head, stepped)
    second = _move(state, first.head, stepped & step.last)
    # In lanes of the smallest size, the end of an episode removes the step itself.
    own = second.moved & (second.closed == at)
    second = second._replace(lost=second.moved & (own | second.lost))
    written, new = jnp.where(stepped, at, rows), jnp.where(stepped, first.head + _lanes(state), rows)

    def put(storage: Array, index: Array, value: Array) -> Array:
        return storage.at[index].set(jnp.asarray(value).astype(storage.dtype), mode="drop")

    observation = put(put(state.observation, written, step.obs_tm1), new, step.obs_t)
    stored = [put(storage, written, value) for storage, value in extras]  # the extras, then the action mask
    structure: Any = jax.tree.structure(state.extras)
    state = state._replace(
        observation=observation,
        action=put(state.action, written, step.a_tm1),
        reward=put(state.reward, written, step.r_t),
        continuation=put(state.continuation, written, step.discount_t),
        extras=jax.tree.unflatten(structure, stored[: structure.num_leaves]),
    )
    if not isinstance(state.action_mask, tuple):
        state = state._replace(action_mask=put(stored[-1], new, step.action_mask_t))
    starts = jnp.ones(num_envs, jnp.bool_)
    if len(state.episode_step):
        before = state.episode_step.at[at].get(mode="clip")
        starts = before % state.sequence_period == 0 if len(state.sequence_start) else starts
        state = state._replace(episode_step=put(state.episode_step, new, _following(state, before)))
    return _finish(state, (first, second), written, stepped, starts & ~own, ~own)


def end_episode(state: ReplayState, lanes: Array) -> ReplayState:
    """Close the current episode of some lanes as truncated; see ``Replay.end_episode``."""
    check_array("lanes", lanes, state.boundary, len(state.head))
    per_lane = len(state.boundary) // len(state.head)
    before = (state.head - 1) % per_lane + _lanes(state)
    move = _move(state, state.head, jnp.asarray(lanes) & ~state.boundary.at[before].get(mode="clip"))
    none = jnp.zeros(len(state.head), jnp.bool_)
    return _finish(state, (move,), jnp.full(len(state.head), len(state.boundary)), none, none, none)


def _move(state: ReplayState, head: Array, moved: Array) -> _Move:
    """Move heads forward by one row where ``moved``."""
    per_lane = len(state.boundary) // len(state.head)
    head = jnp.where(moved, (head + 1) % per_lane, head)
    closed = (head + max(0, len(state.lags) - 1)) % per_lane + _lanes(state)
    return _Move(head, moved, closed, moved & ~state.boundary.at[closed].get(mode="clip"))


def _finish(
    state: ReplayState, moves: tuple[_Move, ...], at: Array, stepped: Array, eligible: Array, start: Array
) -> ReplayState:
    """Write the new heads, counters and boundaries, and what belongs to the starts in the rows ``at``.

    Args:
        state: State.
        moves: Moves of the heads; the last one opens the first row of an episode.
        at: Rows of the step, ``[N]``; an index out of range writes nothing.
        stepped: Whether each lane has a step, ``[N]``.
        eligible: Whether each row can be sampled, ``[N]``.
        start: Whether each row remains a start, ``[N]``.
    """
    rows, per_lane = len(state.boundary), len(state.boundary) // len(state.head)
    end = moves[-1]
    index = jnp.concatenate([at, *(jnp.where(move.lost, move.closed, rows) for move in moves)])
    closed = jnp.zeros(len(index) - len(at), jnp.bool_)
    opened = sum(move.moved.astype(jnp.int32) for move in moves)
    written = state.written + opened
    laps = per_lane * laps_of(len(state.head), per_lane)
    lost = sum(move.lost.astype(jnp.int32) for move in moves)
    state = state._replace(
        head=end.head,
        written=jnp.where(written >= laps + per_lane, written - laps, written),
        num_valid=state.num_valid + stepped - lost,
        boundary=state.boundary.at[index].set(jnp.concatenate([~start, ~closed]), mode="drop"),
    )
    if len(state.episode_step):
        opened_at = jnp.where(end.moved, end.head + _lanes(state), rows)
        state = state._replace(episode_step=state.episode_step.at[opened_at].set(0, mode="drop"))
    if len(state.sequence_start):
        marks = jnp.concatenate([eligible, closed])
        state = state._replace(sequence_start=state.sequence_start.at[index].set(marks, mode="drop"))
    if state.priorities:
        values = jnp.concatenate([state.largest_priority * eligible, closed.astype(jnp.float32)])
        state = state._replace(priorities=device_tree.assign(state.priorities, index, values, index < rows))
    return state


def _following(state: ReplayState, before: Array) -> Array:
    """Episode step after ``before``; after 2**30 steps, it begins again at a number with the same meaning."""
    period = state.sequence_period if len(state.sequence_start) else 1
    least = -(-max(1, len(state.lags)) // period) * period
    span = _LONGEST // period * period
    following = before + 1
    return jnp.where(following >= span + least, following - span, following)


def _lanes(state: ReplayState) -> Array:
    """First row of each lane, ``[N]`` int32."""
    num_envs = len(state.head)
    return jnp.arange(num_envs, dtype=jnp.int32) * (len(state.boundary) // num_envs)
