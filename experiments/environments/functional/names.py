"""Functional environments by name: polyak's own, those of gymnax, and those of a user."""

import contextlib
import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym

from ....agents.fields import did_you_mean
from ..make import make_object
from ..objects import names_object, resolve
from ..worker import Recipe
from .catch import catch
from .classic_control import acrobot, cartpole, mountain_car
from .types import FunctionalEnvironment

# Functional counterparts of Gymnasium's ids, and environments of polyak. Their arguments are the keyword arguments.
NAMES: dict[str, Callable[..., FunctionalEnvironment]] = {
    "CartPole-v1": cartpole,
    "Acrobot-v1": acrobot,
    "MountainCar-v0": mountain_car,
    "polyak/Catch-v0": catch,
}


def functional_environment(
    env: str, env_kwargs: Mapping[str, Any] = {}, given: Mapping[str, Any] = {}
) -> FunctionalEnvironment | None:
    """Make the functional environment of a name; return None if the name has none.

    Args:
        env: Name in ``NAMES``; ``gymnax/NAME`` for a name that gymnax registers; ``module:maker`` for a function that
            returns a ``FunctionalEnvironment``, or for an instance of it; or the text of an object in ``given``.
        env_kwargs: Keyword arguments of the environment. They are arguments of the function in ``NAMES`` or of the
            maker; for gymnax see ``from_gymnax``.
        given: Objects passed from Python, by their text.

    Raises:
        ValueError: if a keyword argument does not exist or its value is not allowed, ``polyak/`` or ``gymnax/`` has no
            environment of the name, gymnax is not installed, an object cannot be imported, or it is missing from
            ``given``.
        EnvironmentFailure: if the maker raises.

    >>> functional_environment("Acrobot-v1", {"max_episode_steps": 200}).name
    'Acrobot-v1'
    >>> functional_environment("FrozenLake-v1") is None
    True
    """
    if env in NAMES:
        _check_kwargs(NAMES[env], env_kwargs, env)
        return NAMES[env](**env_kwargs)
    namespace, _, name = env.partition("/")
    if namespace == "gymnax" and name:
        from .adapters import from_gymnax

        return from_gymnax(name, **env_kwargs)
    if namespace == "polyak" and name:
        known = ", ".join(known for known in NAMES if known.startswith("polyak/"))
        raise ValueError(f"env: got {env!r}; expected {known}.{did_you_mean(env, NAMES)}")
    return _of_object(env, resolve(env, given, "env"), env_kwargs) if names_object(env) else None


def _of_object(env: str, target: Any, env_kwargs: Mapping[str, Any]) -> FunctionalEnvironment | None:
    if isinstance(target, FunctionalEnvironment):
        if env_kwargs:
            raise ValueError(
                f"env_kwargs: got {dict(env_kwargs)}, but {env} is an environment and takes none. Give a function that "
                "makes it from them."
            )
        return target
    if not callable(target) or _makes_gymnasium(target):
        return None
    if _returns(target) == FunctionalEnvironment.__name__:
        _check_kwargs(target, env_kwargs, env)
    made = make_object(Recipe(target, env_kwargs))
    if isinstance(made, FunctionalEnvironment):
        return made
    with contextlib.suppress(AttributeError):  # an environment of Gymnasium, which is made again when it is needed
        made.close()
    return None


def _makes_gymnasium(target: Any) -> bool:
    """Whether calling the target makes an environment of Gymnasium, as far as can be seen without the call."""
    if isinstance(target, functools.partial):  # an instance passed from Python is copied by such a partial
        return target.func is copy.deepcopy and isinstance(target.args[0], gym.Env)
    return isinstance(target, type) and issubclass(target, gym.Env)


def _returns(target: Callable[..., Any]) -> str:
    """Last name of the annotation of the returned value; empty without one."""
    annotation = getattr(target, "__annotations__", {}).get("return", "")
    return getattr(annotation, "__name__", str(annotation)).rpartition(".")[2]


def _check_kwargs(maker: Callable[..., Any], env_kwargs: Mapping[str, Any], env: str) -> None:
    signature = inspect.signature(maker)
    try:
        signature.bind(**env_kwargs)
    except TypeError as error:
        takes = ", ".join(signature.parameters) or "no keyword arguments"
        raise ValueError(f"env_kwargs: got {dict(env_kwargs)} ({error}); {env} takes {takes}.") from None
