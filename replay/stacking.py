"""Stacks of frames on the acting side, as the host replay draws them: ``(H, W, stack)``, the oldest frame first."""

import numpy as np
import numpy.typing as npt

from ._checks import check_array, check_count, check_frame
from .types import Array


def init(frame: Array, num_envs: int, stack: int) -> npt.NDArray[np.generic]:
    """Makes stacks of zeros, to be pushed to before they are read.

    Args:
        frame: array or ``jax.ShapeDtypeStruct`` of one frame of one environment, ``(H, W)`` or ``(H, W, 1)``.
        num_envs: number of environments, ``N``.
        stack: how many frames.

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


def push(frames: npt.NDArray[np.generic], observation: Array, first: npt.NDArray[np.bool_]) -> npt.NDArray[np.generic]:
    """Moves on by one frame.

    Args:
        frames: ``[N, H, W, stack]`` from ``init`` or from here; not changed.
        observation: ``[N, H, W]`` or ``[N, H, W, 1]``, the newest frame of every environment.
        first: ``[N]`` bool, whether it is the first of its episode, and stands for those before it too.

    Returns:
        ``[N, H, W, stack]``, fresh: what the replay draws for the same step.

    Raises:
        TypeError: if ``observation`` is no array, or its dtype is of another kind than that of the frames.
        ValueError: if its shape is none of these.

    >>> frames = init(np.zeros((1, 1), np.uint8), num_envs=1, stack=3)
    >>> for number, first in ((1, True), (2, False), (9, True), (10, False)):
    ...     frames = push(frames, np.full((1, 1, 1), number, np.uint8), np.array([first]))
    ...     frames.tolist()
    [[[[1, 1, 1]]]]
    [[[[1, 1, 2]]]]
    [[[[9, 9, 9]]]]
    [[[[9, 9, 10]]]]
    """
    before = np.moveaxis(frames, -1, 1)
    if getattr(observation, "ndim", 0) == 4 and observation.shape[-1] == 1:
        observation = observation[..., 0]
    check_array("observation", observation, before[:, 0], len(frames))
    after = np.empty(before.shape, before.dtype)
    after[:, :-1] = before[:, 1:]
    after[:, -1] = observation
    after[first] = after[first, -1:]
    return np.moveaxis(after, 1, -1)
