"""Exploration: what a loop does with an agent's actions before it takes them."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ..replay.types import Array


def epsilon_greedy(uniform: Array, action: Array, epsilon: Any, num_actions: int, action_mask: Array = ()) -> Array:
    """With probability ``epsilon`` a uniformly random action, a legal one where there is a mask, else the agent's own.

    Agents say what they would do and loops explore, in this one way; so a loop on the host may leave an agent unasked
    where all environments explore. NumPy in, NumPy out; JAX in, JAX out, and both give the same actions.

    Args:
        uniform: ``[2, ..., N]`` float32 numbers in [0, 1): whether to explore, and where to.
        action: ``[..., N]`` int32, the agent's actions.
        epsilon: the probability of a random action, a scalar or what broadcasts to ``action``.
        num_actions: how many actions there are, ``A``.
        action_mask: ``[..., N, A]`` bool, which actions are legal (where none is, 0 is chosen); ``()``: all of them.

    Returns:
        ``[..., N]`` int32.

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
        up_to = numpy.cumsum(action_mask, axis=-1)  # how many actions are legal up to each
        count = up_to[..., -1]
        number = numpy.minimum((choice * count.astype(np.float32)).astype(np.int32), count - 1)
        random = numpy.argmax(up_to > number[..., None], axis=-1).astype(np.int32)
    return numpy.where(explore < numpy.asarray(epsilon, np.float32), random, action)
