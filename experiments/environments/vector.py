"""A Gymnasium vector environment as the loop sees it: exact steps, whatever it does at the end of an episode.

What a vector environment returns when an episode ends depends on its autoreset mode. `VectorEnvironments` makes the
same steps of all three:

- ``DISABLED``: it resets the lanes whose episode ended, with seeds of its own. This is the mode to choose: a
  snapshot can be restored, nothing is lost and no call is spent on resets.
- ``NEXT_STEP``: the call after an episode's end only resets that lane. Its step is marked not ``valid``.
- ``SAME_STEP``: the last observation comes in ``info["final_obs"]``. An environment that writes its observations in
  place overwrites it there with the reset's (Gymnasium issue 1132), see `VectorEnvironments`.
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
    """What the lanes show.

    Attributes:
        observation: ``[N, ...]``.
        action_mask: ``[N, A]`` bool; ``()`` where masks are not used.
    """

    observation: np.ndarray
    action_mask: Any

    def but(self, lanes: np.ndarray, other: "_Shown") -> "_Shown":
        """The same with what ``other`` has where ``lanes``."""
        return _Shown(*(_but(own, lanes, its) for own, its in zip(self, other, strict=True)))


def _but(own: Any, lanes: np.ndarray, its: Any) -> Any:
    if isinstance(own, tuple):
        return own
    result = own.copy()
    result[lanes] = its[lanes]
    return result


class VectorEnvironments:
    """The lanes of a vector environment, with the same methods as `polyak.experiments.environments.lanes.Environments`.

    Environments that write their observations in place are safe in the modes ``DISABLED`` and ``NEXT_STEP``. In
    the mode ``SAME_STEP`` those of a ``SyncVectorEnv`` are wrapped so that they return copies. Those of any other
    vector environment cannot be reached from here (an ``AsyncVectorEnv`` runs them in other processes): there, a
    last observation that equals the one after the reset to the bit, at the first end of an episode in a lane, is
    taken for overwritten and raises ValueError. An environment whose episodes end where they begin raises it too.

    A ``SyncVectorEnv`` or ``AsyncVectorEnv`` in the mode ``DISABLED`` resets each episode with a seed of its own and
    can be restored from a snapshot. Any other draws its episodes on from the first seed, so `restore` starts new
    episodes in all lanes.

    Args:
        env: the vector environment; it is closed by `close`.
        seed: the run's seed.
        action_mask: whether ``info["action_mask"]`` says which actions are legal, at every reset and every step.

    Attributes:
        spec: what an agent has to know of the environments.
        num_envs: how many there are, ``N``.

    Raises:
        TypeError: where it is not a ``gymnasium.vector.VectorEnv``.
        ValueError: where its spaces are not supported or its autoreset mode is unknown.

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
        """Starts the next episode in every lane, the first of all at the first call.

        Raises:
            RuntimeError: after `close`; in the mode ``NEXT_STEP`` with ``AsyncVectorEnv(shared_memory=False)`` right
                after an episode's end, as Gymnasium would reset that lane a second time at the next step.
            ValueError: where an observation is not finite, or an action mask is missing.
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
        """Takes one action in every environment; what the lanes that are not ``valid`` were given is ignored.

        Args:
            actions: ``[N]`` integers, counted from 0.

        Raises:
            RuntimeError: before `reset` or after `close`.
            TypeError: where actions are no integers.
            ValueError: where an action does not exist, an observation or a reward is not finite (the message names
                the environment, its episode and step), an action mask is missing or leaves no legal action, or the last
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
        """Returns what it takes to come back to this point, as `Environments.snapshot` does.

        Raises:
            RuntimeError: before `reset` or after `close`.
        """
        return self._history.pack(self._require_reset())

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> tuple[TimeStep, np.ndarray]:
        """Comes back to the point of a snapshot where that is possible, else starts new episodes, with a warning.

        It is possible with a ``SyncVectorEnv`` or ``AsyncVectorEnv`` in the mode ``DISABLED``, and in the lanes whose
        environment is determined by its seed and actions.

        Args:
            snapshot: from `snapshot`, taken with environments like these.

        Returns:
            What the agent sees next, and ``[N]`` bool, True for the lanes that had to start a new episode.

        Raises:
            RuntimeError: as `reset`.
            ValueError: where it is not a snapshot of such environments.
        """
        self._require_open()
        saved = self._history.unpack(snapshot, self.spec.observation)
        if self._mode != _DISABLED or not self._seeds_lanes:
            self._history.episode = saved.episode
            warnings.warn(
                "all environments start a new episode: only a SyncVectorEnv or AsyncVectorEnv with "
                "autoreset_mode=AutoresetMode.DISABLED can come back to the middle of one.",
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
                "the same seed and actions, so they start a new episode: they are not deterministic.",
                stacklevel=2,
            )
        first = np.array([not actions for actions in self._history.actions])
        reward = np.where(restarted, np.float32(0), reward)
        self._timestep = TimeStep(shown.observation, reward, first, shown.action_mask)
        return self._timestep, restarted

    def close(self) -> None:
        """Closes the environments; a second call does nothing."""
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
        # A vector environment that is not a list of single ones takes one seed for all lanes.
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
        """What the lanes show; masks are read where ``lanes``, and there may be no legal action where terminated."""
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
        # Gymnasium marks in "_action_mask" which lanes gave one; others may give all of them without a mark.
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
        # In the mode SAME_STEP a new episode has begun where one terminated.
        over = ends[0] if self._mode != _SAME_STEP else None
        shown = self._read(observations, info, np.ones(self.num_envs, np.bool_), over)
        return shown, rewards.astype(np.float32), *ends, info

    def _reset_lanes(self, mask: np.ndarray, shown: _Shown) -> _Shown:
        """Starts the next episode where ``mask``; returns ``shown`` with what those lanes show at first."""
        return self._reset_env(mask, shown, [episode + 1 for episode in self._history.episode])

    def _reset_env(self, mask: np.ndarray, shown: _Shown, episodes: list[int]) -> _Shown:
        begin = self._history.begin
        seeds = [begin(lane, episodes[lane]) if mask[lane] else None for lane in range(self.num_envs)]
        # Gymnasium takes the mask out of the dictionary it is given, so each call needs a dictionary of its own.
        options = {"reset_mask": mask.copy()}
        observations, info = self._env.reset(seed=seeds if self._seeds_lanes else None, options=options)
        return shown.but(mask, self._read(observations, info, mask))

    def _with_final(self, shown: _Shown, last: np.ndarray, terminated: np.ndarray, info: dict[str, Any]) -> _Shown:
        """Returns ``shown`` with the last of the episode in place of the reset's where one ended."""
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
        """Takes the actions of all lanes again, so that they arrive together at the end of theirs.

        A vector environment steps all its lanes or none. A lane with fewer actions than the longest one is stepped
        with any legal action meanwhile, and reset when its turn comes.

        Returns:
            What the lanes show then, the rewards that came with it, and where an episode ended that should not have.
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
    # Gymnasium before 1.4 keeps the metadata in a dictionary of the environment's class, where the next vector
    # environment overwrites it; the attribute is this one's own.
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
