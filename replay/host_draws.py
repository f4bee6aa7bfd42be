"""Sampling from the host replay, and its priorities."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _walk, sum_tree
from ._checks import check_key, check_priorities, check_steps, check_unit
from ._layout import Plan
from ._rows import ReplayState
from .types import Array, DrawNumbers, Sample, Sequence, Transition

KeyedGenerator = Callable[[Array], np.random.Generator]


def size(state: ReplayState) -> int:
    """Number of steps that can be sampled, over all lanes."""
    return sum(state.num_valid.tolist())


def rewards(state: ReplayState) -> npt.NDArray[np.float32]:
    """Rewards of the steps that can be sampled, ``[R]``."""
    found: npt.NDArray[np.float32] = state.reward[~state.boundary]
    return found


def keyed_generator() -> KeyedGenerator:
    """Make a function from a key to a random number generator seeded with the key.

    All keys share one generator, which is reset, because making a generator takes five times as long.

    >>> at = keyed_generator()
    >>> first, other, again = (at(np.uint32([7, step])).integers(100, size=3).tolist() for step in (0, 1, 0))
    >>> first == again, first == other
    (True, False)
    """
    philox = np.random.Philox(0)
    generator = np.random.Generator(philox)
    words = np.zeros(4, np.uint32)
    beginning: Any = philox.state
    beginning["state"] = {"counter": np.zeros(4, np.uint64), "key": words.view(np.uint64)}

    def at(key: Array) -> np.random.Generator:
        check_key(key)
        found = np.asarray(key)
        words[: len(found)] = found
        words[len(found) :] = 0
        philox.state = beginning
        return generator

    return at


def sample(
    plan: Plan,
    generator_at: KeyedGenerator,
    key: Array,
    state: ReplayState,
    numbers: DrawNumbers,
) -> Sample:
    """Sample transitions or sequences; see ``Replay.sample``."""
    n = check_steps(numbers.n_steps, plan.most, in_sequence=plan.sequence_length > 0)
    discount = check_unit("discount", numbers.discount)
    exponent = check_unit("importance_exponent", numbers.importance_exponent)
    rows, weights = _draw(generator_at(key), state, plan.shape, exponent)
    drawn, future = gather(plan, state, rows, n, discount)
    return Sample(drawn, weights, state.writing.take(rows) if state.priorities else rows, future)


def gather(
    plan: Plan, state: ReplayState, rows: Array, n: Any, discount: Any, most: int | None = None
) -> tuple[Transition | Sequence, Sequence | tuple[()]]:
    """Transitions or sequences from ``rows``, and the future of transitions; ``most`` as in ``_walk.transitions``."""
    if plan.sequence_length:
        return _walk.sequences(state, rows, plan.sequence_length, n, discount), ()
    future = _walk.future(state, rows, plan.future, discount) if plan.future else ()
    return _walk.transitions(state, rows, n, discount, most), future


def update_priorities(state: ReplayState, rows: Array, priorities: Array, *, exponent: float) -> ReplayState:
    """Set the priorities of sampled steps; see ``Replay.update_priorities``."""
    if not state.priorities:
        raise ValueError(
            "state: got a replay without priorities; expected one. Make it with a priority_exponent, for example 1.0."
        )
    number = len(state.boundary)
    rows, values = check_priorities(rows, priorities, number)
    at = rows % number
    present = state.writing.take(at) == rows
    if b"\x00" in present.tobytes():
        at, values = at[present], values[present]
    if len(at):
        kept = values**exponent
        sum_tree.assign(state.priorities, at, kept)
        state.largest_priority[...] = max(float(state.largest_priority), float(np.max(kept)))
    return state


def _draw(
    generator: np.random.Generator, state: ReplayState, shape: tuple[int, ...], exponent: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Sample start rows and their importance weights: by priority if any priority is positive, else uniformly."""
    if state.priorities:
        sum_tree.refresh(state.priorities)
        if total := sum_tree.total(state.priorities):
            # One number in each of B equal intervals of the sum.
            mass = generator.random(shape)
            mass += np.arange(shape[-1])
            mass *= total / shape[-1]
            rows, values = sum_tree.find(state.priorities, mass.reshape(-1))
            # P is priority / sum. The sum and N are equal for all rows of a batch, so they cancel in the weights.
            values = values.reshape(shape)
            weights: npt.NDArray[np.floating] = (np.minimum.reduce(values, axis=-1, keepdims=True) / values) ** exponent
            return rows.reshape(shape), weights.astype(np.float32)
    weights = np.empty(shape, np.float32)
    weights.fill(1.0)  # a microsecond faster than np.ones
    if not len(state.sequence_start):
        return _uniform_rows(generator, state, shape), weights
    starts = state.sequence_start.nonzero()[0]
    if not len(starts):
        raise ValueError("state: got a replay without sequences; expected at least one. Add steps first.")
    return starts[generator.integers(len(starts), size=shape)], weights


def _uniform_rows(generator: np.random.Generator, state: ReplayState, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Sample start rows uniformly, by rejection: sample uniformly over written rows, and resample boundaries.

    Lanes may have different numbers of written rows. Rows are sampled up to the largest number, because the unwritten
    rows of the other lanes are boundaries. If all lanes advance together, by one or two rows a step, at least a quarter
    of the sampled rows are starts (for ``C >= 3``, and more than 3 if rows are kept for the history of stacks).
    """
    if size(state) == 0:
        raise ValueError("state: got a replay without steps; expected at least one. Add steps first.")
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
