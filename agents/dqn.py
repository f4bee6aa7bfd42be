"""DQN (Mnih et al., 2015), double Q-learning (van Hasselt et al., 2016), the dueling head (Wang et al., 2016)."""

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Literal

import haiku as hk
import jax
import jax.numpy as jnp
import rlax

from .. import networks, updates
from ..replay.types import Sample, TimeStep, Transition
from ..updates import LearnerState, LearnOutput, LossOutput, Target, Variables
from .optimizers import OptimizerName, ScheduleName, make_optimizer
from .types import AVERAGE, ActOutput, Agent, EnvironmentSpec

MAIN_TARGET = "q"


@dataclasses.dataclass(frozen=True)
class DQNConfig:
    """Every number of a DQN; the defaults are those of the quickstart on CartPole-v1.

    Attributes:
        hidden_sizes: units of each dense layer.
        torso: ``mlp``, ``nature`` (the convolutions of Mnih et al., 2015) or ``auto``: nature for images.
        activation: of the dense layers.
        dueling: whether the head has a stream for the value and one for the advantages.
        double: whether the online network chooses the action whose target value is bootstrapped.
        loss: ``squared``, or ``huber`` (linear beyond an error of 1: a rare large error, such as that of a failure
            after a long episode, then weighs little).
        discount: of the agent, per environment step, in [0, 1].
        n_steps: environment steps that a transition spans before it bootstraps.
        batch_size: transitions of a learner step.
        optimizer: adam, adamw, rmsprop (centred) or sgd.
        optimizer_epsilon: the constant in the optimizer's denominator.
        learning_rate: at the first learner step.
        learning_rate_schedule: ``constant``, or falling to 0 over the run: ``linear``, ``cosine``.
        max_gradient_norm: the global norm to which gradients are clipped; None for no clipping.
        skip_nonfinite: whether a learner step that comes out NaN or infinite is undone and counted in the metric
            skipped; without it, such a step ends the run.
        target: the rule of the target network, such as periodic:500, incremental:0.005, frozen or none. Periods are
            learner steps; 500env is in environment steps.
        average: the rule of a Polyak average of the parameters to evaluate with, such as incremental:0.001; none: the
            online parameters are evaluated.
        replay_capacity: environment steps that are kept (the end of each episode takes one more).
        learning_starts: environment steps before the first learner step.
        train_every: environment steps between two rounds of learning.
        learner_steps: learner steps of a round, in one dispatch.
        epsilon_initial: the probability of a random action at the first step.
        epsilon_final: the same after the decay.
        epsilon_fraction: the part of all environment steps over which epsilon falls, linearly, in [0, 1].
        normalize_observations: whether observations are centred and divided by their standard deviation, element by
            element, and clipped to [-10, 10]; not for images, which the networks scale.
        normalize_rewards: whether rewards are divided by the standard deviation of the discounted return, and, summed
            over n_steps, clipped to [-10, 10].
    """

    hidden_sizes: tuple[int, ...] = (120, 84)
    torso: Literal["auto", "mlp", "nature"] = "auto"
    activation: networks.Activation = "relu"
    dueling: bool = False
    double: bool = True
    loss: Literal["huber", "squared"] = "squared"
    discount: float = 0.99
    n_steps: int = 10
    batch_size: int = 128
    optimizer: OptimizerName = "adam"
    optimizer_epsilon: float = 1e-8
    learning_rate: float = 1e-3
    learning_rate_schedule: ScheduleName = "linear"
    max_gradient_norm: float | None = None
    skip_nonfinite: bool = False
    target: str = "periodic:100"
    average: str = "none"
    replay_capacity: int = 20_000
    learning_starts: int = 1_000
    train_every: int = 4
    learner_steps: int = 2
    epsilon_initial: float = 1.0
    epsilon_final: float = 0.05
    epsilon_fraction: float = 0.25
    normalize_observations: bool = False
    normalize_rewards: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError or TypeError where a number is out of range; rules are read by :func:`dqn`."""
        if not self.hidden_sizes:
            raise ValueError("hidden_sizes: got no layer; expected one or more. Give (64,), for example.")
        counts = ("n_steps", "batch_size", "replay_capacity", "train_every", "learner_steps")
        for name, lowest in [*((name, 1) for name in counts), ("learning_starts", 0)]:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name}: got {value!r} ({type(value).__name__}); expected an integer >= {lowest}.")
            if value < lowest:
                raise ValueError(f"{name}: got {value}; expected an integer >= {lowest}.")
        for name in ("discount", "epsilon_initial", "epsilon_final", "epsilon_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: got {getattr(self, name)}; expected 0 <= {name} <= 1.")
        if self.loss not in ("huber", "squared"):
            raise ValueError(f"loss: got {self.loss!r}; expected huber or squared.")
        if self.n_steps > self.replay_capacity:
            raise ValueError(f"n_steps: got {self.n_steps}; expected at most replay_capacity, {self.replay_capacity}.")
        if self.batch_size > self.replay_capacity:
            raise ValueError(
                f"batch_size: got {self.batch_size}; expected at most replay_capacity, {self.replay_capacity}."
            )

    @property
    def environment_steps_per_learner_step(self) -> Fraction:
        """What converts a target's period between environment and learner steps."""
        return Fraction(self.train_every, self.learner_steps)


def dqn(
    config: DQNConfig,
    spec: EnvironmentSpec,
    *,
    total_learner_steps: int | None = None,
    lowering: networks.Lowering = "convolution",
    network: hk.Transformed | None = None,
) -> Agent:
    """Makes a DQN.

    The loss of a transition is ``huber(r_t + discount_t * q_target(obs_t, a*) - q(obs_tm1, a_tm1))`` where ``a*`` is
    greedy under the online network with ``double``, else under the target's, among the legal actions where there are
    action masks.

    Args:
        config: its numbers.
        spec: what the environment shows and takes.
        total_learner_steps: of the run; what learning-rate and cosine target schedules fall over.
        lowering: how convolutions are computed (see :class:`polyak.networks.Conv2D`).
        network: a Haiku network of one's own, ``apply(params, key, observation) -> ValueOutput``; by default
            :func:`polyak.networks.value_network` from the config.

    Raises:
        ValueError: a field of the config is out of range, a rule's text does not parse, or the network's output does
            not match the actions.

    >>> spec = EnvironmentSpec(jax.ShapeDtypeStruct((4,), jnp.float32), num_actions=2)
    >>> agent = dqn(DQNConfig(target="incremental:0.005"), spec, total_learner_steps=1000)
    >>> state = agent.init(jax.random.key(0))
    >>> timestep = TimeStep(jnp.zeros((1, 4)), jnp.zeros(1), jnp.ones(1, bool))
    >>> agent.act(jax.random.key(1), state, (), timestep).action.shape
    (1,)
    """
    network = network or networks.value_network(**network_arguments(config, spec), lowering=lowering)
    _check_output(network, spec)
    learner = updates.learner(
        _loss(config, network.apply),
        make_optimizer(config, total_learner_steps),
        targets := _targets(config, total_learner_steps),
        skip_nonfinite=config.skip_nonfinite,
    )

    @jax.jit
    def init(key: jax.Array) -> LearnerState:
        observation = jnp.zeros((1, *spec.observation.shape), spec.observation.dtype)
        return learner.init(network.init(key, observation))

    def initial_memory(key: jax.Array, num_envs: int) -> tuple[()]:
        del key, num_envs
        return ()

    def act(key: jax.Array, state: LearnerState, memory: Any, timestep: TimeStep) -> ActOutput:
        del key
        q_values = mask_values(network.apply(state.params, None, timestep.observation).q_values, timestep.action_mask)
        return ActOutput(jnp.argmax(q_values, axis=-1).astype(jnp.int32), memory)

    def learn(key: jax.Array, state: LearnerState, sample: Sample) -> tuple[LearnerState, LearnOutput]:
        return learner.step(key, state, sample)

    return Agent(init, initial_memory, act, learn, targets)


def mask_values(q_values: jax.Array, action_mask: Any) -> jax.Array:
    """Q-values to choose an action by, not to bootstrap from: those of illegal actions are the dtype's lowest number.

    Where no action is legal, as at a termination, action 0 is chosen, whose own value is a finite one.

    >>> int(mask_values(jnp.array([5.0, 1.0, 2.0]), jnp.array([False, True, True])).argmax())
    2
    """
    if isinstance(action_mask, tuple):
        return q_values
    return jnp.where(action_mask, q_values, jnp.finfo(q_values.dtype).min)


def network_arguments(config: DQNConfig, spec: EnvironmentSpec) -> dict[str, Any]:
    """What :func:`polyak.networks.value_network` builds a DQN's network from, in JSON's own types.

    >>> network_arguments(DQNConfig(), EnvironmentSpec(jax.ShapeDtypeStruct((4,), jnp.float32), num_actions=2))
    {'num_actions': 2, 'torso': 'mlp', 'hidden_sizes': [120, 84], 'activation': 'relu', 'dueling': False}
    """
    torso = config.torso
    if torso == "auto":
        torso = "nature" if len(spec.observation.shape) == 3 else "mlp"
    return {
        "num_actions": spec.num_actions,
        "torso": torso,
        "hidden_sizes": list(config.hidden_sizes),
        "activation": config.activation,
        "dueling": config.dueling,
    }


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


def _targets(config: DQNConfig, total_learner_steps: int | None) -> dict[str, Target]:
    options: dict[str, Any] = {
        "horizon": total_learner_steps,
        "environment_steps_per_learner_step": config.environment_steps_per_learner_step,
    }
    targets = {MAIN_TARGET: Target(updates.parse_named(config.target, (MAIN_TARGET,), **options)[MAIN_TARGET])}
    try:
        average = updates.parse(config.average, **options)
    except ValueError as error:
        raise ValueError(f"average: {error}") from None
    if not updates.is_none(average):
        targets[AVERAGE] = Target(average)
    return targets


def _loss(config: DQNConfig, apply: Callable[..., networks.ValueOutput]) -> updates.Loss:
    penalty = rlax.huber_loss if config.loss == "huber" else rlax.l2_loss

    def td_error(
        q_tm1: jax.Array, transition: Transition, q_t: jax.Array, q_t_selector: jax.Array
    ) -> jax.Array:  # of one transition
        a_tm1, r_t, discount_t = transition.a_tm1, transition.r_t, transition.discount_t
        return jnp.asarray(rlax.double_q_learning(q_tm1, a_tm1, r_t, discount_t, q_t, q_t_selector))

    def loss(key: jax.Array, params: Any, state: Any, targets: Any, batch: Sample) -> tuple[jax.Array, LossOutput]:
        del key, state
        transition: Transition = batch.transition
        slow: Variables = targets[MAIN_TARGET]
        q_tm1 = apply(params, None, transition.obs_tm1).q_values
        q_t = apply(slow.params, None, transition.obs_t).q_values
        q_t_selector = apply(params, None, transition.obs_t).q_values if config.double else q_t
        q_t_selector = mask_values(q_t_selector, transition.action_mask_t)
        bare = transition._replace(obs_tm1=(), obs_t=(), extras_tm1=(), action_mask_tm1=(), action_mask_t=())
        errors = jax.vmap(td_error)(q_tm1, bare, q_t, q_t_selector)
        greedy = jnp.max(mask_values(q_tm1, transition.action_mask_tm1), axis=-1)
        metrics = {"q": jnp.mean(greedy), "td_error": jnp.mean(jnp.abs(errors))}
        return jnp.mean(batch.weights * penalty(errors)), LossOutput(priorities=jnp.abs(errors), metrics=metrics)

    return loss
