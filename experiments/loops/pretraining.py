"""Pretraining loop: gradient steps on random batches of images, one dispatch each.

A batch is sampled with replacement, as a function of the key and the step, so the carry needs no position in the data.
The steps are not scanned, because XLA's CPU backend runs convolutions inside ``scan`` an order of magnitude slower, and
a dispatch costs only microseconds compared with milliseconds for a step.
"""

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...agents.byol import BYOL, TARGET
from ...updates import LearnerState, diagnostics
from .learning import TARGET_CHURN, Record, check_finite, fetched, moves_always, periods

READ = 256  # images whose features are measured for a record
_WAYS = "Lower learning_rate, or slow the target down."
_CHURN = TARGET_CHURN + TARGET
_INITIAL, _READINGS = 2**32 - 1, 2**32 - 2  # folded into the key; no step reaches these numbers


class PretrainCarry(NamedTuple):
    """State of a pretraining run; a pytree of arrays.

    Attributes:
        key: Random key of the run; each step folds its number into it.
        step: Number of gradient steps, a uint32 scalar.
        learner: State of the learner.
        totals: Sums of the metrics since the last record.
        recorded: Number of gradient steps at the last record, a uint32 scalar.
    """

    key: jax.Array
    step: jax.Array
    learner: LearnerState
    totals: dict[str, jax.Array]
    recorded: jax.Array

    @property
    def steps(self) -> int:
        """Number of gradient steps, on the host."""
        return int(self.step)


def initial_pretrain_carry(byol: BYOL, batch: jax.ShapeDtypeStruct, seed: int) -> PretrainCarry:
    """Carry at step 0.

    Args:
        byol: Functions of the method.
        batch: Shape and dtype of a batch of images, ``[B, H, W, C]``.
        seed: Seed of all random numbers.
    """
    key = jax.random.key(seed)
    state = byol.init(initial_key(key))
    metrics = jax.eval_shape(byol.learner.step, key, state, batch)[1].metrics
    totals = {name: jnp.zeros((), jnp.float32) for name in (*metrics, _CHURN)}
    return PretrainCarry(key, jnp.zeros((), jnp.uint32), state, totals, jnp.zeros((), jnp.uint32))


def initial_key(key: jax.Array) -> jax.Array:
    """Key of the initial parameters of a run, derived from the key of the run."""
    return jax.random.fold_in(key, _INITIAL)


def pretraining_loop(
    byol: BYOL,
    images: Any,
    carry: PretrainCarry,
    *,
    batch_size: int,
    steps: int,
    record_every: int,
    probe_every: int,
    yield_every: int,
    probe: Callable[[LearnerState], dict[str, float]],
    stop: Callable[[], bool],
) -> Iterator[tuple[PretrainCarry, Record]]:
    """Take gradient steps up to step ``steps``; yield the carry with a record or with an empty one.

    The next step consumes the carry that was yielded.

    Args:
        byol: Functions of the method.
        images: ``[N, H, W, C]``, images from which batches are sampled.
        carry: Initial carry; consumed.
        batch_size: Number of images of a batch.
        steps: Number of the last gradient step.
        record_every: Number of gradient steps between two records.
        probe_every: Number of gradient steps between two records with probes; the last record has probes too.
        yield_every: Number of gradient steps after which the carry is yielded at the latest.
        probe: Function from the learner's state to the probes of a record.
        stop: Function called before each step; the loop stops if it returns True.

    Raises:
        ValueError: if a metric is not finite, because training has diverged.
    """
    step_once = jax.jit(functools.partial(advance, byol, batch_size), donate_argnums=0)
    read, sample = jax.jit(functools.partial(_read, byol)), images[:READ]
    see, add_churn = jax.jit(byol.encode_by_target), jax.jit(functools.partial(_add_churn, byol), donate_argnums=0)
    always, due = moves_always(byol.targets[TARGET]), periods(byol.targets[TARGET])
    started, first, step = time.perf_counter(), carry.steps, carry.steps
    while step < steps:
        if stop():
            yield carry, {}
            return
        step += 1
        is_probed = step % probe_every == 0 or step >= steps
        is_recorded = step % record_every == 0 or is_probed
        is_watched = is_recorded if always else any(step % period == 0 for period in due)
        seen = see(carry.learner, sample) if is_watched else None
        carry = step_once(carry, images)
        carry = add_churn(carry, seen, sample) if is_watched else carry
        if is_recorded:
            found = check_finite(fetched(read(carry, sample)), f"gradient step {step}", _WAYS)
            record: Record = {"step": step, **found}
            record |= probe(carry.learner) if is_probed else {}
            seconds = time.perf_counter() - started
            record |= {"seconds": seconds, "steps_per_second": (step - first) / seconds}
            carry = carry._replace(totals=jax.tree.map(jnp.zeros_like, carry.totals), recorded=jnp.copy(carry.step))
            yield carry, record
        elif step % yield_every == 0:
            yield carry, {}


def advance(byol: BYOL, batch_size: int, carry: PretrainCarry, images: jax.Array) -> PretrainCarry:
    """Carry after one gradient step on a batch sampled from ``images``, ``[N, H, W, C]``."""
    draw_key, learn_key = jax.random.split(jax.random.fold_in(carry.key, carry.step))
    rows = jax.random.randint(draw_key, (batch_size,), 0, images.shape[0])
    state, output = byol.learner.step(learn_key, carry.learner, images[rows])
    totals = {name: carry.totals[name] + value for name, value in output.metrics.items()}
    return carry._replace(step=carry.step + 1, learner=state, totals={**carry.totals, **totals})


def _add_churn(byol: BYOL, carry: PretrainCarry, seen: jax.Array, images: jax.Array) -> PretrainCarry:
    """Add the mean absolute change of the target's features in a gradient step; ``seen`` are those before it."""
    change = jnp.mean(jnp.abs(byol.encode_by_target(carry.learner, images) - seen))
    return carry._replace(totals={**carry.totals, _CHURN: carry.totals[_CHURN] + change})


def _read(byol: BYOL, carry: PretrainCarry, images: jax.Array) -> dict[str, jax.Array]:
    """Means of the metrics since the last record, readings of the features, and the distance of the target."""
    count = (carry.step - carry.recorded).astype(jnp.float32)
    found = {name: total / count for name, total in carry.totals.items()}
    if moves_always(byol.targets[TARGET]):  # measured only at the last step
        found[_CHURN] = carry.totals[_CHURN]
    found |= byol.read(jax.random.fold_in(carry.key, _READINGS), carry.learner, images)
    distances = diagnostics.distances(byol.targets, carry.learner.params, carry.learner.targets)
    return found | {f"target_distance/{name}": distance for name, distance in distances.items()}
