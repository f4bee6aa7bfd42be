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
    noise: Any  # drawn from the key of the step
    own_noise: Any  # drawn from the state's own key
    key: Any  # a typed key


def length_of(number):
    return 1 + number % 5


def kind_of(number):
    """0 ends by a termination, 1 by a truncation, 2 by both."""
    return number // 5 % 3


def legal_at(number, t, xp=np):
    return (number + t)[..., None] % NUM_ACTIONS != xp.arange(NUM_ACTIONS)


def tale(name: str = "tale", masks: bool = True, dtype: Any = np.float32) -> FunctionalEnvironment:
    """Observations are number of the episode, time and both noises; rewards ``10 t + action + noise / 4``."""

    def observe(state: TaleState) -> jax.Array:
        return jnp.stack([state.number, state.t, state.noise, state.own_noise]).astype(dtype)

    def init(key: jax.Array) -> tuple[TaleState, jax.Array]:
        number_key, key = jax.random.split(key)
        top = 250 if dtype == np.uint8 else 1_000_000
        zero = jnp.int32(0)
        state = TaleState(jax.random.randint(number_key, (), 0, top), zero, zero, zero, key)
        return state, observe(state)

    def step(key: jax.Array, state: TaleState, action: jax.Array) -> tuple[TaleState, FunctionalStep]:
        own, following = jax.random.split(state.key)
        noise, own_noise = (jax.random.randint(each, (), 0, 200) for each in (key, own))
        state = TaleState(state.number, state.t + 1, noise, own_noise, following)
        end, kind = state.t == length_of(state.number), kind_of(state.number)
        r_t = jnp.float32(10 * state.t + action) + noise / 4
        return state, FunctionalStep(observe(state), r_t, end & (kind != 1), end & (kind != 0))

    spec = EnvironmentSpec(jax.ShapeDtypeStruct((4,), np.dtype(dtype)), NUM_ACTIONS, masks)
    mask = (lambda state: legal_at(state.number, state.t, jnp)) if masks else None
    return FunctionalEnvironment(spec, init, step, mask, name)
