"""Classic control tasks with Gymnasium's dynamics, in float32."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ....replay.types import EnvironmentSpec
from .time_limit import time_limit
from .types import FunctionalEnvironment, FunctionalStep

_NEVER = np.bool_(False)
_Four = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def cartpole(max_episode_steps: int = 500, sutton_barto_reward: bool = False) -> FunctionalEnvironment:
    """Make CartPole-v1 (Barto, Sutton and Anderson, 1983) with the constants and the integrator of Gymnasium.

    Observations are position (m), velocity, angle (rad) and angular velocity, ``[4]`` float32. The action 1 pushes
    right, 0 left. An episode terminates beyond an angle of 12 degrees or a position of 2.4 m.

    Args:
        max_episode_steps: Number of steps after which an episode is truncated, at least 1.
        sutton_barto_reward: Whether the reward is -1 at termination and 0 before; otherwise it is 1 at every step.

    Raises:
        ValueError: if ``max_episode_steps`` is not a positive integer.

    >>> environment = cartpole()
    >>> state, observation = environment.init(jax.random.key(0))
    >>> environment.step(jax.random.key(1), state, jnp.int32(1))[1].r_t
    Array(1., dtype=float32)
    """
    gravity, mass_pole, total_mass, half_length, force, seconds = 9.8, 0.1, 1.1, 0.5, 10.0, 0.02
    mass_length = mass_pole * half_length

    def init(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = jax.random.uniform(key, (4,), jnp.float32, -0.05, 0.05)
        return state, state

    def step(key: jax.Array, state: jax.Array, action: Any) -> tuple[jax.Array, FunctionalStep]:
        del key
        _, x_dot, theta, theta_dot = state
        push = jnp.where(action == 1, force, -force)
        cos, sin = jnp.cos(theta), jnp.sin(theta)
        drive = (push + mass_length * jnp.square(theta_dot) * sin) / total_mass
        theta_acc = (gravity * sin - cos * drive) / (
            half_length * (4.0 / 3.0 - mass_pole * jnp.square(cos) / total_mass)
        )
        x_acc = drive - mass_length * theta_acc * cos / total_mass
        state = state + seconds * jnp.stack([x_dot, x_acc, theta_dot, theta_acc])
        terminated = (jnp.abs(state[0]) > 2.4) | (jnp.abs(state[2]) > 12 * 2 * math.pi / 360)
        r_t = 0 - jnp.float32(terminated) if sutton_barto_reward else jnp.float32(1)
        return state, FunctionalStep(state, r_t, terminated, _NEVER)

    return time_limit(_environment("CartPole-v1", (4,), 2, init, step), max_episode_steps)


def acrobot(max_episode_steps: int = 500) -> FunctionalEnvironment:
    r"""Make Acrobot-v1 (Sutton, 1996), a pendulum of two links whose middle joint has a motor.

    The dynamics are those of Sutton and Barto's book, Gymnasium's default: links of 1 m and 1 kg with the centre of
    mass in the middle and a moment of inertia of 1, a step of 0.2 s by the classical Runge-Kutta method, angles wrapped
    to $[-\pi, \pi]$, and angular velocities bounded by $4\pi$ and $9\pi$ rad/s.

    Observations are cosine and sine of the first joint's angle, those of the second, and both angular velocities,
    ``[6]`` float32. The actions 0, 1 and 2 apply torques of -1, 0 and 1 N m. The reward is -1 at each step, and 0 at
    the termination, when the free end is more than 1 m above the fixed joint.

    Args:
        max_episode_steps: Number of steps after which an episode is truncated, at least 1.

    Raises:
        ValueError: if ``max_episode_steps`` is not a positive integer.

    >>> environment = acrobot()
    >>> state, observation = environment.init(jax.random.key(0))
    >>> observation.shape, environment.step(jax.random.key(1), state, jnp.int32(2))[1].r_t
    ((6,), Array(-1., dtype=float32))
    """
    gravity, seconds, fastest = 9.8, 0.2, (4 * math.pi, 9 * math.pi)

    def slopes(state: _Four, torque: jax.Array) -> _Four:
        theta_1, theta_2, speed_1, speed_2 = state
        cos_2, sin_2 = jnp.cos(theta_2), jnp.sin(theta_2)
        d_1, d_2 = 3.5 + cos_2, 1.25 + 0.5 * cos_2  # the inertias of Sutton and Barto's equations
        phi_2 = 0.5 * gravity * jnp.sin(theta_1 + theta_2)
        phi_1 = 1.5 * gravity * jnp.sin(theta_1) + phi_2 - (0.5 * speed_2 + speed_1) * speed_2 * sin_2
        ratio = d_2 / d_1
        acceleration_2 = (torque + ratio * phi_1 - 0.5 * jnp.square(speed_1) * sin_2 - phi_2) / (1.25 - ratio * d_2)
        return speed_1, speed_2, -(d_2 * acceleration_2 + phi_1) / d_1, acceleration_2

    def moved(state: _Four, slope: _Four, time: float) -> _Four:
        a, b, c, d = (value + time * change for value, change in zip(state, slope, strict=True))
        return a, b, c, d

    def observe(state: jax.Array) -> jax.Array:
        cos, sin = jnp.cos(state[:2]), jnp.sin(state[:2])
        return jnp.stack([cos[0], sin[0], cos[1], sin[1], state[2], state[3]])

    def init(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = jax.random.uniform(key, (4,), jnp.float32, -0.1, 0.1)
        return state, observe(state)

    def step(key: jax.Array, state: jax.Array, action: Any) -> tuple[jax.Array, FunctionalStep]:
        del key
        torque = jnp.float32(action) - 1
        start = (state[0], state[1], state[2], state[3])
        k_1 = slopes(start, torque)
        k_2 = slopes(moved(start, k_1, seconds / 2), torque)
        k_3 = slopes(moved(start, k_2, seconds / 2), torque)
        k_4 = slopes(moved(start, k_3, seconds), torque)
        total = jnp.stack([a + 2 * (b + c) + d for a, b, c, d in zip(k_1, k_2, k_3, k_4, strict=True)])
        after = state + seconds / 6 * total
        angles = after[:2] - 2 * math.pi * jnp.round(after[:2] / (2 * math.pi))
        bound = np.array(fastest, np.float32)
        after = jnp.concatenate([angles, jnp.clip(after[2:], -bound, bound)])
        terminated = -jnp.cos(angles[0]) - jnp.cos(angles[0] + angles[1]) > 1.0
        return after, FunctionalStep(observe(after), jnp.float32(terminated) - 1, terminated, _NEVER)

    return time_limit(_environment("Acrobot-v1", (6,), 3, init, step), max_episode_steps)


def mountain_car(max_episode_steps: int = 200, goal_velocity: float = 0.0) -> FunctionalEnvironment:
    """Make MountainCar-v0 (Moore, 1990) with Gymnasium's constants.

    Observations are position and velocity, ``[2]`` float32. The actions 0, 1 and 2 push left, not at all and right. The
    reward is -1 at every step; an episode terminates at a position of 0.5 or more.

    Args:
        max_episode_steps: Number of steps after which an episode is truncated, at least 1.
        goal_velocity: Smallest velocity at which the position terminates the episode.

    Raises:
        ValueError: if ``max_episode_steps`` is not a positive integer.

    >>> environment = mountain_car()
    >>> state, observation = environment.init(jax.random.key(0))
    >>> environment.step(jax.random.key(1), state, jnp.int32(2))[1].r_t
    Array(-1., dtype=float32)
    """
    force, gravity, left, right, fastest, goal = 0.001, 0.0025, -1.2, 0.6, 0.07, 0.5

    def init(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = jnp.stack([jax.random.uniform(key, (), jnp.float32, -0.6, -0.4), jnp.float32(0)])
        return state, state

    def step(key: jax.Array, state: jax.Array, action: Any) -> tuple[jax.Array, FunctionalStep]:
        del key
        position, velocity = state
        velocity += (jnp.float32(action) - 1) * force - gravity * jnp.cos(3 * position)
        velocity = jnp.clip(velocity, -fastest, fastest)
        position = jnp.clip(position + velocity, left, right)
        velocity = jnp.where((position <= left) & (velocity < 0), 0.0, velocity)
        state = jnp.stack([position, velocity])
        terminated = (position >= goal) & (velocity >= goal_velocity)
        return state, FunctionalStep(state, jnp.float32(-1), terminated, _NEVER)

    return time_limit(_environment("MountainCar-v0", (2,), 3, init, step), max_episode_steps)


def _environment(
    name: str, shape: tuple[int, ...], num_actions: int, init: Callable[..., Any], step: Callable[..., Any]
) -> FunctionalEnvironment:
    spec = EnvironmentSpec(jax.ShapeDtypeStruct(shape, np.dtype(np.float32)), num_actions)
    return FunctionalEnvironment(spec, init, step, name=name)
