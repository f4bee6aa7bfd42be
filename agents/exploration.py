"""Epsilon-greedy exploration."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ..replay.types import Array


def epsilon_greedy(uniform: Array, action: Array, epsilon: Any, num_actions: int, action_mask: Array = ()) -> Array:
    """Choose epsilon-greedy actions: with probability ``epsilon`` a uniform legal action, otherwise the agent's action.

    The loop explores, not the agent, so that a host loop can skip the agent's actions if all environments explore.
    NumPy inputs give NumPy outputs, and JAX inputs give JAX outputs with the same actions.

    Args:
        uniform: ``[2, ..., N]`` float32 in [0, 1): random numbers that decide whether to explore, and the action.
        action: ``[..., N]`` int32, actions of the agent.
        epsilon: Probability of a random action, a scalar or an array that broadcasts to ``action``.
        num_actions: Number of actions ``A``.
        action_mask: ``[..., N, A]`` bool, True for legal actions, or ``()`` if all are legal. If no action is legal, a
            random action is 0.

    Returns:
        ``[..., N]`` int32, actions to take.

    >>> uniform = np.float32([[0.05, 0.5], [0.9, 0.9]])
    >>> epsilon_greedy(uniform, np.int32([0, 0]), 0.1, num_actions=3).tolist()
    [2, 0]
    >>> mask = np.array([[True, True, False], [False, True, False]])
    >>> epsilon_greedy(uniform, np.int32([0, 0]), 1.0, 3, mask).tolist()
    [1, 1]
    """
    numpy = np if isinstance(uniform, np.ndarray) else jnp
    explore, choice = uniform
    if isinstance(action_mask, tuple):
        random = numpy.minimum((choice * np.float32(num_actions)).astype(np.int32), num_actions - 1)
    else:
        up_to = numpy.cumsum(action_mask, axis=-1)  # number of legal actions up to each
        count = up_to[..., -1]
        number = numpy.minimum((choice * count.astype(np.float32)).astype(np.int32), count - 1)
        random = numpy.argmax(up_to > number[..., None], axis=-1).astype(np.int32)
    return numpy.where(explore < numpy.asarray(epsilon, np.float32), random, action)
