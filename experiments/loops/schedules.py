"""What a run does when: how many learner steps, when they are made, and what changes over it."""

from typing import Any

import numpy as np

from ...agents import AgentConfig


def total_learner_steps(config: AgentConfig, steps: int, num_envs: int) -> int:
    """How many learner steps the loop makes in a run of ``steps`` environment steps.

    >>> from polyak.agents import DQNConfig
    >>> total_learner_steps(DQNConfig(learning_starts=1000, train_every=10, learner_steps=1), 10_000, num_envs=1)
    901
    """
    last = -(-steps // num_envs) * num_envs
    before_first = max(-(-config.learning_starts // num_envs) - 1, 0) * num_envs
    rounds = last // config.train_every - before_first // config.train_every
    return max(rounds, 0) * config.learner_steps


def batches_per_dispatch(config: AgentConfig, num_envs: int) -> int:
    """How many learner steps one dispatch makes, in one scan.

    Where every loop step has the same number of rounds they share a dispatch; else each round has its own, so that
    one program serves them all.

    >>> from polyak.agents import DQNConfig
    >>> config = DQNConfig(train_every=4, learner_steps=2)
    >>> [batches_per_dispatch(config, num_envs) for num_envs in (1, 8, 10)]
    [2, 4, 2]
    """
    rounds = num_envs // config.train_every if num_envs % config.train_every == 0 else 1
    return rounds * config.learner_steps


def epsilon_at(config: AgentConfig, step: Any, steps: int) -> np.ndarray:
    """The probability of a random action at environment step ``step`` (or several) of ``steps``: linear, then constant.

    >>> from polyak.agents import DQNConfig
    >>> config = DQNConfig(epsilon_initial=1.0, epsilon_final=0.1, epsilon_fraction=0.5)
    >>> epsilon_at(config, np.array([0, 25, 50, 100]), 100).tolist()
    [1.0, 0.55, 0.1, 0.1]
    """
    decay = config.epsilon_fraction * steps
    progress = np.minimum(np.asarray(step) / decay, 1.0) if decay > 0 else np.ones_like(step, np.float64)
    return (1 - progress) * config.epsilon_initial + progress * config.epsilon_final


def importance_exponent_at(config: AgentConfig, step: int, steps: int) -> float:
    """The power of the importance weights at environment step ``step`` of ``steps``: linear.

    >>> from polyak.agents import DQNConfig
    >>> config = DQNConfig(importance_exponent_initial=0.4, importance_exponent_final=1.0)
    >>> [round(importance_exponent_at(config, step, 100), 2) for step in (0, 50, 100)]
    [0.4, 0.7, 1.0]
    """
    progress = min(step / steps, 1.0)
    return (1 - progress) * config.importance_exponent_initial + progress * config.importance_exponent_final
