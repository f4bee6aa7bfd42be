"""The DQN family over transitions: one network, one learner, and a loss for each head."""

import functools
from collections.abc import Callable
from typing import Any, cast

import haiku as hk
import jax
import jax.numpy as jnp

from .. import networks, updates
from ..networks import ValueOutput
from ..replay.types import Sample, TimeStep, Transition
from ..updates import LearnerState, LearnOutput, LossOutput, Variables
from . import losses
from .augmentation import make_augmentation
from .config import DQNConfig
from .ensemble import ensemble_acting
from .optimizers import make_optimizer
from .r2d2 import r2d2
from .shared import MAIN_TARGET, agent_targets, greedy_action, mask_values, network_arguments, seen_spec
from .types import ActOutput, Agent, EnvironmentSpec

_BATCHED = ValueOutput(*cast(Any, (0, None, 0, 0, 0, 0)))  # axes to vmap over; the atoms are the same for all


def dqn(
    config: DQNConfig,
    spec: EnvironmentSpec,
    *,
    total_learner_steps: int | None = None,
    lowering: networks.Lowering = "convolution",
    network: hk.Transformed | None = None,
) -> Agent:
    """Makes an agent of the DQN family; its config says which.

    The bootstrapped action is greedy under the online network with ``double``, else under the target's, among the
    legal actions where there are action masks. :mod:`polyak.agents.losses` has the loss of each head, and
    :func:`polyak.agents.r2d2.r2d2` makes the agent that remembers.

    Args:
        config: its numbers.
        spec: what the environment shows and takes; with ``frame_stack``, of a single frame.
        total_learner_steps: of the run; what learning-rate and cosine target schedules fall over.
        lowering: how convolutions are computed (see :class:`polyak.networks.Conv2D`).
        network: a Haiku network of one's own, ``apply(params, key, observation) -> ValueOutput``, where no key means
            no noise; by default :func:`polyak.networks.value_network` from the config. Not for agents that remember.

    Raises:
        ValueError: a field of the config is out of range or does not suit the observations, a rule's text does not
            parse, or the network's output does not match the actions.

    >>> spec = EnvironmentSpec(jax.ShapeDtypeStruct((4,), jnp.float32), num_actions=2)
    >>> agent = dqn(DQNConfig(target="incremental:0.005"), spec, total_learner_steps=1000)
    >>> state = agent.init(jax.random.key(0))
    >>> timestep = TimeStep(jnp.zeros((1, 4)), jnp.zeros(1), jnp.ones(1, bool))
    >>> agent.act(jax.random.key(1), state, (), timestep).action.shape
    (1,)
    """
    if config.memory == "lstm":
        if network is not None:
            raise ValueError("network: got one for an agent that remembers; it has its own. Try memory='none'.")
        return r2d2(config, spec, total_learner_steps=total_learner_steps, lowering=lowering)
    network = network or networks.value_network(**network_arguments(config, spec), lowering=lowering)
    seen = seen_spec(config, spec)
    _check_output(network, seen)
    learner = updates.learner(
        _loss(config, seen, network.apply),
        make_optimizer(config, total_learner_steps),
        targets := agent_targets(config, total_learner_steps),
        skip_nonfinite=config.skip_nonfinite,
    )

    @jax.jit
    def init(key: jax.Array) -> LearnerState:
        observation = jnp.zeros((1, *seen.observation.shape), seen.observation.dtype)
        return learner.init(network.init(key, observation))

    def initial_memory(key: jax.Array, num_envs: int) -> tuple[()]:
        del key, num_envs
        return ()

    def act(key: jax.Array, state: LearnerState, memory: Any, timestep: TimeStep) -> ActOutput:
        q_values = network.apply(state.params, key if config.noisy else None, timestep.observation).q_values
        return ActOutput(greedy_action(q_values, timestep.action_mask), memory)

    def act_greedily(key: jax.Array, state: LearnerState, memory: Any, timestep: TimeStep) -> ActOutput:
        del key
        q_values = network.apply(state.params, None, timestep.observation).q_values
        return ActOutput(greedy_action(q_values, timestep.action_mask), memory)

    def learn(key: jax.Array, state: LearnerState, sample: Sample) -> tuple[LearnerState, LearnOutput]:
        return learner.step(key, state, sample)

    def greedy_actions(params: Any, sample: Sample) -> jax.Array:
        transition: Transition = sample.transition
        return greedy_action(network.apply(params, None, transition.obs_tm1).q_values, transition.action_mask_tm1)

    if config.head == "ensemble":
        initial_memory, act, act_greedily = ensemble_acting(config, network.apply)
    return Agent(init, initial_memory, act, learn, targets, act_greedily, greedy_actions)


def _check_output(network: hk.Transformed, spec: EnvironmentSpec) -> None:
    observation = jax.ShapeDtypeStruct((1, *spec.observation.shape), spec.observation.dtype)
    params = jax.eval_shape(network.init, jax.random.key(0), observation)
    shape = jax.eval_shape(network.apply, params, None, observation).q_values.shape
    if shape != (1, spec.num_actions):
        raise ValueError(
            f"network: its q_values have shape {shape} for one observation of shape {spec.observation.shape}; expected "
            f"(1, {spec.num_actions}), a value for each of the environment's {spec.num_actions} actions. "
            f"Build the network with num_actions={spec.num_actions}."
        )


def _loss(config: DQNConfig, spec: EnvironmentSpec, apply: Callable[..., ValueOutput]) -> updates.Loss:
    augment = make_augmentation(config.augmentation, spec.observation.shape)
    of_values = _munchausen(config, apply) if config.munchausen else _of_a_head(config, apply)

    def loss(key: jax.Array, params: Any, state: Any, targets: Any, batch: Sample) -> tuple[jax.Array, LossOutput]:
        del state
        key, key_tm1, key_t = jax.random.split(key, 3)
        transition: Transition = batch.transition
        if augment is not None:
            seen = (augment(key_tm1, transition.obs_tm1), augment(key_t, transition.obs_t))
            transition = transition._replace(obs_tm1=seen[0], obs_t=seen[1])
        q_tm1, of_each = of_values(key, params, targets[MAIN_TARGET], transition)
        greedy = jnp.max(mask_values(q_tm1, transition.action_mask_tm1), axis=-1)
        metrics = {"q": jnp.mean(greedy), "td_error": jnp.mean(jnp.abs(of_each.td_error))}
        if config.head in ("categorical", "hl_gauss"):
            metrics["clipped_targets"] = jnp.mean(of_each.clipped)
        if config.priority_exponent > 0:
            metrics |= {"priority": jnp.mean(of_each.priority), "importance_weight": jnp.mean(batch.weights)}
        output = LossOutput(priorities=of_each.priority, metrics=metrics)
        return jnp.mean(batch.weights * of_each.loss), output

    return loss


_OfValues = Callable[[jax.Array, Any, Variables, Transition], tuple[jax.Array, losses.TransitionLoss]]


def _of_a_head(config: DQNConfig, apply: Callable[..., ValueOutput]) -> _OfValues:
    """The values of ``obs_tm1``, and the loss of each transition by the head's rule."""
    is_ensemble = config.head == "ensemble"
    # Values at drawn fractions err, and their maximum would meet its own error again in the bootstrap value.
    draws_again = config.double or config.head == "implicit_quantile"
    of_one = losses.head_loss(config)
    in_axes = (_BATCHED, _BATCHED, 0, 0) + ((0,) if is_ensemble else ())

    def values(output: ValueOutput, action_mask: Any) -> jax.Array:
        if not is_ensemble:
            return mask_values(output.q_values, action_mask)
        of_each_head = action_mask if isinstance(action_mask, tuple) else action_mask[:, None, :]
        return mask_values(output.heads, of_each_head)

    def of_values(
        key: jax.Array, params: Any, slow: Variables, transition: Transition
    ) -> tuple[jax.Array, losses.TransitionLoss]:
        key_tm1, key_t, key_selector = jax.random.split(key, 3)
        online = apply(params, key_tm1, transition.obs_tm1)
        target = apply(slow.params, key_t, transition.obs_t)
        selector = params if config.double else slow.params
        chooses = apply(selector, key_selector, transition.obs_t) if draws_again else target
        q_t_selector = jax.lax.stop_gradient(values(chooses, transition.action_mask_t))
        masks = (transition.extras_tm1["mask"],) if is_ensemble else ()
        return online.q_values, jax.vmap(of_one, in_axes)(online, target, q_t_selector, _bootstrap(transition), *masks)

    return of_values


def _munchausen(config: DQNConfig, apply: Callable[..., ValueOutput]) -> _OfValues:
    of_one = functools.partial(losses.munchausen, config, losses.penalty_of(config))

    def of_values(
        key: jax.Array, params: Any, slow: Variables, transition: Transition
    ) -> tuple[jax.Array, losses.TransitionLoss]:
        key_online, key_tm1, key_t = jax.random.split(key, 3)
        online = apply(params, key_online, transition.obs_tm1)
        target_tm1 = mask_values(apply(slow.params, key_tm1, transition.obs_tm1).q_values, transition.action_mask_tm1)
        target_t = mask_values(apply(slow.params, key_t, transition.obs_t).q_values, transition.action_mask_t)
        return online.q_values, jax.vmap(of_one)(online, target_tm1, target_t, _bootstrap(transition))

    return of_values


def _bootstrap(transition: Transition) -> losses.Bootstrap:
    return losses.Bootstrap(transition.a_tm1, transition.r_t, transition.discount_t)
