"""A functional environment whose observations tell what happened in it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from polyak.experiments.environments.functional.types import FunctionalEnvironment, FunctionalStep
from polyak.replay.types import EnvironmentSpec

NUM_ACTIONS = 4


class TaleState(NamedTuple):
    number: Any  # of the episode, random
    t: Any
    noise: Any
    key: Any  # a typed key: its draws are the noise


def length_of(number):
    return 1 + number % 5


def kind_of(number):
    """0 ends by a termination, 1 by a truncation, 2 by both."""
    return number // 5 % 3


def legal_at(number, t, xp=np):
    return (number + t)[..., None] % NUM_ACTIONS != xp.arange(NUM_ACTIONS)


def tale(name: str = "tale", masks: bool = True, dtype: Any = np.float32) -> FunctionalEnvironment:
    """Observations are number of the episode, time and noise; rewards ``10 t + action + noise / 4``."""

    def observe(state: TaleState) -> jax.Array:
        return jnp.stack([state.number, state.t, state.noise]).astype(dtype)

    def init(key: jax.Array) -> tuple[TaleState, jax.Array]:
        number_key, key = jax.random.split(key)
        top = 250 if dtype == np.uint8 else 1_000_000
        state = TaleState(jax.random.randint(number_key, (), 0, top), jnp.int32(0), jnp.int32(0), key)
        return state, observe(state)

    def step(key: jax.Array, state: TaleState, action: jax.Array) -> tuple[TaleState, FunctionalStep]:
        own, following = jax.random.split(state.key)
        noise = jax.random.randint(key, (), 0, 100) + jax.random.randint(own, (), 0, 100)
        state = TaleState(state.number, state.t + 1, noise, following)
        end, kind = state.t == length_of(state.number), kind_of(state.number)
        r_t = jnp.float32(10 * state.t + action) + noise / 4
        return state, FunctionalStep(observe(state), r_t, end & (kind != 1), end & (kind != 0))

    spec = EnvironmentSpec(jax.ShapeDtypeStruct((3,), np.dtype(dtype)), NUM_ACTIONS, masks)
    mask = (lambda state: legal_at(state.number, state.t, jnp)) if masks else None
    return FunctionalEnvironment(spec, init, step, mask, name)
