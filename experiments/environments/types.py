"""The words that the environment adapters share: what a step is, how a space is stored, where a lane is.

A lane is one of the ``N`` environments that are stepped together. `environments.local` runs lanes
in this process, `environments.vector` those of a Gymnasium vector environment.
"""

import operator
import warnings
from array import array
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import jax
import numpy as np

from ...replay.types import EnvironmentSpec, TimeStep

_FLOAT32_MAX = float(np.finfo(np.float32).max)


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


class Spaces(NamedTuple):
    """How the spaces of an environment are read.

    Attributes:
        spec: what the agent is told of them.
        observation_start: the smallest element of a ``Discrete`` observation space; None for a ``Box``.
        action_start: the environment's name for the agent's action 0.
    """

    spec: EnvironmentSpec
    observation_start: int | None
    action_start: int


def read_spaces(observation_space: gym.Space[Any], action_space: gym.Space[Any], action_mask: bool = False) -> Spaces:
    """Returns how two Gymnasium spaces are stored.

    Args:
        observation_space: a ``Box`` of any shape or a ``Discrete``.
        action_space: a ``Discrete``; its ``start`` may be any integer.
        action_mask: whether ``info["action_mask"]`` is used.

    Raises:
        ValueError: for every other space, with the wrapper that helps where there is one.

    Example:
        >>> import gymnasium
        >>> read_spaces(gymnasium.spaces.Discrete(3), gymnasium.spaces.Discrete(2, start=1)).spec
        EnvironmentSpec(observation=ShapeDtypeStruct(shape=(3,), dtype=float32), num_actions=2, action_mask=False)
    """
    if not isinstance(action_space, gym.spaces.Discrete):
        raise ValueError(
            f"action_space: got {action_space}; expected Discrete, as the agents here choose among numbered actions. "
            "Number the choices with gymnasium.wrappers.TransformAction: the product of a MultiDiscrete or "
            "MultiBinary space, a grid over a Box."
        )
    start: int | None = None
    if isinstance(observation_space, gym.spaces.Box):
        stored = np.uint8 if observation_space.dtype == np.uint8 else np.float32
        observation = jax.ShapeDtypeStruct(observation_space.shape, stored)
    elif isinstance(observation_space, gym.spaces.Discrete):
        start = int(observation_space.start)
        observation = jax.ShapeDtypeStruct((int(observation_space.n),), np.float32)
    elif observation_space.is_np_flattenable:
        raise ValueError(
            f"observation_space: got {observation_space}; expected Box or Discrete. "
            "Wrap the environment in gymnasium.wrappers.FlattenObservation."
        )
    else:
        raise ValueError(
            f"observation_space: got {observation_space}, whose elements have no fixed shape; expected Box or "
            "Discrete. Turn them into arrays of one shape with gymnasium.wrappers.TransformObservation."
        )
    spec = EnvironmentSpec(observation, int(action_space.n), action_mask)
    return Spaces(spec, start, int(action_space.start))


def encode(spaces: Spaces, values: Any, leading: tuple[int, ...] = ()) -> np.ndarray:
    """Copies observations into a fresh array as they are stored.

    Args:
        spaces: how they are stored.
        values: what the environment returned, of the shape ``[*leading, ...]``.
        leading: the batch axes; none for the observation of one environment.

    Raises:
        ValueError: at another shape, at numbers outside a ``Discrete`` space, and where a conversion would change
            values.

    Example:
        >>> import gymnasium
        >>> spaces = read_spaces(gymnasium.spaces.Discrete(3, start=5), gymnasium.spaces.Discrete(2))
        >>> encode(spaces, 6)
        array([0., 1., 0.], dtype=float32)
    """
    shape, dtype = spaces.spec.observation.shape, spaces.spec.observation.dtype
    try:
        found = np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"observation: expected an array of shape {shape}; {error}") from None
    if spaces.observation_start is not None:
        if found.shape != leading or found.dtype.kind not in "iu":
            raise ValueError(f"observation: got {values!r}; expected an integer, as the space is Discrete.")
        one_hot = found.astype(np.int64)[..., None] - spaces.observation_start == np.arange(shape[0])
        if not one_hot.any(axis=-1).all():
            raise ValueError(
                f"observation: got {values!r}; expected {spaces.observation_start} <= observation < "
                f"{spaces.observation_start + shape[0]}, as the space says."
            )
        return np.asarray(one_hot, np.float32)
    if found.shape != leading + shape:
        raise ValueError(f"observation: got shape {found.shape}; expected {leading + shape}, as the space says.")
    if found.dtype == dtype:
        return np.array(found)
    if dtype == np.uint8 or found.dtype.kind not in "biuf":
        raise ValueError(f"observation: got dtype {found.dtype}; expected {dtype}, as the space says.")
    with np.errstate(over="ignore"):  # an overflow becomes inf, which is reported as such
        return np.asarray(found, np.float32)


def check_actions(actions: Any, num_envs: int, num_actions: int) -> list[int]:
    """Returns actions ``[N]`` as Python integers.

    Raises:
        TypeError: where they are no integers.
        ValueError: where there is not one for each environment, or one is not below ``num_actions``.

    Example:
        >>> import numpy
        >>> check_actions(numpy.array([0, 1]), num_envs=2, num_actions=2)
        [0, 1]
    """
    found = np.asarray(actions)
    if found.dtype.kind not in "iu":
        raise TypeError(f"actions: got dtype {found.dtype}; expected integers, one for each environment.")
    if found.shape != (num_envs,):
        raise ValueError(f"actions: got shape {found.shape}; expected ({num_envs},), one for each environment.")
    chosen: list[int] = found.tolist()
    for lane, action in enumerate(chosen):
        if not 0 <= action < num_actions:
            raise ValueError(f"actions: got {action} for environment {lane}; expected 0 <= action < {num_actions}.")
    return chosen


def any_of(flags: np.ndarray) -> bool:
    """Whether any of some booleans is True, several times faster than ``flags.any()`` where they are few.

    Example:
        >>> any_of(np.array([False, True])), any_of(np.array([False]))
        (True, False)
    """
    return b"\x01" in flags.tobytes()


def episode_seed(seed: int, lane: int, episode: int) -> int:
    """Returns the seed with which one episode of one lane is reset, below 2**31.

    Example:
        >>> episode_seed(0, lane=0, episode=0) == episode_seed(0, lane=0, episode=1)
        False
    """
    words = np.random.SeedSequence(entropy=seed, spawn_key=(lane, episode)).generate_state(1, np.uint32)
    return int(words[0]) >> 1


class Saved(NamedTuple):
    """A snapshot, taken apart.

    Attributes:
        episode: which episode each of the ``N`` lanes is in.
        actions: the actions taken in it, for each lane.
        observation: ``[N, ...]``, the current observation.
        reward: ``[N]`` float32, the reward that came with it.
    """

    episode: list[int]
    actions: list["array[int]"]
    observation: np.ndarray
    reward: np.ndarray


def warn_of_mask(mask: Any) -> None:
    """Says that the environment gives action masks, where it does and they are not used."""
    if mask is not None:
        warnings.warn(
            "the environment gives action masks, which are not used, so that illegal actions are taken too; use them "
            "with action_mask=True (--action-mask).",
            stacklevel=2,
        )


class History:
    """Which episode each lane is in and what was done in it: all that it takes to come back to the same state.

    Attributes:
        seed: the run's seed.
        episode: the number of each lane's episode; -1 before the first.
        actions: for each lane the agent's actions of its episode, from 0.
    """

    def __init__(self, seed: int, num_envs: int) -> None:
        if isinstance(seed, bool) or not 0 <= (number := operator.index(seed)) < 2**63:
            raise ValueError(f"seed: got {seed!r}; expected an integer, 0 <= seed < 2**63.")
        self.seed = number
        self.episode = [-1] * num_envs
        self.actions = [array("i") for _ in range(num_envs)]

    def begin(self, lane: int, episode: int) -> int:
        """Notes that ``lane`` starts ``episode`` and returns the seed to reset it with."""
        self.episode[lane] = episode
        self.actions[lane] = array("i")
        return episode_seed(self.seed, lane, episode)

    def begin_next(self, lane: int) -> int:
        """Notes that ``lane`` starts its next episode and returns the seed to reset it with."""
        return self.begin(lane, self.episode[lane] + 1)

    def place(self, lane: int) -> str:
        """Returns where ``lane`` is, in words for a message."""
        return f"environment {lane}, episode {self.episode[lane]}, step {len(self.actions[lane])}"

    def encode(self, lane: int, spaces: Spaces, observation: Any) -> np.ndarray:
        """Returns a fresh array as :func:`encode` does; a ValueError says where ``lane`` is."""
        try:
            return encode(spaces, observation)
        except ValueError as error:
            raise ValueError(f"{self.place(lane)}: {error}") from None

    def check_observation(self, lane: int, observation: np.ndarray) -> None:
        """Raises ValueError where a stored observation holds NaN or an infinity."""
        if observation.dtype.kind == "f" and not np.isfinite(observation).all():
            raise ValueError(
                f"{self.place(lane)}: observation: got {observation}, which is not finite as float32. Repair the "
                "environment, or replace such values in gymnasium.wrappers.TransformObservation."
            )

    def read_reward(self, lane: int, reward: Any) -> float:
        """Returns a reward as a number that is finite as it is stored.

        Raises:
            TypeError: where it is not one number.
            ValueError: where it is NaN or infinite.
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
        """Returns ``info["action_mask"]`` as ``[A]`` bool.

        Args:
            lane: whose it is.
            mask: what the environment gave; None for nothing.
            num_actions: ``A``.
            may_be_empty: whether there may be no legal action, as after a termination.

        Raises:
            ValueError: where it is no mask of ``A`` actions, or no action is legal.
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
                "episode has terminated. An environment in which nothing is left to do must say terminated."
            )
        return legal

    def pack(self, timestep: TimeStep) -> dict[str, np.ndarray]:
        """Returns a snapshot: arrays of numbers alone, so that it can be written and read without pickle."""
        return {
            "seed": np.array(self.seed, np.int64),
            "episode": np.array(self.episode, np.int64),
            "length": np.array([len(actions) for actions in self.actions], np.int64),
            "actions": np.concatenate([np.array(actions, np.int32) for actions in self.actions]),
            "observation": timestep.observation,
            "reward": timestep.reward,
        }

    def unpack(self, snapshot: Mapping[str, np.ndarray], observation: jax.ShapeDtypeStruct) -> Saved:
        """Takes a snapshot apart and goes on with its seed.

        Raises:
            ValueError: where it is not a snapshot of as many environments with such observations.
        """
        wanted = {"seed", "episode", "length", "actions", "observation", "reward"}
        if set(snapshot) != wanted:
            raise ValueError(f"snapshot: got the entries {sorted(snapshot)}; expected {sorted(wanted)}.")
        shape = (len(self.episode), *observation.shape)
        found = snapshot["observation"]
        if found.shape != shape or found.dtype != observation.dtype:
            raise ValueError(
                f"snapshot: got observations {found.dtype}{list(found.shape)}; expected {observation.dtype}"
                f"{list(shape)}. Restore it with the environments, and as many of them, that it was taken from."
            )
        self.seed = int(snapshot["seed"])
        parts = np.split(snapshot["actions"], np.cumsum(snapshot["length"])[:-1])
        actions = [array("i", part.tolist()) for part in parts]
        return Saved(snapshot["episode"].tolist(), actions, found, snapshot["reward"])
