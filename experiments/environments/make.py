"""Environments by id or by instance: made with Gymnasium, adapted to the loop."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym

from .local import Environments
from .types import EnvironmentFailure, in_short
from .vector import VectorEnvironments

# Namespaces whose environments exist only once a package has been imported: the module, and what pip calls it.
_PROVIDERS = {"ALE": ("ale_py", "ale-py")}


def adapt(
    env: gym.Env[Any, Any] | gym.vector.VectorEnv[Any, Any, Any] | Sequence[gym.Env[Any, Any]],
    seed: int = 0,
    *,
    action_mask: bool = False,
) -> Environments | VectorEnvironments:
    """Returns an environment, a list of them or a vector environment as the loop sees it.

    Args:
        env: what the user has; it belongs to the result from here on, which closes it.
        seed: the run's seed; lanes and episodes get seeds of their own from it.
        action_mask: whether ``info["action_mask"]`` says which actions are legal, at every reset and every step.

    Raises:
        TypeError: where it is none of the three.
        ValueError: as `Environments` and `VectorEnvironments` say.

    Example:
        >>> import gymnasium
        >>> adapt(gymnasium.make("CartPole-v1")).spec
        EnvironmentSpec(observation=ShapeDtypeStruct(shape=(4,), dtype=float32), num_actions=2, action_mask=False)
    """
    if isinstance(env, gym.vector.VectorEnv):
        return VectorEnvironments(env, seed, action_mask=action_mask)
    return Environments(env if isinstance(env, Sequence) else [env], seed, action_mask=action_mask)


def make(env_id: str, num_envs: int = 1, seed: int = 0, *, action_mask: bool = False, **kwargs: Any) -> Environments:
    """Returns ``num_envs`` copies of a registered environment.

    Args:
        env_id: what ``gymnasium.make`` takes, also ``"module:Name-v0"`` for a module that registers it.
        num_envs: how many, at least 1.
        seed: the run's seed; lanes and episodes get seeds of their own from it.
        action_mask: whether ``info["action_mask"]`` says which actions are legal, at every reset and every step.
        **kwargs: for ``gymnasium.make``.

    Raises:
        ValueError: where there is no such environment (the closest ids are named), or a package it needs is not
            installed (the command that installs it is named).
        EnvironmentFailure: where it raises while it is made.

    Example:
        >>> environments = make("CartPole-v1", num_envs=3)
        >>> environments.reset().first
        array([ True,  True,  True])
        >>> environments.close()
    """
    if isinstance(num_envs, bool) or not isinstance(num_envs, int) or num_envs < 1:
        raise ValueError(f"num_envs: got {num_envs!r}; expected an integer >= 1.")
    return Environments([make_one(env_id, kwargs) for _ in range(num_envs)], seed, action_mask=action_mask)


def registered_name(env_id: str) -> str:
    """What ``gymnasium.make`` takes for ``env_id``: with the module that registers it, where that is known.

    >>> registered_name("ALE/Pong-v5"), registered_name("CartPole-v1")
    ('ale_py:ALE/Pong-v5', 'CartPole-v1')
    """
    module, _ = _PROVIDERS.get(env_id.split("/")[0], ("", ""))
    return f"{module}:{env_id}" if module else env_id


def make_one(env_id: str, kwargs: Mapping[str, Any] | None = None) -> gym.Env[Any, Any]:
    """Returns one registered environment; raises what `make` does."""
    kwargs = kwargs or {}
    _, package = _PROVIDERS.get(env_id.split("/")[0], ("", ""))
    try:
        return gym.make(registered_name(env_id), disable_env_checker=True, **kwargs)
    except gym.error.DependencyNotInstalled as error:
        raise ValueError(f"env: {env_id!r} needs a package that is not installed: {error}") from error
    except ModuleNotFoundError as error:
        missing = error.name or package or env_id.split(":")[0]  # Gymnasium drops the name of the module it imports
        raise ValueError(
            f"env: {env_id!r} needs a package that is not installed: {error} Install it with `pip install {missing}`."
        ) from error
    except gym.error.Error as error:
        if env_id.split(":")[-1] in gym.registry:  # it exists, and failed for a reason of its own
            raise _not_made(env_id, kwargs, error) from error
        close = difflib.get_close_matches(env_id.split(":")[-1], list(gym.registry), n=3)
        hint = f" The closest ids: {', '.join(close)}." if close else ""
        raise ValueError(
            f"env: got {env_id!r}, which is not registered: {error}{hint} An environment of another package needs that "
            'package imported, as in "package:Name-v0"; Atari games are "ALE/Name-v5" and come with '
            "`pip install ale-py`."
        ) from error
    except Exception as error:
        raise _not_made(env_id, kwargs, error) from error


def _not_made(env_id: str, kwargs: Mapping[str, Any], error: Exception) -> EnvironmentFailure:
    given = f" with {dict(kwargs)}" if kwargs else ""
    return EnvironmentFailure(f"env: {env_id!r} could not be made{given}: {in_short(error)}")
