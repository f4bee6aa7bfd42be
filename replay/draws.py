"""Draws from the host replay, and the priorities by which they are drawn."""

import math

import numpy as np
import numpy.typing as npt

from . import _windows, sum_tree
from ._checks import check_count, check_priorities, check_unit
from ._rows import HostReplay
from .types import Array, Sample


def size(state: HostReplay) -> int:
    """Number of steps that can be drawn, over all lanes.

    >>> import jax, numpy as np
    >>> from polyak.replay import init
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
    importance_exponent: float = 0.0,
) -> Sample:
    """Draws transitions over up to ``n`` steps, uniformly and with replacement, as fresh arrays.

    From a prioritized replay a step is drawn with a probability ``P(i)`` in proportion to its priority, one in each of
    ``B`` equal slices of their sum (Schaul et al., 2016, https://arxiv.org/abs/1511.05952, section 3.3 and appendix
    B.2.1), and has the weight ``(N * P(i)) ** -importance_exponent``, ``N`` steps in all, divided by the largest of its
    batch (section 3.4). Where every priority is 0, draws are uniform.

    With ``k`` the number of steps from the drawn one to the end of its window, ``r_t = sum_i discount**i * r_i`` and
    ``discount_t = discount**k * prod_i continuation_i`` over them (summed in float64), and ``obs_t`` is the
    observation after the last of them. A window has ``k = n`` steps unless its episode ends before: at a truncation
    it bootstraps from the true last observation, at a termination ``discount_t`` is 0. A window that reaches the
    newest step of its environment is cut there likewise, and bootstraps from the newest observation.

    Args:
        generator: where the rows come from; it moves on.
        state: the replay; not changed, but that sums of priorities are brought up to date in place.
        batch_size: transitions in a batch, ``B``.
        n: the most steps a transition may span (Sutton, 1988); at most a lane's capacity.
        discount: the agent's discount for one step, in [0, 1].
        num_batches: if given, draws that many batches at once, and every shape starts ``[num_batches, B]``.
        importance_exponent: how far the weights undo the priorities, in [0, 1]: 0 not at all, 1 wholly.

    Returns:
        The transitions ``[B, ...]``, their weights (ones where draws are uniform), and the rows drawn; those of a
        prioritized replay also tell which writing of a row was drawn, for ``update_priorities``.

    Raises:
        ValueError: if an argument is out of its range, or there is no step to draw.

    >>> import jax, numpy as np
    >>> from polyak.replay import Step, add, init
    >>> state = init(jax.ShapeDtypeStruct((), np.float32), num_envs=1, capacity=10)
    >>> step = Step(np.float32([0.0]), np.int32([1]), np.float32([0.5]), np.float32([1.0]),
    ...             np.array([False]), np.float32([1.0]))
    >>> drawn = sample(np.random.default_rng(0), add(state, step), 2, discount=0.5)
    >>> drawn.transition.r_t.tolist(), drawn.transition.discount_t.tolist(), drawn.transition.obs_t.tolist()
    ([0.5, 0.5], [0.5, 0.5], [1.0, 1.0])
    """
    shape = _shape(batch_size, num_batches)
    n, discount = _window(state, "n", n), check_unit("discount", discount)
    exponent = check_unit("importance_exponent", importance_exponent)
    rows, weights = _draw(generator, state, shape, exponent)
    transition = _windows.transitions(state, rows, n, discount)
    return Sample(transition, weights, state.writing.take(rows) if state.priorities else rows)


def sample_sequences(
    generator: np.random.Generator,
    state: HostReplay,
    batch_size: int,
    length: int,
    discount: float,
    *,
    num_batches: int | None = None,
    importance_exponent: float = 0.0,
) -> Sample:
    """Draws sequences of up to ``length`` steps of one episode, uniformly or by the priority of where they start.

    A sequence that reaches the end of its episode or the newest step before is padded (see ``Sequence``). Weights and
    rows are those of ``sample``: one priority for each sequence.

    Args:
        generator: where the rows come from; it moves on.
        state: a replay made with a ``sequence_period``; not changed, but that sums of priorities are brought up to date
            in place.
        batch_size: sequences in a batch, ``B``.
        length: steps in a sequence, ``T``; at most a lane's capacity.
        discount: the agent's discount for one step, in [0, 1].
        num_batches: if given, draws that many batches at once, and every shape starts ``[num_batches, B]``.
        importance_exponent: how far the weights undo the priorities, in [0, 1]: 0 not at all, 1 wholly.

    Returns:
        A ``Sequence`` in the place of the transitions, its weights and rows.

    Raises:
        ValueError: if an argument is out of its range, the replay was made without sequences, or there is none to draw.

    >>> import jax, numpy as np
    >>> from polyak.replay import Step, add, init
    >>> state = init(jax.ShapeDtypeStruct((), np.float32), num_envs=1, capacity=10, sequence_period=2)
    >>> for number in range(3):
    ...     obs, one = np.float32([number]), np.ones(1, np.float32)
    ...     state = add(state, Step(obs, np.int32([1]), one, one, np.array([number == 2]), obs + 1))
    >>> drawn = sample_sequences(np.random.default_rng(0), state, 2, length=2, discount=0.5).transition
    >>> drawn.obs.tolist(), drawn.valid.tolist(), drawn.discount_t.tolist()
    ([[2.0, 3.0, 3.0], [2.0, 3.0, 3.0]], [[True, False], [True, False]], [[0.5, 0.0], [0.5, 0.0]])
    """
    if not len(state.sequence_start):
        raise ValueError(
            "state: got a replay without sequences. Make it with init(..., sequence_period=1), or with a larger one "
            "for fewer places where they start."
        )
    shape = _shape(batch_size, num_batches)
    length, discount = _window(state, "length", length), check_unit("discount", discount)
    exponent = check_unit("importance_exponent", importance_exponent)
    rows, weights = _draw(generator, state, shape, exponent, sequences=True)
    sequence = _windows.sequences(state, rows, length, discount)
    return Sample(sequence, weights, state.writing.take(rows) if state.priorities else rows)


def update_priorities(state: HostReplay, rows: Array, priorities: Array, exponent: float = 1.0) -> HostReplay:
    """Sets the priorities of steps that were drawn. Consumes ``state`` as ``add`` does.

    What is kept is ``priority ** exponent`` (``0 ** 0`` is 1: under an exponent of 0 all steps are alike). A step that
    was overwritten since it was drawn is passed over. A step with priority 0 is not drawn any more, unless all have it.

    Args:
        state: a prioritized replay.
        rows: int64 of any shape, ``Sample.rows`` as it was drawn.
        priorities: numbers of the same shape, such as absolute TD errors; of a step that is named twice the last
            counts.
        exponent: how far priorities matter, in [0, 1] (Schaul et al., 2016, equation 1).

    Returns:
        The replay.

    Raises:
        TypeError: if ``rows`` are no integers.
        ValueError: if a priority is negative, not finite or too large to be summed, a shape or the exponent is not as
            said, or the replay is not prioritized. Nothing has been changed then.

    >>> import jax, numpy as np
    >>> from polyak.replay import Step, add, init
    >>> state = init(jax.ShapeDtypeStruct((), np.float32), num_envs=1, capacity=10, prioritized=True)
    >>> zero = np.zeros(1, np.float32)
    >>> for _ in range(3):
    ...     state = add(state, Step(zero, np.int32([1]), zero, zero + 1, np.array([False]), zero))
    >>> state = update_priorities(state, np.array([0, 1]), np.array([0.25, 0.0]), exponent=0.5)
    >>> state.priorities.leaves[:4].tolist()
    [0.5, 0.0, 1.0, 0.0]
    """
    if not state.priorities:
        raise ValueError("state: got a replay without priorities. Make it with init(..., prioritized=True).")
    exponent = check_unit("exponent", exponent)
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


_Drawn = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]


def _shape(batch_size: int, num_batches: int | None) -> tuple[int, ...]:
    batch_size = check_count("batch_size", batch_size)
    return (batch_size,) if num_batches is None else (check_count("num_batches", num_batches), batch_size)


def _window(state: HostReplay, name: str, steps: int) -> int:
    """The steps of a window, which must fit into a lane."""
    steps = check_count(name, steps)
    kept = len(state.boundary) // len(state.head) - max(1, len(state.lags))
    if steps > kept:
        raise ValueError(
            f"{name}: got {steps}; expected at most {kept}, the steps kept per environment. Draw over fewer steps, or "
            "make the replay with a larger capacity."
        )
    return steps


def _draw(
    generator: np.random.Generator,
    state: HostReplay,
    shape: tuple[int, ...],
    exponent: float,
    sequences: bool = False,
) -> _Drawn:
    """Start rows and their weights, by priority if there is any."""
    if state.priorities:
        sum_tree.refresh(state.priorities)
        if total := sum_tree.total(state.priorities):
            # One number in each of the B slices that a batch divides the sum into.
            mass = generator.random(shape)
            mass += np.arange(shape[-1])
            mass *= total / shape[-1]
            rows, values = sum_tree.find(state.priorities, mass.reshape(-1))
            # P is the priority by the sum of all; that sum and N are the same in all of a batch, and cancel.
            values = values.reshape(shape)
            weights: npt.NDArray[np.floating] = (np.minimum.reduce(values, axis=-1, keepdims=True) / values) ** exponent
            return rows.reshape(shape), weights.astype(np.float32)
    weights = np.empty(shape, np.float32)
    weights.fill(1.0)  # np.ones takes a microsecond more
    if not sequences and not (state.priorities and len(state.sequence_start)):
        return _uniform_rows(generator, state, shape), weights
    starts = state.sequence_start.nonzero()[0]
    if not len(starts):
        raise ValueError("state: got a replay without a sequence to draw; expected at least one. Add steps first.")
    return starts[generator.integers(len(starts), size=shape)], weights


def _uniform_rows(generator: np.random.Generator, state: HostReplay, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Start rows, uniform over all of them: uniform over all live rows, redrawn where it hit a boundary.

    Lanes may have different numbers of live rows; all are drawn up to the longest, where the others have boundaries.
    Where lanes advance together, by one or two rows a step, at least a quarter of the hits are starts (C >= 3, and
    more than that where rows are kept for the history of stacks).
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
