"""Chunk of the device loop: acting and learning on functional environments as one pure function.

A chunk is a number of dispatches of learning, each after a number of loop steps, and the loop steps after the last
dispatch. All of these numbers are data, so one compiled program runs every chunk of a run. Its loops are nested
``fori_loop``, because ``lax.cond`` would copy the replay.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...agents import Agent, LoopConfig, epsilon_greedy
from ...replay import Replay
from ...replay.types import Step
from ...updates import LearnerState
from ..environments.functional.lanes import LanesState, advance
from ..environments.functional.types import FunctionalEnvironment
from .acting import draw
from .learning import LEAST_PRIORITY, UNKNOWN, learner_round
from .normalization import NO_SCALING
from .observations import observation_pipeline

Tree = Any


class DeviceCarry(NamedTuple):
    """Arrays of a run that a chunk reads and returns; the fields are those of ``Carry`` and of the environments.

    Attributes:
        agent: State of the agent.
        recurrent_state: Recurrent state of the agent.
        replay: State of the replay.
        environment: State of the environments, with the time step that the agent acts on.
        a_tm1: Previous actions, ``[N]`` int32; ``()`` for an agent without recurrent state.
        frames: Latest frames of each environment; ``()`` without frame stacking.
        totals: Sums of the learner's metrics since the last record.
        learner_steps: Number of learner steps so far, ``[]`` uint32.
    """

    agent: LearnerState
    recurrent_state: Tree
    replay: Any
    environment: LanesState
    a_tm1: Any
    frames: Any
    totals: dict[str, jax.Array]
    learner_steps: Any


class Plan(NamedTuple):
    """Numbers of a chunk; arrays of fixed lengths ``T`` and ``D``, of which a chunk uses the beginning.

    Attributes:
        dispatches: Number of dispatches of learning, ``[]`` int32, at most ``D``.
        loop_steps: Number of loop steps before each dispatch, since the one before it, ``[D]`` int32.
        rest: Number of loop steps after the last dispatch, ``[]`` int32.
        epsilon: Probability of a random action at each loop step, ``[T]`` float32.
        numbers: Numbers of each sample, a ``DrawNumbers`` with leaves ``[D]``.
        watch: Whether to measure churn and features at each dispatch, ``[D]`` bool.
    """

    dispatches: Any
    loop_steps: Any
    rest: Any
    epsilon: Any
    numbers: Any
    watch: Any


class Outcomes(NamedTuple):
    """Results of the loop steps of a chunk, for the statistics of episodes.

    Attributes:
        r_t: Rewards, ``[T, N]`` float32.
        last: Whether an episode ended with the step, ``[T, N]`` bool.
        finite: Whether all observations and rewards of the step were finite, ``[T]`` bool.
    """

    r_t: Any
    last: Any
    finite: Any


def run_chunk(
    agent: Agent,
    functional: FunctionalEnvironment,
    replay: Replay,
    config: LoopConfig,
    batches: int,
    key: jax.Array,
    carry: DeviceCarry,
    plan: Plan,
) -> tuple[DeviceCarry, Outcomes]:
    """Run one chunk; a pure function of the arrays, which uses the same functions as the host loop.

    Args:
        agent: Agent.
        functional: Environment.
        replay: Replay on the device.
        config: Config of the loop.
        batches: Number of learner steps of a dispatch.
        key: Raw data of the keys for acting and learning, ``[2, 2]`` uint32.
        carry: Carry; to be donated.
        plan: Numbers of the chunk.
    """
    act_key, learn_key = key
    pipeline = observation_pipeline(config, functional.spec)
    num_envs, most = len(carry.environment.timestep.first), len(plan.epsilon)
    outcomes = Outcomes(jnp.zeros((most, num_envs)), jnp.zeros((most, num_envs), bool), jnp.ones(most, bool))

    def act(_: Any, state: tuple[DeviceCarry, Outcomes, jax.Array]) -> tuple[DeviceCarry, Outcomes, jax.Array]:
        carry, outcomes, at = state
        timestep = carry.environment.timestep._replace(a_tm1=carry.a_tm1)
        agent_key, uniform = draw(act_key, carry.environment.count, num_envs)
        seen = pipeline.view(NO_SCALING, carry.frames, timestep)
        acted = agent.act(jax.random.wrap_key_data(agent_key), carry.agent, carry.recurrent_state, seen)
        mask = timestep.action_mask
        action = epsilon_greedy(uniform, acted.action, plan.epsilon[at], functional.spec.num_actions, mask)
        environment, found = advance(functional, carry.environment, action)
        step = Step(
            timestep.observation,
            action,
            found.r_t,
            found.discount_t,
            found.last,
            found.obs_t,
            acted.extras,
            mask,
            found.action_mask_t,
        )
        finite = jnp.isfinite(found.r_t).all() & jnp.isfinite(found.obs_t).all()
        outcomes = Outcomes(
            *(kept.at[at].set(new) for kept, new in zip(outcomes, (found.r_t, found.last, finite), strict=True))
        )
        carry = carry._replace(
            recurrent_state=acted.recurrent_state,
            replay=replay.add(carry.replay, step),
            environment=environment,
            a_tm1=() if isinstance(carry.a_tm1, tuple) else action,
            frames=pipeline.push(carry.frames, found.timestep),
        )
        return carry, outcomes, at + 1

    def dispatch(
        number: Any, state: tuple[DeviceCarry, Outcomes, jax.Array]
    ) -> tuple[DeviceCarry, Outcomes, jax.Array]:
        carry, outcomes, at = jax.lax.fori_loop(0, plan.loop_steps[number], act, state)
        numbers = jax.tree.map(lambda leaf: leaf[number], plan.numbers)
        words = jnp.append(learn_key, carry.learner_steps)
        sample = replay.sample(words, carry.replay, numbers)
        after, totals, priorities = learner_round(
            agent,
            batches,
            config.prioritized,
            learn_key,
            carry.learner_steps,
            carry.agent,
            plan.watch[number],
            carry.totals,
            sample,
        )
        replay_state = carry.replay
        if config.prioritized:
            # The replay keeps the priority of a row whose new priority is negative.
            found = jnp.where(priorities == UNKNOWN, UNKNOWN, priorities + LEAST_PRIORITY)
            replay_state = replay.update_priorities(replay_state, sample.rows, found)
        learner_steps = carry.learner_steps + batches
        carry = carry._replace(agent=after, totals=totals, replay=replay_state, learner_steps=learner_steps)
        return carry, outcomes, at

    state = (carry, outcomes, jnp.int32(0))
    state = jax.lax.fori_loop(0, plan.dispatches, dispatch, state)
    carry, outcomes, _ = jax.lax.fori_loop(0, plan.rest, act, state)
    return carry, outcomes
