"""Greedy evaluation: whole episodes in environments of their own."""

import warnings

import jax
import numpy as np

from ...agents import Agent, evaluation_state
from ...replay import stacking
from ...replay.types import TimeStep
from ...updates import LearnerState
from ..environments.types import Environment
from .acting import Actor
from .carry import first_frames, first_timestep
from .normalization import NO_SCALING, Scaling, normalize_timestep

LANES = 10  # environments stepped together at most


def evaluation_seed(seed: int) -> int:
    """The seed of a run's evaluation environments, fixed by the run's seed and none that the run itself uses.

    >>> evaluation_seed(0) == evaluation_seed(0) != evaluation_seed(1)
    True
    """
    return int(np.random.SeedSequence(entropy=seed, spawn_key=(0xE7A1,)).generate_state(1)[0])


def evaluate(
    agent: Agent,
    state: LearnerState,
    environment: Environment,
    *,
    episodes: int,
    seed: int = 0,
    epsilon: float = 0.0,
    max_episode_steps: int = 27_000,
    scaling: Scaling = NO_SCALING,
    frame_stack: int = 1,
) -> np.ndarray:
    """Plays whole episodes with the evaluation parameters (the Polyak average, where the agent keeps one).

    The agent acts greedily: without noise of its own, and an ensemble by the mean of its heads.

    Every environment plays its share of the episodes and no more, so that short episodes are not counted more often.

    Args:
        agent: the agent.
        state: its state; not changed.
        environment: environments of their own, not the training ones.
        episodes: how many, at least 1.
        seed: of the actions (ties aside, greedy actions draw nothing).
        epsilon: the probability of a random action.
        max_episode_steps: an episode still going then (by default after the 108 000 frames of an Atari game, 4 a step)
            is counted as it stands, with a warning; what follows in that
            environment counts as the next episode.
        scaling: what observations and rewards were normalised with in training; it stays as it is.
        frame_stack: frames that the agent is shown as one observation.

    Returns:
        ``[episodes]`` float64, undiscounted returns.

    Raises:
        ValueError: fewer than one episode, or an epsilon outside [0, 1].
    """
    if not 0 <= epsilon <= 1:
        raise ValueError(f"epsilon: got {epsilon}; expected 0 <= epsilon <= 1.")
    if episodes < 1:
        raise ValueError(f"episodes: got {episodes}; expected an integer >= 1.")
    num_envs = environment.num_envs
    share = np.full(num_envs, episodes // num_envs) + (np.arange(num_envs) < episodes % num_envs)
    memory_key, key = jax.random.split(jax.random.key(seed))
    memory = agent.initial_memory(memory_key, num_envs)
    timestep = first_timestep(environment.reset(), memory)
    frames = first_frames(timestep, environment.spec, frame_stack)
    remembers, stacks = bool(jax.tree.leaves(memory)), frame_stack > 1
    state, agent = evaluation_state(state), agent._replace(act=agent.act_greedily or agent.act)

    def seen() -> TimeStep:
        return normalize_timestep(scaling, timestep._replace(observation=frames) if stacks else timestep)

    running, length, returns = np.zeros(num_envs), np.zeros(num_envs, np.int64), []

    key_data, num_actions = jax.random.key_data(key), environment.spec.num_actions
    actor = Actor(agent, key_data, (state, memory, seen()), num_actions, lambda steps: np.full(len(steps), epsilon))
    loop_step = 0
    while share.any():
        acted, _ = actor.act(loop_step, memory, seen())
        memory, loop_step = acted.memory, loop_step + 1
        outcome = environment.step(acted.action)
        running += outcome.r_t * outcome.valid
        length += outcome.valid
        if outcome.restarted is not None:  # its process was replaced: the episode that was cut off counts for nothing
            running[outcome.restarted] = length[outcome.restarted] = 0
        over = outcome.last | (length >= max_episode_steps)
        if (over & ~outcome.last).any():
            warnings.warn(
                f"an episode went on after {max_episode_steps} steps; it is counted as it stood", stacklevel=2
            )
        for lane in np.flatnonzero(over & (share > 0)).tolist():
            returns.append(running[lane])
            share[lane] -= 1
        running[over] = length[over] = 0
        timestep = outcome.timestep._replace(a_tm1=acted.action) if remembers else outcome.timestep
        if stacks:
            frames = stacking.push(frames, timestep.observation, timestep.first)
    return np.asarray(returns)
