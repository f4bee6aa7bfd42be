"""Construction of environments from an id, a class or an instance, and their adaptation to the loop."""

import contextlib
import copy
import difflib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from .functional.lanes import FunctionalEnvironments
from .functional.types import FunctionalEnvironment
from .lanes import Environments
from .local import Local
from .objects import imported_module, names_object, read_kwargs, resolve, text_of
from .types import EnvironmentFailure, in_short
from .vector import VectorEnvironments
from .worker import Recipe
from .workers import OnFailure, Workers, check_processes

Source = Recipe | FunctionalEnvironment
# Namespaces whose environments exist only after a package has been imported: its module and its name for pip.
_PROVIDERS = {"ALE": ("ale_py", "ale-py")}


def adapt(
    env: gym.Env[Any, Any] | gym.vector.VectorEnv[Any, Any, Any] | Sequence[gym.Env[Any, Any]],
    seed: int = 0,
    *,
    action_mask: bool = False,
) -> Environments | VectorEnvironments:
    """Adapt an environment, a list of environments or a vector environment to the loop.

    Args:
        env: Environment, list or vector environment. The result takes ownership and closes it.
        seed: Seed of the run, from which the seeds of lanes and episodes are derived.
        action_mask: Whether ``info["action_mask"]`` lists the legal actions, at every reset and every step.

    Raises:
        TypeError: if ``env`` is none of the three.
        ValueError: as `Environments` and `VectorEnvironments`.

    Example:
        >>> import gymnasium
        >>> adapt(gymnasium.make("CartPole-v1")).spec
        EnvironmentSpec(observation=ShapeDtypeStruct(shape=(4,), dtype=float32), num_actions=2, action_mask=False)
    """
    if isinstance(env, gym.vector.VectorEnv):
        return VectorEnvironments(env, seed, action_mask=action_mask)
    return Environments(Local(env if isinstance(env, Sequence) else [env], action_mask=action_mask), seed)


def make(
    env: str | Source,
    num_envs: int = 1,
    seed: int = 0,
    *,
    action_mask: bool = False,
    workers: int = 0,
    timeout: float = 60.0,
    on_failure: OnFailure = "stop",
) -> Environments | FunctionalEnvironments:
    """Make ``num_envs`` copies of an environment.

    Args:
        env: Text or recipe of the environment, see ``recipe``; or a functional environment, without workers.
        num_envs: Number of environments, at least 1.
        seed: Seed of the run, from which the seeds of lanes and episodes are derived.
        action_mask: Whether ``info["action_mask"]`` lists the legal actions, at every reset and every step.
        workers: Number of worker processes that run the environments, at most ``num_envs``; 0 for this process. The
            processes import the module of ``"module:Name-v0"``. If a script starts them, they know the environments
            that it registers outside of ``if __name__ == "__main__":``.
        timeout: Number of seconds that one step of a process may take.
        on_failure: Consequence of a process that raises, ends or exceeds the timeout: ``stop`` raises
            ``EnvironmentFailure``, ``restart`` starts a new process, whose lanes begin new episodes.

    Raises:
        ValueError: if there is no such environment (the message names the closest ids), a required package is not
            installed (the message has the command that installs it), a number is out of range, or processes cannot be
            started.
        EnvironmentFailure: if the environment raises during its construction.

    >>> environments = make("CartPole-v1", num_envs=3)
    >>> environments.reset().first
    array([ True,  True,  True])
    >>> environments.close()
    """
    if isinstance(num_envs, bool) or not isinstance(num_envs, int) or num_envs < 1:
        raise ValueError(f"num_envs: got {num_envs!r}; expected an integer >= 1.")
    if isinstance(env, FunctionalEnvironment):
        return FunctionalEnvironments(env, num_envs, seed)
    if workers:
        check_processes(workers, num_envs)
    found = recipe(env) if isinstance(env, str) else env
    if not workers:
        return Environments(Local([make_one(found) for _ in range(num_envs)], action_mask=action_mask), seed)
    with contextlib.closing(make_one(found)) as one:  # an environment that cannot be made fails here
        options: Any = {"workers": workers, "timeout": timeout, "on_failure": on_failure, "action_mask": action_mask}
        return Environments(Workers(found, one, num_envs, **options), seed)


def recipe(env: str, env_kwargs: str = "{}", wrappers: Sequence[str] = (), given: Mapping[str, Any] = {}) -> Recipe:
    """Recipe of an environment from the texts of a config.

    Args:
        env: Id that ``gymnasium.make`` takes, also ``module:Name-v0`` for a module that registers it; ``module:MyEnv``
            for a class or function of a module; or the text of an object in ``given``.
        env_kwargs: Keyword arguments as a JSON object.
        wrappers: Texts of wrappers, functions from an environment to an environment, the innermost first.
        given: Objects passed from Python, by their text.

    Raises:
        ValueError: if an object cannot be imported or is missing from ``given``, or if the keyword arguments are not a
            JSON object.
        TypeError: if an object is not callable.

    >>> recipe("gymnasium.envs.classic_control:CartPoleEnv", '{"render_mode": null}').kwargs
    {'render_mode': None}
    """
    module, colon, _ = env.partition(":")
    target: Any
    if names_object(env):
        target = _callable(resolve(env, given, "env"), env, "env", "a class or a function that returns a gymnasium.Env")
    else:
        if colon:
            imported_module(module, env, "env")
        target = registered_name(env)
    returns = "a function of an environment that returns one"
    found = tuple(_callable(resolve(text, given, "wrappers"), text, "wrappers", returns) for text in wrappers)
    return Recipe(target, read_kwargs(env_kwargs), found)


def given_environment(env: Any) -> tuple[str, Mapping[str, Any]]:
    """Text of an environment passed from Python, and the objects that must be passed again with this text.

    Args:
        env: Text, class or function; an instance, which is copied for each lane; or a functional environment.

    Raises:
        TypeError: if ``env`` is none of these, or an instance that cannot be copied.

    >>> given_environment("CartPole-v1")
    ('CartPole-v1', {})
    """
    if isinstance(env, str):
        return env, {}
    if isinstance(env, gym.vector.VectorEnv):
        raise TypeError(
            f"env: got {env}, a vector environment; expected one environment, whose copies are stepped together. Give "
            "a class or a function that makes one, and num_envs."
        )
    text, target = text_of(env), env
    if isinstance(env, gym.Env):
        text = f"<{type(env.unwrapped).__name__}>"
        try:
            target = functools.partial(copy.deepcopy, copy.deepcopy(env))
        except Exception as error:
            raise TypeError(
                f"env: got {env}, which cannot be copied ({in_short(error)}), but a run needs separate environments "
                "for training and for evaluation. Give a class or a function that makes one."
            ) from error
    elif isinstance(env, FunctionalEnvironment):
        text = f"<{env.name}>"
    elif not callable(env):
        raise TypeError(
            f"env: got {env!r} ({type(env).__name__}); expected the id of a registered environment, a gymnasium.Env, "
            "or a class or a function that makes one."
        )
    return text, {text: target} if text.startswith("<") else {}


def registered_name(env_id: str) -> str:
    """Text of ``env_id`` for ``gymnasium.make``: with the module that registers it, if the module is known.

    >>> registered_name("ALE/Pong-v5"), registered_name("CartPole-v1")
    ('ale_py:ALE/Pong-v5', 'CartPole-v1')
    """
    module, _ = _PROVIDERS.get(env_id.split("/")[0], ("", ""))
    return f"{module}:{env_id}" if module else env_id


def make_one(found: Recipe) -> gym.Env[Any, Any]:
    """Make one environment; raise the errors of `make`."""
    env = make_object(found)
    if not isinstance(env, gym.Env):
        name = found.target if isinstance(found.target, str) else text_of(found.target)
        raise TypeError(f"env: {name!r} made {env!r} ({type(env).__name__}); expected a gymnasium.Env.")
    return env


def make_object(found: Recipe) -> Any:
    """Make what a recipe makes, which may be another object than an environment; raise the errors of `make`."""
    name = found.target if isinstance(found.target, str) else text_of(found.target)
    module, _, env_id = name.rpartition(":")
    package = dict(_PROVIDERS.values()).get(module)
    name = env_id if package else name
    try:
        return found.make()
    except gym.error.DependencyNotInstalled as error:
        raise ValueError(f"env: {env_id!r} needs a package that is not installed: {error}") from error
    except ModuleNotFoundError as error:
        # Gymnasium's error does not name the module that it tried to import; polyak knows it from the namespace.
        missing = package or error.name
        way_out = f"Install it with `pip install {missing}`." if package else ""
        raise ValueError(f"env: {name!r} needs a package that is not installed: {error} {way_out}".rstrip()) from error
    except gym.error.Error as error:
        if not isinstance(found.target, str) or env_id in gym.registry:  # the failure has another reason
            raise _not_made(name, found.kwargs, error) from error
        close = difflib.get_close_matches(env_id, list(gym.registry), n=3)
        hint = f" The closest ids: {', '.join(close)}." if close else ""
        raise ValueError(
            f"env: got {name!r}, which is not registered: {error}{hint} An environment of another package needs that "
            'package imported, as in "package:Name-v0"; a class of a module is "module:MyEnv"; Atari games are '
            '"ALE/Name-v5" and come with `pip install ale-py`.'
        ) from error
    except Exception as error:
        raise _not_made(name, found.kwargs, error) from error


def follows_seed(found: Source) -> bool:
    """Whether two resets of an environment with the same seed give the same observation; makes a new environment.

    A functional environment follows its key, which ``polyak check`` tests.

    >>> follows_seed(recipe("CartPole-v1"))
    True
    """
    if isinstance(found, FunctionalEnvironment):
        return True
    with contextlib.closing(make_one(found)) as env:
        one, other = (copy.deepcopy(env.reset(seed=0)[0]) for _ in range(2))
    return np.array_equal(one, other)


def _callable(found: Any, text: str, field: str, expected: str) -> Callable[..., Any]:
    if not callable(found):
        raise TypeError(f"{field}: got {text!r}, which is {found!r}; expected {expected}.")
    made: Callable[..., Any] = found
    return made


def _not_made(name: str, kwargs: Mapping[str, Any], error: Exception) -> EnvironmentFailure:
    with_ = f" with {dict(kwargs)}" if kwargs else ""
    return EnvironmentFailure(f"env: {name!r} could not be made{with_}: {in_short(error)}")
