"""Adapter of Gymnasium vector environments: exact steps under every autoreset mode.

The values that a vector environment returns at the end of an episode depend on its autoreset mode. `VectorEnvironments`
gives the same steps for all three modes:

- ``DISABLED``: The adapter resets the lanes whose episode ended, each with its own seed. This mode is recommended: a
  snapshot can be restored, no observation is lost, and no call is spent on resets.
- ``NEXT_STEP``: The call after the end of an episode only resets that lane. The step of the lane is not ``valid``.
- ``SAME_STEP``: The last observation is in ``info["final_obs"]``. If an environment writes its observations in place,
  the reset overwrites this observation (Gymnasium issue 1132), see `VectorEnvironments`.
"""

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from ...replay.types import EnvironmentSpec, TimeStep
from .history import History, Saved
from .spaces import check_actions, encode, read_spaces, warn_of_mask
from .types import EnvironmentStep

_DISABLED, _NEXT_STEP, _SAME_STEP = (
    gym.vector.AutoresetMode.DISABLED,
    gym.vector.AutoresetMode.NEXT_STEP,
    gym.vector.AutoresetMode.SAME_STEP,
)


class _Shown(NamedTuple):
    """Current observations and action masks of the lanes.

    Attributes:
        observation: ``[N, ...]``, observations.
        action_mask: ``[N, A]`` bool; ``()`` if masks are not used.
    """

    observation: np.ndarray
    action_mask: Any

    def but(self, lanes: np.ndarray, other: "_Shown") -> "_Shown":
        """Copy with the values of ``other`` in ``lanes``."""
        return _Shown(*(_but(own, lanes, its) for own, its in zip(self, other, strict=True)))


def _but(own: Any, lanes: np.ndarray, its: Any) -> Any:
    if isinstance(own, tuple):
        return own
    result = own.copy()
    result[lanes] = its[lanes]
    return result


class VectorEnvironments:
    """Lanes of a vector environment, with the methods of `polyak.experiments.environments.lanes.Environments`.

    Environments that write their observations in place are safe in the modes ``DISABLED`` and ``NEXT_STEP``. In the
    mode ``SAME_STEP``, the environments of a ``SyncVectorEnv`` are wrapped to return copies. Those of any other vector
    environment cannot be wrapped (an ``AsyncVectorEnv`` runs them in other processes). There, if the last observation
    of the first episode of a lane equals the observation after the reset bit for bit, it is assumed to be overwritten
    and ValueError is raised. An environment whose episodes end where they begin raises this error too.

    A ``SyncVectorEnv`` or ``AsyncVectorEnv`` in the mode ``DISABLED`` resets each episode with its own seed and can be
    restored from a snapshot. In any other vector environment, `reset` seeds only the episodes that it starts, so
    `restore` starts new episodes in all lanes.

    Args:
        env: Vector environment; `close` closes it.
        seed: Seed of the run.
        action_mask: Whether ``info["action_mask"]`` lists the legal actions, at every reset and every step.

    Attributes:
        spec: Spec for agents and replays.
        num_envs: Number of environments, ``N``.

    Raises:
        TypeError: if ``env`` is not a ``gymnasium.vector.VectorEnv``.
        ValueError: if its spaces are not supported or its autoreset mode is unknown.

    Example:
        >>> import gymnasium, numpy
        >>> env = gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
        >>> environments = VectorEnvironments(env)
        >>> environments.reset().observation.shape
        (2, 4)
        >>> environments.step(numpy.array([0, 1])).valid
        array([ True,  True])
        >>> environments.close()
    """

    spec: EnvironmentSpec
    num_envs: int

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any], seed: int = 0, *, action_mask: bool = False) -> None:
        if not isinstance(env, gym.vector.VectorEnv):
            raise TypeError(f"env: got {type(env).__name__}; expected a gymnasium.vector.VectorEnv.")
        base = env.unwrapped
        self._env, self._mode = env, _autoreset_mode(env)
        self.spaces = read_spaces(env.single_observation_space, env.single_action_space, action_mask)
        self.spec = self.spaces.spec
        self.num_envs = int(env.num_envs)
        self._history = History(seed, self.num_envs)
        self._timestep: TimeStep | None = None
        self._seeds_lanes = isinstance(base, gym.vector.SyncVectorEnv | gym.vector.AsyncVectorEnv)
        self._resetting = np.zeros(self.num_envs, np.bool_)  # NEXT_STEP: lanes that the next call resets
        self._unproven = np.zeros(self.num_envs, np.bool_)  # SAME_STEP: lanes that may overwrite final_obs
        if self._mode == _SAME_STEP:
            if isinstance(base, gym.vector.SyncVectorEnv):
                base.envs[:] = [_copying(single) for single in base.envs]
            elif self.spaces.observation_start is None:
                self._unproven[:] = True

    def reset(self) -> TimeStep:
        """Start the next episode in every lane; the first call starts the first episode.

        Raises:
            RuntimeError: after `close`; in the mode ``NEXT_STEP`` with ``AsyncVectorEnv(shared_memory=False)`` directly
                after the end of an episode, because Gymnasium would reset that lane again at the next step.
            ValueError: if an observation is not finite, or an action mask is missing.
        """
        self._require_open()
        base = self._env.unwrapped
        if isinstance(base, gym.vector.AsyncVectorEnv) and not base.shared_memory and self._resetting.any():
            raise RuntimeError(
                f"reset: environments {np.flatnonzero(self._resetting).tolist()} have just ended an episode, and "
                "AsyncVectorEnv(shared_memory=False) would reset them again at the next step. Step once before, or "
                "make it with shared_memory=True or autoreset_mode=AutoresetMode.DISABLED."
            )
        return self._begin([self._history.begin_next(lane) for lane in range(self.num_envs)])

    def step(self, actions: Any) -> EnvironmentStep:
        """Take one action in every environment; the actions of lanes that are not ``valid`` are ignored.

        Args:
            actions: ``[N]`` integers, counted from 0.

        Raises:
            RuntimeError: before `reset` or after `close`.
            TypeError: if actions are not integers.
            ValueError: if an action does not exist, an observation or a reward is not finite (the message names the
                environment, its episode and step), an action mask is missing or has no legal action, or the last
                observation of an episode is missing or was overwritten.
        """
        self._require_reset()
        fake = self._resetting
        chosen = check_actions(actions, self.num_envs, self.spec.num_actions)
        for lane, action in enumerate(chosen):
            if fake[lane]:
                self._history.begin_next(lane)
            else:
                self._history.actions[lane].append(action)
        shown, rewards, terminated, truncated, info = self._step_env(chosen)
        terminated, truncated = terminated & ~fake, truncated & ~fake
        last = terminated | truncated
        r_t = np.where(fake, np.float32(0), rewards)
        at_t, first = shown, last
        if self._mode == _NEXT_STEP:
            first, self._resetting = fake, last.copy()
        elif last.any():
            if self._mode == _SAME_STEP:
                at_t = self._with_final(shown, last, terminated, info)
                for lane in np.flatnonzero(last).tolist():
                    self._history.begin_next(lane)
            else:
                shown = self._reset_lanes(last, shown)
        self._timestep = TimeStep(shown.observation, np.where(first, np.float32(0), r_t), first, shown.action_mask)
        discount_t = np.where(terminated, np.float32(0), np.float32(1))
        return EnvironmentStep(r_t, discount_t, last, at_t.observation, self._timestep, ~fake, at_t.action_mask)

    def snapshot(self) -> dict[str, np.ndarray]:
        """Return a snapshot of the environments, as `Environments.snapshot` does.

        Raises:
            RuntimeError: before `reset` or after `close`.
        """
        return self._history.pack(self._require_reset())

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> tuple[TimeStep, np.ndarray]:
        """Restore a snapshot if possible; otherwise start new episodes and warn.

        Restoring is possible with a ``SyncVectorEnv`` or ``AsyncVectorEnv`` in the mode ``DISABLED``, in lanes whose
        environment is determined by its seed and actions.

        Args:
            snapshot: Result of `snapshot`, taken with the same environments.

        Returns:
            Time step that the agent acts on next, and ``[N]`` bool, True for lanes that had to start a new episode.

        Raises:
            RuntimeError: as `reset`.
            ValueError: if it is not a snapshot of the same environments.
        """
        self._require_open()
        saved = self._history.unpack(snapshot, self.spec.observation)
        if self._mode != _DISABLED or not self._seeds_lanes:
            self._history.episode = saved.episode
            warnings.warn(
                "all environments start a new episode: only a SyncVectorEnv or AsyncVectorEnv with "
                "autoreset_mode=AutoresetMode.DISABLED can be restored within an episode.",
                stacklevel=2,
            )
            return self.reset(), np.ones(self.num_envs, np.bool_)
        shown, reward, ended = self._replay(saved)
        equal = [a.tobytes() == b.tobytes() for a, b in zip(shown.observation, saved.observation, strict=True)]
        restarted = ended | ~np.array(equal) | (reward != saved.reward)
        if restarted.any():
            shown = self._reset_lanes(restarted, shown)
            warnings.warn(
                f"environments {np.flatnonzero(restarted).tolist()} did not come back to the saved observation with "
                "the same seed and actions, because they are not deterministic; they start a new episode.",
                stacklevel=2,
            )
        first = np.array([not actions for actions in self._history.actions])
        reward = np.where(restarted, np.float32(0), reward)
        self._timestep = TimeStep(shown.observation, reward, first, shown.action_mask)
        return self._timestep, restarted

    def close(self) -> None:
        """Close the environments; a second call does nothing."""
        self._env.close()
        self._timestep = None

    def _require_open(self) -> None:
        if self._env.closed:
            raise RuntimeError("environments: already closed; make new ones.")

    def _require_reset(self) -> TimeStep:
        self._require_open()
        if self._timestep is None:
            raise RuntimeError("environments: not started; call reset or restore first.")
        return self._timestep

    def _begin(self, seeds: list[int]) -> TimeStep:
        # A vector environment that does not consist of single environments takes one seed for all lanes.
        observations, info = self._env.reset(seed=seeds if self._seeds_lanes else seeds[0])
        zeros, ones = np.zeros(self.num_envs, np.float32), np.ones(self.num_envs, np.bool_)
        if not self.spec.action_mask and self._timestep is None:
            warn_of_mask(info.get("action_mask"))
        shown = self._read(observations, info, ones)
        self._resetting = np.zeros(self.num_envs, np.bool_)
        self._timestep = TimeStep(shown.observation, zeros, ones, shown.action_mask)
        return self._timestep

    def _read(
        self, observations: Any, info: Mapping[str, Any], lanes: np.ndarray, terminated: np.ndarray | None = None
    ) -> _Shown:
        """Read observations, and the masks of ``lanes``; a mask may have no legal action where ``terminated``."""
        rows = encode(self.spaces, observations, (self.num_envs,))
        if rows.dtype.kind == "f" and not np.isfinite(rows).all():
            for lane, row in enumerate(rows):
                self._history.check_observation(lane, row)
        if not self.spec.action_mask:
            return _Shown(rows, ())
        legal = np.ones((self.num_envs, self.spec.num_actions), np.bool_)
        for lane in np.flatnonzero(lanes).tolist():
            may_be_empty = terminated is not None and bool(terminated[lane])
            legal[lane] = self._read_mask(lane, info, may_be_empty)
        return _Shown(rows, legal)

    def _read_mask(self, lane: int, info: Mapping[str, Any], may_be_empty: bool) -> np.ndarray:
        # Gymnasium marks the lanes with a mask in "_action_mask"; other vector environments may return only masks.
        masks, marks = info.get("action_mask"), info.get("_action_mask")
        mask = None if masks is None or (marks is not None and not marks[lane]) else masks[lane]
        return self._history.read_mask(lane, mask, self.spec.num_actions, may_be_empty=may_be_empty)

    def _step_env(self, actions: list[int]) -> tuple[_Shown, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        dtype = self._env.action_space.dtype
        observations, found, terminated, truncated, info = self._env.step(
            np.array(actions, dtype) + np.array(self.spaces.action_start, dtype)
        )
        rewards = np.asarray(found, np.float64).reshape(self.num_envs)  # [N, 1] from rewards of shape (1,)
        for lane, reward in enumerate(rewards.tolist()):
            self._history.read_reward(lane, reward)
        ends = np.array(terminated, np.bool_), np.array(truncated, np.bool_)
        # In the mode SAME_STEP, a new episode has begun where an episode terminated.
        over = ends[0] if self._mode != _SAME_STEP else None
        shown = self._read(observations, info, np.ones(self.num_envs, np.bool_), over)
        return shown, rewards.astype(np.float32), *ends, info

    def _reset_lanes(self, mask: np.ndarray, shown: _Shown) -> _Shown:
        """Start the next episode where ``mask``; return ``shown`` with the first observations of these lanes."""
        return self._reset_env(mask, shown, [episode + 1 for episode in self._history.episode])

    def _reset_env(self, mask: np.ndarray, shown: _Shown, episodes: list[int]) -> _Shown:
        begin = self._history.begin
        seeds = [begin(lane, episodes[lane]) if mask[lane] else None for lane in range(self.num_envs)]
        # Gymnasium removes the mask from the dictionary, so each call needs a new dictionary.
        options = {"reset_mask": mask.copy()}
        observations, info = self._env.reset(seed=seeds if self._seeds_lanes else None, options=options)
        return shown.but(mask, self._read(observations, info, mask))

    def _with_final(self, shown: _Shown, last: np.ndarray, terminated: np.ndarray, info: dict[str, Any]) -> _Shown:
        """Copy of ``shown`` with the last observation of each ended episode in place of the reset's observation."""
        if "final_obs" not in info:
            raise ValueError(
                f"{self._env}: got no info['final_obs'] at the end of an episode; expected it in the autoreset mode "
                "SAME_STEP. Make the vector environment with autoreset_mode=AutoresetMode.DISABLED."
            )
        final = shown.but(last, shown)  # a copy
        obs_t = final.observation
        for lane in np.flatnonzero(last).tolist():
            obs_t[lane] = encode(self.spaces, info["final_obs"][lane])
            self._history.check_observation(lane, obs_t[lane])
            if self.spec.action_mask:
                final.action_mask[lane] = self._read_mask(lane, info.get("final_info", {}), bool(terminated[lane]))
            if self._unproven[lane] and obs_t[lane].tobytes() == shown.observation[lane].tobytes():
                raise ValueError(
                    f"{self._history.place(lane)}: the last observation of the episode equals the first one of the "
                    "next to the bit. An environment that writes its observations in place loses the last one in the "
                    "autoreset mode SAME_STEP. Make the vector environment with autoreset_mode=AutoresetMode.DISABLED, "
                    "or each environment as gymnasium.wrappers.TransformObservation(env, numpy.copy, None)."
                )
            self._unproven[lane] = False
        return final

    def _replay(self, saved: Saved) -> tuple[_Shown, np.ndarray, np.ndarray]:
        """Replay the actions of all lanes so that all lanes finish their actions at the same step.

        A vector environment steps all lanes or none. A lane with fewer actions than the longest one first takes
        arbitrary legal actions, and is reset when its own replay must start.

        Returns:
            Observations and masks of the lanes, their rewards, and the lanes whose episode ended unexpectedly.
        """
        lengths = np.array([len(actions) for actions in saved.actions])
        total = int(lengths.max())
        seeds = [self._history.begin(lane, episode) for lane, episode in enumerate(saved.episode)]
        begun = self._begin(seeds)
        shown = _Shown(begun.observation, begun.action_mask)
        reward = np.zeros(self.num_envs, np.float32)
        done = broken = np.zeros(self.num_envs, np.bool_)
        for t in range(total + 1):
            starts = (lengths == total - t) & (t > 0)
            if (starts | done).any():
                shown = self._reset_env(starts | done, shown, saved.episode)
            if t == total:
                break
            running = lengths >= total - t
            offset = lengths - total + t
            any_legal = np.argmax(shown.action_mask, axis=1) if self.spec.action_mask else np.zeros_like(lengths)
            chosen = [saved.actions[i][offset[i]] if running[i] else int(any_legal[i]) for i in range(self.num_envs)]
            shown, reward, terminated, truncated, _ = self._step_env(chosen)
            done = terminated | truncated
            broken = broken | (done & running)
        self._history.actions = [saved.actions[lane] for lane in range(self.num_envs)]
        return shown, np.where(lengths == 0, np.float32(0), reward), broken


def _autoreset_mode(env: gym.vector.VectorEnv[Any, Any, Any]) -> gym.vector.AutoresetMode:
    # Gymnasium before 1.4 keeps the metadata in a dictionary of the environment's class, which the next vector
    # environment overwrites; the attribute belongs to the instance.
    mode = getattr(env.unwrapped, "autoreset_mode", env.metadata.get("autoreset_mode"))
    try:
        return gym.vector.AutoresetMode(mode)
    except ValueError:
        allowed = ", ".join(f"AutoresetMode.{known.name}" for known in gym.vector.AutoresetMode)
        raise ValueError(
            f"env.metadata['autoreset_mode']: got {mode!r}; expected one of {allowed}. Set it to what {env} does at "
            "the end of an episode: env.metadata = {**env.metadata, 'autoreset_mode': ...}."
        ) from None


def _copying(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    return gym.wrappers.TransformObservation(env, np.copy, None)
