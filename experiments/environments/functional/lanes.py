"""``N`` functional environments stepped together, with resets: pure functions, and the adapter to the loops."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ....replay.types import EnvironmentSpec, TimeStep
from ..spaces import Spaces, check_actions
from ..types import EnvironmentStep
from .types import FunctionalEnvironment


class LanesState(NamedTuple):
    """State of ``N`` environments, a pytree of arrays.

    Attributes:
        key: Raw data of a key, ``[2]`` uint32, which never changes; random numbers depend on it and on ``count``.
        count: Number of steps so far, ``[]`` uint32.
        environment: State of each environment, leaves ``[N, ...]``.
        timestep: Time step that the agent acts on next.
    """

    key: jax.Array
    count: jax.Array  # type: ignore[assignment]  # the field hides tuple.count, which nobody needs
    environment: Any
    timestep: TimeStep


def start(environment: FunctionalEnvironment, key: jax.Array, num_envs: int) -> LanesState:
    """Begin the first episode of ``num_envs`` environments; the key is consumed."""
    init_key, step_key = jax.random.split(key)
    state, observation = jax.vmap(environment.init)(jax.random.split(init_key, num_envs))
    first = jnp.ones(num_envs, bool)
    timestep = TimeStep(observation, jnp.zeros(num_envs), first, _legal(environment, state))
    return LanesState(jax.random.key_data(step_key), jnp.uint32(0), state, timestep)


def advance(
    environment: FunctionalEnvironment, state: LanesState, actions: jax.Array
) -> tuple[LanesState, EnvironmentStep]:
    """Take one action in every environment, ``[N]`` int32, and reset those whose episode ended; a pure function.

    If an environment is terminated and truncated in one step, the step is a termination: its ``discount_t`` is 0.
    """
    num_envs = actions.shape[0]
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.count)
    step_keys, reset_keys = jax.random.split(key, (2, num_envs))
    after, outcome = jax.vmap(environment.step)(step_keys, state.environment, actions)
    last = outcome.terminated | outcome.truncated
    fresh, first_observation = jax.vmap(environment.init)(reset_keys)
    following = jax.tree.map(lambda new, old: _where(last, new, old), fresh, after)
    observation = _where(last, first_observation, outcome.obs_t)
    r_t: Any = outcome.r_t.astype(jnp.float32)
    timestep = TimeStep(observation, jnp.where(last, 0.0, r_t), last, _legal(environment, following))
    discount_t: Any = jnp.where(outcome.terminated, 0.0, jnp.ones(num_envs))
    valid: Any = jnp.ones(num_envs, bool)
    mask_t = _legal(environment, after)
    result = EnvironmentStep(r_t, discount_t, last, outcome.obs_t, timestep, valid, mask_t)
    return LanesState(state.key, state.count + 1, following, timestep), result


class FunctionalEnvironments:
    """``N`` functional environments for both loops: the host loop calls ``step``, the device loop compiles ``advance``.

    Args:
        functional: Environment.
        num_envs: Number of environments.
        seed: Seed of all random numbers.

    Attributes:
        spaces: Spaces of one environment as they are stored.
        spec: Spec for agents and replays.
        num_envs: Number of environments, ``N``.
        functional: Environment.
        state: State of the environments; None before the first reset. The device loop reads and replaces it.

    >>> from polyak.experiments.environments.functional.classic_control import cartpole
    >>> environments = FunctionalEnvironments(cartpole(), num_envs=2)
    >>> environments.reset().observation.shape, environments.step(np.array([0, 1])).r_t
    ((2, 4), array([1., 1.], dtype=float32))
    """

    spaces: Spaces
    spec: EnvironmentSpec
    num_envs: int

    def __init__(self, functional: FunctionalEnvironment, num_envs: int, seed: int = 0) -> None:
        self.functional, self.num_envs, self.spec = functional, num_envs, functional.spec
        self.spaces = Spaces(functional.spec, observation_start=None, action_start=0)
        self.state: LanesState | None = None
        self._key = jax.random.fold_in(jax.random.key(seed), 0xE57)
        self._resets = 0
        self._start, self._advance = _compiled(functional, num_envs)
        self._valid = np.ones(num_envs, bool)
        self._valid.flags.writeable = False

    def reset(self) -> TimeStep:
        """Start the next episode in every lane.

        Raises:
            ValueError: if an observation is not finite.
        """
        self.state = self._start(jax.random.fold_in(self._key, self._resets))
        self._resets += 1
        timestep: TimeStep = jax.device_get(self.state.timestep)
        self._check_finite(timestep.observation)
        return timestep

    def step(self, actions: Any) -> EnvironmentStep:
        """Take one action in every lane, ``[N]`` integers, and reset lanes whose episode ended.

        Raises:
            RuntimeError: before ``reset``.
            TypeError: if actions are not integers.
            ValueError: if an action does not exist, or an observation or a reward is not finite.
        """
        if self.state is None:
            raise RuntimeError(f"{self.functional.name}: step was called before reset.")
        check_actions(actions, self.num_envs, self.spec.num_actions)
        self.state, (obs_t, numbers, mask_t) = self._advance(self.state, np.asarray(actions, np.int32))
        obs_t, mask_t, (r_t, discount_t, last) = np.asarray(obs_t), _host(mask_t), np.asarray(numbers)
        last = last > 0
        timestep = TimeStep(obs_t, r_t, last, mask_t)  # without a reset, the agent acts on the next observation
        if last.any():
            shown = self.state.timestep
            timestep = TimeStep(
                np.asarray(shown.observation), np.where(last, np.float32(0), r_t), last, _host(shown.action_mask)
            )
            self._check_finite(timestep.observation)
        self._check_finite(obs_t, r_t)
        return EnvironmentStep(r_t, discount_t, last, obs_t, timestep, self._valid, mask_t)

    def snapshot(self) -> dict[str, np.ndarray]:
        """Return a snapshot: the arrays of the state by path, and the name, the key and the number of resets.

        Raises:
            RuntimeError: before ``reset``.
        """
        if self.state is None:
            raise RuntimeError(f"{self.functional.name}: snapshot was called before reset.")
        name = np.frombuffer(self.functional.name.encode(), np.uint8)
        found = {"name": name, "key": self._key, "resets": np.uint32(self._resets), **_leaves(self.state)}
        return {path: np.array(_plain(leaf)) for path, leaf in found.items()}

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> tuple[TimeStep, np.ndarray]:
        """Restore a snapshot; no lane has to start a new episode.

        Raises:
            ValueError: if the snapshot was taken from another environment, or from another number of them.
        """
        name = np.asarray(snapshot.get("name", ()), np.uint8).tobytes().decode()
        if name != self.functional.name:
            raise self._refused(f"a snapshot of {name or 'no functional environment'}", self.functional.name)
        template = self._start(self._key)
        leaves = []
        for path, leaf in _leaves(template).items():
            found, wanted = snapshot.get(path), _plain(leaf)
            if found is None or found.shape != wanted.shape or found.dtype != wanted.dtype:
                got = "no array" if found is None else f"{found.dtype}{found.shape}"
                raise self._refused(f"{got} for {path}", f"{wanted.dtype}{wanted.shape}")
            array = jnp.array(found)
            leaves.append(jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else array)
        state: LanesState = jax.tree.unflatten(jax.tree.structure(template), leaves)
        self.state, self._resets = state, int(snapshot["resets"])
        self._key = jax.random.wrap_key_data(jnp.asarray(snapshot["key"]))
        timestep: TimeStep = jax.device_get(state.timestep)
        return timestep, np.zeros(self.num_envs, bool)

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def _check_finite(self, *arrays: np.ndarray) -> None:
        assert self.state is not None
        if not all(np.isfinite(array).all() for array in arrays):
            raise not_finite(self.functional, int(self.state.count))

    def _refused(self, got: str, expected: str) -> ValueError:
        return ValueError(
            f"snapshot: got {got}; expected {expected} of {self.num_envs} x {self.functional.name}. Restore it with "
            "the environments of its run."
        )


def not_finite(functional: FunctionalEnvironment, step: int) -> ValueError:
    """Error for an observation or a reward that is not finite after ``step`` steps of the environments."""
    return ValueError(
        f"{functional.name}: an observation or a reward is not finite after {step} steps of the environments. Test the "
        "environment with polyak check."
    )


@functools.lru_cache(maxsize=16)
def _compiled(functional: FunctionalEnvironment, num_envs: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Compiled reset and step, which the environments of all seeds share, as in a sweep and its evaluations."""
    return (
        jax.jit(lambda key: start(functional, key, num_envs)),
        jax.jit(lambda state, actions: _advance(functional, state, actions)),
    )


def _advance(environment: FunctionalEnvironment, state: LanesState, actions: jax.Array) -> tuple[LanesState, Any]:
    """Advance, with few arrays for the host: a transfer costs more than the step of a small environment."""
    state, result = advance(environment, state, actions)
    numbers = jnp.stack([result.r_t, result.discount_t, jnp.float32(result.last)])
    return state, (result.obs_t, numbers, result.action_mask_t)


def _host(mask: Any) -> Any:
    return mask if isinstance(mask, tuple) else np.asarray(mask)


def _legal(environment: FunctionalEnvironment, state: Any) -> Any:
    return () if environment.action_mask is None else jax.vmap(environment.action_mask)(state)


def _where(condition: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    return jnp.where(condition.reshape(condition.shape + (1,) * (new.ndim - 1)), new, old)


def _leaves(tree: Any) -> dict[str, Any]:
    return {f"state{jax.tree_util.keystr(path)}": leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _plain(leaf: Any) -> Any:
    """Array of numbers: the raw data of a key, or the leaf."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _is_key(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))
