"""Frame stacks for acting, equal to those that the replay samples: ``(H, W, stack)``, oldest frame first."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from ._checks import check_array, check_count, check_frame
from .types import Array


def init(frame: Array, num_envs: int, stack: int) -> npt.NDArray[np.generic]:
    """Make frame stacks of zeros. Call ``push`` before reading them.

    Args:
        frame: Array or ``jax.ShapeDtypeStruct`` of one frame of one environment, ``(H, W)`` or ``(H, W, 1)``.
        num_envs: Number of environments, ``N``.
        stack: Number of frames.

    Returns:
        Stacks ``[N, H, W, stack]`` in the dtype of the frame.

    Raises:
        ValueError: If frames have another shape, or a count is not an integer >= 1.

    >>> import jax
    >>> init(jax.ShapeDtypeStruct((84, 84, 1), np.uint8), num_envs=2, stack=4).shape
    (2, 84, 84, 4)
    """
    check_frame(frame, check_count("stack", stack))
    return np.moveaxis(np.zeros((check_count("num_envs", num_envs), stack, *frame.shape[:2]), frame.dtype), 1, -1)


def push(frames: Array, observation: Array, first: Array) -> Array:
    """Append one frame to each stack. NumPy arrays give a NumPy array, JAX arrays a JAX array.

    Args:
        frames: Stacks ``[N, H, W, stack]`` from ``init`` or ``push``; unchanged.
        observation: Newest frame of every environment, ``[N, H, W]`` or ``[N, H, W, 1]``.
        first: Whether each frame is the first of its episode, ``[N]`` bool. The first frame fills the whole stack.

    Returns:
        New array ``[N, H, W, stack]``, equal to the stacks that the replay samples for this step.

    Raises:
        TypeError: If ``observation`` is not an array, or its dtype is not of the kind of the frames' dtype.
        ValueError: If the shape of ``observation`` does not match the frames.

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
    before = np.moveaxis(frames, -1, 1)  # the frames of a stack are contiguous in memory
    stacks: npt.NDArray[Any] = np.empty(before.shape, before.dtype)
    stacks[:, :-1] = before[:, 1:]
    stacks[:, -1] = observation
    stacks[first] = stacks[first, -1:]
    return np.moveaxis(stacks, 1, -1)
