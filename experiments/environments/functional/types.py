"""Types of a functional environment: pure, traceable functions of one environment's state."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from ....replay.types import Array, EnvironmentSpec

State = Any  # state of one environment, a pytree of arrays


class FunctionalStep(NamedTuple):
    """Result of one step of one environment, without a reset.

    Attributes:
        obs_t: Next observation ``[...]``, in the dtype of the spec; at the end of an episode its last observation.
        r_t: Reward, ``[]`` float32.
        terminated: Whether the episode terminated, ``[]`` bool.
        truncated: Whether the episode was truncated, for example by a time limit, ``[]`` bool. If both flags are True,
            the step counts as a termination.
    """

    obs_t: Array
    r_t: Array
    terminated: Array
    truncated: Array


class FunctionalEnvironment(NamedTuple):
    """Environment of pure functions, for a single environment without a batch axis; ``vmap`` makes many.

    The functions must be traceable by ``jit``, ``scan`` and ``vmap``, and must return equal shapes and dtypes in every
    call. ``polyak check`` tests this.

    Attributes:
        spec: Observations, number of actions, and whether there are action masks.
        init: ``(key) -> (state, observation)``, the beginning of an episode; the key is consumed.
        step: ``(key, state, action) -> (state, FunctionalStep)``, one step with an action ``[]`` int32, counted from 0;
            the key is consumed. ``step`` neither resets the environment nor is called after the end of an episode.
        action_mask: ``(state) -> [A] bool``, legal actions; None if every action is always legal.
        name: Name of the environment, for messages.

    An environment whose state is its observation, a number that the action 1 increases; at 3 the episode terminates:

    >>> import jax.numpy as jnp
    >>> spec = EnvironmentSpec(jax.ShapeDtypeStruct((1,), jnp.float32), num_actions=2)
    >>> def init(key):
    ...     return jnp.zeros(1), jnp.zeros(1)
    >>> def step(key, state, action):
    ...     state = state + action
    ...     return state, FunctionalStep(state, jnp.float32(action), state[0] == 3, jnp.bool_(False))
    >>> counter = FunctionalEnvironment(spec, init, step, name="counter")
    >>> state, observation = counter.init(jax.random.key(0))
    >>> float(counter.step(jax.random.key(1), state, jnp.int32(1))[1].obs_t[0])
    1.0
    """

    spec: EnvironmentSpec
    init: Callable[[jax.Array], tuple[State, Array]]
    step: Callable[[jax.Array, State, Array], tuple[State, FunctionalStep]]
    action_mask: Callable[[State], Array] | None = None
    name: str = "functional environment"
