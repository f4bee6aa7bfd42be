"""Functional classic control equals Gymnasium's, one step from each of its states; whole episodes would diverge."""

from typing import NamedTuple

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyak.experiments.environments.functional import classic_control
from polyak.experiments.environments.functional.time_limit import Timed
from polyak.experiments.environments.spaces import read_spaces


def balance(state, episode, rng):
    """Falls within some steps in three of four episodes, reaches the time limit in the others."""
    return int(state[2] + 0.3 * state[3] > 0) if episode % 4 == 0 else int(rng.integers(2))


def swing(state, episode, rng):
    return 2 * int(state[3] > 0) if episode % 2 == 0 else int(rng.integers(3))


def climb(state, episode, rng):
    return 2 * int(state[1] >= 0) if episode % 2 == 0 else int(rng.integers(3))


class Task(NamedTuple):
    make: object
    episodes: int
    policy: object
    low: tuple  # of states anywhere
    high: tuple
    angles: int = 0  # components that are wrapped


ANGLES = (np.pi, np.pi, 4 * np.pi, 9 * np.pi)
TASKS = {
    "CartPole-v1": Task(classic_control.cartpole, 200, balance, (-2.5, -3, -0.25, -3), (2.5, 3, 0.25, 3)),
    "Acrobot-v1": Task(classic_control.acrobot, 20, swing, tuple(-bound for bound in ANGLES), ANGLES, angles=2),
    "MountainCar-v0": Task(classic_control.mountain_car, 20, climb, (-1.2, -0.07), (0.6, 0.07)),
}


class Record(NamedTuple):
    state: np.ndarray
    steps: np.ndarray
    action: np.ndarray
    after: np.ndarray
    obs_t: np.ndarray
    r_t: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


def played(name, episodes, policy, **kwargs):
    """Every step of some episodes of Gymnasium, with its float64 states."""
    env, rng, rows = gym.make(name, **kwargs), np.random.default_rng(0), []
    for episode in range(episodes):
        env.reset(seed=episode)
        steps, over = 0, False
        while not over:
            state = np.array(env.unwrapped.state, np.float64)
            action = policy(state, episode, rng)
            obs_t, r_t, terminated, truncated, _ = env.step(action)
            after = np.array(env.unwrapped.state, np.float64)
            rows.append(Record(state, steps, action, after, obs_t, r_t, terminated, truncated))
            steps, over = steps + 1, terminated or truncated
    return Record(*(np.array(column) for column in zip(*rows, strict=True)))


def anywhere(name, count, low, high, **kwargs):
    """One step of Gymnasium from each of some states anywhere, also those that no episode reaches."""
    env, rng, rows = gym.make(name, **kwargs), np.random.default_rng(1), []
    env.reset(seed=0)
    for state in rng.uniform(low, high, (count, len(low))).astype(np.float32):
        env.unwrapped.state, action = np.float64(state), int(rng.integers(env.action_space.n))
        obs_t, r_t, terminated, _, _ = env.unwrapped.step(action)
        env.unwrapped.steps_beyond_terminated = None
        rows.append(Record(state, 0, action, np.array(env.unwrapped.state), obs_t, r_t, terminated, False))
    return Record(*(np.array(column) for column in zip(*rows, strict=True)))


def stepped(environment, record):
    state = Timed(jnp.asarray(record.state, jnp.float32), jnp.asarray(record.steps, jnp.int32))
    keys = jax.random.split(jax.random.key(0), len(record.action))
    after, outcome = jax.jit(jax.vmap(environment.step))(keys, state, jnp.asarray(record.action, jnp.int32))
    return jax.device_get(after), jax.device_get(outcome)


def error(found, wanted, angles=0):
    """Largest error of each component, relative to its largest magnitude."""
    difference = found.astype(np.float64) - wanted
    difference[:, :angles] -= 2 * np.pi * np.round(difference[:, :angles] / (2 * np.pi))
    return np.abs(difference).max() if not wanted.any() else (np.abs(difference).max(0) / np.abs(wanted).max(0)).max()


@pytest.mark.parametrize("name", TASKS)
def test_a_step_from_each_state_of_gymnasium_equals_its_step(name, compiled_as_released):
    task = TASKS[name]
    record = played(name, task.episodes, task.policy)
    assert record.terminated.any()
    assert record.truncated.any()
    after, outcome = stepped(task.make(), record)
    assert error(after.state, record.after, task.angles) < 1e-6
    assert error(outcome.obs_t, record.obs_t) < 1e-6
    np.testing.assert_array_equal(outcome.r_t, record.r_t)
    np.testing.assert_array_equal(outcome.terminated, record.terminated)
    np.testing.assert_array_equal(outcome.truncated, record.truncated)
    assert (outcome.obs_t.dtype, outcome.r_t.dtype) == (np.float32, np.float32)


@pytest.mark.parametrize("name", TASKS)
def test_bounds_walls_and_wrapped_angles_are_those_of_gymnasium(name, compiled_as_released):
    task = TASKS[name]
    record = anywhere(name, 2000, task.low, task.high)
    after, outcome = stepped(task.make(), record)
    allowed = 5e-5 if name == "Acrobot-v1" else 1e-6  # rounding errors grow within a step at the highest speeds
    assert error(after.state, record.after, task.angles) < allowed
    assert error(outcome.obs_t, record.obs_t) < allowed
    np.testing.assert_array_equal(outcome.terminated, record.terminated)
    np.testing.assert_array_equal(outcome.r_t, record.r_t)
    assert 20 < record.terminated.sum() < 1980
    angles = np.s_[:, : task.angles]
    assert (np.abs(after.state[angles]) <= np.float32(np.pi)).all()
    moved_around = np.abs(record.after[angles] - record.state[angles]) > np.pi
    assert task.angles == 0 or moved_around.any(0).all()


KWARGS = {
    "CartPole-v1": {"sutton_barto_reward": True, "max_episode_steps": 40},
    "Acrobot-v1": {"max_episode_steps": 9},
    "MountainCar-v0": {"goal_velocity": 0.03, "max_episode_steps": 190},
}


@pytest.mark.parametrize("name", TASKS)
def test_keyword_arguments_mean_what_they_mean_in_gymnasium(name):
    task = TASKS[name]
    for record in (
        played(name, 8, task.policy, **KWARGS[name]),
        anywhere(name, 2000, task.low, task.high, **KWARGS[name]),
    ):
        _, outcome = stepped(task.make(**KWARGS[name]), record)
        for found, wanted in zip(outcome[1:], (record.r_t, record.terminated, record.truncated), strict=True):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", TASKS)
def test_spaces_and_initial_states_equal_those_of_gymnasium(name):
    env, functional = gym.make(name), TASKS[name].make()
    assert functional.spec == read_spaces(env.observation_space, env.action_space).spec
    assert functional.name == name
    state, observation = jax.jit(jax.vmap(functional.init))(jax.random.split(jax.random.key(1), 4000))
    wanted = np.stack([(env.reset(seed=seed), env.unwrapped.state)[1] for seed in range(1000)])
    low, high, width = wanted.min(0), wanted.max(0), np.ptp(wanted, axis=0)
    np.testing.assert_allclose(state.state.min(0), low, rtol=0, atol=0.01 * width.max())
    np.testing.assert_allclose(state.state.max(0), high, rtol=0, atol=0.01 * width.max())
    np.testing.assert_allclose(state.state.mean(0), wanted.mean(0), rtol=0, atol=0.05 * width.max())
    assert not state.steps.any()
    for lane in range(3):  # Gymnasium's observation of our state
        env.reset()
        env.unwrapped.state = np.float64(state.state[lane])
        shown = env.unwrapped._get_ob() if name == "Acrobot-v1" else np.float32(env.unwrapped.state)
        np.testing.assert_allclose(observation[lane], shown, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("value", [0, -1, 2.0, True, None])
@pytest.mark.parametrize("name", TASKS)
def test_a_time_limit_is_a_positive_integer(name, value):
    with pytest.raises(ValueError, match=r"max_episode_steps: got .*; expected an integer >= 1"):
        TASKS[name].make(max_episode_steps=value)
