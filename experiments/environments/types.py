"""Types that the environment adapters share: one step of many environments, and what an adapter can do.

A lane is one of the ``N`` environments that are stepped together: of `environments.lanes`, in this process or in
others, or of a Gymnasium vector environment in `environments.vector`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from ...replay.types import EnvironmentSpec, TimeStep


class EnvironmentFailure(RuntimeError):  # noqa: N818 (an event, as its callers see it)
    """An environment raised, or its process ended or hung; the message says which one, where and how.

    Attributes:
        intact: whether the environments count as standing where they stood before the step, so that a snapshot of
            them, and with it a checkpoint, can be made.
    """

    def __init__(self, message: str, *, intact: bool = False) -> None:
        super().__init__(message)
        self.intact = intact


class EnvironmentStep(NamedTuple):
    """What came of one step of ``N`` environments. Its arrays are fresh or read-only, and some may be one and the same.

    Attributes:
        r_t: ``[N]`` float32, the reward.
        discount_t: ``[N]`` float32, the environment's continuation: 0 where it terminated (also where it was
            truncated at the same time), else 1.
        last: ``[N]`` bool, whether the episode ended with this step.
        obs_t: ``[N, ...]``, the true next observation, at the end of an episode its last one.
        timestep: what the agent sees next; ``reward`` is 0 where ``first``.
        valid: ``[N]`` bool, False where nothing was stepped: a vector environment in the mode ``NEXT_STEP`` spends
            the call after an episode's end on a reset and ignores the action, and an environment that failed may have
            been restarted. Such a lane is neither a step to be counted nor one to be kept. In every other case all
            lanes are valid.
        action_mask_t: ``[N, A]`` bool, which actions are legal at ``obs_t``; ``()`` where masks are not used.
        restarted: ``[N]`` bool, where an environment failed and was restarted: its episode was cut off after the step
            before, and ``timestep`` is the first of a new one. None, as nearly always, where none was.
    """

    r_t: np.ndarray
    discount_t: np.ndarray
    last: np.ndarray
    obs_t: np.ndarray
    timestep: TimeStep
    valid: np.ndarray
    action_mask_t: Any = ()
    restarted: np.ndarray | None = None


class Environment(Protocol):
    """``N`` environments as a loop steps them: exact steps, and an end of an episode is followed by a reset.

    Attributes:
        spec: Observation space, number of actions and action masks, as an agent needs them.
        num_envs: Number of environments, ``N``.
    """

    spec: EnvironmentSpec
    num_envs: int

    def reset(self) -> TimeStep:
        """Starts the next episode in every lane."""

    def step(self, actions: Any) -> EnvironmentStep:
        """Takes one action in every lane, ``[N]`` integers, and resets those whose episode ended."""

    def snapshot(self) -> dict[str, np.ndarray]:
        """Returns what it takes to come back to this point, arrays of numbers alone."""

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> tuple[TimeStep, np.ndarray]:
        """Comes back to a snapshot; returns the time step there, and ``[N]`` bool where a new episode had to start."""

    def close(self) -> None:
        """Closes the environments; a second call does nothing."""


def in_short(error: Exception) -> str:
    """Class and message of an exception, for a line of another message.

    >>> in_short(ValueError("out of fuel")), in_short(KeyError())
    ('ValueError: out of fuel', 'KeyError')
    """
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
