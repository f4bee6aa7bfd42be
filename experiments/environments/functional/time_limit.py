"""Time limit of a functional environment."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .types import FunctionalEnvironment, FunctionalStep


class Timed(NamedTuple):
    """State of an environment with a time limit.

    Attributes:
        state: State of the environment without the limit.
        steps: Number of steps of the episode so far, ``[]`` int32.
    """

    state: Any
    steps: jax.Array


def time_limit(environment: FunctionalEnvironment, max_episode_steps: int) -> FunctionalEnvironment:
    """Truncate the episodes of an environment after ``max_episode_steps`` steps.

    Args:
        environment: Environment; it may truncate its episodes earlier.
        max_episode_steps: Number of steps after which an episode is truncated, at least 1.

    Raises:
        ValueError: if ``max_episode_steps`` is not a positive integer.

    >>> from polyak.experiments.environments.functional.classic_control import cartpole
    >>> environment = time_limit(cartpole(), max_episode_steps=1)
    >>> state, _ = environment.init(jax.random.key(0))
    >>> bool(environment.step(jax.random.key(1), state, jnp.int32(0))[1].truncated)
    True
    """
    if isinstance(max_episode_steps, bool) or not isinstance(max_episode_steps, int) or max_episode_steps < 1:
        raise ValueError(f"max_episode_steps: got {max_episode_steps!r}; expected an integer >= 1.")
    legal = environment.action_mask

    def init(key: jax.Array) -> tuple[Timed, Any]:
        state, observation = environment.init(key)
        return Timed(state, jnp.int32(0)), observation

    def step(key: jax.Array, state: Timed, action: Any) -> tuple[Timed, FunctionalStep]:
        after, outcome = environment.step(key, state.state, action)
        steps = state.steps + 1
        return Timed(after, steps), outcome._replace(truncated=outcome.truncated | (steps >= max_episode_steps))

    return environment._replace(
        init=init, step=step, action_mask=None if legal is None else lambda state: legal(state.state)
    )
