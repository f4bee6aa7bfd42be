"""The replay on the host: functions over NumPy arrays.

**Rows in lanes.** One lane per environment with ``C`` rows, used as a ring; row ``lane * C + position`` of the flat
arrays. Each observation is stored once: a transition's ``obs_t`` is the observation of the row that follows.

A row is either a *start* (observation, action, reward, continuation, extras) or a *boundary*, which has no action
(an action mask goes with the observation, so that a boundary has one):

* the *head* of a lane, open: it holds the newest observation, and the next step's action goes there;
* the true last observation of an episode, kept for good, so each episode's end takes a row of its own;
* a row that was never written;
* where observations are stacked, the ``stack - 1`` oldest rows of a lane, in front of its head: the history of the
  oldest start, which lost their own.

A window that walks forward from a start stops at the first boundary. The head is one, so no window crosses the write
position; last observations are, so none crosses an episode. That is the whole bookkeeping.

In the shapes, ``L`` is the number of lanes, ``C`` the rows per lane, ``R = L * C``, and ``...`` one observation.
"""

import bisect
import functools
import pathlib
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
from jax import tree_util

from . import sum_tree
from ._checks import (
    GIB,
    check_array,
    check_frame,
    check_period,
    check_step,
    check_storage,
    lane_nbytes,
    observation_nbytes,
    priority_nbytes,
    row_nbytes,
    rows_per_lane,
)
from ._rows import (
    HostReplay,
    all_lanes,
    count_step,
    heads,
    lane_starts,
    mark_starts,
    open_episodes,
    open_next,
    writing_of,
)
from ._validity import check_valid
from .draws import sample, sample_sequences, size, update_priorities
from .types import Array, Step, Tree

__all__ = [
    "HostReplay",
    "add",
    "check_valid",
    "end_episode",
    "init",
    "nbytes",
    "sample",
    "sample_sequences",
    "size",
    "update_priorities",
]


def nbytes(
    observation: Array,
    extras: Tree = (),
    action_mask: Array = (),
    *,
    num_envs: int,
    capacity: int,
    prioritized: bool = False,
    stack: int = 1,
    sequence_period: int = 0,
    storage: pathlib.Path | None = None,
) -> int:
    """Bytes that ``init`` of the same arguments allocates in memory.

    Args:
        observation: array or ``jax.ShapeDtypeStruct`` of one observation of one environment.
        extras: tree of the same for what the agent keeps with a step.
        action_mask: the same of an action mask; ``()`` for none.
        num_envs: number of environments.
        capacity: number of steps to keep, over all environments.
        prioritized: whether rows have priorities.
        stack: how many frames an observation is drawn with.
        sequence_period: at every which step of an episode a sequence can start; 0 for no sequences.
        storage: the file in which the observations lie, which are not counted then.

    Returns:
        The number of bytes.

    Raises:
        TypeError: if a spec has no shape and dtype that NumPy can store.
        ValueError: if ``num_envs``, ``capacity`` or ``stack`` is not an integer of 1 or more, ``sequence_period`` not
            one of 0 or more, or frames cannot be stacked.

    >>> import jax, numpy as np
    >>> nbytes(jax.ShapeDtypeStruct((4,), np.float32), num_envs=1, capacity=1_000_000)
    29000053
    """
    rows = num_envs * rows_per_lane(num_envs, capacity, stack)
    total = rows * row_nbytes(observation, extras, action_mask) + lane_nbytes(num_envs)
    total -= rows * observation_nbytes(observation) if storage is not None else 0
    check_frame(observation, stack)
    total += 8 * stack if stack > 1 else 0
    total += rows + 8 if check_period(sequence_period) else 0
    total += 8 * rows if stack > 1 or sequence_period else 0
    return total + (priority_nbytes(rows) if prioritized else 0)


def init(
    observation: Array,
    extras: Tree = (),
    action_mask: Array = (),
    *,
    num_envs: int,
    capacity: int,
    prioritized: bool = False,
    stack: int = 1,
    sequence_period: int = 0,
    storage: pathlib.Path | None = None,
    reopen: bool = False,
) -> HostReplay:
    """Makes an empty replay.

    Each lane gets ``ceil(capacity / num_envs)`` rows and one more for its open row, so that ``capacity`` steps of
    episodes that never end fit. Each end of an episode takes one row from that; with a single row per environment
    a step that ends its episode is gone at once.

    Args:
        observation: array or ``jax.ShapeDtypeStruct`` of one observation of one environment (no batch axis); it is
            stored in this dtype.
        extras: tree of the same for what the agent keeps with a step; ``()`` for nothing.
        action_mask: the same of an action mask, ``[A]`` bool; ``()`` where every action is always legal.
        num_envs: number of environments, one lane each.
        capacity: number of steps to keep, over all environments.
        prioritized: whether rows are drawn in proportion to priorities, which ``update_priorities`` sets; a new row
            gets the largest that was ever assigned, at least 1.
        stack: with how many frames an observation is drawn. Where it is more than 1 each observation is one frame,
            ``(H, W)`` or ``(H, W, 1)``, stored once, and draws have ``[B, H, W, stack]``, the oldest first. Before the
            first frame of an episode lies that same frame. Each lane gets ``stack - 1`` rows more.
        sequence_period: where it is more than 0, ``sample_sequences`` can draw sequences that start with the first step
            of an episode and with every ``sequence_period``-th after it; 1 for all. Of a prioritized replay these steps
            alone have priorities, and nothing else is drawn.
        storage: a file for the observations, by far the largest array, mapped into memory by the operating system; all
            else stays in memory. What lies there is overwritten. Where it can, the file takes space as rows are first
            written; the disk must keep that space free, since a full one ends the process (SIGBUS).
        reopen: take up the observations that ``storage`` holds, of a replay made by the same arguments; the rest of
            that replay's state is the caller's to put back.

    Returns:
        The replay. Its memory is taken from the system as rows are first written.

    Raises:
        TypeError: if a spec has no shape and dtype that NumPy can store, or ``storage`` is no path.
        ValueError: if ``num_envs``, ``capacity`` or ``stack`` is not an integer of 1 or more, ``sequence_period`` not
            one of 0 or more, if frames cannot be stacked, if the arrays exceed the memory that is available now or the
            observations the space on the disk, ``storage`` is a folder or in none, or what is to be reopened is not
            there or has another size.

    >>> import jax, numpy as np
    >>> state = init(jax.ShapeDtypeStruct((84, 84), np.uint8), num_envs=2, capacity=100)
    >>> state.observation.shape, state.observation.dtype, size(state)
    ((102, 84, 84), dtype('uint8'), 0)
    """
    options: dict[str, Any] = {"prioritized": prioritized, "stack": stack, "sequence_period": sequence_period}
    options |= {"num_envs": num_envs, "storage": storage}
    bytes_of = functools.partial(nbytes, observation, extras, action_mask, **options)
    needed, free = bytes_of(capacity=capacity), psutil.virtual_memory().available
    if needed > free:
        fits = bisect.bisect_right(range(1, capacity), free, key=lambda smaller: bytes_of(capacity=smaller))
        raise ValueError(
            f"capacity: got {capacity}, which needs {needed / GIB:.2f} GiB with num_envs {num_envs}; expected at most "
            f"the {free / GIB:.2f} GiB that are free. The largest capacity that fits is {fits}; images in uint8, fewer "
            "pixels or observations in a file (storage, --replay-storage mmap) make room for more."
        )
    per_lane = rows_per_lane(num_envs, capacity, stack)
    rows, written = num_envs * per_lane, np.ones(num_envs, np.int64)
    if storage is not None:
        storage = check_storage(storage, rows * observation_nbytes(observation), capacity, reopen)

    def allocate(spec: Array) -> npt.NDArray[Any]:
        return np.zeros((rows, *spec.shape), spec.dtype)

    return HostReplay(
        observation=allocate(observation) if storage is None else _map(storage, rows, observation, reopen),
        action=np.zeros(rows, np.int32),
        reward=np.zeros(rows, np.float32),
        continuation=np.zeros(rows, np.float32),
        extras=tree_util.tree_map(allocate, extras),
        action_mask=tree_util.tree_map(allocate, action_mask),
        boundary=np.ones(rows, np.bool_),
        head=np.zeros(num_envs, np.int64),
        written=written,
        num_valid=np.zeros(num_envs, np.int64),
        priorities=sum_tree.init(rows) if prioritized else (),
        largest_priority=np.array(1.0) if prioritized else (),
        writing=writing_of(written, per_lane, stack) if prioritized else (),
        episode_step=np.zeros(rows, np.int64) if stack > 1 or sequence_period else (),
        lags=np.arange(stack - 1, -1, -1) if stack > 1 else (),
        sequence_period=np.array(sequence_period) if sequence_period else (),
        sequence_start=np.zeros(rows, np.bool_) if sequence_period else (),
    )


def _map(storage: pathlib.Path, rows: int, spec: Array, reopen: bool) -> npt.NDArray[Any]:
    """Zeros in a new file, since what was never written reads so; or what lies in an old one."""
    if not reopen:
        storage.unlink(missing_ok=True)  # a replay that still lies in an old one keeps it, nameless
    mapped = np.memmap(storage, spec.dtype, "r+" if reopen else "w+", shape=(rows, *spec.shape))
    return np.asarray(mapped)  # plain, over the mapped one


def add(state: HostReplay, step: Step, lanes: npt.NDArray[np.bool_] | None = None) -> HostReplay:
    """Adds one step of every environment. Consumes ``state``: its arrays are written in place; use the result.

    Within an episode ``obs_tm1`` must be the ``obs_t`` of the step before, since both are one row; where an
    environment was restarted in between, call ``end_episode`` first.

    Args:
        state: the replay.
        step: one step of all ``L`` environments; the number types may be wider than stored (float64 rewards).
        lanes: ``[L]`` bool, which environments were stepped; the rest of ``step`` is passed over. None: all.

    Returns:
        The replay with the step; its ``obs_t`` can be drawn at once.

    Raises:
        TypeError: if a field is no array, or its dtype cannot be stored without changing its kind (float in uint8).
        ValueError: if a field's shape or the structure of the extras differs from what ``init`` was told. Nothing
            has been written then.

    >>> import jax, numpy as np
    >>> state = init(jax.ShapeDtypeStruct((), np.float32), num_envs=1, capacity=10)
    >>> step = Step(np.float32([0.0]), np.int32([1]), np.float32([0.5]), np.float32([1.0]),
    ...             np.array([False]), np.float32([1.0]))
    >>> state = add(state, step)
    >>> size(state)
    1
    """
    extras = check_step(state, step)
    if lanes is not None and b"\x00" in lanes.tobytes():
        return _add_some(state, step, extras, lanes)
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
    state: HostReplay, step: Step, extras: list[tuple[npt.NDArray[Any], Array]], lanes: npt.NDArray[np.bool_]
) -> HostReplay:
    """``add`` for some of the lanes, as when a vector environment spends a step on resetting the others."""
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


def _keep_mask(state: HostReplay, at: slice | npt.NDArray[np.int64], mask: Array, lanes: Any = slice(None)) -> None:
    if not isinstance(state.action_mask, tuple):
        state.action_mask[at] = mask[lanes]


def end_episode(state: HostReplay, lanes: npt.NDArray[np.bool_]) -> HostReplay:
    """Closes the current episode of some lanes as truncated. Consumes ``state`` as ``add`` does.

    For an environment that had to be restarted without telling: its newest observation becomes the true last one.
    Lanes without a step in their current episode stay as they are.

    Args:
        state: the replay.
        lanes: ``[L]`` bool, whether to close.

    Returns:
        The replay.

    Raises:
        TypeError: if ``lanes`` is no bool array.
        ValueError: if it has another shape.

    >>> import jax, numpy as np
    >>> state = init(jax.ShapeDtypeStruct((), np.float32), num_envs=2, capacity=10)
    >>> end_episode(state, np.array([True, False])).written.tolist()
    [1, 1]
    """
    check_array("lanes", lanes, state.boundary, len(state.head))
    per_lane = len(state.boundary) // len(state.head)
    before = (state.head - 1) % per_lane + lane_starts(len(state.head), per_lane)
    open_episodes(state, np.asarray(lanes) & ~state.boundary[before])
    return state
