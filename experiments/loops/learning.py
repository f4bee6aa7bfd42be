"""Learning in a loop: compiled programs, and their metrics between two records."""

import functools
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ... import networks
from ...agents import Agent, LoopConfig
from ...agents.readings import READINGS, read_features
from ...agents.types import read_target
from ...replay import Replay
from ...replay.types import Sample
from ...updates import (
    LearnerState,
    Periodic,
    Target,
    TargetRule,
    TargetState,
    Variables,
    diagnostics,
    is_none,
    repeat,
    rules_by_part,
)
from . import normalization
from .normalization import Scaling

Record = dict[str, Any]
UNKNOWN = np.float32(-1)  # priority of a row whose learner step was skipped
LEAST_PRIORITY = np.float32(1e-6)  # small constant of Schaul et al. (2016), section 3.3
# Measured once between two records: the fraction of a batch's observations whose greedy action was changed by one
# dispatch of learning, and the fraction for which online and target network have the same greedy action.
CHURN, AGREEMENT = "policy_churn", "target_agreement"
TARGET_CHURN = "target_churn/"  # prefix of a target's name: mean change of its output in a learner step
_SAMPLING = ("priority", "importance_weight")  # metrics of a prioritized replay


class Programs(NamedTuple):
    """Compiled programs of an agent.

    Attributes:
        learn: ``(key data, learner steps, state, watch, totals, sample, scaling) -> (state, totals, priorities)``.
            Priorities are returned only for a prioritized replay; state and totals are donated.
        diagnose: ``(state, totals, count) -> name to scalar``.
        periodic: Each periodic operation with its program ``(key data, learner steps, state) -> state``, which donates
            the state.
    """

    learn: Callable[..., Any]
    diagnose: Callable[..., Any]
    periodic: Sequence[tuple[Periodic, Callable[..., Any]]]


def compile_agent(agent: Agent, batches: int, *, prioritized: bool = False) -> Programs:
    """Compile the programs for dispatches of ``batches`` learner steps.

    Raises:
        ValueError: if the period of a periodic operation is shorter than a dispatch.
    """
    check_periods(agent, batches)
    learn = functools.partial(learner_round, agent, batches, prioritized)
    periodic = [
        (operation, jax.jit(functools.partial(apply_operation, operation, number), donate_argnums=2))
        for number, operation in enumerate(agent.periodic.values())
    ]
    return Programs(jax.jit(learn, donate_argnums=(2, 4)), jax.jit(functools.partial(diagnose, agent)), periodic)


def calibrated(
    agent: Agent, replay: Replay, config: LoopConfig, state: LearnerState, replay_state: Any, by: Scaling
) -> LearnerState:
    """State of an agent whose support is derived from the rewards in the replay, before its first learner step."""
    assert agent.calibrate is not None
    rewards = replay.rewards(replay_state)
    if config.normalization.normalize_rewards:
        rewards = rewards * by.reward_scale
    return agent.calibrate(state, rewards, config.draw.discount.extremes[1])


def check_periods(agent: Agent, batches: int) -> None:
    """Check that no periodic operation of an agent would fire more than once in ``batches`` learner steps.

    Raises:
        ValueError: if the period of an operation is shorter.
    """
    for name, operation in agent.periodic.items():
        if operation.period < batches:
            raise ValueError(
                f"{name}: got a period of {operation.period} learner steps, and {batches} are made in one dispatch; "
                f"expected at least {batches}. Lengthen it, or make fewer learner steps per dispatch (--learner-steps, "
                "--num-envs)."
            )


def operate(programs: Programs, key: Any, before: int, after: int, state: LearnerState) -> LearnerState:
    """State after the periodic operations that are due between two counts of learner steps.

    Args:
        programs: Programs of the agent.
        key: Raw data of the run's learning key; random numbers depend on it and on ``after``.
        before: Number of learner steps before the last dispatch.
        after: Number of learner steps after the last dispatch.
        state: State of the agent; consumed.
    """
    for operation, apply in programs.periodic:
        if operation.count(after) > operation.count(before):
            state = apply(key, np.uint32(after), state)
    return state


def apply_operation(
    operation: Periodic, number: int, key: Any, learner_steps: Any, state: LearnerState
) -> LearnerState:
    """State after a periodic operation; a pure function.

    Args:
        operation: Operation.
        number: Index of the operation among those of its agent.
        key: Raw data of the run's learning key.
        learner_steps: Number of learner steps so far.
        state: State of the agent.
    """
    # The learner uses keys fold_in(step key, i) with small i, as jax.random.split does; this i is never among them.
    own = jax.random.fold_in(jax.random.fold_in(jax.random.wrap_key_data(key), learner_steps), 2**32 - 1 - number)
    return operation.apply(own, state)


def learner_round(
    agent: Agent,
    batches: int,
    prioritized: bool,
    key: jax.Array,
    learner_steps: Any,
    state: LearnerState,
    watch: Any,
    totals: dict[str, jax.Array],
    sample: Sample,
    by: Scaling = normalization.NO_SCALING,
) -> tuple[LearnerState, dict[str, jax.Array], Any]:
    """Make one dispatch of learning and add its metrics to the totals; a pure function.

    Args:
        agent: Agent.
        batches: Number of learner steps; with more than one, the sample is ``[batches, B, ...]``.
        prioritized: Whether priorities are returned.
        key: Raw data of the run's learning key; random numbers depend on it and on ``learner_steps``.
        learner_steps: Number of learner steps before this dispatch.
        state: State of the agent.
        watch: Whether to measure churn, agreement and features, which takes a few passes of the network. The churn of a
            target with a period above 1 is measured whenever it moves.
        totals: Sums of metrics.
        sample: Sample from the replay, not yet normalized.
        by: Scaling of observations and rewards.
    """
    drawn, future = sample.transition, sample.future
    if jax.tree.leaves(future):
        future = normalization.normalize_drawn(by, future)
    sample = sample._replace(transition=normalization.normalize_drawn(by, drawn), future=future)
    learn_key = jax.random.fold_in(jax.random.wrap_key_data(key), learner_steps)
    last = jax.tree.map(lambda leaf: leaf[-1], sample) if batches > 1 else sample
    fires = {name: _fires(named, state.targets[name], batches) for name, named in agent.targets.items()}
    due = functools.reduce(jnp.logical_or, fires.values(), watch)
    seen = _see(agent, due, state, last)
    state, output = (repeat(agent.learn) if batches > 1 else agent.learn)(learn_key, state, sample)
    measured = _of_kept_steps(output.metrics)
    if prioritized:
        measured |= {"priority": jnp.mean(output.priorities), "importance_weight": jnp.mean(sample.weights)}
        measured = {name: batches * value if name in _SAMPLING else value for name, value in measured.items()}
    # Measured in every dispatch and averaged: at records alone, a hard target could always be just updated.
    distances = diagnostics.distances(agent.targets, state.params, state.targets)
    measured |= {f"target_distance/{name}": batches * value for name, value in distances.items()}
    now = _see(agent, due, state, last)
    acted = seen.policy >= 0
    parts = {CHURN: seen.policy != now.policy, AGREEMENT: now.policy == now.target}
    measured |= {name: watch * jnp.sum(part & acted) / jnp.maximum(jnp.sum(acted), 1) for name, part in parts.items()}
    measured |= _target_churn(agent, watch, fires, seen, now, batches)
    measured |= _readings(agent, watch, state, last)
    totals = {name: total + jnp.sum(measured[name]) for name, total in totals.items()}
    return state, totals, _of_kept_batches(output) if prioritized else ()


class _Seen(NamedTuple):
    """Greedy actions and outputs of an agent on one batch; zeros if they are not due.

    Attributes:
        policy: Greedy actions of the online network; -1 for steps without a loss.
        target: Greedy actions of the main target.
        outputs: Name of each target to its output ``[N, M]`` and to the validity of its rows, ``[N]``.
    """

    policy: jax.Array
    target: jax.Array
    outputs: dict[str, tuple[jax.Array, jax.Array]]


def _see(agent: Agent, due: Any, state: LearnerState, sample: Sample) -> _Seen:
    main, output = next(iter(agent.targets)), agent.output

    def see() -> _Seen:
        slow = {name: read_target(named, state, name) for name, named in agent.targets.items()}
        policy = agent.greedy_actions(Variables(state.params, state.state), sample)
        outputs = {} if output is None else {name: output(name, slow[name], sample) for name in slow}
        return _Seen(policy, agent.greedy_actions(slow[main], sample), outputs)

    shapes = jax.eval_shape(see)
    found: _Seen = jax.lax.cond(due, see, lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes))
    return found


def _rules(named: Target) -> Iterable[TargetRule]:
    return rules_by_part({"": named.rule}).values()


def moves_always(named: Target) -> Any:
    """Whether a rule of a target fires at every learner step, so that its change is measured once for each record."""
    found = [is_none(rule) | ((rule.period <= 1) & (rule.step_size > 0)) for rule in _rules(named)]
    return functools.reduce(operator.or_, found)


def periods(named: Target) -> list[int]:
    """Periods, in learner steps, of the rules that move a target less than once per learner step."""
    return [int(rule.period) for rule in _rules(named) if rule.step_size and rule.period > 1]


def _fires(named: Target, slow: TargetState, batches: int) -> Any:
    """Whether a target that does not move at every learner step moves within a dispatch."""
    fires = jnp.bool_(False)
    for rule in _rules(named):
        period = jnp.maximum(jnp.asarray(rule.period), 1).astype(jnp.uint32)
        fires |= (slow.count % period + batches >= period) & (rule.step_size > 0)
    return fires & ~jnp.asarray(moves_always(named))


def _target_churn(
    agent: Agent, watch: Any, fires: dict[str, Any], before: _Seen, after: _Seen, batches: int
) -> dict[str, jax.Array]:
    """Sums over learner steps of the mean absolute change of each target's output."""
    found = {}
    for name, (output, valid) in after.outputs.items():
        change = jnp.mean(jnp.abs(output - before.outputs[name][0]), axis=-1)
        mean = jnp.sum(jnp.where(valid, change, 0.0)) / jnp.maximum(jnp.sum(valid), 1)
        always = moves_always(agent.targets[name])
        found[TARGET_CHURN + name] = jnp.where(always, watch * mean / batches, fires[name] * mean)
    return found


def _readings(agent: Agent, watch: Any, state: LearnerState, sample: Sample) -> dict[str, jax.Array]:
    """Readings of an agent's features on one batch; zeros if not watched, empty if the agent has no features."""
    if agent.features is None:
        return {}
    features = agent.features

    def read() -> dict[str, jax.Array]:
        return read_features(*features(Variables(state.params, state.state), sample))

    found: dict[str, jax.Array] = jax.lax.cond(watch, read, lambda: {name: jnp.zeros(()) for name in READINGS})
    return found


def diagnose(agent: Agent, state: LearnerState, totals: dict[str, jax.Array], count: Any) -> dict[str, jax.Array]:
    """Compute the means of the totals over ``count`` learner steps, and readings of the state."""
    kept = jnp.maximum(count - totals["skipped"], 1) if "skipped" in totals else count
    every = ("skipped", *_SAMPLING, *(name for name in totals if name.startswith("target_distance/")))
    parts = {name: count if name in every else kept for name in totals} | dict.fromkeys(
        (CHURN, AGREEMENT, *READINGS), 1
    )
    for name, named in agent.targets.items():
        parts[TARGET_CHURN + name] = jnp.where(jnp.asarray(moves_always(named)), 1, count)
    found = {name: total / parts[name] for name, total in totals.items()}
    since = diagnostics.steps_since_updates(agent.targets, state.targets)
    found |= {f"steps_since_update/{name}": value for name, value in since.items()}
    support = networks.support(state.state)
    return found if support is None else found | {"v_min": support[0], "v_max": support[1]}


def measured_names(agent: Agent, state: LearnerState, sample: Sample, prioritized: bool) -> list[str]:
    """Names of the metrics whose totals a run keeps.

    Args:
        agent: Agent.
        state: State of the agent, or its shapes.
        sample: Shapes of the sample of one learner step.
        prioritized: Whether rows are sampled by priority.
    """
    key = jax.random.key(0)
    metrics = jax.eval_shape(agent.learn, key, state, sample)[1].metrics
    rules = rules_by_part({name: named.rule for name, named in agent.targets.items()})
    distances = [f"target_distance/{name}" for name in rules]
    readings = () if agent.features is None else READINGS
    churns = [] if agent.output is None else [TARGET_CHURN + name for name in agent.targets]
    return [*metrics, *(_SAMPLING if prioritized else ()), *distances, CHURN, AGREEMENT, *churns, *readings]


def _of_kept_steps(metrics: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Metrics with 0 for skipped learner steps, whose metrics may be NaN; ``skipped`` is unchanged."""
    if "skipped" not in metrics:
        return metrics
    kept = metrics["skipped"] == 0
    return {name: value if name == "skipped" else jnp.where(kept, value, 0) for name, value in metrics.items()}


def _of_kept_batches(output: Any) -> Any:
    """Priorities ``[..., B]`` of a dispatch; UNKNOWN for skipped learner steps."""
    if "skipped" not in output.metrics:
        return output.priorities
    return jnp.where(output.metrics["skipped"][..., None] > 0, UNKNOWN, output.priorities)


def zeros(totals: Iterable[str]) -> dict[str, jax.Array]:
    """Sums of metrics before the first learner step."""
    return {name: jnp.zeros((), jnp.float32) for name in totals}


def measured(found: Record, totals: Iterable[str], count: int, step: int) -> Record:
    """Means of the learner's metrics over ``count`` learner steps, checked.

    Args:
        found: Numbers of ``diagnose``, fetched from the device.
        totals: Names of the metrics that are means over learner steps; they are None without a learner step.
        count: Number of learner steps.
        step: Number of environment steps, for the error.

    Raises:
        ValueError: if a number is not finite, or every learner step was skipped, because training has diverged.
    """
    if count == 0:
        return found | dict.fromkeys(totals)
    if found.get("skipped") == 1:
        raise ValueError(
            f"skipped: all {count} learner steps since the previous record gave NaN or infinity, up to environment "
            f"step {step}: training has diverged, or observations or rewards are extremely large. Lower "
            "learning_rate, set max_gradient_norm or normalize_rewards, or slow the target down."
        )
    ways = "Lower learning_rate, set max_gradient_norm, or slow the target down."
    return check_finite(found, f"environment step {step}", ways)


def fetched(metrics: Mapping[str, jax.Array]) -> Record:
    """Metrics as Python numbers, fetched from the device in one call.

    >>> fetched({"loss": jnp.float32(0.5)})
    {'loss': 0.5}
    """
    return {name: value.item() for name, value in jax.device_get(metrics).items()}


def check_finite(record: Record, at: str, ways: str) -> Record:
    """Return a record of numbers if each is finite.

    Args:
        record: Numbers by name.
        at: Place in the run, for the error.
        ways: Suggestions if training has diverged, for the error.

    Raises:
        ValueError: if a number is not finite, because training has diverged.

    >>> check_finite({"loss": 0.5}, "gradient step 3", "Lower learning_rate.")
    {'loss': 0.5}
    """
    for name, value in record.items():
        if not math.isfinite(value):
            raise ValueError(f"{name}: got {value} at {at}: training has diverged. {ways}")
    return record


def new_priorities(rows: np.ndarray, priorities: Any, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and priorities for the replay after a dispatch.

    Args:
        rows: Rows of the sample.
        priorities: Priorities of the same shape; rows with UNKNOWN, from a skipped learner step, keep their priority.
        step: Number of environment steps, for the error.

    Returns:
        Rows, and priorities plus a small constant, so that every step can be sampled again.

    Raises:
        ValueError: if a priority is not finite, because training has diverged.
    """
    rows, found = np.asarray(rows), np.asarray(priorities)
    if (kept := found != UNKNOWN).all():
        found = found + LEAST_PRIORITY
    else:
        rows, found = rows[kept], found[kept] + LEAST_PRIORITY
    if not np.isfinite(found).all():
        raise ValueError(
            f"priority: got {found[~np.isfinite(found)][0]} at environment step {step}: training has diverged. Lower "
            "learning_rate, set max_gradient_norm, or slow the target down."
        )
    return rows, found
