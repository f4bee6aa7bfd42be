"""State of a replay, and rows of the host replay: indices, opening and closing of rows."""

import functools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import sum_tree
from .types import Array, Tree


class ReplayState(NamedTuple):
    """State of a replay, a pytree of NumPy arrays on the host and of JAX arrays on the device.

    Made by ``init``, written by ``add``. On the device, int64 is int32 and float64 is float32.

    Attributes:
        observation: Observations ``[R, ...]``, in the dtype of the environment.
        action: Actions ``[R]`` int32.
        reward: Rewards ``[R]`` float32.
        continuation: Continuations ``Step.discount_t``, ``[R]`` float32: 0 at termination, else 1.
        extras: Tree of ``Step.extras_tm1``, leaves ``[R, ...]``.
        action_mask: Legal actions at each observation, ``[R, A]`` bool; ``()`` without masks.
        boundary: Whether a row is a boundary, which has no action, ``[R]`` bool. The other rows are starts, which can
            be sampled.
        head: Position of the open row in each lane, ``[L]`` int64.
        written: Number of rows opened so far in each lane, including the head, ``[L]`` int64; ``min(written, C)`` rows
            hold data. On the device, a multiple of ``C`` is subtracted before the number overflows.
        num_valid: Number of starts in each lane, ``[L]`` int64.
        priorities: Priorities, a ``SumTree`` of ``sum_tree`` or ``device_tree`` over ``[R]`` leaves, 0 at boundaries;
            ``()`` unless prioritized.
        largest_priority: Largest priority assigned so far, which new rows get, ``[]`` float64; ``()`` unless
            prioritized.
        writing: Number that identifies a start among all starts stored in its row over time, ``[R]`` int64:
            ``row + R * (number of times the row became a boundary again)``; ``()`` unless prioritized. On the device it
            is ``()``, because it follows from ``written``.
        episode_step: Number of rows of the episode before each row, ``[R]`` int64; ``()`` unless the replay has stacks,
            sequences or the future of transitions.
        lags: Distance of each frame of a stack from the newest frame, ``stack - 1`` down to 0, ``[stack]`` int64;
            ``()`` without stacks.
        sequence_period: Number of steps between the starts of sequences, ``[]`` int64; ``()`` without sequences.
        sequence_start: Whether a sequence can start at each row, ``[R]`` bool; ``()`` without sequences.
    """

    observation: Array
    action: Array
    reward: Array
    continuation: Array
    extras: Tree
    action_mask: Array
    boundary: Array
    head: Array
    written: Array
    num_valid: Array
    priorities: Array = ()
    largest_priority: Array = ()
    writing: Array = ()
    episode_step: Array = ()
    lags: Array = ()
    sequence_period: Array = ()
    sequence_start: Array = ()


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


def heads(state: ReplayState) -> slice | npt.NDArray[np.int64]:
    """Index of the open row of every lane; a slice for one lane, because NumPy assigns to slices faster."""
    num_envs = len(state.head)
    if num_envs == 1:
        head = int(state.head[0])
        return slice(head, head + 1)
    rows: npt.NDArray[np.int64] = state.head + lane_starts(num_envs, len(state.boundary) // num_envs)
    return rows


def open_next(state: ReplayState, lanes: npt.NDArray[Any]) -> slice | npt.NDArray[np.int64]:
    """Move each head forward by ``lanes`` rows (0 or 1), which opens these rows; return the index of all heads.

    Opening a row removes one start. Without stacks, this is the start in the opened row. With stacks, it is the oldest
    start, because its history begins in the opened row; the rows between them are boundaries already.
    """
    per_lane = len(state.boundary) // len(state.head)
    if len(state.head) == 1:  # Python integers are several times faster for one environment
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
    # If a head did not move, its row is a boundary already, so only removed starts are counted.
    np.subtract(state.num_valid, ~state.boundary[closed], out=state.num_valid)
    state.boundary[closed] = True
    return at


def _ahead(state: ReplayState) -> npt.NDArray[np.int64]:
    """Row of the start in each lane that opening the head removes, because it is now only history of a stack."""
    per_lane = len(state.boundary) // len(state.head)
    position: npt.NDArray[np.int64] = (state.head + len(state.lags) - 1) % per_lane
    return position + lane_starts(len(state.head), per_lane)


def count_step(state: ReplayState, before: Any, at: Any) -> None:
    """Set the episode steps of the rows ``at``, which follow the rows ``before`` in their episodes."""
    if len(state.episode_step):
        state.episode_step[at] = state.episode_step[before] + 1


def open_episodes(state: ReplayState, lanes: npt.NDArray[np.bool_]) -> None:
    """Open the first row of a new episode in the lanes where ``lanes`` is True; the last row stays a boundary."""
    at = open_next(state, lanes)
    if len(state.episode_step):
        state.episode_step[at] *= ~lanes


def writing_of(written: npt.NDArray[np.int64], per_lane: int, stack: int) -> npt.NDArray[np.int64]:
    """``ReplayState.writing`` after ``written`` rows; the first start in a row has the number of the row."""
    rows = len(written) * per_lane
    laps = (written[:, None] - 1 + stack - 1 - np.arange(per_lane)) // per_lane
    return np.arange(rows, dtype=np.int64) + rows * laps.reshape(-1)


def _forget(state: ReplayState, at: Any, moved: Any) -> None:
    """Clear the start fields of rows that became boundaries, and increase their ``writing``."""
    if len(state.sequence_start):
        state.sequence_start[at] = False
    if state.priorities:
        sum_tree.assign(state.priorities, at, 0.0)
        state.writing[at] += len(state.boundary) * moved


def mark_starts(state: ReplayState, at: Any) -> None:
    """Give new starts the largest priority so far; with sequences, only the starts of sequences get it."""
    at = at.start if type(at) is slice else at
    priority = state.largest_priority
    if len(state.sequence_start):
        starts = state.episode_step[at] % state.sequence_period == 0
        state.sequence_start[at] = starts
        priority = priority * starts if state.priorities else ()
    if state.priorities:
        sum_tree.assign(state.priorities, at, priority)
