"""Gymnasium environments as the loop sees them: N lanes, exact steps, no autoreset to think about.

A step's ``obs_t`` is always the true next observation, at the end of an episode its last one, and
``timestep.observation`` is what the agent sees next, after a reset where an episode has just ended. An environment
that writes its observations in place is safe: each is copied before the next call.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from ...replay.types import EnvironmentSpec, TimeStep
from .history import History, warn_of_lost_state
from .spaces import Spaces, check_actions, read_spaces, warn_of_mask
from .types import EnvironmentFailure, EnvironmentStep, in_short
from .worker import OLD_API, keeps_state, kept_state, set_kept_state


class Environments:
    """Environments of this process, stepped one after the other.

    Every episode is reset with a seed of its own, made from the run's seed, the lane and the episode's number. So
    an episode is determined by these three and its actions, and a snapshot needs no more than them.

    Args:
        envs: the environments, all with the same spaces; they are closed by `close`.
        seed: the run's seed.
        action_mask: whether ``info["action_mask"]`` says which actions are legal, at every reset and every step.

    Attributes:
        spaces: Spaces of one environment as they are stored.
        spec: what an agent has to know of the environments.
        num_envs: how many there are, ``N``.

    Raises:
        TypeError: where one is not a ``gymnasium.Env``.
        ValueError: where there is none, one is listed twice, the spaces differ or are not supported.

    Example:
        >>> import gymnasium, numpy
        >>> environments = Environments([gymnasium.make("CartPole-v1") for _ in range(2)], seed=0)
        >>> environments.reset().observation.shape
        (2, 4)
        >>> environments.step(numpy.array([0, 1])).r_t
        array([1., 1.], dtype=float32)
        >>> environments.close()
    """

    spaces: Spaces
    spec: EnvironmentSpec
    num_envs: int

    def __init__(self, envs: Sequence[gym.Env[Any, Any]], seed: int = 0, *, action_mask: bool = False) -> None:
        self._envs = list(envs)
        self.spaces = _common_spaces(self._envs, action_mask)
        self.spec = self.spaces.spec
        self.num_envs = len(self._envs)
        self._history = History(seed, self.num_envs)
        self._timestep: TimeStep | None = None
        self._floating = self.spec.observation.dtype.kind == "f"
        # What is legal now in each lane, written in place; None where masks are not used.
        self._legal = np.ones((self.num_envs, self.spec.num_actions), np.bool_) if action_mask else None
        # What most steps have in common.
        self._ones = _read_only(np.ones(self.num_envs, np.float32))
        self._all = _read_only(np.ones(self.num_envs, np.bool_))
        self._none = _read_only(np.zeros(self.num_envs, np.bool_))

    def reset(self) -> TimeStep:
        """Starts the next episode in every lane, the first of all at the first call.

        Raises:
            RuntimeError: after `close`.
            EnvironmentFailure: where an environment raises.
            TypeError: where an environment has the old Gym API.
            ValueError: where a first observation has another shape than its space says, or is not finite, or the
                action mask is missing.
        """
        self._require_open()
        rows = self._empty_rows()
        for lane in range(self.num_envs):
            self._reset_lane(lane, rows)
        self._timestep = TimeStep(rows, np.zeros(self.num_envs, np.float32), self._all, self._action_mask())
        return self._timestep

    def step(self, actions: Any) -> EnvironmentStep:
        """Takes one action in every environment and resets those whose episode ended.

        Args:
            actions: ``[N]`` integers, counted from 0.

        Raises:
            RuntimeError: before `reset` or after `close`.
            EnvironmentFailure: where an environment raises; the message names it, its episode, step and action.
            TypeError: where actions are no integers, a reward is no number, or the environment has the old Gym API.
            ValueError: where an action does not exist, an observation has another shape than its space says, or an
                observation or a reward is not finite, or the action mask is missing or leaves no legal action; the
                message names the environment, its episode and step.
        """
        self._require_reset()
        obs_t, r_t = self._empty_rows(), np.empty(self.num_envs, np.float32)
        ended: list[tuple[int, bool]] = []
        for lane, action in enumerate(check_actions(actions, self.num_envs, self.spec.num_actions)):
            r_t[lane], terminated, truncated = self._step_lane(lane, action, obs_t)
            if terminated or truncated:
                ended.append((lane, terminated))
        self._check_finite(obs_t)
        mask_t: Any = ()
        if self._legal is not None:
            mask_t = self._legal.copy()
        if not ended:
            self._timestep = TimeStep(obs_t, r_t, self._none, mask_t)
            return EnvironmentStep(r_t, self._ones, self._none, obs_t, self._timestep, self._all, mask_t)
        discount_t, last = self._ones.copy(), self._none.copy()
        observation, seen_reward = obs_t.copy(), r_t.copy()
        for lane, terminated in ended:
            discount_t[lane], last[lane], seen_reward[lane] = not terminated, True, 0
            self._reset_lane(lane, observation)
        self._timestep = TimeStep(observation, seen_reward, last, self._action_mask())
        return EnvironmentStep(r_t, discount_t, last, obs_t, self._timestep, self._all, mask_t)

    def snapshot(self) -> dict[str, np.ndarray]:
        """Returns what it takes to come back to this point: arrays of numbers alone, no pickle.

        They are the seed, and of each lane the number of its episode, the actions taken in it and its observation.

        Raises:
            RuntimeError: before `reset` or after `close`.
        """
        return self._history.pack(self._require_reset())

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> tuple[TimeStep, np.ndarray]:
        """Comes back to the point of a snapshot by taking the actions of each lane's episode again.

        The observation and reward reached must equal the saved ones to the bit. Where they do not, the environment
        is not determined by its seed and actions: that lane starts a new episode, and a warning names it.

        Args:
            snapshot: from `snapshot`, taken with environments like these.

        Returns:
            What the agent sees next, and ``[N]`` bool, True for the lanes that had to start a new episode.

        Raises:
            RuntimeError: after `close`.
            ValueError: where it is not a snapshot of such environments.
        """
        self._require_open()
        saved = self._history.unpack(snapshot, self.spec.observation)
        rows, rewards, first = self._empty_rows(), np.zeros(self.num_envs, np.float32), []
        restarted = np.zeros(self.num_envs, np.bool_)
        if keeps_state(self._envs[0]):
            warn_of_lost_state(saved)
        for lane in range(self.num_envs):
            set_kept_state(self._envs[lane], saved.kept[lane])
            rewards[lane], ended = self._replay_lane(lane, saved.episode[lane], saved.actions[lane].tolist(), rows)
            if (
                ended
                or rows[lane].tobytes() != saved.observation[lane].tobytes()
                or rewards[lane] != saved.reward[lane]
            ):
                restarted[lane], rewards[lane] = True, 0
                self._reset_lane(lane, rows)
            first.append(not self._history.actions[lane])
        if restarted.any():
            warnings.warn(
                f"environments {np.flatnonzero(restarted).tolist()} did not come back to the saved observation with "
                "the same seed and actions, so they start a new episode: they are not deterministic.",
                stacklevel=2,
            )
        self._timestep = TimeStep(rows, rewards, np.array(first), self._action_mask())
        return self._timestep, restarted

    def close(self) -> None:
        """Closes the environments; a second call does nothing."""
        for env in self._envs:
            env.close()
        self._envs, self._timestep = [], None

    def _require_open(self) -> None:
        if not self._envs:
            raise RuntimeError("environments: already closed; make new ones.")

    def _require_reset(self) -> TimeStep:
        self._require_open()
        if self._timestep is None:
            raise RuntimeError("environments: not started; call reset or restore first.")
        return self._timestep

    def _action_mask(self) -> Any:
        return () if self._legal is None else self._legal.copy()

    def _empty_rows(self) -> np.ndarray:
        return np.empty((self.num_envs, *self.spec.observation.shape), self.spec.observation.dtype)

    def _reset_lane(self, lane: int, rows: np.ndarray, episode: int | None = None) -> None:
        """Starts the next episode of a lane, or the one that is named, and puts its first observation into ``rows``."""
        history = self._history
        seed = history.begin_next(lane) if episode is None else history.begin(lane, episode)
        history.kept[lane] = kept_state(self._envs[lane])
        try:
            result = self._envs[lane].reset(seed=seed)
        except Exception as error:
            if "unexpected keyword argument 'seed'" in str(error):
                raise TypeError(f"environment {lane}: reset takes no seed. {OLD_API}") from error
            raise EnvironmentFailure(f"{history.place(lane)}: reset raised {in_short(error)}") from error
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
            raise TypeError(f"environment {lane}: reset did not return (observation, info). {OLD_API}")
        self._encode(lane, result[0], rows)
        history.check_observation(lane, rows[lane])
        if self._legal is not None:
            self._legal[lane] = history.read_mask(lane, result[1].get("action_mask"), self.spec.num_actions)
        elif self._timestep is None and lane == 0:
            warn_of_mask(result[1].get("action_mask"))

    def _step_lane(self, lane: int, action: int, rows: np.ndarray) -> tuple[float, bool, bool]:
        """Steps a lane and puts what it observes into ``rows``, unchecked for NaN; returns reward and ends."""
        history = self._history
        history.actions[lane].append(action)
        try:
            result = self._envs[lane].step(action + self.spaces.action_start)
        except Exception as error:
            if "expected 5, got 4" in str(error):  # a wrapper such as TimeLimit unpacked it first
                raise TypeError(f"environment {lane}: step returned 4 values. {OLD_API}") from error
            place = f"{history.place(lane)}, action {action}"
            raise EnvironmentFailure(f"{place}: step raised {in_short(error)}") from error
        if not isinstance(result, tuple) or len(result) != 5:
            raise TypeError(f"environment {lane}: step did not return 5 values. {OLD_API}")
        observation, reward, terminated, truncated, info = result
        reward = history.read_reward(lane, reward)
        self._encode(lane, observation, rows)
        if self._legal is not None:
            mask = info.get("action_mask") if isinstance(info, Mapping) else None
            self._legal[lane] = history.read_mask(lane, mask, self.spec.num_actions, may_be_empty=bool(terminated))
        return reward, bool(terminated), bool(truncated)

    def _encode(self, lane: int, observation: Any, rows: np.ndarray) -> None:
        plain = type(observation) is np.ndarray and observation.dtype is rows.dtype
        if plain and self.spaces.observation_start is None and observation.shape == rows.shape[1:]:
            rows[lane] = observation
        else:
            rows[lane] = self._history.encode(lane, self.spaces, observation)

    def _check_finite(self, rows: np.ndarray) -> None:
        if self._floating and b"\x00" in np.isfinite(rows).tobytes():
            for lane, row in enumerate(rows):
                self._history.check_observation(lane, row)

    def _replay_lane(self, lane: int, episode: int, actions: Sequence[int], rows: np.ndarray) -> tuple[float, bool]:
        """Plays an episode again; returns the reward that came last, and whether it ended, which it should not."""
        self._reset_lane(lane, rows, episode)
        reward = 0.0
        for action in actions:
            reward, terminated, truncated = self._step_lane(lane, action, rows)
            if terminated or truncated:
                return reward, True
        return reward, False


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


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
