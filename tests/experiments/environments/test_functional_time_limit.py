"""A time limit adds truncations to those of the environment, and changes nothing else."""

import jax
import numpy as np

from functional_environments import legal_at, length_of, tale
from polyak.experiments.environments.functional.lanes import FunctionalEnvironments
from polyak.experiments.environments.functional.time_limit import time_limit


def test_a_limit_adds_truncations_and_keeps_ends_spec_masks_and_name():
    plain, limited = tale(), time_limit(tale(), 3)
    assert (limited.spec, limited.name) == (plain.spec, plain.name)
    keys = jax.random.split(jax.random.key(0), 40)
    (state, shown), (timed, observation) = jax.vmap(plain.init)(keys), jax.vmap(limited.init)(keys)
    np.testing.assert_array_equal(observation, shown)
    lengths, actions = length_of(np.asarray(state.number)), np.arange(40) % 4
    for t in range(1, 6):
        state, wanted = jax.vmap(plain.step)(keys, state, actions)
        timed, found = jax.vmap(limited.step)(keys, timed, actions)
        np.testing.assert_array_equal(found.obs_t, wanted.obs_t)
        np.testing.assert_array_equal(found.r_t, wanted.r_t)
        np.testing.assert_array_equal(found.terminated, wanted.terminated)
        np.testing.assert_array_equal(found.truncated, wanted.truncated | (t >= 3))
        np.testing.assert_array_equal(jax.vmap(limited.action_mask)(timed), legal_at(np.asarray(state.number), t))
    assert {*lengths} == {1, 2, 3, 4, 5}


def test_lanes_count_the_steps_of_their_own_episodes():
    environments = FunctionalEnvironments(time_limit(tale(), 3), 8)
    number = environments.reset().observation[:, 0]
    t = np.zeros(8, np.int64)
    for _ in range(30):
        step = environments.step(np.zeros(8, np.int64))
        t += 1
        np.testing.assert_array_equal(step.last, t == np.minimum(length_of(np.int64(number)), 3))
        t[step.last] = 0
        number = step.timestep.observation[:, 0]
