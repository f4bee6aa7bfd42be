"""The replay on the host: functions over NumPy arrays.

**Rows in lanes.** One lane per environment with ``C`` rows, used as a ring; row ``lane * C + position`` of the flat
arrays. Each observation is stored once: a transition's ``obs_t`` is the observation of the row that follows.

A row is either a *start* (observation, action, reward, continuation, extras) or a *boundary*, which has no action
(an action mask goes with the observation, so that a boundary has one):

* the *head* of a lane, open: it holds the newest observation, and the next step's action goes there;
* the true last observation of an episode, kept for good, so each episode's end takes a row of its own;
* a row that was never written.

A window that walks forward from a start stops at the first boundary. The head is one, so no window crosses the write
position; last observations are, so none crosses an episode. That is the whole bookkeeping.

In the shapes, ``L`` is the number of lanes, ``C`` the rows per lane, ``R = L * C``, and ``...`` one observation.
"""

import functools
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import psutil
from jax import tree_util

from ._checks import check_array, check_count, check_discount, check_step, lane_nbytes, row_nbytes, rows_per_lane
from .types import Array, Sample, Step, Transition, Tree

_GIB = 2**30


class HostReplay(NamedTuple):
    """Steps kept in rows, a pytree of NumPy arrays and nothing else. Made by ``init``, written by ``add``.

    Attributes:
        observation: ``[R, ...]``, in the dtype of the environment.
        action: ``[R]`` int32.
        reward: ``[R]`` float32.
        continuation: ``[R]`` float32, ``Step.discount_t``: 0 at termination, else 1.
        extras: the tree of ``Step.extras_tm1``, leaves ``[R, ...]``.
        action_mask: ``[R, A]`` bool, the actions that are legal at the row's observation; ``()`` without masks.
        boundary: ``[R]`` bool, whether the row has no action; the others are the starts that can be drawn.
        head: ``[L]`` int64, the position in its lane of each lane's open row.
        written: ``[L]`` int64, how many rows were ever opened, the head included; ``min(written, C)`` are live.
        num_valid: ``[L]`` int64, how many starts each lane has.
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


def nbytes(observation: Array, extras: Tree = (), action_mask: Array = (), *, num_envs: int, capacity: int) -> int:
    """Bytes that ``init`` of the same arguments allocates.

    Args:
        observation: array or ``jax.ShapeDtypeStruct`` of one observation of one environment.
        extras: tree of the same for what the agent keeps with a step.
        action_mask: the same of an action mask; ``()`` for none.
        num_envs: number of environments.
        capacity: number of steps to keep, over all environments.

    Returns:
        The number of bytes.

    Raises:
        TypeError: if a spec has no shape and dtype that NumPy can store.
        ValueError: if ``num_envs`` or ``capacity`` is not an integer of 1 or more.

    >>> import jax, numpy as np
    >>> nbytes(jax.ShapeDtypeStruct((4,), np.float32), num_envs=1, capacity=1_000_000)
    29000053
    """
    rows = num_envs * rows_per_lane(num_envs, capacity)
    return rows * row_nbytes(observation, extras, action_mask) + lane_nbytes(num_envs)


def init(observation: Array, extras: Tree = (), action_mask: Array = (), *, num_envs: int, capacity: int) -> HostReplay:
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

    Returns:
        The replay. Its memory is taken from the system as rows are first written.

    Raises:
        TypeError: if a spec has no shape and dtype that NumPy can store.
        ValueError: if ``num_envs`` or ``capacity`` is not an integer of 1 or more, or if the arrays exceed the
            memory that is available now.

    >>> import jax, numpy as np
    >>> state = init(jax.ShapeDtypeStruct((84, 84), np.uint8), num_envs=2, capacity=100)
    >>> state.observation.shape, state.observation.dtype, size(state)
    ((102, 84, 84), dtype('uint8'), 0)
    """
    needed = nbytes(observation, extras, action_mask, num_envs=num_envs, capacity=capacity)
    free = psutil.virtual_memory().available
    if needed > free:
        rows_that_fit = (free - lane_nbytes(num_envs)) // (row_nbytes(observation, extras, action_mask) * num_envs)
        raise ValueError(
            f"capacity: got {capacity}, which needs {needed / _GIB:.2f} GiB with {num_envs} environments; expected at "
            f"most the {free / _GIB:.2f} GiB that are free. The largest capacity that fits is "
            f"{max(0, rows_that_fit - 1) * num_envs}; smaller observations (uint8, fewer pixels) make room for more."
        )
    rows = num_envs * rows_per_lane(num_envs, capacity)

    def allocate(spec: Array) -> npt.NDArray[Any]:
        return np.zeros((rows, *spec.shape), spec.dtype)

    return HostReplay(
        observation=allocate(observation),
        action=np.zeros(rows, np.int32),
        reward=np.zeros(rows, np.float32),
        continuation=np.zeros(rows, np.float32),
        extras=tree_util.tree_map(allocate, extras),
        action_mask=tree_util.tree_map(allocate, action_mask),
        boundary=np.ones(rows, np.bool_),
        head=np.zeros(num_envs, np.int64),
        written=np.ones(num_envs, np.int64),
        num_valid=np.zeros(num_envs, np.int64),
    )


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
    at = _heads(state)
    state.observation[at] = step.obs_tm1
    state.action[at] = step.a_tm1
    state.reward[at] = step.r_t
    state.continuation[at] = step.discount_t
    for storage, value in extras:
        storage[at] = value
    state.boundary[at] = False
    every_lane = _all_lanes(len(state.head))
    np.add(state.num_valid, every_lane, out=state.num_valid)
    at = _open_next(state, every_lane)
    state.observation[at] = step.obs_t
    if extras:
        _keep_mask(state, at, step.action_mask_t)
    last = np.asarray(step.last)
    if b"\x01" in last.tobytes():  # several times faster than last.any()
        _open_next(state, last)  # the row just written stays a boundary
    return state


def _add_some(
    state: HostReplay, step: Step, extras: list[tuple[npt.NDArray[Any], Array]], lanes: npt.NDArray[np.bool_]
) -> HostReplay:
    """``add`` for some of the lanes, as when a vector environment spends a step on resetting the others."""
    starts = _lane_starts(len(state.head), len(state.boundary) // len(state.head))
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
    np.add(state.num_valid, lanes, out=state.num_valid)
    _open_next(state, lanes)
    at = (state.head + starts)[lanes]
    state.observation[at] = step.obs_t[lanes]
    if extras:
        _keep_mask(state, at, step.action_mask_t, lanes)
    _open_next(state, np.asarray(step.last) & lanes)
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
    before = (state.head - 1) % per_lane + _lane_starts(len(state.head), per_lane)
    _open_next(state, np.asarray(lanes) & ~state.boundary[before])
    return state


def size(state: HostReplay) -> int:
    """Number of steps that can be drawn, over all lanes.

    >>> import jax, numpy as np
    >>> size(init(jax.ShapeDtypeStruct((), np.float32), num_envs=1, capacity=10))
    0
    """
    return sum(state.num_valid.tolist())


def sample(
    generator: np.random.Generator,
    state: HostReplay,
    batch_size: int,
    n: int = 1,
    discount: float = 0.99,
    *,
    num_batches: int | None = None,
) -> Sample:
    """Draws transitions over up to ``n`` steps, uniformly and with replacement, as fresh arrays.

    With ``k`` the number of steps from the drawn one to the end of its window, ``r_t = sum_i discount**i * r_i`` and
    ``discount_t = discount**k * prod_i continuation_i`` over them (summed in float64), and ``obs_t`` is the
    observation after the last of them. A window has ``k = n`` steps unless its episode ends before: at a truncation
    it bootstraps from the true last observation, at a termination ``discount_t`` is 0. A window that reaches the
    newest step of its environment is cut there likewise, and bootstraps from the newest observation.

    Args:
        generator: where the rows come from; it moves on.
        state: the replay; not changed.
        batch_size: transitions in a batch, ``B``.
        n: the most steps a transition may span (Sutton, 1988); at most a lane's capacity.
        discount: the agent's discount for one step, in [0, 1].
        num_batches: if given, draws that many batches at once, and every shape starts ``[num_batches, B]``.

    Returns:
        The transitions ``[B, ...]``, weights of one, and the rows drawn.

    Raises:
        ValueError: if an argument is out of its range, or there is no step to draw.

    >>> import jax, numpy as np
    >>> state = init(jax.ShapeDtypeStruct((), np.float32), num_envs=1, capacity=10)
    >>> step = Step(np.float32([0.0]), np.int32([1]), np.float32([0.5]), np.float32([1.0]),
    ...             np.array([False]), np.float32([1.0]))
    >>> drawn = sample(np.random.default_rng(0), add(state, step), 2, discount=0.5)
    >>> drawn.transition.r_t.tolist(), drawn.transition.discount_t.tolist(), drawn.transition.obs_t.tolist()
    ([0.5, 0.5], [0.5, 0.5], [1.0, 1.0])
    """
    batch_size = check_count("batch_size", batch_size)
    n = check_count("n", n)
    per_lane = len(state.boundary) // len(state.head)
    if n >= per_lane:
        raise ValueError(
            f"n: got {n}; expected at most {per_lane - 1}, the steps kept per environment. Draw over fewer steps, or "
            "make the replay with a larger capacity."
        )
    discount = check_discount(discount)
    shape = (batch_size,) if num_batches is None else (check_count("num_batches", num_batches), batch_size)
    rows = _draw_rows(generator, state, shape)
    weights = np.empty(shape, np.float32)
    weights.fill(1.0)  # np.ones takes a microsecond more
    return Sample(_gather(state, rows, n, discount), weights, rows)


def check_valid(state: HostReplay) -> None:
    """Checks that the parts of a replay agree with each other, for tests and after a restore.

    Args:
        state: the replay; not changed.

    Raises:
        AssertionError: with a message that says what is broken.

    >>> import jax, numpy as np
    >>> check_valid(init(jax.ShapeDtypeStruct((), np.float32), num_envs=1, capacity=10))
    """
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
    # Together with the head this says that every start is followed by a written row.
    never_written = np.arange(per_lane) >= state.written[:, None]
    require(boundary[never_written].all(), "a row that was never written is no boundary")
    require(((~boundary).sum(axis=1) == state.num_valid).all(), "num_valid is not the number of starts")


@functools.lru_cache(maxsize=16)
def _lane_starts(num_envs: int, per_lane: int) -> npt.NDArray[np.int64]:
    starts = np.arange(num_envs, dtype=np.int64) * per_lane
    starts.flags.writeable = False
    return starts


@functools.lru_cache(maxsize=16)
def _all_lanes(num_envs: int) -> npt.NDArray[np.int64]:
    lanes = np.ones(num_envs, np.int64)
    lanes.flags.writeable = False
    return lanes


def _heads(state: HostReplay) -> slice | npt.NDArray[np.int64]:
    """What indexes the open row of every lane; for one lane a slice, which NumPy assigns to faster."""
    num_envs = len(state.head)
    if num_envs == 1:
        head = int(state.head[0])
        return slice(head, head + 1)
    return state.head + _lane_starts(num_envs, len(state.boundary) // num_envs)


def _open_next(state: HostReplay, lanes: npt.NDArray[Any]) -> slice | npt.NDArray[np.int64]:
    """Moves the heads on by ``lanes`` (0 or 1) rows, which opens them; returns what indexes the heads of all lanes."""
    per_lane = len(state.boundary) // len(state.head)
    if len(state.head) == 1:  # the same with Python's integers, several times faster for a single environment
        moved = int(lanes[0])
        head = (int(state.head[0]) + moved) % per_lane
        state.head[0] = head
        state.written[0] += moved
        state.num_valid[0] -= not state.boundary[head]
        state.boundary[head] = True
        return slice(head, head + 1)
    np.add(state.head, lanes, out=state.head)
    np.remainder(state.head, per_lane, out=state.head)
    np.add(state.written, lanes, out=state.written)
    at = _heads(state)
    # A head that did not move is a boundary already, so this counts only starts that are overwritten.
    np.subtract(state.num_valid, ~state.boundary[at], out=state.num_valid)
    state.boundary[at] = True
    return at


def _draw_rows(generator: np.random.Generator, state: HostReplay, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Start rows, uniform over all of them: uniform over all live rows, redrawn where it hit a boundary.

    Lanes may have different numbers of live rows; all are drawn up to the longest, where the others have boundaries.
    Where lanes advance together, by one or two rows a step, at least a quarter of the hits are starts (C >= 3).
    """
    if size(state) == 0:
        raise ValueError("state: got a replay without a step to draw; expected at least one. Add steps first.")
    num_envs = len(state.head)
    per_lane = len(state.boundary) // num_envs
    span = min(max(state.written.tolist()), per_lane)

    def draw(count: int) -> npt.NDArray[np.int64]:
        rows = generator.integers(num_envs * span, size=count)
        return rows if span == per_lane else rows + rows // span * (per_lane - span)

    rows = draw(math.prod(shape))
    rejected = state.boundary.take(rows).nonzero()[0]
    while len(rejected):
        redrawn = draw(len(rejected))
        rows[rejected] = redrawn
        rejected = rejected[state.boundary.take(redrawn)]
    return rows.reshape(shape)


def _next_rows(state: HostReplay, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    per_lane = len(state.boundary) // len(state.head)
    following = rows + 1
    wrapped = following % per_lane == 0
    if np.count_nonzero(wrapped):  # seldom, and a subtraction under a mask costs more than this look
        following[wrapped] -= per_lane
    return following


def _gather(state: HostReplay, rows: npt.NDArray[np.int64], n: int, discount: float) -> Transition:
    """The transitions that start at ``rows``, which must be starts, over up to ``n`` steps."""
    reward, discount_t, end = _one_step(state, rows, discount) if n == 1 else _n_step(state, rows, n, discount)
    return Transition(
        obs_tm1=state.observation.take(rows, axis=0),
        a_tm1=state.action.take(rows),
        r_t=reward,
        discount_t=discount_t,
        obs_t=state.observation.take(end, axis=0),
        extras_tm1=_take(state.extras, rows),
        action_mask_tm1=_take(state.action_mask, rows),
        action_mask_t=_take(state.action_mask, end),
    )


def _take(tree: Tree, rows: npt.NDArray[np.int64]) -> Tree:
    if isinstance(tree, tuple) and not tree:  # as for most agents; mapping over nothing costs two microseconds
        return ()
    return tree_util.tree_map(lambda leaf: leaf.take(rows, axis=0), tree)


_Window = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int64]]


def _one_step(state: HostReplay, rows: npt.NDArray[np.int64], discount: float) -> _Window:
    return state.reward.take(rows), np.float32(discount) * state.continuation.take(rows), _next_rows(state, rows)


def _n_step(state: HostReplay, rows: npt.NDArray[np.int64], n: int, discount: float) -> _Window:
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
