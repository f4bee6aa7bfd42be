"""Replay on the device: JAX arrays and traceable functions.

The rows, lanes and windows are those of the host replay (``host``), and the state is a ``ReplayState`` too. The
functions are compiled, and ``add``, ``update_priorities`` and ``end_episode`` donate their state, so they write in
place. They can also be called inside a compiled program, in ``jax.lax.fori_loop``, ``jax.lax.scan`` and ``jax.vmap``.

Differences from the host replay:

* Integers are int32 or uint32 and floating-point numbers float32, with or without ``jax_enable_x64``.
* Samples come from another random number generator, so one key gives other samples. Their distribution is the same.
* Under a trace, the values of arguments are unknown and not checked. A sample of an empty replay contains arbitrary
  rows, and ``n_steps`` above ``most_steps`` acts as ``most_steps``.
* ``update_priorities`` does not raise because of a value. It skips an entry that is negative, not finite, or too large
  to be summed, so the row keeps its priority. Positive numbers below 1.2e-38 become 0.
* ``Sample.rows`` of a prioritized replay are uint32 and begin again after a number of laps; ``ReplayState.writing`` is
  ``()``, because they are computed from ``written``. An update of a row that was overwritten exactly this number of
  times since it was sampled is not recognized. For a million rows of one environment the number is 2145.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import psutil

from . import device_draws, device_tree, device_writes, host_draws
from ._checks import check_count, check_fits, check_steps, check_unit
from ._layout import Layout, Plan, check_memory, checked
from ._rows import ReplayState
from .types import Array, DrawNumbers, EnvironmentSpec, Nbytes, Replay, Sample, Tree

__all__ = ["make"]

_add = jax.jit(device_writes.add, donate_argnums=0)
_end_episode = jax.jit(device_writes.end_episode, donate_argnums=0)
_update = jax.jit(device_draws.update_priorities, donate_argnums=0, static_argnames="exponent")
_sample = jax.jit(device_draws.sample, static_argnums=0)
_has_starts = jax.jit(lambda state: jnp.any(state.sequence_start))


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
    most_steps: int = 1,
) -> Replay:
    """Make a replay over JAX arrays.

    Args:
        spec: Description of one environment; observations are stored in its dtype.
        extras: Tree of arrays or ``jax.ShapeDtypeStruct``, as in ``host.make``.
        num_envs: Number of environments, one lane each.
        capacity: Number of steps to keep, over all environments.
        batch_size: Number of transitions or sequences in a batch, ``B``.
        num_batches: Number of batches of one sample, whose shapes begin with ``[num_batches, B]``; None for ``[B]``.
        sequence_length: Number of steps of a sequence, ``T``; 0 to sample transitions.
        sequence_period: Number of steps between the starts of sequences, at most 2**29. Not read without sequences.
        priority_exponent: Exponent of the priorities, in [0, 1], for prioritized sampling; None for uniform sampling.
        stack: Number of frames of a sampled observation, as in ``host.make``.
        future: Number of steps of ``Sample.future``, from the sampled row, for transitions; 0 for no future.
        most_steps: Upper bound of ``n_steps`` of transitions, which may be traced. Each sample reads this number of
            steps from each row. Not read for sequences.

    Returns:
        Replay. ``sample`` uses the threefry generator with the first two words of ``key`` as its key, and folds in the
        other words. The fields of ``DrawNumbers`` may be traced; other numbers of the same types do not compile again.
        ``size`` returns an int, or an int32 under a trace. ``rewards`` needs concrete arrays and returns a NumPy array.

    Raises:
        TypeError: If JAX cannot store the shape and dtype of a spec.
        ValueError: If a number is out of range, frames cannot be stacked, a sequence, a future or ``most_steps`` is
            longer than the steps kept per environment, or the replay has more than 2**29 rows.

    >>> import jax, numpy as np
    >>> from polyak.replay import DrawNumbers, EnvironmentSpec, Step
    >>> spec = EnvironmentSpec(jax.ShapeDtypeStruct((), np.float32), num_actions=2)
    >>> replay = make(spec, num_envs=1, capacity=10, batch_size=2, priority_exponent=1.0)
    >>> def program(state):
    ...     def add(number, state):
    ...         obs, one = jnp.full(1, number, jnp.float32), jnp.ones(1)
    ...         return replay.add(state, Step(obs, jnp.ones(1, jnp.int32), one, one, jnp.array([False]), obs + 1))
    ...     state = jax.lax.fori_loop(0, 3, add, state)
    ...     state = replay.update_priorities(state, jnp.arange(3), jnp.array([0.0, 0.0, 5.0]))
    ...     return replay.size(state), replay.sample(jnp.array([1, 2, 0], jnp.uint32), state, DrawNumbers(1, 0.5))
    >>> size, drawn = jax.jit(program)(replay.init())
    >>> int(size), drawn.transition.obs_tm1.tolist(), drawn.transition.discount_t.tolist()
    (3, [2.0, 2.0], [0.5, 0.5])
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
    if not sequence_length:
        plan = plan._replace(most=check_fits("most_steps", check_count("most_steps", most_steps), plan.most))
    _check_range(layout)
    return Replay(
        init=functools.partial(_init, layout),
        add=_add,
        sample=functools.partial(_checked_sample, plan),
        update_priorities=functools.partial(_update, exponent=exponent),
        end_episode=_end_episode,
        size=_size,
        rewards=_rewards,
        sample_spec=functools.partial(_sample_spec, layout, plan),
        nbytes=Nbytes(_memory(layout)),
    )


def _check_range(layout: Layout) -> None:
    """Raise ValueError if int32 cannot number the rows or the steps of an episode."""
    rows, most = layout.num_envs * layout.per_lane, device_writes.MOST_ROWS
    if rows > most:
        raise ValueError(
            f"capacity: got {layout.capacity}, which needs {rows} rows with num_envs {layout.num_envs}; expected at "
            f"most {most} rows on the device. Use a smaller capacity, or the host replay."
        )
    if layout.sequence_period > most:
        raise ValueError(
            f"sequence_period: got {layout.sequence_period}; expected at most {most} on the device. Use a smaller "
            "number: a sequence starts at the first step of each episode in any case."
        )


def _memory(layout: Layout) -> int:
    arrays = jax.tree.leaves(jax.eval_shape(functools.partial(_allocate, layout)))
    return sum(array.size * array.dtype.itemsize for array in arrays)


def _init(layout: Layout, *, reopen: bool = False) -> ReplayState:
    """Make an empty state; see ``Replay.init``."""
    if reopen:
        raise ValueError("reopen: got True for a replay on the device; expected False. Use the host replay for a file.")
    statistics: Any = jax.local_devices()[0].memory_stats() or {}
    free = psutil.virtual_memory().available
    if "bytes_limit" in statistics:
        free = statistics["bytes_limit"] - statistics["bytes_in_use"]
    advice = "Images in uint8, fewer pixels, or the host replay with observations in a file need less."
    check_memory(layout, _memory, free, advice)
    return _allocate(layout)


def _allocate(layout: Layout) -> ReplayState:
    rows = layout.num_envs * layout.per_lane

    def zeros(spec: Array) -> jax.Array:
        return jnp.zeros((rows, *spec.shape), spec.dtype)

    return ReplayState(
        observation=zeros(layout.observation),
        action=jnp.zeros(rows, jnp.int32),
        reward=jnp.zeros(rows, jnp.float32),
        continuation=jnp.zeros(rows, jnp.float32),
        extras=jax.tree.map(zeros, layout.extras),
        action_mask=jax.tree.map(zeros, layout.action_mask),
        boundary=jnp.ones(rows, jnp.bool_),
        head=jnp.zeros(layout.num_envs, jnp.int32),
        written=jnp.ones(layout.num_envs, jnp.int32),
        num_valid=jnp.zeros(layout.num_envs, jnp.int32),
        priorities=device_tree.init(rows) if layout.prioritized else (),
        largest_priority=jnp.ones((), jnp.float32) if layout.prioritized else (),
        episode_step=jnp.zeros(rows, jnp.int32) if layout.numbered else (),
        lags=jnp.arange(layout.stack - 1, -1, -1, dtype=jnp.int32) if layout.stack > 1 else (),
        sequence_period=jnp.int32(layout.sequence_period) if layout.sequence_period else (),
        sequence_start=jnp.zeros(rows, jnp.bool_) if layout.sequence_period else (),
    )


def _checked_sample(plan: Plan, key: Array, state: ReplayState, numbers: DrawNumbers) -> Sample:
    """Check the arguments that are not traced, then sample; see ``Replay.sample``."""
    n, discount, exponent = numbers
    if not _is_traced(n):
        n = check_steps(_as_python(n), plan.most, in_sequence=plan.sequence_length > 0)
    if not _is_traced(discount):
        discount = check_unit("discount", _as_python(discount))
    if not _is_traced(exponent):
        exponent = check_unit("importance_exponent", _as_python(exponent))
    if not _is_traced(state.num_valid):
        _check_not_empty(state)
    sample: Sample = _sample(plan, key, state, DrawNumbers(n, discount, exponent))
    return sample


def _check_not_empty(state: ReplayState) -> None:
    sequences = len(state.sequence_start) > 0
    if sequences and state.priorities and np.asarray((state.priorities.leaves, *state.priorities.sums)[-1]).any():
        return
    if not (_has_starts(state) if sequences else np.asarray(state.num_valid).any()):
        what = "sequences" if sequences else "steps"
        raise ValueError(f"state: got a replay without {what}; expected at least one. Add steps first.")


def _as_python(number: Any) -> Any:
    return number.item() if isinstance(number, jax.Array) else number


def _is_traced(array: Any) -> bool:
    return isinstance(array, jax.core.Tracer)


def _size(state: ReplayState) -> Any:
    """Number of steps that can be sampled, over all lanes."""
    return device_draws.size(state) if _is_traced(state.num_valid) else host_draws.size(state)


def _rewards(state: ReplayState) -> npt.NDArray[np.float32]:
    """Rewards of the steps that can be sampled, ``[R]``."""
    reward, boundary = jax.device_get((state.reward, state.boundary))
    return host_draws.rewards(state._replace(reward=reward, boundary=boundary))


def _sample_spec(layout: Layout, plan: Plan) -> Sample:
    """Shapes and dtypes of a sample; see ``Replay.sample_spec``."""
    key = jax.ShapeDtypeStruct((2,), np.uint32)
    state = jax.eval_shape(functools.partial(_allocate, layout))
    spec: Sample = jax.eval_shape(functools.partial(device_draws.sample, plan), key, state, DrawNumbers())
    return spec
