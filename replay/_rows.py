"""Rows of the host replay: their arrays, and how they are found, opened and closed."""

import functools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import sum_tree
from .types import Tree


class HostReplay(NamedTuple):
    """State of the host replay, a pytree of NumPy arrays. Made by ``init``, written by ``add``.

    Attributes:
        observation: ``[R, ...]``, in the dtype of the environment.
        action: ``[R]`` int32.
        reward: ``[R]`` float32.
        continuation: ``[R]`` float32, ``Step.discount_t``: 0 at termination, else 1.
        extras: tree of ``Step.extras_tm1``, leaves ``[R, ...]``.
        action_mask: ``[R, A]`` bool, actions that are legal at the row's observation; ``()`` without masks.
        boundary: ``[R]`` bool, whether the row has no action; the others are the starts that can be drawn.
        head: ``[L]`` int64, position in its lane of each lane's open row.
        written: ``[L]`` int64, number of rows that were ever opened, with the head; ``min(written, C)`` are live.
        num_valid: ``[L]`` int64, number of starts of each lane.
        priorities: ``SumTree`` over ``[R]`` leaves, 0 at boundaries; ``()`` unless the replay is prioritized.
        largest_priority: ``[]`` float64, largest priority that was ever assigned, which new rows get; ``()`` unless
            prioritized.
        writing: ``[R]`` int64, ``row + R * (how often it became a boundary again)``, which distinguishes a start from
            those that lay in its row before; ``()`` unless prioritized.
        episode_step: ``[R]`` int64, number of rows of its episode before a row; ``()`` where nothing needs it (stacks,
            sequences and the future of transitions do).
        lags: ``[stack]`` int64, ``stack - 1`` down to 0, distance of each frame of a stack from the newest; ``()``
            without stacks.
        sequence_period: ``[]`` int64, number of steps between the starts of sequences; ``()`` without sequences.
        sequence_start: ``[R]`` bool, whether a sequence can start at a row; ``()`` without sequences.
    """

    observation: npt.NDArray[Any]
    action: npt.NDArray[np.int32]
    reward: npt.NDArray[np.float32]
    continuation: npt.NDArray[np.float32]
    extras: Tree
    action_mask: Any
    boundary: npt.NDArray[np.bool_]
    head: npt.NDArray[np.int64]
    written: npt.NDArray[np.int64]
    num_valid: npt.NDArray[np.int64]
    priorities: Any = ()
    largest_priority: Any = ()
    writing: Any = ()
    episode_step: Any = ()
    lags: Any = ()
    sequence_period: Any = ()
    sequence_start: Any = ()


@functools.lru_cache(maxsize=16)
def lane_starts(num_envs: int, per_lane: int) -> npt.NDArray[np.int64]:
    starts = np.arange(num_envs, dtype=np.int64) * per_lane
    starts.flags.writeable = False
    return starts


@functools.lru_cache(maxsize=16)
def all_lanes(num_envs: int) -> npt.NDArray[np.int64]:
    lanes = np.ones(num_envs, np.int64)
    lanes.flags.writeable = False
    return lanes


def heads(state: HostReplay) -> slice | npt.NDArray[np.int64]:
    """Index of the open row of every lane; for one lane a slice, which NumPy assigns to faster."""
    num_envs = len(state.head)
    if num_envs == 1:
        head = int(state.head[0])
        return slice(head, head + 1)
    return state.head + lane_starts(num_envs, len(state.boundary) // num_envs)


def open_next(state: HostReplay, lanes: npt.NDArray[Any]) -> slice | npt.NDArray[np.int64]:
    """Move the heads forward by ``lanes`` (0 or 1) rows, which opens them; return the index of all heads.

    An opened row removes a start: its own, or with stacks that of the oldest row which can be drawn, because its
    history begins where the open row lies. Those in between have become boundaries before.
    """
    per_lane = len(state.boundary) // len(state.head)
    if len(state.head) == 1:  # the same with Python's integers, several times faster for a single environment
        moved = int(lanes[0])
        head = (int(state.head[0]) + moved) % per_lane
        state.head[0] = head
        state.written[0] += moved
        closed: Any = head
        if state.priorities or len(state.episode_step):
            closed = (head + max(0, len(state.lags) - 1)) % per_lane
            _forget(state, closed, moved)
        state.num_valid[0] -= not state.boundary[closed]
        state.boundary[closed] = True
        return slice(head, head + 1)
    np.add(state.head, lanes, out=state.head)
    np.remainder(state.head, per_lane, out=state.head)
    np.add(state.written, lanes, out=state.written)
    at = heads(state)
    closed = at
    if state.priorities or len(state.episode_step):
        closed = _ahead(state) if len(state.lags) else at
        _forget(state, closed, lanes)
    # Where a head did not move this is a boundary already, so this counts only starts that are lost.
    np.subtract(state.num_valid, ~state.boundary[closed], out=state.num_valid)
    state.boundary[closed] = True
    return at


def _ahead(state: HostReplay) -> npt.NDArray[np.int64]:
    """The rows of the oldest observations that are history alone, one of each lane."""
    per_lane = len(state.boundary) // len(state.head)
    return (state.head + len(state.lags) - 1) % per_lane + lane_starts(len(state.head), per_lane)


def count_step(state: HostReplay, before: Any, at: Any) -> None:
    """Number the rows that were opened at ``at`` within the episodes of those at ``before``."""
    if len(state.episode_step):
        state.episode_step[at] = state.episode_step[before] + 1


def open_episodes(state: HostReplay, lanes: npt.NDArray[np.bool_]) -> None:
    """Open the first row of a new episode where ``lanes``; the last row of the old one stays a boundary."""
    at = open_next(state, lanes)
    if len(state.episode_step):
        state.episode_step[at] *= ~lanes


def writing_of(written: npt.NDArray[np.int64], per_lane: int, stack: int) -> npt.NDArray[np.int64]:
    """``HostReplay.writing`` after that many rows: each row's first start has the row's own number."""
    rows = len(written) * per_lane
    laps = (written[:, None] - 1 + stack - 1 - np.arange(per_lane)) // per_lane
    return np.arange(rows, dtype=np.int64) + rows * laps.reshape(-1)


def _forget(state: HostReplay, at: Any, moved: Any) -> None:
    """Clear the fields of starts in rows that became boundaries, and count their lap in ``writing``."""
    if len(state.sequence_start):
        state.sequence_start[at] = False
    if state.priorities:
        sum_tree.assign(state.priorities, at, 0.0)
        state.writing[at] += len(state.boundary) * moved


def mark_starts(state: HostReplay, at: Any) -> None:
    """Give new starts the largest priority that was ever assigned; with sequences only those that can start one."""
    at = at.start if type(at) is slice else at
    priority = state.largest_priority
    if len(state.sequence_start):
        starts = state.episode_step[at] % state.sequence_period == 0
        state.sequence_start[at] = starts
        priority = priority * starts if state.priorities else ()
    if state.priorities:
        sum_tree.assign(state.priorities, at, priority)
