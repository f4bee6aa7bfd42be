"""Acting: the legal action with the largest value; an ensemble or an iterated head acts with one of its heads."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..networks import Network, ValueOutput
from ..networks.network import apply
from ..replay.types import TimeStep
from ..updates import LearnerState, Target, Variables
from .config import AgentConfig
from .head_parts import Ensemble, ImplicitQuantile, Iterated
from .types import MAIN_TARGET, ActOutput, RecurrentState, StepExtras, read_target

Array = Any


def mask_values(q_values: jax.Array, action_mask: Any) -> jax.Array:
    """Replace the Q-values of illegal actions by the lowest number of the dtype.

    If no action is legal, as at a termination, the greedy action is 0, and its unmasked value is finite.

    >>> int(mask_values(jnp.array([5.0, 1.0, 2.0]), jnp.array([False, True, True])).argmax())
    2
    """
    if isinstance(action_mask, tuple):
        return q_values
    legal = jnp.broadcast_to(action_mask, q_values.shape)
    return jnp.where(legal, q_values, jnp.finfo(q_values.dtype).min)


def greedy_action(q_values: jax.Array, action_mask: Any) -> jax.Array:
    """Return the legal actions ``[...]`` int32 with the largest values ``[..., A]``; ties go to the lowest index."""
    return jnp.argmax(mask_values(q_values, action_mask), axis=-1).astype(jnp.int32)


def forward(
    network: Network,
    variables: Variables,
    key: jax.Array | None,
    timestep: TimeStep,
    core_state: Any,
) -> tuple[ValueOutput, Any]:
    """Compute the values of one time step ``[N, ...]`` in evaluation mode, and the recurrent state after it."""

    def step(features: jax.Array) -> tuple[jax.Array, Any]:
        assert network.core is not None
        inputs = [leaf[:, None] for leaf in (features, timestep.a_tm1, timestep.reward, timestep.first)]
        hidden, after = network.core(variables.params, *inputs, core_state)
        return hidden[:, 0], after

    core = None if network.core is None else step
    applied = apply(network, *variables, key, timestep.observation, False, core)
    return applied.output, applied.recurrent_state


def make_acting(
    config: AgentConfig, network: Network, target: Target | None = None
) -> tuple[Callable[..., Any], Callable[..., ActOutput], Callable[..., ActOutput], Callable[..., jax.Array]]:
    """Make the functions that initialise an agent's recurrent state, act in training, and act in evaluation.

    An ensemble acts with one member, sampled at the start of an episode (Osband et al., 2016, algorithm 1), and stores
    with each step the members that learn from it; in evaluation it acts with the mean of its members. An iterated head
    acts with one of its heads but head 0, sampled for each action; in evaluation it acts with their mean. Noisy layers
    sample noise only in training. Implicit quantile heads never sample to act: their fractions are evenly spaced.

    Args:
        config: Config of the agent.
        network: Network that acts.
        target: Main target if the target network acts in training; None for the online network. In evaluation an agent
            acts with ``params`` (see :func:`polyak.agents.evaluation_state`).

    Returns:
        Fields ``initial_recurrent_state``, ``act``, ``evaluate_act`` and ``q_values`` of an
        :class:`polyak.agents.Agent`.
    """
    ensemble = config.head if isinstance(config.head, Ensemble) else None
    iterated = config.head if isinstance(config.head, Iterated) else None
    noisy = network.draws and (not isinstance(config.head, ImplicitQuantile) or config.head.noisy_sigma is not None)
    has_core = network.core is not None

    def draw_members(key: jax.Array, num_envs: int) -> jax.Array:
        return jax.random.randint(key, (num_envs,), 0, ensemble.num_members if ensemble else 1)

    def initial_recurrent_state(key: jax.Array, num_envs: int) -> Any:
        if not has_core and ensemble is None:
            return ()
        member = draw_members(key, num_envs) if ensemble else ()
        return RecurrentState(network.initial_recurrent_state(num_envs), member)

    def core_of(recurrent_state: Any, first: jax.Array) -> Any:
        """Return the recurrent state of the network, zeros at the start of an episode."""
        if not has_core:
            return ()
        return jax.tree.map(lambda leaf: jnp.where(first[:, None], 0.0, leaf), recurrent_state.core)

    def act(key: jax.Array, state: LearnerState, recurrent_state: Any, timestep: TimeStep) -> ActOutput:
        variables = Variables(state.params, state.state) if target is None else read_target(target, state, MAIN_TARGET)
        before, network_key = core_of(recurrent_state, timestep.first), key
        if ensemble is not None:
            member_key, mask_key, network_key = jax.random.split(key, 3)
        output, core = forward(network, variables, network_key if noisy else None, timestep, before)
        kept = StepExtras(before, timestep.a_tm1, timestep.reward) if has_core else StepExtras()
        if iterated is not None:
            number = jax.random.randint(key, (len(timestep.first),), 1, iterated.num_iterations + 1)
            output = output._replace(q_values=output.members[jnp.arange(len(number)), number])
        if ensemble is None:
            action = greedy_action(output.q_values, timestep.action_mask)
            return ActOutput(action, RecurrentState(core), kept) if has_core else ActOutput(action)
        num_envs = len(timestep.first)
        member = jnp.where(timestep.first, draw_members(member_key, num_envs), recurrent_state.member)
        action = greedy_action(output.members[jnp.arange(num_envs), member], timestep.action_mask)
        mask = jax.random.bernoulli(mask_key, ensemble.mask_probability, (num_envs, ensemble.num_members))
        kept = kept._replace(member_mask=mask.astype(jnp.float32))
        return ActOutput(action, RecurrentState(core, member), kept)

    def evaluate_act(key: jax.Array, state: LearnerState, recurrent_state: Any, timestep: TimeStep) -> ActOutput:
        del key
        variables, before = Variables(state.params, state.state), core_of(recurrent_state, timestep.first)
        output, core = forward(network, variables, None, timestep, before)
        after = recurrent_state._replace(core=core) if has_core else recurrent_state
        return ActOutput(greedy_action(output.q_values, timestep.action_mask), after)

    def q_values(state: LearnerState, recurrent_state: Any, timestep: TimeStep) -> jax.Array:
        variables, before = Variables(state.params, state.state), core_of(recurrent_state, timestep.first)
        return forward(network, variables, None, timestep, before)[0].q_values

    return initial_recurrent_state, act, evaluate_act, q_values
