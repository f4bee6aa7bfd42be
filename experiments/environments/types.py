"""Types shared by the environment adapters: a step of many environments, and the interface of an adapter.

A lane is one of the ``N`` environments that are stepped together, by `environments.lanes` in this process or in worker
processes, or by a Gymnasium vector environment in `environments.vector`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from ...replay.types import EnvironmentSpec, TimeStep


class EnvironmentFailure(RuntimeError):  # noqa: N818 (its callers treat it as an event)
    """Failure of an environment that raised, or whose process ended or hung; the message says which, where and how.

    Attributes:
        intact: Whether the state of the environments still counts as that before the step, so that a snapshot, and
            with it a checkpoint, can be made.
    """

    def __init__(self, message: str, *, intact: bool = False) -> None:
        super().__init__(message)
        self.intact = intact


class EnvironmentStep(NamedTuple):
    """Result of one step of ``N`` environments. Its arrays are new or read-only, and may be shared between fields.

    Attributes:
        r_t: ``[N]`` float32, rewards.
        discount_t: ``[N]`` float32, continuation of the environment: 0 if it terminated (even if it was truncated in
            the same step), otherwise 1.
        last: ``[N]`` bool, whether the episode ended with this step.
        obs_t: ``[N, ...]``, true next observation; at the end of an episode its last observation.
        timestep: Time step that the agent acts on next; ``reward`` is 0 where ``first``.
        valid: ``[N]`` bool, False for lanes that were not stepped. A vector environment in the mode ``NEXT_STEP`` uses
            the call after the end of an episode for a reset and ignores the action; an environment that failed may
            have been restarted. Such a step is neither counted nor stored. In all other cases every lane is valid.
        action_mask_t: ``[N, A]`` bool, legal actions at ``obs_t``; ``()`` if masks are not used.
        restarted: ``[N]`` bool, lanes whose environment failed and was restarted. Their episode was cut off after the
            previous step, and ``timestep`` is the first of a new episode. None if no environment was restarted.
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
    """``N`` environments as a loop steps them: exact steps, and a reset after the end of an episode.

    Attributes:
        spec: Spec for agents and replays: observations, number of actions and action masks.
        num_envs: Number of environments, ``N``.
    """

    spec: EnvironmentSpec
    num_envs: int

    def reset(self) -> TimeStep:
        """Start the next episode in every lane."""

    def step(self, actions: Any) -> EnvironmentStep:
        """Take one action in every lane, ``[N]`` integers, and reset lanes whose episode ended."""

    def snapshot(self) -> dict[str, np.ndarray]:
        """Return a snapshot, a dictionary of numeric arrays."""

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> tuple[TimeStep, np.ndarray]:
        """Restore a snapshot; return its time step, and ``[N]`` bool for lanes that had to start a new episode."""

    def close(self) -> None:
        """Close the environments; a second call does nothing."""


def in_short(error: Exception) -> str:
    """Class and message of an exception, for use within another message.

    >>> in_short(ValueError("out of fuel")), in_short(KeyError())
    ('ValueError: out of fuel', 'KeyError')
    """
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
