"""Classic control tasks with Gymnasium's dynamics, in float32."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ....replay.types import EnvironmentSpec
from .types import FunctionalEnvironment, FunctionalStep


class Timed(NamedTuple):
    """State of an environment with a time limit.

    Attributes:
        physics: State of the physics, ``[D]`` float32.
        steps: Number of steps of the episode so far, ``[]`` int32.
    """

    physics: jax.Array
    steps: jax.Array


def cartpole(max_episode_steps: int = 500) -> FunctionalEnvironment:
    """Make CartPole-v1 (Barto, Sutton and Anderson, 1983) with the constants and the integrator of Gymnasium.

    Observations are position, velocity, angle and angular velocity, ``[4]`` float32. The action 1 pushes right. The
    reward is 1 at every step; an episode terminates at an angle of 12 degrees or a position of 2.4.

    Args:
        max_episode_steps: Number of steps after which an episode is truncated.

    >>> environment = cartpole()
    >>> state, observation = environment.init(jax.random.key(0))
    >>> environment.step(jax.random.key(1), state, jnp.int32(1))[1].r_t
    Array(1., dtype=float32)
    """
    gravity, mass_pole, total_mass, half_length, force, seconds = 9.8, 0.1, 1.1, 0.5, 10.0, 0.02
    mass_length = mass_pole * half_length

    def init(key: jax.Array) -> tuple[Timed, jax.Array]:
        physics = jax.random.uniform(key, (4,), jnp.float32, -0.05, 0.05)
        return Timed(physics, jnp.int32(0)), physics

    def step(key: jax.Array, state: Timed, action: Any) -> tuple[Timed, FunctionalStep]:
        del key
        _, x_dot, theta, theta_dot = state.physics
        push = jnp.where(action == 1, force, -force)
        cos, sin = jnp.cos(theta), jnp.sin(theta)
        drive = (push + mass_length * jnp.square(theta_dot) * sin) / total_mass
        theta_acc = (gravity * sin - cos * drive) / (
            half_length * (4.0 / 3.0 - mass_pole * jnp.square(cos) / total_mass)
        )
        x_acc = drive - mass_length * theta_acc * cos / total_mass
        physics = state.physics + seconds * jnp.stack([x_dot, x_acc, theta_dot, theta_acc])
        steps = state.steps + 1
        terminated = (jnp.abs(physics[0]) > 2.4) | (jnp.abs(physics[2]) > 12 * 2 * math.pi / 360)
        return Timed(physics, steps), FunctionalStep(physics, jnp.float32(1), terminated, steps >= max_episode_steps)

    spec = EnvironmentSpec(jax.ShapeDtypeStruct((4,), np.dtype(np.float32)), num_actions=2)
    return FunctionalEnvironment(spec, init, step, name="CartPole-v1")
