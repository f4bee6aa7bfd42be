"""Carry of a run: all of its state except that of the environments; its construction and its restoration."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...agents import Agent, LoopConfig
from ...agents.loop_config import Prioritized, Sequences
from ...replay import Replay, ReplayState, device, host, stacking
from ...replay.types import EnvironmentSpec, Sample, TimeStep
from ...updates import LearnerState
from ..environments.types import Environment
from . import normalization
from .episodes import EpisodeStatistics
from .learning import measured_names, zeros
from .normalization import Normalization
from .observations import observation_pipeline
from .schedules import batches_per_dispatch

Tree = Any


class Carry(NamedTuple):
    """State of a run without its environments; a checkpoint stores their snapshot separately.

    The next step of the loop consumes a carry that the loop has yielded.

    Attributes:
        key: ``[2, 2]`` uint32, raw data of the keys for acting and learning, because a typed key costs the host 30
            microseconds a call. The keys never change: random numbers depend on them and on the counters.
        agent: State of the agent.
        recurrent_state: Recurrent state of the agent, leaves ``[N, ...]``; ``()`` for none.
        replay: State of the replay.
        timestep: Current time step, before the observation pipeline.
        totals: Sums of the learner's metrics since the last record.
        statistics: Statistics of the episodes.
        normalization: Statistics for the normalization of observations and rewards.
        frames: ``[N, ..., S]``, latest frames of each environment; ``()`` without frame stacking.
        steps: Number of environment steps so far, over all environments.
        learner_steps: Number of learner steps so far.
        learner_steps_recorded: Number of learner steps at the last record.
    """

    key: jax.Array
    agent: LearnerState
    recurrent_state: Tree
    replay: ReplayState
    timestep: TimeStep
    totals: dict[str, jax.Array]
    statistics: EpisodeStatistics
    normalization: Normalization = Normalization()
    frames: Any = ()
    steps: int = 0
    learner_steps: int = 0
    learner_steps_recorded: int = 0


def make_replay(
    agent: Agent,
    spec: EnvironmentSpec,
    config: LoopConfig,
    num_envs: int,
    *,
    storage: pathlib.Path | None = None,
    on_device: bool = False,
) -> Replay:
    """Make the replay of a loop.

    Args:
        agent: Agent. Its extras are stored with each step, and its burn-in precedes the steps of a sequence that
            contribute to the loss.
        spec: Spec of the environments, with observations of a single frame.
        config: Config of the loop.
        num_envs: Number of environments.
        storage: File for the observations, mapped into memory; None keeps them in memory.
        on_device: Whether to make the replay of the device loop, whose arrays are on JAX's default device.

    Raises:
        ValueError: if a number of the config is incompatible with the environments.
    """
    draw, replay = config.draw, config.replay
    _check_horizon(agent, config, num_envs)
    batches = batches_per_dispatch(config, num_envs)
    options: dict[str, Any] = {"most_steps": draw.most_steps} if on_device else {"storage": storage}
    make: Callable[..., Replay] = device.make if on_device else host.make
    return make(
        spec,
        _extras(agent, observation_pipeline(config, spec).spec),
        num_envs=num_envs,
        capacity=replay.replay_capacity,
        batch_size=draw.batch_size,
        num_batches=batches if batches > 1 else None,
        sequence_length=agent.burn_in + draw.windows.sequence_length if isinstance(draw.windows, Sequences) else 0,
        sequence_period=draw.windows.sequence_period if isinstance(draw.windows, Sequences) else 1,
        future=0 if isinstance(draw.windows, Sequences) else agent.future,
        priority_exponent=draw.sampling.priority_exponent if isinstance(draw.sampling, Prioritized) else None,
        stack=replay.frame_stack,
        **options,
    )


def _check_horizon(agent: Agent, config: LoopConfig, num_envs: int) -> None:
    """Raise ValueError if an agent predicts more steps than are sampled or stored."""
    windows, capacity = config.draw.windows, config.replay.replay_capacity // num_envs
    limit, name, flag = capacity, "the number of steps of one environment that are kept", "--replay-capacity"
    if isinstance(windows, Sequences):
        limit, name, flag = windows.sequence_length, "the sequence_length", "--sequence-length"
    if agent.future > limit:
        raise ValueError(
            f"horizon: got {agent.future}; expected at most {limit}, {name}. Try --horizon {limit}, or a larger {flag}."
        )


def initial_carry(
    agent: Agent, environment: Environment, replay: Replay, config: LoopConfig, seed: int, *, reopen: bool = False
) -> Carry:
    """Carry at step 0, with an initialized agent, an allocated replay and reset environments.

    Args:
        agent: Agent.
        environment: Environments of the run, which are reset.
        replay: Replay from :func:`make_replay`.
        config: Config of the loop.
        seed: Seed of all random numbers.
        reopen: Whether to keep the content of the replay's file, for a carry that is then restored.

    Raises:
        ValueError: if the replay does not fit into memory, the environments cannot be reset, or image observations
            would be normalized.
    """
    init_key, recurrent_key, *keys = jax.random.split(jax.random.key(seed), 4)
    num_envs, spec = environment.num_envs, environment.spec
    moments = normalization.initial(
        spec,
        num_envs,
        observations=config.normalization.normalize_observations,
        rewards=config.normalization.normalize_rewards,
    )
    replay_state = replay.init(reopen=reopen)
    state, recurrent_state = agent.init(init_key), agent.initial_recurrent_state(recurrent_key, num_envs)
    timestep = first_timestep(environment.reset(), recurrent_state)
    return Carry(
        key=jnp.stack([jax.random.key_data(key) for key in keys]),
        agent=state,
        recurrent_state=recurrent_state,
        replay=replay_state,
        timestep=timestep,
        totals=zeros(measured_names(agent, state, one_batch(replay, config, num_envs), config.prioritized)),
        statistics=EpisodeStatistics.initial(num_envs),
        normalization=normalization.observe(moments, timestep.observation),
        frames=observation_pipeline(config, spec).init(timestep),
    )


def restore_environments(
    carry: Carry, environment: Environment, replay: Replay, snapshot: dict[str, np.ndarray]
) -> Carry:
    """Carry with restored environments; if an environment cannot be restored, its episode ends as truncated.

    Args:
        carry: Carry of a checkpoint; consumed.
        environment: Environments of the carry; restored.
        replay: Replay of the carry.
        snapshot: Snapshot of the environments, from ``environment.snapshot``.

    Raises:
        ValueError: if the snapshot was taken from other environments.
    """
    timestep, restarted = environment.restore(snapshot)
    if not restarted.any():
        return carry
    carry.statistics.restart(restarted)
    frames = carry.frames
    if jax.tree.leaves(frames):
        pushed = stacking.push(frames, timestep.observation, restarted)
        frames = np.where(np.expand_dims(restarted, tuple(range(1, pushed.ndim))), pushed, frames)
    return carry._replace(
        replay=replay.end_episode(carry.replay, restarted),
        timestep=timestep._replace(a_tm1=carry.timestep.a_tm1),
        normalization=normalization.restart(carry.normalization, timestep, restarted),
        frames=frames,
    )


def first_timestep(timestep: TimeStep, recurrent_state: Tree) -> TimeStep:
    """Time step after a reset; it has a previous action if the agent has a recurrent state."""
    if not jax.tree.leaves(recurrent_state):
        return timestep
    return timestep._replace(a_tm1=np.zeros(len(timestep.first), np.int32))


def one_batch(replay: Replay, config: LoopConfig, num_envs: int) -> Sample:
    """Shapes of the sample for one learner step."""
    sample = replay.sample_spec()
    if batches_per_dispatch(config, num_envs) == 1:
        return sample
    one: Sample = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), sample)
    return one


def _extras(agent: Agent, seen: EnvironmentSpec) -> Tree:
    """Shapes of the extras that an agent stores with one step of one environment."""

    def act(key: jax.Array) -> Any:
        recurrent_state = agent.initial_recurrent_state(key, 1)
        mask: Any = jnp.ones((1, seen.num_actions), bool) if seen.action_mask else ()
        observation = jnp.zeros((1, *seen.observation.shape), seen.observation.dtype)
        a_tm1: Any = jnp.zeros(1, jnp.int32) if jax.tree.leaves(recurrent_state) else ()
        timestep = TimeStep(observation, jnp.zeros(1), jnp.ones(1, bool), mask, a_tm1)
        return agent.act(key, agent.init(key), recurrent_state, timestep).extras

    extras = jax.eval_shape(act, jax.random.key(0))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), extras)
