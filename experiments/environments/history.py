"""Episode history of each lane, from which snapshots are made and replayed."""

import functools
import json
import operator
import warnings
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ...replay.types import TimeStep
from .spaces import Spaces, encode

_KEPT = "kept"  # entry of a snapshot for the state that environments keep between episodes, if there is any
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@functools.lru_cache(maxsize=4096)
def episode_seed(seed: int, lane: int, episode: int) -> int:
    """Seed for the reset of one episode of one lane, below 2**31.

    Example:
        >>> episode_seed(0, lane=0, episode=0) == episode_seed(0, lane=0, episode=1)
        False
    """
    words = np.random.SeedSequence(entropy=seed, spawn_key=(lane, episode)).generate_state(1, np.uint32)
    return int(words[0]) >> 1


class Saved(NamedTuple):
    """Content of a snapshot of ``N`` environments.

    Attributes:
        episode: Episode number of each lane.
        actions: Actions of each lane's current episode.
        observation: ``[N, ...]``, current observations.
        reward: ``[N]`` float32, rewards received with these observations.
        kept: State that each environment keeps between episodes, as JSON text; None for no state.
    """

    episode: list[int]
    actions: list["array[int]"]
    observation: np.ndarray
    reward: np.ndarray
    kept: list[str | None]


def warn_of_lost_state(saved: Saved) -> None:
    """Warn about environments with ``get_state`` whose state is missing from a snapshot."""
    lanes = [lane for lane, kept in enumerate(saved.kept) if kept is None]
    if lanes:
        warnings.warn(
            f"environments {lanes}: the state kept between episodes is lost, because get_state raised or did not "
            "return a JSON value when the checkpoint was made.",
            stacklevel=3,
        )


class History:
    """Current episode of each lane and the actions taken in it, which together reproduce the lane's state.

    Attributes:
        seed: Seed of the run.
        episode: Episode number of each lane; -1 before the first episode.
        actions: Actions of each lane's current episode, counted from 0 as the agent does.
        upcoming: Seed of each lane's next episode.
        kept: State that each lane's environment keeps between episodes, as JSON text; None for no state.
    """

    def __init__(self, seed: int, num_envs: int) -> None:
        if isinstance(seed, bool) or not 0 <= (number := operator.index(seed)) < 2**63:
            raise ValueError(f"seed: got {seed!r}; expected an integer, 0 <= seed < 2**63.")
        self.seed = number
        self.episode = [-1] * num_envs
        self.actions = [array("i") for _ in range(num_envs)]
        self.upcoming = [0] * num_envs
        self.kept: list[str | None] = [None] * num_envs

    def begin(self, lane: int, episode: int) -> int:
        """Record that ``lane`` starts ``episode`` and return the seed for its reset."""
        self.episode[lane] = episode
        self.actions[lane] = array("i")
        self.upcoming[lane] = episode_seed(self.seed, lane, episode + 1)
        return episode_seed(self.seed, lane, episode)

    def begin_next(self, lane: int) -> int:
        """Record that ``lane`` starts its next episode and return the seed for its reset."""
        return self.begin(lane, self.episode[lane] + 1)

    def called(self, lane: int, resetting: bool, chosen: Sequence[int] | None) -> str:
        """Describe the current call of ``lane``, for a message.

        Args:
            lane: Lane number.
            resetting: Whether the lane was being reset.
            chosen: Actions of the step; None if the call began episodes.
        """
        episode = self.episode[lane]
        if resetting:
            return f"environment {lane}, episode {episode if chosen is None else episode + 1}, step 0"
        if chosen is None:
            return f"environment {lane}, episode {episode}, while its actions were replayed"
        number = len(self.actions[lane]) + 1
        return f"environment {lane}, episode {episode}, step {number}, action {chosen[lane]}"

    def place(self, lane: int) -> str:
        """Describe the current position of ``lane``, for a message."""
        return f"environment {lane}, episode {self.episode[lane]}, step {len(self.actions[lane])}"

    def encode(self, lane: int, spaces: Spaces, observation: Any) -> np.ndarray:
        """Encode an observation as :func:`encode` does; a ValueError also names the position of ``lane``."""
        try:
            return encode(spaces, observation)
        except ValueError as error:
            raise ValueError(f"{self.place(lane)}: {error}") from None

    def check_observation(self, lane: int, observation: np.ndarray) -> None:
        """Raise ValueError if a stored observation contains NaN or an infinity."""
        if observation.dtype.kind == "f" and not np.isfinite(observation).all():
            raise ValueError(
                f"{self.place(lane)}: observation: got {observation}, which is not finite as float32. Repair the "
                "environment, or replace such values in gymnasium.wrappers.TransformObservation."
            )

    def read_reward(self, lane: int, reward: Any) -> float:
        """Convert a reward to a float that is finite as float32.

        Raises:
            TypeError: if the reward is not a single number.
            ValueError: if the reward is NaN, or infinite as float32.
        """
        number: float = reward
        if not isinstance(reward, float):
            found = np.asarray(reward)
            if found.size != 1 or found.dtype.kind not in "biuf":
                raise TypeError(f"{self.place(lane)}: reward: got {reward!r}; expected one number.")
            number = float(found.item())
        if not -_FLOAT32_MAX <= number <= _FLOAT32_MAX:
            raise ValueError(
                f"{self.place(lane)}: reward: got {number}, which is not finite as float32. Repair the environment, "
                "or replace such values in gymnasium.wrappers.TransformReward."
            )
        return number

    def read_mask(self, lane: int, mask: Any, num_actions: int, *, may_be_empty: bool = False) -> np.ndarray:
        """Convert ``info["action_mask"]`` to ``[A]`` bool.

        Args:
            lane: Lane number.
            mask: Mask returned by the environment; None for no mask.
            num_actions: Number of actions ``A``.
            may_be_empty: Whether the mask may contain no legal action, as after a termination.

        Raises:
            ValueError: if the value is not a mask of ``A`` actions, or no action is legal.
        """
        found = np.asarray(mask)
        if found.shape != (num_actions,) or found.dtype.kind not in "biu" or not ((found == 0) | (found == 1)).all():
            got = "none" if mask is None else f"{found.dtype}{list(found.shape)} {mask!r}"
            raise ValueError(
                f"{self.place(lane)}: info['action_mask']: got {got}; expected ({num_actions},) of bool or of 0 and 1, "
                "one for each action, from reset and from every step. Without action_mask all actions are legal."
            )
        legal = found.astype(np.bool_)
        if not may_be_empty and not legal.any():
            raise ValueError(
                f"{self.place(lane)}: info['action_mask']: got no legal action; expected at least one, unless the "
                "episode has terminated. An environment without a remaining action must return terminated=True."
            )
        return legal

    def pack(self, timestep: TimeStep) -> dict[str, np.ndarray]:
        """Return a snapshot: a dictionary of numeric arrays, which is written and read without pickle."""
        anything = any(kept is not None for kept in self.kept)
        text = np.frombuffer(json.dumps(self.kept).encode(), np.uint8)
        return {
            **({_KEPT: text} if anything else {}),
            "seed": np.array(self.seed, np.int64),
            "episode": np.array(self.episode, np.int64),
            "length": np.array([len(actions) for actions in self.actions], np.int64),
            "actions": np.concatenate([np.array(actions, np.int32) for actions in self.actions]),
            "observation": timestep.observation,
            "reward": timestep.reward,
        }

    def unpack(self, snapshot: Mapping[str, np.ndarray], observation: jax.ShapeDtypeStruct) -> Saved:
        """Unpack a snapshot and adopt its seed.

        Raises:
            ValueError: if it is not a snapshot of the same number of environments with the same observations.
        """
        wanted = {"seed", "episode", "length", "actions", "observation", "reward"}
        if {*snapshot} - {_KEPT} != wanted:
            raise ValueError(f"snapshot: got the entries {sorted(snapshot)}; expected {sorted(wanted)}.")
        shape = (len(self.episode), *observation.shape)
        found = snapshot["observation"]
        if found.shape != shape or found.dtype != observation.dtype:
            raise ValueError(
                f"snapshot: got observations {found.dtype}{list(found.shape)}; expected {observation.dtype}"
                f"{list(shape)}. Restore it with the same environments, and the same number of them."
            )
        self.seed = int(snapshot["seed"])
        parts = np.split(snapshot["actions"], np.cumsum(snapshot["length"])[:-1])
        actions = [array("i", part.tolist()) for part in parts]
        kept = json.loads(snapshot[_KEPT].tobytes()) if _KEPT in snapshot else [None] * len(self.episode)
        return Saved(snapshot["episode"].tolist(), actions, found, snapshot["reward"], kept)
