"""Statistics of episodes: returns and lengths."""

import dataclasses
from typing import Any

import numpy as np

from ..environments.types import EnvironmentStep

RECENT = 100


@dataclasses.dataclass
class EpisodeStatistics:
    """Statistics of running and finished episodes; its methods change it in place.

    Attributes:
        running_return: ``[N]`` float64, undiscounted return of each environment's episode so far.
        running_length: ``[N]`` int64, number of steps of each environment's episode so far.
        recent: Returns of the last 100 finished episodes, oldest first.
        finished: ``(step, return, length)`` of each episode that ended since the last record.
        episodes: Number of episodes that have ended.
        env_restarts: Number of environments that were restarted after a failure.
    """

    running_return: np.ndarray
    running_length: np.ndarray
    recent: list[float]
    finished: list[tuple[int, float, int]]
    episodes: int = 0
    env_restarts: int = 0

    @classmethod
    def initial(cls, num_envs: int) -> "EpisodeStatistics":
        """Statistics before the first step of ``num_envs`` environments.

        >>> EpisodeStatistics.initial(2).episodes
        0
        """
        return cls(np.zeros(num_envs), np.zeros(num_envs, np.int64), [], [])

    def add(self, step: int, outcome: EnvironmentStep) -> None:
        """Add one step of every environment; ``step`` is the number of environment steps before it."""
        self.running_return += outcome.r_t  # 0 if an environment was not stepped
        self.running_length += outcome.valid
        if any_of(outcome.last):
            for lane in np.flatnonzero(outcome.last).tolist():
                episode = (step + lane + 1, float(self.running_return[lane]), int(self.running_length[lane]))
                self.finished.append(episode)
                self.recent = [*self.recent[1 - RECENT :], episode[1]]
                self.running_return[lane] = self.running_length[lane] = 0
                self.episodes += 1

    def add_many(self, step: int, r_t: np.ndarray, last: np.ndarray) -> None:
        """Add consecutive steps of every environment, with the sums of ``add``.

        Args:
            step: Number of environment steps before them.
            r_t: ``[T, N]``, rewards.
            last: ``[T, N]`` bool, whether an episode ended with the step.
        """
        num_envs = len(self.running_return)
        begun = np.zeros(num_envs, np.int64)
        for at, lane in np.argwhere(last).tolist():
            rewards = r_t[begun[lane] : at + 1, lane]
            episode_return = float(_add_up(self.running_return[lane], rewards))
            episode = (step + at * num_envs + lane + 1, episode_return, int(self.running_length[lane]) + len(rewards))
            self.finished.append(episode)
            self.recent = [*self.recent[1 - RECENT :], episode[1]]
            self.running_return[lane] = self.running_length[lane] = 0
            begun[lane] = at + 1
            self.episodes += 1
        for lane in range(num_envs):
            rewards = r_t[begun[lane] :, lane]
            self.running_return[lane] = _add_up(self.running_return[lane], rewards)
            self.running_length[lane] += len(rewards)

    def restart_failed(self, lanes: np.ndarray) -> None:
        """Count the environments in ``lanes`` as restarted and drop their running episodes."""
        self.env_restarts += int(lanes.sum())
        self.restart(lanes)

    def restart(self, lanes: np.ndarray) -> None:
        """Drop the running episodes of the environments in ``lanes``."""
        self.running_return[lanes] = self.running_length[lanes] = 0

    def record(self) -> dict[str, Any]:
        """Return the fields of a record, and clear the list of episodes that ended since the last record."""
        finished, self.finished = self.finished, []
        return {
            "episodes": self.episodes,
            "env_restarts": self.env_restarts,
            "return_mean": float(np.mean(self.recent)) if self.recent else None,
            "return_last": self.recent[-1] if self.recent else None,
            "returns": [episode_return for _, episode_return, _ in finished],
            "lengths": [length for _, _, length in finished],
            "ended_at": [step for step, _, _ in finished],
        }


def _add_up(start: float, rewards: np.ndarray) -> float:
    """Sum of ``start`` and the rewards, added one after the other in float64."""
    return float(np.add.accumulate(np.concatenate([[start], rewards]))[-1])


def any_of(flags: np.ndarray) -> bool:
    """Whether any boolean is True; for short arrays several times faster than ``flags.any()``.

    Example:
        >>> any_of(np.array([False, True])), any_of(np.array([False]))
        (True, False)
    """
    return b"\x01" in flags.tobytes()
