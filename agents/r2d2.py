"""R2D2 (Kapturowski et al., 2019): an agent that remembers, and learns from sequences with the memory it had then."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import rlax

from .. import networks, updates
from ..replay.types import Sample, Sequence, TimeStep
from ..updates import LearnerState, LearnOutput, LossOutput
from . import losses
from .augmentation import make_augmentation
from .config import DQNConfig
from .optimizers import make_optimizer
from .shared import MAIN_TARGET, agent_targets, greedy_action, mask_values, network_arguments, seen_spec
from .types import ActOutput, Agent, EnvironmentSpec

Array = Any
# The weight of a sequence's largest error in its priority; the rest is that of the mean (section 2.3).
_PRIORITY_OF_THE_LARGEST = 0.9


class Remembered(NamedTuple):
    """What is kept with a step, so that a sequence can begin there.

    Attributes:
        lstm: the memory before the step, of zeros where an episode begins.
        a_tm1: the action before it.
        r_tm1: the reward that came with its observation, on the scale that it was seen on then.
    """

    lstm: Any
    a_tm1: Array
    r_tm1: Array


def r2d2(
    config: DQNConfig,
    spec: EnvironmentSpec,
    *,
    total_learner_steps: int | None = None,
    lowering: networks.Lowering = "convolution",
) -> Agent:
    """Makes a recurrent agent; :func:`polyak.agents.dqn` does for a config whose ``memory`` is ``lstm``.

    The LSTM is shown the torso's features, the action before and the reward that followed it. A drawn sequence begins
    with the memory that the agent had there; over its first ``burn_in`` steps, with no loss and no gradient through
    them, both networks bring theirs up to date, but where an episode begins the memory is right and all steps are
    learnt from. Errors are of up to ``n_steps`` steps within the sequence, bootstrapped at its end and at a truncation;
    a step's loss counts alike, however many of them a sequence has.

    Args:
        config: its numbers.
        spec: what the environment shows and takes; with ``frame_stack``, of a single frame.
        total_learner_steps: of the run; what learning-rate and cosine target schedules fall over.
        lowering: how convolutions are computed.

    Raises:
        ValueError: a field of the config is out of range or does not suit the observations, or a rule's text does not
            parse.

    >>> config = DQNConfig(memory="lstm", lstm_size=16, sequence_length=20, n_steps=5)
    >>> spec = EnvironmentSpec(jax.ShapeDtypeStruct((4,), jnp.float32), num_actions=2)
    >>> agent = r2d2(config, spec, total_learner_steps=1000)
    >>> state, memory = agent.init(jax.random.key(0)), agent.initial_memory(jax.random.key(1), 3)
    >>> timestep = TimeStep(jnp.zeros((3, 4)), jnp.zeros(3), jnp.ones(3, bool), a_tm1=jnp.zeros(3, jnp.int32))
    >>> agent.act(jax.random.key(2), state, memory, timestep).extras.lstm.hidden.shape
    (3, 16)
    """
    seen = seen_spec(config, spec)
    network = networks.recurrent_value_network(**network_arguments(config, spec), lowering=lowering)
    targets = agent_targets(config, total_learner_steps)
    learner = updates.learner(
        _loss(config, seen, network),
        make_optimizer(config, total_learner_steps),
        targets,
        skip_nonfinite=config.skip_nonfinite,
    )

    @jax.jit
    def init(key: jax.Array) -> LearnerState:
        observation = jnp.zeros((1, *seen.observation.shape), seen.observation.dtype)
        return learner.init(network.init(key, observation))

    def initial_memory(key: jax.Array, num_envs: int) -> Any:
        del key
        return network.initial_memory(num_envs)

    def act(key: jax.Array, state: LearnerState, memory: Any, timestep: TimeStep) -> ActOutput:
        del key
        observation, r_tm1, first, action_mask, a_tm1 = timestep
        before = jax.tree.map(lambda leaf: jnp.where(first[:, None], 0.0, leaf), memory)
        output, after = network.apply(state.params, observation, a_tm1, r_tm1, first, memory)
        return ActOutput(greedy_action(output.q_values, action_mask), after, Remembered(before, a_tm1, r_tm1))

    def learn(key: jax.Array, state: LearnerState, sample: Sample) -> tuple[LearnerState, LearnOutput]:
        return learner.step(key, state, sample)

    def greedy_actions(params: Any, sample: Sample) -> jax.Array:
        q_values = _unroll(config, network, params, sample.transition)
        actions = greedy_action(q_values, sample.transition.action_mask)[:, :-1]
        return jnp.where(_learns(config, sample.transition), actions, -1)

    return Agent(init, initial_memory, act, learn, targets, None, greedy_actions)


def _unroll(config: DQNConfig, network: networks.RecurrentNetwork, params: Any, sequence: Sequence) -> jax.Array:
    """Values ``[B, T + 1, A]`` of all observations, no gradient passing the end of the burn-in through the memory."""
    remembered: Remembered = sequence.extras
    a_tm1 = jnp.concatenate([remembered.a_tm1[:, None], sequence.a_tm1], axis=1)
    r_tm1 = jnp.concatenate([remembered.r_tm1[:, None], sequence.r_t], axis=1)
    first = jnp.zeros(a_tm1.shape, bool).at[:, 0].set(sequence.first)
    inputs = (sequence.obs, a_tm1, r_tm1, first)
    if not config.burn_in:
        return network.unroll(params, *inputs, remembered.lstm)[0].q_values
    early = [leaf[:, : config.burn_in] for leaf in inputs]
    late = [leaf[:, config.burn_in :] for leaf in inputs]
    burnt_in, memory = network.unroll(params, *early, remembered.lstm)
    output, _ = network.unroll(params, *late, jax.lax.stop_gradient(memory))
    return jnp.concatenate([burnt_in.q_values, output.q_values], axis=1)


def _learns(config: DQNConfig, sequence: Sequence) -> jax.Array:
    """Which steps are learnt from, ``[B, T]`` bool: neither burn-in nor padding."""
    steps = jnp.broadcast_to(jnp.arange(config.burn_in + config.sequence_length)[None], sequence.valid.shape)
    learns: jax.Array = sequence.valid & ((steps >= config.burn_in) | sequence.first[:, None])
    return learns


class SequenceErrors(NamedTuple):
    """What the loss says of one sequence of ``T`` steps.

    Attributes:
        loss: the sum over the steps that are learnt from.
        error: ``[T]``, 0 where a step is not learnt from.
        priority: of the sequence, ``0.9 * largest + 0.1 * mean`` of the sizes of the errors.
    """

    loss: Array
    error: Array
    priority: Array


def sequence_loss(
    config: DQNConfig,
    q_tm1: Array,
    q_t: Array,
    q_t_selector: Array,
    a_tm1: Array,
    r_t: Array,
    discount_t: Array,
    valid: Array,
    learns: Array,
) -> SequenceErrors:
    """The loss of one sequence: double Q-learning over ``n_steps``, of rescaled values where the config says so.

    Args:
        config: with the penalty, the rescaling and ``n_steps``.
        q_tm1: ``[T, A]``, the online values of the observations acted on.
        q_t: ``[T, A]``, the target's values of the observations that followed.
        q_t_selector: ``[T, A]``, the values by which their actions are chosen.
        a_tm1: ``[T]`` int32.
        r_t: ``[T]``.
        discount_t: ``[T]``, the discount of each step.
        valid: ``[T]`` bool, the steps that there are; the others are zeros.
        learns: ``[T]`` bool, those of them that are learnt from.
    """
    pair = losses.value_pair(config)
    value_t = pair.apply_inv(jnp.take_along_axis(q_t, jnp.argmax(q_t_selector, axis=-1)[:, None], axis=-1)[:, 0])
    # A return goes on only where a step follows: at the last one, a truncation's included, it is bootstrapped.
    goes_on = jnp.concatenate([valid[1:], jnp.zeros(1, bool)]).astype(r_t.dtype)
    returns = rlax.n_step_bootstrapped_returns(r_t, discount_t, value_t, config.n_steps, goes_on)
    chosen = jnp.take_along_axis(q_tm1, a_tm1[:, None], axis=-1)[:, 0]
    error = jnp.where(learns, jax.lax.stop_gradient(pair.apply(returns)) - chosen, 0.0)
    size = jnp.abs(jax.lax.stop_gradient(error))
    mean = jnp.sum(size) / jnp.maximum(jnp.sum(learns), 1)
    priority = _PRIORITY_OF_THE_LARGEST * jnp.max(size) + (1 - _PRIORITY_OF_THE_LARGEST) * mean
    return SequenceErrors(jnp.sum(losses.penalty_of(config)(error)), error, priority)


def _loss(config: DQNConfig, spec: EnvironmentSpec, network: networks.RecurrentNetwork) -> updates.Loss:
    augment = make_augmentation(config.augmentation, spec.observation.shape)

    def loss(key: jax.Array, params: Any, state: Any, targets: Any, batch: Sample) -> tuple[jax.Array, LossOutput]:
        del state
        sequence: Sequence = batch.transition
        if augment is not None:
            images = sequence.obs.reshape(-1, *sequence.obs.shape[2:])
            sequence = sequence._replace(obs=augment(key, images).reshape(*sequence.obs.shape[:2], *images.shape[1:]))
        online = _unroll(config, network, params, sequence)
        target = _unroll(config, network, targets[MAIN_TARGET].params, sequence)
        mask_t = sequence.action_mask if isinstance(sequence.action_mask, tuple) else sequence.action_mask[:, 1:]
        q_t_selector = mask_values((online if config.double else target)[:, 1:], mask_t)
        learns = _learns(config, sequence)
        of_each = jax.vmap(lambda *of_one: sequence_loss(config, *of_one))(
            online[:, :-1],
            target[:, 1:],
            jax.lax.stop_gradient(q_t_selector),
            sequence.a_tm1,
            sequence.r_t,
            sequence.discount_t,
            sequence.valid,
            learns,
        )
        # A sequence whose steps are not all there, since its episode is under way, is worth another look.
        largest = jnp.max(of_each.priority)
        priorities = jnp.where(sequence.complete, of_each.priority, jnp.where(largest > 0, largest, 1.0))
        count = jnp.maximum(jnp.sum(learns), 1)
        greedy = jnp.max(mask_values(online, sequence.action_mask), axis=-1)[:, :-1]
        metrics = {
            "q": jnp.sum(jnp.where(learns, greedy, 0.0)) / count,
            "td_error": jnp.sum(jnp.abs(of_each.error)) / count,
        }
        if config.priority_exponent > 0:
            metrics |= {"priority": jnp.mean(priorities), "importance_weight": jnp.mean(batch.weights)}
        total = jnp.mean(batch.weights * of_each.loss) / config.sequence_length
        return total, LossOutput(priorities=priorities, metrics=metrics)

    return loss
