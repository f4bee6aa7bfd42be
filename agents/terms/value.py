"""Value term: Q-learning for every head and bootstrap policy, on transitions and sequences."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ...networks import ValueOutput
from ...replay.types import Sequence
from ..acting import mask_values
from ..bootstrap import next_policy
from ..config import AgentConfig, FunctionalRegularization, Greedy
from ..head_parts import Categorical, Ensemble, HLGauss, ImplicitQuantile, Iterated
from ..heads import ActionRewardDiscount, TransitionLoss, learn_transition
from ..types import MAIN_TARGET, Outputs, Term, TermOutput, Views

Array = Any
# Lower bound of the standard deviation of TD errors in a trust region (MEME, Kapturowski et al., 2023).
_LEAST_DEVIATION = 0.01
# Weight of the largest priority in a sequence; the mean has the rest (Kapturowski et al., 2019, section 2.3).
_WEIGHT_OF_THE_LARGEST = 0.9
_BATCHED = ValueOutput(*(None if field == "atoms" else 0 for field in ValueOutput._fields))  # type: ignore[arg-type]


def make_value_term(config: AgentConfig) -> Term:
    """Make the value term of an agent.

    The loss of a step is the loss of the ``n_steps`` window that begins at the step. The loss of a sequence is the sum
    over the steps that are learnt from, divided by the length without the burn-in. The priority of a sequence is
    ``0.9 * largest + 0.1 * mean`` of the priorities of its steps; a sequence that is not complete yet gets the largest
    priority of the batch.

    The main target has a role (``target_role``). By default its values are the bootstrap targets. With functional
    regularization or a trust region, the online network under stop-gradient provides the bootstrap targets, and the
    values of the target network change the loss of each step.

    Args:
        config: Config of the agent.
    """
    burn_in = config.burn_in

    def value_term(key: jax.Array, views: Views) -> TermOutput:
        del key  # the views have the networks' random draws
        steps, target = views.steps, _bootstrap_network(config, views)
        batch, length = steps.a_tm1.shape
        online, tm1, t, selector = (
            _flatten(tree) for tree in (views.online.tm1, target.tm1, target.t, _selector(config, views, target))
        )
        found = jax.vmap(functools.partial(_learn_step, config), in_axes=(*[_BATCHED] * 4, 0, 0))(
            online, tm1, t, selector, _flatten(steps), _member_masks(config, views, length)
        )
        found, of_role = _apply_role(config, views, found)
        greedy = jnp.max(mask_values(views.online.tm1.q_values, steps.action_mask_tm1), axis=-1)
        metrics = {"q": greedy.reshape(-1), "td_error": jnp.abs(found.td_error)} | of_role
        if isinstance(config.head, Categorical | HLGauss):
            metrics["clipped_targets"] = found.clipped
        drawn = views.sample.transition
        if not isinstance(drawn, Sequence):
            metrics = {name: jnp.mean(leaf) for name, leaf in metrics.items()}
            return TermOutput(found.loss, metrics, jax.lax.stop_gradient(found.priority))
        learns, count = steps.learns, jnp.maximum(jnp.sum(steps.learns), 1)
        metrics = {
            name: jnp.sum(jnp.where(learns, leaf.reshape(batch, length), 0.0)) / count for name, leaf in metrics.items()
        }
        losses = jnp.where(learns, found.loss.reshape(batch, length), 0.0)
        priorities = _sequence_priorities(drawn, learns, found.priority.reshape(batch, length))
        return TermOutput(jnp.sum(losses, axis=-1) / (length - burn_in), metrics, jax.lax.stop_gradient(priorities))

    return value_term


def _bootstrap_network(config: AgentConfig, views: Views) -> Outputs:
    """Return the outputs of the network that provides the bootstrap targets, under stop-gradient."""
    if config.target_role is None:
        return views.targets[MAIN_TARGET]
    stopped: Outputs = jax.tree.map(jax.lax.stop_gradient, views.online)
    return stopped


def _apply_role(config: AgentConfig, views: Views, found: TransitionLoss) -> tuple[TransitionLoss, dict[str, Array]]:
    """Change the losses ``[B * T]`` by the values of the main target; return them with metrics ``[B * T]``."""
    if config.target_role is None:
        return found, {}
    a_tm1 = views.steps.a_tm1.reshape(-1)
    online, target = (
        _flatten(output).q_values[jnp.arange(len(a_tm1)), a_tm1]
        for output in (views.online.tm1, views.targets[MAIN_TARGET].tm1)
    )
    distance = online - target
    if isinstance(config.target_role, FunctionalRegularization):
        loss = found.loss + config.target_role.functional_weight * 0.5 * jnp.square(distance)
        return found._replace(loss=loss), {"value_distance": jnp.abs(distance)}
    learns = views.steps.learns.reshape(-1)
    dropped = leaves_trust_region(config.target_role.trust_region_width, distance, found.td_error, learns)
    return found._replace(loss=jnp.where(dropped, 0.0, found.loss)), {"dropped_losses": dropped.astype(jnp.float32)}


def leaves_trust_region(width: float, distance: Array, td_error: Array, learns: Array) -> Array:
    r"""Return whether the gradient of each step leads out of the trust region around the target network.

    A step leaves the region if ``|distance| > width * sigma`` and its TD error has the sign of ``distance``. ``sigma``
    is the standard deviation of the TD errors of the batch, and at least 0.01. MEME (Kapturowski et al., 2023) also
    uses a running standard deviation, which needs a state that a term does not have.

    Args:
        width: Width of the region in standard deviations.
        distance: ``[N]``, value of the online network minus value of the target network.
        td_error: ``[N]``, bootstrap target minus value of the online network.
        learns: ``[N]`` bool, whether a step is learnt from.

    >>> distance, td_error = jnp.array([3.0, 3.0, 0.5, -3.0]), jnp.array([1.0, -1.0, 1.0, -1.0])
    >>> leaves_trust_region(2.0, distance, td_error, jnp.ones(4, bool)).tolist()
    [True, False, False, True]
    """
    sigma = jnp.maximum(jnp.std(td_error, where=learns), _LEAST_DEVIATION)
    outside = (jnp.abs(distance) > width * sigma) & (jnp.sign(distance) == jnp.sign(td_error))
    return jax.lax.stop_gradient(outside)


def _selector(config: AgentConfig, views: Views, target: Outputs) -> ValueOutput:
    """Return the values that choose the next action."""
    if isinstance(config.bootstrap, Greedy) and config.bootstrap.double:
        return views.online.t_again
    # Values at sampled fractions are noisy; choosing and bootstrapping with one sample would overestimate.
    is_greedy = isinstance(config.bootstrap, Greedy)
    return target.t_again if is_greedy and isinstance(config.head, ImplicitQuantile) else target.t


def _learn_step(
    config: AgentConfig,
    online: ValueOutput,
    tm1: ValueOutput,
    t: ValueOutput,
    selector: ValueOutput,
    step: Any,
    mask: Any,
) -> TransitionLoss:
    """Compute the loss of one step; an ensemble or an iterated head has a bootstrap policy for each of its heads."""
    masks = (step.action_mask_tm1, step.action_mask_t)
    if isinstance(config.head, Ensemble | Iterated):
        select, values = selector.members, tm1.members
        if isinstance(config.head, Iterated):  # head k - 1 is the target of head k, which chooses in double Q-learning
            is_double = isinstance(config.bootstrap, Greedy) and config.bootstrap.double
            select, values = select[1:] if is_double else select[:-1], values[:-1]
        policy = jax.vmap(lambda one, other: next_policy(config.bootstrap, one, other, step.a_tm1, *masks))(
            select, values
        )
    else:
        policy = next_policy(config.bootstrap, selector.q_values, tm1.q_values, step.a_tm1, *masks)
    policy = jax.tree.map(jax.lax.stop_gradient, policy)
    transition = ActionRewardDiscount(step.a_tm1, step.r_t, step.discount_t, mask)
    return learn_transition(config.head, online, t, policy, transition)


def _member_masks(config: AgentConfig, views: Views, length: int) -> Array:
    """Return the masks ``[B * T, K]`` of ensemble members; all steps of a sequence have its first step's mask."""
    if not isinstance(config.head, Ensemble):
        return ()
    drawn = views.sample.transition
    extras = drawn.extras if isinstance(drawn, Sequence) else drawn.extras_tm1
    return jnp.repeat(extras.member_mask, length, axis=0)


def _sequence_priorities(drawn: Sequence, learns: Array, priority: Array) -> Array:
    each = jnp.where(learns, priority, 0.0)
    mean = jnp.sum(each, axis=-1) / jnp.maximum(jnp.sum(learns, axis=-1), 1)
    priorities = _WEIGHT_OF_THE_LARGEST * jnp.max(each, axis=-1) + (1 - _WEIGHT_OF_THE_LARGEST) * mean
    # The episode of an incomplete sequence has not ended, so its later steps are still to be learnt from.
    largest = jnp.max(priorities)
    return jnp.where(drawn.complete, priorities, jnp.where(largest > 0, largest, 1.0))


def _flatten(tree: Any) -> Any:
    """Reshape ``[B, T, ...]`` to ``[B * T, ...]``; atoms are unchanged."""
    if isinstance(tree, ValueOutput):
        fields = {name: leaf for name, leaf in tree._asdict().items() if name != "atoms"}
        return tree._replace(**_flatten(fields))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)
