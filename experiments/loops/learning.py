"""Learning as a loop does it: the compiled programs, and what is measured of them between two records."""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...agents import Agent
from ...replay.types import Sample
from ...updates import LearnerState, TargetRule, diagnostics, repeat, target
from . import normalization
from .normalization import Scaling

Record = dict[str, Any]
LEAST_PRIORITY = np.float32(1e-6)  # the small constant of Schaul et al. (2016), section 3.3
# Measured once between two records: the part of a batch's observations whose greedy action a dispatch of learning
# changed, and that where the target network's greedy action is the same.
CHURN, AGREEMENT = "policy_churn", "target_agreement"


class Programs(NamedTuple):
    """What a loop compiles of an agent.

    Attributes:
        learn: ``(key data, learner steps, state, watch, totals, sample, scaling) -> (state, totals, priorities)``, the
            priorities for a prioritized replay alone; state and totals are donated.
        diagnose: ``(state, totals, count) -> name to scalar``.
    """

    learn: Callable[..., Any]
    diagnose: Callable[..., Any]


def compile_agent(agent: Agent, batches: int, *, prioritized: bool = False) -> Programs:
    """The programs of learning, of ``batches`` learner steps in a dispatch.

    What ``learn`` draws depends on the key and the learner steps before it.
    """
    greedy_actions: Any = agent.greedy_actions
    name, main = next(iter(agent.targets.items()))

    def greedy(watch: Any, state: LearnerState, sample: Sample) -> Any:
        """The greedy actions of the policy and of the main target, at the last batch; zeros unless watched."""
        last = jax.tree.map(lambda leaf: leaf[-1], sample) if batches > 1 else sample

        def actions() -> tuple[jax.Array, jax.Array]:
            slow, _ = target.read(main.rule, main.select(state.params), state.targets[name])
            return greedy_actions(state.params, last), greedy_actions(slow, last)

        if greedy_actions is None:
            return jnp.zeros(1), jnp.zeros(1)
        shapes = jax.eval_shape(actions)
        return jax.lax.cond(watch, actions, lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes))

    def learn(
        key: jax.Array,
        learner_steps: Any,
        state: LearnerState,
        watch: Any,
        totals: dict[str, jax.Array],
        sample: Sample,
        by: Scaling = normalization.NO_SCALING,
    ) -> Any:
        sample = sample._replace(transition=normalization.normalize_drawn(by, sample.transition))
        learn_key = jax.random.fold_in(jax.random.wrap_key_data(key), learner_steps)
        before, _ = greedy(watch, state, sample)
        state, output = (repeat(agent.learn) if batches > 1 else agent.learn)(learn_key, state, sample)
        # Once a dispatch and averaged like the rest: seen at the records alone, a hard target would look always fresh.
        measured = _of_kept_steps(output.metrics)
        measured |= {name: batches * value for name, value in _distances(agent, state).items()}
        after, of_target = greedy(watch, state, sample)
        acted = before >= 0
        parts = {CHURN: before != after, AGREEMENT: after == of_target}
        measured |= {
            name: watch * jnp.sum(part & acted) / jnp.maximum(jnp.sum(acted), 1) for name, part in parts.items()
        }
        totals = {name: total + jnp.sum(measured[name]) for name, total in totals.items()}
        return state, totals, output.priorities if prioritized else ()

    @jax.jit
    def diagnose(state: LearnerState, totals: dict[str, jax.Array], count: Any) -> dict[str, jax.Array]:
        kept = jnp.maximum(count - totals["skipped"], 1) if "skipped" in totals else count
        once = (CHURN, AGREEMENT)
        of_all = ("skipped", *(f"target_distance/{name}" for name in agent.targets))
        parts = {name: count if name in of_all else kept for name in totals} | dict.fromkeys(once, 1)
        found = {name: total / parts[name] for name, total in totals.items()}
        for name, named in agent.targets.items():
            if isinstance(named.rule, TargetRule):
                since = diagnostics.steps_since_update(named.rule, state.targets[name])
                found[f"steps_since_update/{name}"] = since
        return found

    return Programs(jax.jit(learn, donate_argnums=(2, 4)), diagnose)


def _of_kept_steps(metrics: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The metrics with those of skipped learner steps, which may be NaN, as 0; so ``skipped`` stays as it is."""
    if "skipped" not in metrics:
        return metrics
    kept = metrics["skipped"] == 0
    return {name: value if name == "skipped" else jnp.where(kept, value, 0) for name, value in metrics.items()}


def _distances(agent: Agent, state: LearnerState) -> dict[str, jax.Array]:
    return {
        f"target_distance/{name}": diagnostics.target_distance(
            named.rule, named.select(state.params), state.targets[name]
        )
        for name, named in agent.targets.items()
    }


def zeros(totals: Iterable[str]) -> dict[str, jax.Array]:
    """Sums of metrics, before the first."""
    return {name: jnp.zeros((), jnp.float32) for name in totals}


def measured(
    diagnose: Callable[..., Any], state: LearnerState, totals: dict[str, jax.Array], count: int, step: int
) -> Record:
    """The learner's metrics, means over ``count`` learner steps; fetched from the device in one call."""
    found = {name: value.item() for name, value in jax.device_get(diagnose(state, totals, max(count, 1))).items()}
    if count == 0:
        return found | dict.fromkeys(totals)
    if found.get("skipped") == 1:
        raise ValueError(
            f"skipped: every learner step since the record before, {count} of them, came out NaN or infinite up to "
            f"environment step {step}: training has diverged, or the environment's numbers are out of all scale. Lower "
            "learning_rate, set max_gradient_norm or normalize_rewards, or slow the target down."
        )
    for name, value in found.items():
        if not math.isfinite(value):
            raise ValueError(
                f"{name}: got {value} at environment step {step}: training has diverged. Lower learning_rate, set "
                "max_gradient_norm, or slow the target down."
            )
    return found


def finite_priorities(priorities: Any, step: int) -> np.ndarray:
    """The priorities on the host, each a little more, so that no step is lost to the draws for good.

    Raises:
        ValueError: one is not finite, because training has diverged.
    """
    found = np.asarray(priorities) + LEAST_PRIORITY
    if not np.isfinite(found).all():
        raise ValueError(
            f"priority: got {found[~np.isfinite(found)][0]} at environment step {step}: training has diverged. Lower "
            "learning_rate, set max_gradient_norm, or slow the target down."
        )
    return found
