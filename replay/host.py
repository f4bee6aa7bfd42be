"""Replay on the host: NumPy arrays, in memory or with the observations in a file.

**Rows in lanes.** Each environment has a lane of ``C`` rows, used as a ring buffer. The index of a row in the flat
arrays is ``lane * C + position``. Each observation is stored once: ``obs_t`` of a transition is the observation of the
next row.

A row is either a *start*, with observation, action, reward, continuation and extras, or a *boundary*, with an
observation and its action mask but without an action. Boundaries are:

* the *head* of a lane, which is the open row: it holds the newest observation, and the next step writes its action;
* the true last observation of an episode, so the end of each episode takes a further row;
* rows that have not been written;
* with stacks, the ``stack - 1`` oldest rows of a lane, after the head in the ring: they are only history of the oldest
  start, because their own history is overwritten.

A window that walks forward from a start stops at the first boundary. The head is a boundary, so no window crosses the
write position. Last observations are boundaries, so no window crosses the end of an episode.

In the shapes, ``L`` is the number of lanes, ``C`` the number of rows per lane, ``R = L * C``, and ``...`` the shape of
one observation.
"""

import functools
import os
import pathlib
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
import psutil

from . import host_draws, sum_tree
from ._checks import check_storage, spec_nbytes
from ._layout import Layout, Plan, check_memory, checked
from ._rows import ReplayState, writing_of
from .host_writes import add, end_episode, next_rows
from .types import Array, EnvironmentSpec, Nbytes, Replay, Sample, Tree

__all__ = ["make", "next_rows"]


def make(
    spec: EnvironmentSpec,
    extras: Tree = (),
    *,
    num_envs: int,
    capacity: int,
    batch_size: int,
    num_batches: int | None = None,
    sequence_length: int = 0,
    sequence_period: int = 1,
    priority_exponent: float | None = None,
    stack: int = 1,
    future: int = 0,
    storage: str | os.PathLike[str] | None = None,
) -> Replay:
    """Make a replay over NumPy arrays, whose functions write to their state in place.

    Each lane has ``ceil(capacity / num_envs)`` rows and a further row for the open row, so ``capacity`` steps fit if no
    episode ends. Each end of an episode takes one row. With a single row per environment, a step that ends its episode
    is lost immediately. ``init`` allocates arrays whose memory the system provides when rows are first written.

    Args:
        spec: Description of one environment; observations are stored in its dtype.
        extras: Tree of arrays or ``jax.ShapeDtypeStruct``: the extras that the agent stores with a step of one
            environment, without a batch axis; ``()`` for no extras.
        num_envs: Number of environments, one lane each.
        capacity: Number of steps to keep, over all environments.
        batch_size: Number of transitions or sequences in a batch, ``B``.
        num_batches: Number of batches of one sample, whose shapes begin with ``[num_batches, B]``; None for ``[B]``.
        sequence_length: Number of steps of a sequence, ``T``; 0 to sample transitions.
        sequence_period: Number of steps between the starts of sequences, which are the first step of an episode and
            every ``sequence_period``-th step after it. Only these steps have priorities. Not read without sequences.
        priority_exponent: Exponent of the priorities, in [0, 1], for prioritized sampling. A new step gets the largest
            priority assigned so far, at least 1. None for uniform sampling.
        stack: Number of frames of a sampled observation. Above 1, each stored observation is one frame, ``(H, W)`` or
            ``(H, W, 1)``, and sampled observations are ``[B, H, W, stack]``, oldest frame first. The first frame of an
            episode is repeated in place of earlier frames. Each lane gets ``stack - 1`` further rows.
        future: Number of steps of ``Sample.future``, from the sampled row, for transitions; 0 for no future.
        storage: File for the observations, the largest array, which is memory-mapped; other arrays stay in memory.
            ``init`` overwrites the file. If the file system supports sparse files, the file takes space when rows are
            first written. This space must stay free, because a full disk ends the process (SIGBUS).

    Returns:
        Replay. ``sample`` uses the Philox generator (Salmon et al., 2011) with ``key`` as its seed. ``Sample.rows`` of
        a prioritized replay distinguishes a step from earlier steps in the same row.

    Raises:
        TypeError: If NumPy cannot store the shape and dtype of a spec, or ``storage`` is not a path.
        ValueError: If a number is out of range, frames cannot be stacked, or a sequence or a future is longer than the
            steps kept per environment.

    >>> import jax, numpy as np
    >>> from polyak.replay import DrawNumbers, EnvironmentSpec, Step
    >>> spec = EnvironmentSpec(jax.ShapeDtypeStruct((), np.float32), num_actions=2)
    >>> replay = make(spec, num_envs=1, capacity=10, batch_size=2)
    >>> step = Step(np.float32([0.0]), np.int32([1]), np.float32([0.5]), np.float32([1.0]),
    ...             np.array([False]), np.float32([1.0]))
    >>> state = replay.add(replay.init(), step)
    >>> drawn = replay.sample(np.uint32([1, 2, 0]), state, DrawNumbers(n_steps=1, discount=0.5)).transition
    >>> replay.size(state), drawn.r_t.tolist(), drawn.discount_t.tolist(), drawn.obs_t.tolist()
    (1, [0.5, 0.5], [0.5, 0.5], [1.0, 1.0])

    Prioritized sampling of sequences that start at every second step:

    >>> replay = make(spec, num_envs=1, capacity=10, batch_size=2, sequence_length=2, sequence_period=2,
    ...               priority_exponent=1.0)
    >>> state = replay.init()
    >>> for number in range(3):
    ...     obs, one = np.float32([number]), np.ones(1, np.float32)
    ...     state = replay.add(state, Step(obs, np.int32([1]), one, one, np.array([number == 2]), obs + 1))
    >>> state = replay.update_priorities(state, np.array([0, 2]), np.array([0.0, 3.0]))
    >>> drawn = replay.sample(np.uint32([1, 2, 1]), state, DrawNumbers(discount=0.5)).transition
    >>> drawn.obs.tolist(), drawn.valid.tolist(), drawn.discount_t.tolist()
    ([[2.0, 3.0, 3.0], [2.0, 3.0, 3.0]], [[True, False], [True, False]], [[0.5, 0.0], [0.5, 0.0]])
    """
    layout, plan, exponent = checked(
        spec,
        extras,
        num_envs=num_envs,
        capacity=capacity,
        batch_size=batch_size,
        num_batches=num_batches,
        sequence_length=sequence_length,
        sequence_period=sequence_period,
        priority_exponent=priority_exponent,
        stack=stack,
        future=future,
    )
    layout = layout._replace(storage=_path(storage))
    return Replay(
        init=functools.partial(_init, layout),
        add=add,
        sample=functools.partial(host_draws.sample, plan, host_draws.keyed_generator()),
        update_priorities=functools.partial(host_draws.update_priorities, exponent=exponent),
        end_episode=end_episode,
        size=host_draws.size,
        rewards=host_draws.rewards,
        sample_spec=functools.partial(_sample_spec, layout, plan),
        nbytes=_nbytes(layout),
    )


def _path(storage: Any) -> pathlib.Path | None:
    if storage is None or isinstance(storage, (str, os.PathLike)):
        return None if storage is None else pathlib.Path(storage)
    raise TypeError(f"storage: got {storage!r}; expected the path of a file as a str or pathlib.Path.")


def _nbytes(layout: Layout) -> Nbytes:
    """Number of bytes that ``_init`` allocates."""
    rows = layout.num_envs * layout.per_lane
    observations = rows * spec_nbytes(layout.observation)
    per_row = 4 + 4 + 4 + 1 + spec_nbytes((layout.extras, layout.action_mask))  # action, reward, continuation, boundary
    per_row += 8 if layout.numbered else 0
    per_row += 1 if layout.sequence_period else 0
    memory = rows * per_row + 3 * 8 * layout.num_envs  # head, written, num_valid
    memory += 8 * layout.stack if layout.stack > 1 else 0
    memory += 8 if layout.sequence_period else 0
    memory += sum_tree.nbytes(rows) + 8 * rows + 8 if layout.prioritized else 0  # writing and largest_priority
    return Nbytes(memory + observations) if layout.storage is None else Nbytes(memory, observations)


def _init(layout: Layout, *, reopen: bool = False) -> ReplayState:
    """Make an empty state; see ``Replay.init``."""
    check_memory(
        layout,
        lambda layout: _nbytes(layout).memory,
        psutil.virtual_memory().available,
        "Images in uint8, fewer pixels, or observations in a file (storage, --replay-storage mmap) need less.",
    )
    if layout.storage is not None:
        check_storage(layout.storage, _nbytes(layout).file, layout.capacity, reopen)
    elif reopen:
        raise ValueError("reopen: got True for a replay in memory; expected False. Make the replay with a storage.")
    return _allocate(layout, reopen)


def _allocate(layout: Layout, reopen: bool) -> ReplayState:
    per_lane, stack = layout.per_lane, layout.stack
    rows, written = layout.num_envs * per_lane, np.ones(layout.num_envs, np.int64)

    def zeros(spec: Array) -> npt.NDArray[Any]:
        return np.zeros((rows, *spec.shape), spec.dtype)

    observation = zeros if layout.storage is None else functools.partial(_map, layout.storage, rows, reopen)
    return ReplayState(
        observation=observation(layout.observation),
        action=np.zeros(rows, np.int32),
        reward=np.zeros(rows, np.float32),
        continuation=np.zeros(rows, np.float32),
        extras=jax.tree.map(zeros, layout.extras),
        action_mask=jax.tree.map(zeros, layout.action_mask),
        boundary=np.ones(rows, np.bool_),
        head=np.zeros(layout.num_envs, np.int64),
        written=written,
        num_valid=np.zeros(layout.num_envs, np.int64),
        priorities=sum_tree.init(rows) if layout.prioritized else (),
        largest_priority=np.array(1.0) if layout.prioritized else (),
        writing=writing_of(written, per_lane, stack) if layout.prioritized else (),
        episode_step=np.zeros(rows, np.int64) if layout.numbered else (),
        lags=np.arange(stack - 1, -1, -1) if stack > 1 else (),
        sequence_period=np.array(layout.sequence_period) if layout.sequence_period else (),
        sequence_start=np.zeros(rows, np.bool_) if layout.sequence_period else (),
    )


def _map(storage: pathlib.Path, rows: int, reopen: bool, spec: Array) -> npt.NDArray[Any]:
    """Map a new file, which contains zeros, or reopen an existing one."""
    if not reopen:
        storage.unlink(missing_ok=True)  # a replay that maps the old file keeps its content
    mapped = np.memmap(storage, spec.dtype, "r+" if reopen else "w+", shape=(rows, *spec.shape))
    return np.asarray(mapped)  # an np.ndarray over the same memory


def _sample_spec(layout: Layout, plan: Plan) -> Sample:
    """Shapes and dtypes of a sample, from a window of an empty state; see ``Replay.sample_spec``."""
    state = _allocate(layout._replace(capacity=layout.num_envs, storage=None), reopen=False)
    row = np.zeros(1, np.int64)
    drawn, future = host_draws.gather(plan, state, row, 1, 0.0)
    one = Sample(drawn, np.ones(1, np.float32), row, future)
    spec: Sample = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(plan.shape + leaf.shape[1:], leaf.dtype),
        jax.eval_shape(lambda sample: sample, one),
    )
    return spec
