"""Gymnasium spaces as they are stored: observations encoded, actions checked."""

import warnings
from typing import Any, NamedTuple

import gymnasium as gym
import jax
import numpy as np

from ...replay.types import EnvironmentSpec


class Spaces(NamedTuple):
    """Spaces of an environment as they are stored.

    Attributes:
        spec: Spec for agents and replays.
        observation_start: Smallest element of a ``Discrete`` observation space; None for a ``Box``.
        action_start: Environment's number for the agent's action 0.
    """

    spec: EnvironmentSpec
    observation_start: int | None
    action_start: int


def read_spaces(observation_space: gym.Space[Any], action_space: gym.Space[Any], action_mask: bool = False) -> Spaces:
    """Read two Gymnasium spaces as they are stored.

    Args:
        observation_space: Observation space, a ``Box`` of any shape or a ``Discrete``.
        action_space: Action space, a ``Discrete``; its ``start`` may be any integer.
        action_mask: Whether ``info["action_mask"]`` is used.

    Raises:
        ValueError: if a space is of another kind; the message names a suitable wrapper if there is one.

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
    elif _is_flattenable(observation_space):
        raise ValueError(
            f"observation_space: got {observation_space}; expected Box or Discrete. "
            "Wrap the environment in gymnasium.wrappers.FlattenObservation."
        )
    else:
        entries = observation_space.items() if isinstance(observation_space, gym.spaces.Dict) else ()
        boxes = [name for name, space in entries if isinstance(space, gym.spaces.Box)]
        raise ValueError(
            f"observation_space: got {observation_space}, whose elements have no fixed shape; expected Box or "
            "Discrete. Turn them into arrays of one shape with gymnasium.wrappers.TransformObservation"
            + (f", for example into the entry {boxes[0]!r}." if boxes else ".")
        )
    spec = EnvironmentSpec(observation, int(action_space.n), action_mask)
    return Spaces(spec, start, int(action_space.start))


def _is_flattenable(space: gym.Space[Any]) -> bool:
    """Whether Gymnasium can flatten a space; spaces that packages define may not implement the property."""
    try:
        return bool(space.is_np_flattenable)
    except NotImplementedError:
        return False


def encode(spaces: Spaces, values: Any, leading: tuple[int, ...] = ()) -> np.ndarray:
    """Copy observations to a new array, as they are stored.

    Args:
        spaces: Spaces of the environment.
        values: Observations returned by the environment, of shape ``[*leading, ...]``.
        leading: Batch axes; empty for the observation of one environment.

    Raises:
        ValueError: if the shape differs, a number is outside a ``Discrete`` space, or a conversion would change values.

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
    with np.errstate(over="ignore"):  # an overflow becomes inf, and is reported as inf
        return np.asarray(found, np.float32)


def check_actions(actions: Any, num_envs: int, num_actions: int) -> list[int]:
    """Convert actions ``[N]`` to Python integers.

    Raises:
        TypeError: if they are not integers.
        ValueError: if there is not one action for each environment, or one is not below ``num_actions``.

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


def warn_of_mask(mask: Any) -> None:
    """Warn if the environment returns an action mask that is not used."""
    if mask is not None:
        warnings.warn(
            "the environment returns action masks, but they are not used, so illegal actions are taken too; use them "
            "with action_mask=True (--action-mask).",
            stacklevel=2,
        )
