"""Sampling from the device replay, and its priorities, as traceable functions."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import device_tree
from ._checks import check_key
from ._layout import Plan
from ._rows import ReplayState
from .device_writes import writings
from .host_draws import gather
from .types import Array, DrawNumbers, Sample

_CANDIDATES = 4


def sample(plan: Plan, key: Array, state: ReplayState, numbers: DrawNumbers) -> Sample:
    """Sample transitions or sequences; see ``Replay.sample``."""
    n, discount, exponent = numbers
    rows, weights = _draw(_typed_key(key), state, plan.shape, jnp.float32(exponent))
    drawn, future = gather(plan, state, rows, jnp.int32(n), jnp.float32(discount), plan.most)
    return Sample(drawn, weights, writings(state, rows) if state.priorities else rows, future)


def update_priorities(state: ReplayState, rows: Array, priorities: Array, *, exponent: float) -> ReplayState:
    """Set the priorities of sampled steps; see ``Replay.update_priorities``."""
    _check_update(state, rows, priorities)
    if not math.prod(rows.shape):
        return state
    number = len(state.boundary)
    identity = jnp.asarray(rows).reshape(-1).astype(jnp.uint32)
    values = jnp.asarray(priorities).reshape(-1).astype(jnp.float32)
    at = (identity % np.uint32(number)).astype(jnp.int32)
    starts = state.sequence_start if len(state.sequence_start) else ~state.boundary
    kept = (writings(state, at) == identity) & starts.at[at].get(mode="clip")
    # The comparisons are False for NaN.
    kept &= (values >= 0) & (values <= device_tree.largest_priority(number))
    values = jnp.where(kept & (values >= device_tree.SMALLEST), values, 0) ** np.float32(exponent)
    largest = jnp.maximum(state.largest_priority, jnp.max(jnp.where(kept, values, 0)))
    # After a stable sort, the last entry of each row is the one that counts.
    at, values = jax.lax.sort((jnp.where(kept, at, number), values), num_keys=1, is_stable=True)
    last = jnp.append(at[1:] != at[:-1], True) & (at < number)
    return state._replace(priorities=device_tree.assign(state.priorities, at, values, last), largest_priority=largest)


def size(state: ReplayState) -> Array:
    """Number of steps that can be sampled, over all lanes, ``[]`` int32."""
    return jnp.sum(state.num_valid, dtype=jnp.int32)


def _check_update(state: ReplayState, rows: Array, priorities: Array) -> None:
    if not state.priorities:
        raise ValueError(
            "state: got a replay without priorities; expected one. Make it with a priority_exponent, for example 1.0."
        )
    if rows.dtype.kind not in "iu":
        raise TypeError(f"rows: got dtype {rows.dtype}; expected uint32. Pass Sample.rows of a sample unchanged.")
    if rows.shape != priorities.shape:
        raise ValueError(
            f"priorities: got shape {priorities.shape}; expected {rows.shape}, the shape of rows. Reshape one of them."
        )


def _typed_key(words: Array) -> Array:
    """Typed key of 2 to 4 words: the first two are the data of a threefry key, the others are folded in."""
    check_key(words)
    key: Any = jax.random.wrap_key_data(jnp.asarray(words[:2]), impl="threefry2x32")
    for word in range(2, len(words)):
        key = jax.random.fold_in(key, words[word])
    return key


def _draw(key: Array, state: ReplayState, shape: tuple[int, ...], exponent: Array) -> tuple[Array, Array]:
    """Sample start rows and their importance weights: by priority if any priority is positive, else uniformly."""

    def uniformly() -> tuple[Array, Array]:
        rows = _uniform_sequences if len(state.sequence_start) else _uniform_steps
        return rows(key, state, shape), jnp.ones(shape, jnp.float32)

    def by_priority() -> tuple[Array, Array]:
        rows, values = device_tree.stratified(state.priorities, key, shape)
        # P is priority / sum. The sum and N are equal for all rows of a batch, so they cancel in the weights.
        return rows, (jnp.min(values, axis=-1, keepdims=True) / values) ** exponent

    if not state.priorities:
        return uniformly()
    drawn: tuple[Array, Array] = jax.lax.cond(device_tree.total(state.priorities) > 0, by_priority, uniformly)
    return drawn


def _uniform_sequences(key: Array, state: ReplayState, shape: tuple[int, ...]) -> Array:
    """Sample the starts of sequences uniformly, by their number; arbitrary rows if there is none."""
    tree = device_tree.build(state.sequence_start.astype(jnp.int32))
    number = jax.random.randint(key, shape, 0, jnp.maximum(device_tree.total(tree), 1), jnp.int32)
    return device_tree.find(tree, number, jnp.zeros_like(number))[0]


def _uniform_steps(key: Array, state: ReplayState, shape: tuple[int, ...]) -> Array:
    """Sample start rows uniformly: a lane in proportion to its starts, then one of its starts by rejection.

    The candidates are the rows of a lane that can be starts. Each step writes one or two rows, so about half of the
    candidates are starts if all episodes have one step, and nearly all of them if episodes are long. If the replay is
    empty, the rows are arbitrary.
    """
    num_envs, number = len(state.head), math.prod(shape)
    per_lane = len(state.boundary) // num_envs
    until = jnp.cumsum(state.num_valid)
    lane = jnp.zeros(number, jnp.int32)
    if num_envs > 1:
        start = jax.random.randint(jax.random.fold_in(key, 0), (number,), 0, jnp.maximum(until[-1], 1), jnp.int32)
        lane = jnp.minimum(jnp.searchsorted(until, start, side="right", method="scan_unrolled"), num_envs - 1)
    span = jnp.minimum(state.written - 1, per_lane - max(1, len(state.lags)))[lane][:, None]
    head, lane_start = state.head[lane][:, None], (lane * per_lane)[:, None]

    def more(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        attempt, rows, found = carry
        attempted = jax.random.fold_in(key, attempt)
        back = jax.random.randint(attempted, (number, _CANDIDATES), 0, jnp.maximum(span, 1), jnp.int32)
        candidates = lane_start + (head - 1 - back) % per_lane
        starts = ~state.boundary.at[candidates].get(mode="clip")
        first = jnp.take_along_axis(candidates, jnp.argmax(starts, axis=1)[:, None], axis=1)[:, 0]
        return attempt + 1, jnp.where(found, rows, first), found | starts.any(axis=1)

    found = jnp.broadcast_to(until[-1] == 0, (number,))
    initial = (jnp.int32(1), jnp.zeros(number, jnp.int32), found)
    return jax.lax.while_loop(lambda carry: ~carry[2].all(), more, initial)[1].reshape(shape)
