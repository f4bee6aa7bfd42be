"""Adapters of functional environments of other packages: Gymnasium's ``FuncEnv`` and gymnax."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.experimental.functional import FuncEnv

from ....agents.fields import did_you_mean
from ....replay.types import EnvironmentSpec
from ..spaces import read_spaces
from ..types import in_short
from .time_limit import time_limit
from .types import FunctionalEnvironment, FunctionalStep


def from_func_env(
    env: FuncEnv[Any, Any, Any, Any, Any, Any, Any],
    params: Any = None,
    max_episode_steps: int | None = None,
    name: str | None = None,
) -> FunctionalEnvironment:
    """Adapt a ``gymnasium.experimental.functional.FuncEnv`` that is written in JAX.

    Its methods are called with a key each, and with ``params`` if they are given. The reward and the termination are
    those of the transition; ``FuncEnv`` has no truncation. Observations are stored as for other Gymnasium environments:
    a ``Discrete`` observation as a one-hot vector, uint8 as uint8, other numbers and bool as float32.

    Args:
        env: Environment with a ``Box`` or ``Discrete`` observation space and a ``Discrete`` action space.
        params: Parameters of the environment; None calls the methods without parameters.
        max_episode_steps: Number of steps after which an episode is truncated; None for no limit.
        name: Name of the environment, for messages; None for the name of its class.

    Raises:
        TypeError: if ``env`` is not a ``FuncEnv``.
        ValueError: if a space is not supported, JAX cannot trace the environment, the observation does not have the
            shape of its space, the transition changes the structure of the state, or ``max_episode_steps`` is not a
            positive integer.

    >>> import gymnasium
    >>> class Counter(FuncEnv):
    ...     observation_space = gymnasium.spaces.Box(0, 3, (1,))
    ...     action_space = gymnasium.spaces.Discrete(2)
    ...     def initial(self, rng, params=None):
    ...         return jnp.zeros(1)
    ...     def observation(self, state, rng, params=None):
    ...         return state
    ...     def transition(self, state, action, rng, params=None):
    ...         return state + action
    ...     def reward(self, state, action, next_state, rng, params=None):
    ...         return next_state[0] - state[0]
    ...     def terminal(self, state, rng, params=None):
    ...         return state[0] == 3
    >>> from_func_env(Counter(), max_episode_steps=5).spec.observation
    ShapeDtypeStruct(shape=(1,), dtype=float32)
    """
    if not isinstance(env, FuncEnv):
        raise TypeError(f"env: got {env!r}; expected an instance of gymnasium.experimental.functional.FuncEnv.")
    spaces = read_spaces(env.observation_space, env.action_space)
    extra = () if params is None else (params,)
    encode = _encoder(spaces.spec.observation, spaces.observation_start)

    def init(key: jax.Array) -> tuple[Any, jax.Array]:
        initial_key, observation_key = jax.random.split(key)
        state = env.initial(initial_key, *extra)
        return state, encode(env.observation(state, observation_key, *extra))

    def step(key: jax.Array, state: Any, action: Any) -> tuple[Any, FunctionalStep]:
        transition_key, reward_key, terminal_key, observation_key = jax.random.split(key, 4)
        action = action + spaces.action_start
        after = env.transition(state, action, transition_key, *extra)
        r_t = _scalar(env.reward(state, action, after, reward_key, *extra), jnp.float32)
        terminated = _scalar(env.terminal(after, terminal_key, *extra), jnp.bool_)
        obs_t = encode(env.observation(after, observation_key, *extra))
        return after, FunctionalStep(obs_t, r_t, terminated, jnp.bool_(False))

    adapted = _adapted(spaces.spec, init, step, name or type(env).__name__)
    return adapted if max_episode_steps is None else time_limit(adapted, max_episode_steps)


def from_gymnax(env: Any, params: Any = None, **kwargs: Any) -> FunctionalEnvironment:
    """Adapt an environment of gymnax 1.0 or later.

    The adapter calls ``reset_env``, ``step_env`` and ``is_truncated``, which do not reset the environment.
    Termination and truncation stay apart, and the last observation of an episode is the true one. A ``Discrete``
    observation becomes a one-hot vector, and images of uint8 stay uint8. Other numbers and bool become float32, also
    the binary images of MinAtar, because the networks divide uint8 by 255.

    Args:
        env: Name for ``gymnax.make``, such as ``Breakout-MinAtar``, or an environment of gymnax.
        params: Parameters of the environment; None for its default parameters.
        **kwargs: Fields of the parameters, such as ``max_steps_in_episode=500``, and if ``env`` is a name, arguments of
            the environment's class.

    Raises:
        ValueError: if gymnax is not installed or too old, there is no environment of this name, a keyword does not
            exist, the actions are not ``Discrete``, the observation is not an array, or JAX cannot trace the
            environment.
        TypeError: if ``env`` is neither a name nor an environment of gymnax.

    Example::

        environment = from_gymnax("Breakout-MinAtar", max_steps_in_episode=5000)
    """
    name = f"gymnax/{env if isinstance(env, str) else getattr(env, 'name', '')}"
    if isinstance(env, str):
        env = _made_by_gymnax(env, kwargs)
    if not all(hasattr(env, method) for method in ("step_env", "reset_env", "default_params")):
        raise TypeError(f"env: got {env!r}; expected the name of an environment of gymnax, or the environment.")
    if not hasattr(env, "is_truncated"):
        raise ValueError(
            f"env: got {env!r}, an environment of gymnax before 1.0, whose time limit is part of the termination. "
            "Install gymnax 1.0 or later."
        )
    params = _replaced(env.default_params if params is None else params, kwargs, name)
    actions, observations = env.action_space(params), env.observation_space(params)
    if type(actions).__name__ != "Discrete":
        raise ValueError(f"env: {name} has the action space {actions}; expected Discrete.")
    spec = EnvironmentSpec(_stored(env, params, observations, name), int(actions.n))
    encode = _encoder(spec.observation, 0 if type(observations).__name__ == "Discrete" else None)

    def init(key: jax.Array) -> tuple[Any, jax.Array]:
        observation, state = env.reset_env(key, params)
        return state, encode(observation)

    def step(key: jax.Array, state: Any, action: Any) -> tuple[Any, FunctionalStep]:
        observation, after, r_t, terminated, _ = env.step_env(key, state, action, params)
        truncated = _scalar(env.is_truncated(after, params), jnp.bool_)
        terminated, r_t = _scalar(terminated, jnp.bool_), _scalar(r_t, jnp.float32)
        return after, FunctionalStep(encode(observation), r_t, terminated, truncated)

    return _adapted(spec, init, step, name)


def _adapted(
    spec: EnvironmentSpec, init: Callable[..., Any], step: Callable[..., Any], name: str
) -> FunctionalEnvironment:
    """Environment whose states keep the dtypes of the first state; trace it once, and raise its errors by name."""
    key, action = jax.eval_shape(lambda: jax.random.key(0)), jax.ShapeDtypeStruct((), jnp.int32)
    try:
        template = jax.eval_shape(lambda key: init(key)[0], key)
        after = jax.eval_shape(lambda *args: step(*args)[0], key, template, action)
    except Exception as error:
        reason = in_short(error).partition("\n")[0]
        raise ValueError(
            f"env: {name}: JAX cannot trace the environment ({reason}). Its functions must be written in "
            "jax.numpy, without Python branches on arrays, and its observations must be as its space says."
        ) from error
    first, later = _shapes(template), _shapes(after)
    if first != later:
        changed = sorted(path for path in {*first, *later} if first.get(path) != later.get(path))[0]
        raise ValueError(
            f"env: {name}: a step changes the state{changed} from {first.get(changed, 'nothing')} to "
            f"{later.get(changed, 'nothing')}; expected equal shapes and dtypes after each step."
        )

    def strong(state: Any) -> Any:
        return jax.tree.map(_as, state, template)

    def init_strong(key: jax.Array) -> tuple[Any, jax.Array]:
        state, observation = init(key)
        return strong(state), observation

    def step_strong(key: jax.Array, state: Any, action: Any) -> tuple[Any, FunctionalStep]:
        after, outcome = step(key, state, action)
        return strong(after), outcome

    return FunctionalEnvironment(spec, init_strong, step_strong, name=name)


def _shapes(tree: Any) -> dict[str, tuple[Any, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): (leaf.shape, leaf.dtype) for path, leaf in leaves}


def _as(leaf: Any, like: Any) -> Any:
    """Array of a dtype that does not yield to others; a Python number in a state would make a second program."""
    return leaf if jnp.issubdtype(like.dtype, jax.dtypes.prng_key) else jnp.asarray(leaf, like.dtype)


def _scalar(value: Any, dtype: Any) -> jax.Array:
    return jnp.asarray(value, dtype).reshape(())


def _encoder(stored: jax.ShapeDtypeStruct, start: int | None) -> Callable[[Any], jax.Array]:
    """Function from an observation to the stored one; ``start`` is the first element of a Discrete space."""

    def encode(observation: Any) -> jax.Array:
        if start is not None:
            return jax.nn.one_hot(_scalar(observation, jnp.int32) - start, stored.shape[0], dtype=stored.dtype)
        found = jnp.asarray(observation)
        if found.shape != stored.shape:
            raise ValueError(f"observation: got shape {found.shape}; expected {stored.shape}, as the space says.")
        if stored.dtype == np.uint8 and found.dtype != np.uint8:
            raise ValueError(f"observation: got dtype {found.dtype}; expected uint8, as the space says.")
        return found.astype(stored.dtype)

    return encode


def _stored(env: Any, params: Any, space: Any, name: str) -> jax.ShapeDtypeStruct:
    """Shape and dtype of the stored observation of gymnax; the observation is read, because spaces lack dtypes."""
    if type(space).__name__ == "Discrete":
        return jax.ShapeDtypeStruct((int(space.n),), np.dtype(np.float32))
    observation = jax.eval_shape(lambda key: env.reset_env(key, params)[0], jax.eval_shape(lambda: jax.random.key(0)))
    if not isinstance(observation, jax.ShapeDtypeStruct):
        raise ValueError(f"env: {name} has observations of {space}; expected one array, a Box or a Discrete.")
    dtype = np.uint8 if observation.dtype == np.uint8 else np.float32
    return jax.ShapeDtypeStruct(observation.shape, np.dtype(dtype))


def _made_by_gymnax(name: str, kwargs: dict[str, Any]) -> Any:
    """Environment of a name; its arguments are taken out of ``kwargs``."""
    try:
        import gymnax
    except ImportError as error:
        raise ValueError(
            f"env: 'gymnax/{name}' needs the package gymnax, which cannot be imported ({in_short(error)}). Install it "
            'with `pip install "polyak[gymnax]"`; gymnax 1.0 requires Gymnasium < 1.4 and JAX < 0.12.'
        ) from error
    if name not in gymnax.registered_envs:
        hint = did_you_mean(name, gymnax.registered_envs)
        raise ValueError(f"env: got 'gymnax/{name}'; expected a name of gymnax.registered_envs.{hint}")
    env, params = _made(name, {})
    fields = {field.name for field in dataclasses.fields(params)}
    arguments = sorted({*inspect.signature(type(env)).parameters} - fields)
    own = {key: kwargs.pop(key) for key in arguments if key in kwargs}
    unknown = sorted({*kwargs} - fields)
    if unknown:
        raise ValueError(
            f"env_kwargs: got {unknown[0]!r}; gymnax/{name} takes {', '.join([*arguments, *sorted(fields)])}."
        )
    return _made(name, own)[0] if own else env


def _made(name: str, kwargs: dict[str, Any]) -> Any:
    import gymnax

    try:
        return gymnax.make(name, **kwargs)
    except Exception as error:
        with_ = f" with {kwargs}" if kwargs else ""
        raise ValueError(f"env: 'gymnax/{name}' could not be made{with_}: {in_short(error)}") from error


def _replaced(params: Any, kwargs: dict[str, Any], name: str) -> Any:
    if not kwargs:
        return params
    fields = sorted(field.name for field in dataclasses.fields(params))
    unknown = sorted({*kwargs} - {*fields})
    if unknown:
        raise ValueError(f"env_kwargs: got {unknown[0]!r}; the parameters of {name} are {', '.join(fields)}.")
    return dataclasses.replace(params, **kwargs)
