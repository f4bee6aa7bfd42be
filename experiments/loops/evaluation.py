"""Greedy evaluation: whole episodes in separate environments."""

import warnings
from collections.abc import Callable

import jax
import numpy as np

from ...agents import Agent, LoopConfig, evaluation_state
from ...updates import LearnerState
from ..environments.types import Environment
from .acting import Actor
from .carry import first_timestep
from .normalization import NO_SCALING, Scaling
from .observations import observation_pipeline

LANES = 10  # maximum number of environments stepped together


def evaluation_seed(seed: int, step: int | None = None) -> int:
    """Seed of a run's evaluation environments, derived from the run's seed and different from the training seeds.

    Args:
        seed: Seed of the run.
        step: Number of environment steps so far; None for the final evaluation.

    >>> evaluation_seed(0) == evaluation_seed(0) != evaluation_seed(1)
    True
    >>> len({evaluation_seed(0), evaluation_seed(0, 1000), evaluation_seed(0, 2000)})
    3
    """
    spawn_key = (0xE7A1,) if step is None else (0xE7A1, step)
    return int(np.random.SeedSequence(entropy=seed, spawn_key=spawn_key).generate_state(1)[0])


class Evaluator:
    """Evaluator that can be called repeatedly; it compiles once and keeps the number of environments fixed.

    Args:
        agent: Agent.
        config: Config of the loop, for the observation pipeline.
    """

    def __init__(self, agent: Agent, config: LoopConfig) -> None:
        self._agent, self._config = agent, config
        self._actor: Actor | None = None

    def __call__(
        self,
        state: LearnerState,
        environment: Environment,
        *,
        episodes: int,
        seed: int = 0,
        epsilon: float = 0.0,
        max_episode_steps: int = 27_000,
        scaling: Scaling = NO_SCALING,
        look: Callable[[], None] | None = None,
    ) -> np.ndarray:
        """Play whole episodes; see :func:`evaluate`. ``look`` is called before each step."""
        agent, config = self._agent, self._config
        if not 0 <= epsilon <= 1:
            raise ValueError(f"epsilon: got {epsilon}; expected 0 <= epsilon <= 1. Try 0, for greedy actions alone.")
        if episodes < 1:
            raise ValueError(f"episodes: got {episodes}; expected an integer >= 1. Try 20.")
        num_envs = environment.num_envs
        share = np.full(num_envs, episodes // num_envs) + (np.arange(num_envs) < episodes % num_envs)
        recurrent_key, key = jax.random.split(jax.random.key(seed))
        recurrent_state = agent.initial_recurrent_state(recurrent_key, num_envs)
        timestep = first_timestep(environment.reset(), recurrent_state)
        pipeline = observation_pipeline(config, environment.spec)
        frames = pipeline.init(timestep)
        state = evaluation_state(agent, state)
        running, length, returns = np.zeros(num_envs), np.zeros(num_envs, np.int64), []

        if self._actor is None:
            example = (state, recurrent_state, pipeline.view(scaling, frames, timestep))
            self._actor = Actor(agent._replace(act=agent.evaluate_act), example, environment.spec.num_actions)
        actor = self._actor
        actor.begin(jax.random.key_data(key), lambda steps: np.full(len(steps), epsilon))
        actor.follow(state)
        loop_step = 0
        while share.any():
            if look is not None:
                look()
            acted, _ = actor.act(loop_step, recurrent_state, pipeline.view(scaling, frames, timestep))
            recurrent_state, loop_step = acted.recurrent_state, loop_step + 1
            outcome = environment.step(acted.action)
            running += outcome.r_t * outcome.valid
            length += outcome.valid
            if outcome.restarted is not None:  # the episode was cut off, so it does not count
                running[outcome.restarted] = length[outcome.restarted] = 0
            over = outcome.last | (length >= max_episode_steps)
            if (over & ~outcome.last).any():
                warnings.warn(
                    f"an episode did not end within {max_episode_steps} steps; its return so far is used", stacklevel=2
                )
            for lane in np.flatnonzero(over & (share > 0)).tolist():
                returns.append(running[lane])
                share[lane] -= 1
            running[over] = length[over] = 0
            remembers = not isinstance(timestep.a_tm1, tuple)
            timestep = outcome.timestep._replace(a_tm1=acted.action) if remembers else outcome.timestep
            frames = pipeline.push(frames, timestep)
        return np.asarray(returns)


def evaluate(
    agent: Agent,
    state: LearnerState,
    environment: Environment,
    config: LoopConfig,
    *,
    episodes: int,
    seed: int = 0,
    epsilon: float = 0.0,
    max_episode_steps: int = 27_000,
    scaling: Scaling = NO_SCALING,
) -> np.ndarray:
    """Play whole episodes with the evaluation parameters (the Polyak average if the agent keeps one).

    The agent acts greedily: without its own noise, and with the mean of its members if it is an ensemble.

    Every environment plays a fixed share of the episodes, so that short episodes are not overrepresented.

    Args:
        agent: Agent.
        state: State of the agent; not changed.
        environment: Environments other than those of training.
        config: Config of the loop, for the observation pipeline.
        episodes: Number of episodes, at least 1.
        seed: Seed of the random actions.
        epsilon: Probability of a random action.
        max_episode_steps: Number of steps after which an episode is cut off and counted with its return so far, with a
            warning. The default corresponds to the 108 000 frames of an Atari game at 4 frames per step. Later steps
            of that environment count as its next episode.
        scaling: Scaling of observations and rewards from training; not changed.

    Returns:
        ``[episodes]`` float64, undiscounted returns.

    Raises:
        ValueError: if ``episodes`` is less than 1, or ``epsilon`` outside [0, 1].
    """
    return Evaluator(agent, config)(
        state,
        environment,
        episodes=episodes,
        seed=seed,
        epsilon=epsilon,
        max_episode_steps=max_episode_steps,
        scaling=scaling,
    )
