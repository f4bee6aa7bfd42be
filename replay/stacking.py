"""Stacks of frames for acting, as the replay draws them: ``(H, W, stack)``, the oldest frame first."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from ._checks import check_array, check_count, check_frame
from .types import Array


def init(frame: Array, num_envs: int, stack: int) -> npt.NDArray[np.generic]:
    """Make stacks of zeros, to be pushed to before they are read.

    Args:
        frame: array or ``jax.ShapeDtypeStruct`` of one frame of one environment, ``(H, W)`` or ``(H, W, 1)``.
        num_envs: Number of environments, ``N``.
        stack: Number of frames.

    Returns:
        ``[N, H, W, stack]`` in the frame's dtype.

    Raises:
        ValueError: if frames have another shape, or a count is not an integer of 1 or more.

    >>> import jax
    >>> init(jax.ShapeDtypeStruct((84, 84, 1), np.uint8), num_envs=2, stack=4).shape
    (2, 84, 84, 4)
    """
    check_frame(frame, check_count("stack", stack))
    return np.moveaxis(np.zeros((check_count("num_envs", num_envs), stack, *frame.shape[:2]), frame.dtype), 1, -1)


def push(frames: Array, observation: Array, first: Array) -> Array:
    """Append one frame to each stack; NumPy in, NumPy out; JAX in, JAX out.

    Args:
        frames: ``[N, H, W, stack]`` from ``init`` or from here; unchanged.
        observation: ``[N, H, W]`` or ``[N, H, W, 1]``, newest frame of every environment.
        first: ``[N]`` bool, whether the frame is the first of its episode, and is repeated before it.

    Returns:
        ``[N, H, W, stack]``, a fresh array equal to the one the replay draws for the same step.

    Raises:
        TypeError: if ``observation`` is no array, or its dtype is of another kind than that of the frames.
        ValueError: if its shape differs from the frames'.

    >>> frames = init(np.zeros((1, 1), np.uint8), num_envs=1, stack=3)
    >>> for number, first in ((1, True), (2, False), (9, True), (10, False)):
    ...     frames = push(frames, np.full((1, 1, 1), number, np.uint8), np.array([first]))
    ...     frames.tolist()
    [[[[1, 1, 1]]]]
    [[[[1, 1, 2]]]]
    [[[[9, 9, 9]]]]
    [[[[9, 9, 10]]]]
    """
    if getattr(observation, "ndim", 0) == 4 and observation.shape[-1] == 1:
        observation = observation[..., 0]
    check_array("observation", observation, frames[..., 0], len(frames))
    if not isinstance(frames, np.ndarray):
        newest = jnp.asarray(observation, frames.dtype)[..., None]
        after = jnp.concatenate([frames[..., 1:], newest], axis=-1)
        return jnp.where(jnp.expand_dims(first, (1, 2, 3)), newest, after)
    before = np.moveaxis(frames, -1, 1)  # in memory the frames of a stack lie one after the other
    stacks: npt.NDArray[Any] = np.empty(before.shape, before.dtype)
    stacks[:, :-1] = before[:, 1:]
    stacks[:, -1] = observation
    stacks[first] = stacks[first, -1:]
    return np.moveaxis(stacks, 1, -1)
