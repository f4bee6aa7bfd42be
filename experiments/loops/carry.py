"""The carry of a run, which is the whole of it but for the environments, and how it begins."""

import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...agents import Agent, AgentConfig, seen_spec
from ...replay import host, stacking
from ...replay.types import EnvironmentSpec, Sample, Sequence, TimeStep, Transition
from ...updates import LearnerState
from ..environments.types import Environment
from . import normalization
from .episodes import EpisodeStatistics
from .learning import AGREEMENT, CHURN, zeros
from .normalization import Normalization

Tree = Any


class Carry(NamedTuple):
    """The whole of a run but for the environments, whose snapshot a checkpoint keeps beside it.

    A carry that the loop has yielded is consumed when the loop goes on.

    Attributes:
        key: ``[2, 2]`` uint32, the keys of acting and of learning as raw data (a typed key costs the host 30
            microseconds a call). They stay as they are: what is drawn depends on them and on the counters.
        agent: the state of the agent.
        memory: what the agent remembers between steps, ``[N, ...]``.
        replay: experience kept.
        generator: what the draws from the replay come from.
        timestep: what the agent sees next.
        totals: sums of the learner's metrics since the last record.
        statistics: of the episodes.
        normalization: the statistics that observations and rewards are normalised with.
        frames: ``[N, ..., S]``, the newest frames of each environment; ``()`` where no stack of them is shown.
        steps: environment steps so far, over all environments.
        learner_steps: learner steps so far.
        learner_steps_recorded: the same at the last record.
    """

    key: jax.Array
    agent: LearnerState
    memory: Tree
    replay: host.HostReplay
    generator: np.random.Generator
    timestep: TimeStep
    totals: dict[str, jax.Array]
    statistics: EpisodeStatistics
    normalization: Normalization = Normalization()
    frames: Any = ()
    steps: int = 0
    learner_steps: int = 0
    learner_steps_recorded: int = 0


def mask_spec(spec: EnvironmentSpec) -> Any:
    """Shape and dtype of the action mask that goes with one observation; ``()`` where there is none.

    >>> mask_spec(EnvironmentSpec(jax.ShapeDtypeStruct((4,), np.float32), num_actions=2, action_mask=True))
    ShapeDtypeStruct(shape=(2,), dtype=bool)
    """
    return jax.ShapeDtypeStruct((spec.num_actions,), np.bool_) if spec.action_mask else ()


def replay_options(config: AgentConfig) -> dict[str, Any]:
    """How the replay is made for an agent: what :func:`polyak.replay.host.init` takes beside the specs.

    >>> from polyak.agents import DQNConfig
    >>> replay_options(DQNConfig(priority_exponent=0.5))
    {'prioritized': True, 'stack': 1, 'sequence_period': 0}
    """
    return {
        "prioritized": config.priority_exponent > 0,
        "stack": config.frame_stack,
        "sequence_period": config.sequence_period if config.sequence_length else 0,
    }


def initial_carry(
    agent: Agent,
    environment: Environment,
    config: AgentConfig,
    seed: int,
    *,
    storage: pathlib.Path | None = None,
    reopen: bool = False,
) -> Carry:
    """The carry at step 0: agent initialised, replay allocated, environments reset.

    Args:
        agent: the agent.
        environment: its environments; reset.
        config: of the agent.
        seed: of everything that is random.
        storage: a file for the replay's observations, mapped into memory; None: they lie in memory.
        reopen: take up what lies in that file, for a carry that is restored.

    Raises:
        ValueError: the replay does not fit into memory, the environments cannot be reset, or their observations are
            to be normalised and are images.
    """
    init_key, memory_key, *keys = jax.random.split(jax.random.key(seed), 4)
    num_envs, spec = environment.num_envs, environment.spec
    moments = normalization.initial(
        spec, num_envs, observations=config.normalize_observations, rewards=config.normalize_rewards
    )
    sample, extras = specs(agent, spec, config, num_envs)
    replay = host.init(
        spec.observation,
        extras,
        mask_spec(spec),
        num_envs=num_envs,
        capacity=config.replay_capacity,
        **replay_options(config),
        storage=storage,
        reopen=reopen,
    )
    state, memory = agent.init(init_key), agent.initial_memory(memory_key, num_envs)
    measured = [*jax.eval_shape(agent.learn, keys[1], state, sample)[1].metrics]
    measured += [f"target_distance/{name}" for name in agent.targets]
    measured += [CHURN, AGREEMENT] if agent.greedy_actions is not None else []
    timestep = first_timestep(environment.reset(), memory)
    return Carry(
        key=jnp.stack([jax.random.key_data(key) for key in keys]),
        agent=state,
        memory=memory,
        replay=replay,
        generator=np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(0xD4A3,))),
        timestep=timestep,
        totals=zeros(measured),
        statistics=EpisodeStatistics.initial(num_envs),
        normalization=normalization.observe(moments, timestep.observation),
        frames=first_frames(timestep, spec, config.frame_stack),
    )


def first_timestep(timestep: TimeStep, memory: Tree) -> TimeStep:
    """The time step after a reset, with an action before it where the agent has a memory to show it to."""
    if not jax.tree.leaves(memory):
        return timestep
    return timestep._replace(a_tm1=np.zeros(len(timestep.first), np.int32))


def first_frames(timestep: TimeStep, spec: EnvironmentSpec, frame_stack: int) -> Any:
    """The stacks of frames to show after a reset; ``()`` where no stack of them is shown."""
    if frame_stack == 1:
        return ()
    frames = stacking.init(spec.observation, len(timestep.first), frame_stack)
    return stacking.push(frames, timestep.observation, timestep.first)


def specs(agent: Agent, spec: EnvironmentSpec, config: AgentConfig, num_envs: int) -> tuple[Sample, Tree]:
    """Shapes of a sample, and of the extras that the agent keeps with one step of one environment."""
    shown, batch_size = seen_spec(config, spec).observation, config.batch_size

    def batch(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype)

    def seen(*leading: int) -> jax.ShapeDtypeStruct:
        return batch(*leading, *shown.shape, dtype=shown.dtype)

    def masks(*leading: int) -> Any:
        return batch(*leading, spec.num_actions, dtype=jnp.bool_) if spec.action_mask else ()

    state, memory = jax.eval_shape(lambda key: (agent.init(key), agent.initial_memory(key, num_envs)), _KEY)
    a_tm1 = batch(num_envs, dtype=jnp.int32) if jax.tree.leaves(memory) else ()
    timestep = TimeStep(seen(num_envs), batch(num_envs), batch(num_envs, dtype=jnp.bool_), masks(num_envs), a_tm1)
    acted = jax.eval_shape(agent.act, _KEY, state, memory, timestep)
    extras = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), acted.extras)
    kept = jax.tree.map(lambda leaf: batch(batch_size, *leaf.shape, dtype=leaf.dtype), extras)
    drawn: Transition | Sequence
    if config.sequence_length:
        steps = config.burn_in + config.sequence_length
        drawn = Sequence(
            obs=seen(batch_size, steps + 1),
            a_tm1=batch(batch_size, steps, dtype=jnp.int32),
            r_t=batch(batch_size, steps),
            discount_t=batch(batch_size, steps),
            valid=batch(batch_size, steps, dtype=jnp.bool_),
            first=batch(batch_size, dtype=jnp.bool_),
            complete=batch(batch_size, dtype=jnp.bool_),
            extras=kept,
            action_mask=masks(batch_size, steps + 1),
        )
    else:
        a_tm1, r_t = batch(batch_size, dtype=jnp.int32), batch(batch_size)
        drawn = Transition(
            seen(batch_size), a_tm1, r_t, r_t, seen(batch_size), kept, masks(batch_size), masks(batch_size)
        )
    return Sample(drawn, batch(batch_size), batch(batch_size, dtype=jnp.int32)), extras


_KEY = jax.eval_shape(lambda: jax.random.key(0))
