"""``N`` environments stepped together, with exact steps and without autoreset.

``obs_t`` of a step is always the true next observation, so at the end of an episode it is the last observation.
``timestep.observation`` is the observation that the agent acts on next, so after the end of an episode it is the first
observation of the next episode. Each observation is copied before the next call, so that environments may write their
observations in place.

A backend runs the environments, in this process (`local.Local`) or in worker processes (`workers.Workers`).
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ...replay.types import EnvironmentSpec, TimeStep
from .history import History, warn_of_lost_state
from .spaces import Spaces, check_actions, warn_of_mask
from .types import EnvironmentStep
from .worker import Begun, Job, Stepped

# Outcome of one step: the result of each lane (None if its process failed and was replaced), and the episodes that
# replaced processes began, by lane. A plain tuple, because one is made at every step.
Outcome = tuple[Sequence[Stepped | None], Mapping[int, Begun]]


class Backend(Protocol):
    """Backend that runs environments; it does not check its arguments.

    Attributes:
        spaces: Spaces of one environment as they are stored.
        num_envs: Number of environments, ``N``.
        keeps_state: Whether the environments have ``get_state`` and ``set_state``.
    """

    spaces: Spaces
    num_envs: int
    keeps_state: bool

    def begin(self, history: History, jobs: Mapping[int, Job], *, intact: bool) -> dict[int, Begun]:
        """Reset lanes and replay actions in them. The result also contains the lanes of a replaced process.

        Args:
            history: Episodes of all lanes, in which the requested episodes are recorded already. A replaced process
                begins other episodes.
            jobs: Seed, actions and kept state by lane.
            intact: Whether a snapshot can still be taken if an environment fails.
        """

    def step(self, history: History, actions: Sequence[int]) -> Outcome:
        """Take one action in each lane, in the environments' numbering, and reset lanes whose episode ended."""

    def close(self) -> None:
        """Close the environments."""


class Environments:
    """``N`` environments that are stepped together.

    Every episode is reset with its own seed, derived from the run's seed, the lane and the episode number. These three
    and the actions determine the episode, so a snapshot is restored by replaying the actions.

    Args:
        backend: Backend that runs the environments; ``close`` closes it.
        seed: Seed of the run.

    Attributes:
        spaces: Spaces of one environment as they are stored.
        spec: Spec for agents and replays.
        num_envs: Number of environments, ``N``.

    Raises:
        ValueError: if the seed is negative, or 2**63 or more. The backend is then closed.

    >>> import numpy
    >>> from polyak.experiments import make
    >>> environments = make("CartPole-v1", num_envs=2)
    >>> environments.reset().observation.shape
    (2, 4)
    >>> environments.step(numpy.array([0, 1])).r_t
    array([1., 1.], dtype=float32)
    >>> environments.close()
    """

    spaces: Spaces
    spec: EnvironmentSpec
    num_envs: int

    def __init__(self, backend: Backend, seed: int = 0) -> None:
        self._backend: Backend | None = backend
        self.spaces, self.num_envs = backend.spaces, backend.num_envs
        self.spec = self.spaces.spec
        try:
            self._history = History(seed, self.num_envs)
        except BaseException:
            backend.close()  # otherwise its processes would wait forever
            raise
        self._timestep: TimeStep | None = None
        self._floating = self.spec.observation.dtype.kind == "f"
        # Legal actions of each lane, updated in place; None if masks are not used.
        self._legal = np.ones((self.num_envs, self.spec.num_actions), np.bool_) if self.spec.action_mask else None
        # Arrays that most steps share.
        self._ones = _read_only(np.ones(self.num_envs, np.float32))
        self._all = _read_only(np.ones(self.num_envs, np.bool_))
        self._none = _read_only(np.zeros(self.num_envs, np.bool_))

    def reset(self) -> TimeStep:
        """Start the next episode in every lane; the first call starts the first episode.

        Raises:
            RuntimeError: after ``close``.
            EnvironmentFailure: if an environment raises, or its process fails.
            TypeError: if an environment has the old Gym API.
            ValueError: if a first observation does not have the shape of its space or is not finite, or if the action
                mask is missing.
        """
        self._require_open()
        begun = self._begin({lane: (self._history.episode[lane] + 1, (), None) for lane in range(self.num_envs)})
        rows = self._empty_rows()
        for lane in range(self.num_envs):
            self._read(lane, begun[lane].seen, rows)
        self._check_finite(rows)
        self._timestep = TimeStep(rows, np.zeros(self.num_envs, np.float32), self._all, self._action_mask())
        return self._timestep

    def step(self, actions: Any) -> EnvironmentStep:
        """Take one action in every environment and reset those whose episode ended.

        Args:
            actions: ``[N]`` integers, counted from 0.

        Raises:
            RuntimeError: before ``reset`` or after ``close``.
            EnvironmentFailure: if an environment raises (the message names the environment, its episode, step and
                action), or if its process fails and is not replaced.
            TypeError: if actions are not integers, a reward is not a number, or the environment has the old Gym API.
            ValueError: if an action does not exist, an observation does not have the shape of its space, an observation
                or a reward is not finite, or the action mask is missing or has no legal action; the message names the
                environment, its episode and step.
        """
        backend, history = self._require_reset()[0], self._history
        chosen = check_actions(actions, self.num_envs, self.spec.num_actions)
        start = self.spaces.action_start
        stepped, begun = backend.step(history, [action + start for action in chosen] if start else chosen)
        obs_t, r_t = self._empty_rows(), np.empty(self.num_envs, np.float32)
        ended: list[tuple[int, Stepped]] = []
        for lane, result in enumerate(stepped):
            if result is None:  # its process was replaced
                obs_t[lane] = r_t[lane] = 0
                continue
            seen, reward, terminated, truncated, _ = result
            history.actions[lane].append(chosen[lane])
            r_t[lane] = history.read_reward(lane, reward)
            self._read(lane, seen, obs_t, may_be_empty=terminated)
            if terminated or truncated:
                ended.append((lane, result))
        self._check_finite(obs_t)
        mask_t = self._action_mask()
        if not ended and not begun:
            self._timestep = TimeStep(obs_t, r_t, self._none, mask_t)
            return EnvironmentStep(r_t, self._ones, self._none, obs_t, self._timestep, self._all, mask_t)
        discount_t, last, restarted = self._ones.copy(), self._none.copy(), self._none.copy()
        observation, seen_reward = obs_t.copy(), r_t.copy()
        for lane, result in ended:
            discount_t[lane], last[lane], seen_reward[lane] = not result.terminated, True, 0
            history.begin(lane, history.episode[lane] + 1)
            assert result.first is not None
            self._read(lane, result.first.seen, observation)
            history.kept[lane] = result.first.kept
        for lane, first in begun.items():
            restarted[lane] = True
            self._read(lane, first.seen, observation)
        self._check_finite(observation)
        self._timestep = TimeStep(observation, seen_reward, last | restarted, self._action_mask())
        failed = restarted if begun else None
        return EnvironmentStep(r_t, discount_t, last, obs_t, self._timestep, ~restarted, mask_t, failed)

    def snapshot(self) -> dict[str, np.ndarray]:
        """Return a snapshot of the environments: a dictionary of numeric arrays, stored without pickle.

        It contains the seed, and for each lane the episode number, the actions of the episode, the current observation
        and reward, and the state that the environment keeps between episodes.

        Raises:
            RuntimeError: before ``reset`` or after ``close``.
        """
        return self._history.pack(self._require_reset()[1])

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> tuple[TimeStep, np.ndarray]:
        """Restore a snapshot by replaying the actions of each lane's episode.

        The observation and reward after the replay must equal the saved ones bit for bit. Otherwise the environment is
        not determined by its seed and actions: the lane starts a new episode, and a warning names it.

        Args:
            snapshot: Snapshot of the same environments, taken in this process or another.

        Returns:
            Time step that the agent acts on next, and ``[N]`` bool, True for lanes that had to start a new episode.

        Raises:
            RuntimeError: after ``close``.
            EnvironmentFailure: as in ``step``.
            ValueError: if it is not a snapshot of the same environments.
        """
        backend, history = self._require_open(), self._history
        saved = history.unpack(snapshot, self.spec.observation)
        if backend.keeps_state:
            warn_of_lost_state(saved)
        starts = enumerate(zip(saved.episode, saved.actions, saved.kept, strict=True))
        rows, rewards = self._empty_rows(), np.zeros(self.num_envs, np.float32)
        restarted = np.zeros(self.num_envs, np.bool_)
        strayed: dict[int, tuple[int, Sequence[int], str | None]] = {}
        for lane, begun in self._begin(dict(starts)).items():
            self._read(lane, begun.seen, rows, may_be_empty=begun.ended)
            rewards[lane] = history.read_reward(lane, begun.reward)
            restarted[lane] = history.episode[lane] != saved.episode[lane]  # its process was replaced meanwhile
            equal = rows[lane].tobytes() == saved.observation[lane].tobytes() and rewards[lane] == saved.reward[lane]
            if not restarted[lane] and (begun.ended or not equal):
                strayed[lane] = history.episode[lane] + 1, (), None
        if strayed:
            warnings.warn(
                f"environments {list(strayed)} did not come back to the saved observation with the same seed and "
                "actions, because they are not deterministic; they start a new episode.",
                stacklevel=2,
            )
            for lane, begun in self._begin(strayed).items():
                self._read(lane, begun.seen, rows)
                rewards[lane], restarted[lane] = 0, True
        self._check_finite(rows)
        first = np.array([not actions for actions in history.actions])
        self._timestep = TimeStep(rows, rewards, first, self._action_mask())
        return self._timestep, restarted

    def close(self) -> None:
        """Close the environments; a second call does nothing."""
        if self._backend is not None:
            self._backend.close()
        self._backend, self._timestep = None, None

    def _require_open(self) -> Backend:
        if self._backend is None:
            raise RuntimeError("environments: already closed; make new ones.")
        return self._backend

    def _require_reset(self) -> tuple[Backend, TimeStep]:
        backend = self._require_open()
        if self._timestep is None:
            raise RuntimeError("environments: not started; call reset or restore first.")
        return backend, self._timestep

    def _begin(self, starts: Mapping[int, tuple[int, Sequence[int], str | None]]) -> dict[int, Begun]:
        """Begin an episode of each lane with the kept state given for it, and replay its actions."""
        history, shift = self._history, self.spaces.action_start
        jobs = {
            lane: Job(history.begin(lane, episode), [action + shift for action in actions], kept)
            for lane, (episode, actions, kept) in starts.items()
        }
        begun = self._require_open().begin(history, jobs, intact=self._timestep is not None)
        for lane, result in begun.items():
            episode, actions, _ = starts.get(lane, (-1, (), None))
            if history.episode[lane] == episode:  # its process was not replaced
                history.actions[lane].extend(actions)
            history.kept[lane] = result.kept
        return begun

    def _action_mask(self) -> Any:
        return () if self._legal is None else self._legal.copy()

    def _empty_rows(self) -> np.ndarray:
        return np.empty((self.num_envs, *self.spec.observation.shape), self.spec.observation.dtype)

    def _read(self, lane: int, seen: tuple[Any, Any], rows: np.ndarray, *, may_be_empty: bool = False) -> None:
        """Write an observation to ``rows`` without a check for NaN, and store the lane's legal actions."""
        observation, mask = seen
        plain = type(observation) is np.ndarray and observation.dtype is rows.dtype
        if plain and self.spaces.observation_start is None and observation.shape == rows.shape[1:]:
            rows[lane] = observation
        else:
            rows[lane] = self._history.encode(lane, self.spaces, observation)
        if self._legal is not None:
            actions = self.spec.num_actions
            self._legal[lane] = self._history.read_mask(lane, mask, actions, may_be_empty=may_be_empty)
        elif self._timestep is None and lane == 0:
            warn_of_mask(mask)

    def _check_finite(self, rows: np.ndarray) -> None:
        if self._floating and b"\x00" in np.isfinite(rows).tobytes():
            for lane, row in enumerate(rows):
                self._history.check_observation(lane, row)


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array
