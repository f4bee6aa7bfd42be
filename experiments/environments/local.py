"""Environments in this process, stepped in sequence: a backend of `lanes.Environments`."""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym

from .history import History
from .lanes import Outcome
from .spaces import Spaces, read_spaces
from .types import EnvironmentFailure, in_short
from .worker import OLD_API, RESETTING, Begun, Job, OldApiError, begin, keeps_state, step


class Local:
    """Environments in this process.

    If an environment raises, the step fails. The state of all lanes then still counts as that before the step, so that
    a snapshot can be taken.

    Args:
        envs: Environments, all with the same spaces; ``close`` closes them.
        action_mask: Whether ``info["action_mask"]`` lists the legal actions, at every reset and every step.

    Raises:
        TypeError: if an element is not a ``gymnasium.Env``.
        ValueError: if the list is empty or has an environment twice, or if the spaces differ or are not supported.
    """

    def __init__(self, envs: Sequence[gym.Env[Any, Any]], *, action_mask: bool = False) -> None:
        self._envs = list(envs)
        self.spaces = _common_spaces(self._envs, action_mask)
        self.num_envs = len(self._envs)
        self.keeps_state = keeps_state(self._envs[0])
        self._progress = [0, 0]

    def begin(self, history: History, jobs: Mapping[int, Job], *, intact: bool) -> dict[int, Begun]:
        """Reset lanes and replay actions in them, see ``Backend``."""
        try:
            begun = begin(self._envs, self._progress, [jobs.get(lane) for lane in range(self.num_envs)])
        except Exception as error:
            raise self._failure(error, history, None, intact) from error
        return {lane: result for lane, result in enumerate(begun) if result is not None}

    def step(self, history: History, actions: Sequence[int]) -> Outcome:
        """Take one action in each lane, see ``Backend``."""
        try:
            return step(self._envs, self._progress, zip(actions, history.upcoming, strict=True)), {}
        except Exception as error:
            chosen = [action - self.spaces.action_start for action in actions]
            raise self._failure(error, history, chosen, True) from error

    def close(self) -> None:
        """Close the environments."""
        for env in self._envs:
            env.close()

    def _failure(self, error: Exception, history: History, chosen: Sequence[int] | None, intact: bool) -> Exception:
        lane, phase = self._progress
        if isinstance(error, OldApiError):
            return TypeError(f"environment {lane}: {error}")
        if phase == RESETTING and "unexpected keyword argument 'seed'" in str(error):
            return TypeError(f"environment {lane}: reset takes no seed. {OLD_API}")
        if phase != RESETTING and "expected 5, got 4" in str(error):  # a wrapper such as TimeLimit unpacks it first
            return TypeError(f"environment {lane}: step returned 4 values. {OLD_API}")
        call = "reset" if phase == RESETTING else "step"
        where = history.called(lane, phase == RESETTING, chosen)
        return EnvironmentFailure(f"{where}: {call} raised {in_short(error)}", intact=intact)


def _common_spaces(envs: Sequence[Any], action_mask: bool) -> Spaces:
    if not envs:
        raise ValueError("envs: got none; expected at least one environment.")
    for lane, env in enumerate(envs):
        if not isinstance(env, gym.Env):
            raise TypeError(
                f"envs: got {type(env).__name__} for environment {lane}; expected a gymnasium.Env, a list of them or "
                f"a gymnasium.vector.VectorEnv. If it is a gym.Env: {OLD_API}"
            )
    if len({id(env) for env in envs}) != len(envs):
        raise ValueError("envs: got one environment twice; expected a separate environment for each lane.")
    spaces = [read_spaces(env.observation_space, env.action_space, action_mask) for env in envs]
    for lane, found in enumerate(spaces):
        if found != spaces[0]:
            raise ValueError(f"envs: got {found} for environment {lane}; expected {spaces[0]}, as for environment 0.")
    return spaces[0]
