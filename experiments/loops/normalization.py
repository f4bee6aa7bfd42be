"""Normalization of observations and rewards by statistics of the training steps.

The replay stores observations and rewards as the environments returned them. They are normalized when the agent acts
and when they are sampled, so an old transition has the current scale. Only training steps update the statistics;
evaluation reads them.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ...replay.types import Array, EnvironmentSpec, Sequence, TimeStep, Transition
from ..environments.types import EnvironmentStep

CLIP = 10.0  # normalized numbers are clipped to [-10, 10]
EPSILON = 1e-8  # added to a variance before the square root


class Moments(NamedTuple):
    """Count, mean and variance of a stream of numbers.

    Attributes:
        count: ``[]`` float64, count of the numbers.
        mean: ``[...]`` float64, mean.
        variance: ``[...]`` float64, mean squared deviation from the mean.
    """

    count: np.ndarray  # type: ignore[assignment]  # the field hides tuple.count, which nobody needs
    mean: np.ndarray
    variance: np.ndarray


class Normalization(NamedTuple):
    """Normalization statistics of a run; a pytree of NumPy arrays, with ``()`` for parts that are not normalized.

    Attributes:
        observation: Moments of all observations, element by element, including the last one of an episode.
        returns: Moments of the discounted return at every step, which gives the scale of rewards.
        running_return: ``[N]`` float64, discounted return of each environment's episode so far.
    """

    observation: Moments | tuple[()] = ()
    returns: Moments | tuple[()] = ()
    running_return: Any = ()


class Scaling(NamedTuple):
    """Offset and scales, float32: ``(observation - mean) * scale`` and ``reward * reward_scale``; ``()`` for none.

    Attributes:
        mean: ``[...]``, mean of an observation.
        scale: ``[...]``, inverse standard deviation of an observation.
        reward_scale: ``[]``, inverse standard deviation of the discounted return.
    """

    mean: Array = ()
    scale: Array = ()
    reward_scale: Array = ()


NO_SCALING = Scaling()


def initial(spec: EnvironmentSpec, num_envs: int, *, observations: bool, rewards: bool) -> Normalization:
    """Statistics before the first observation.

    Args:
        spec: Spec of the environments.
        num_envs: Number of environments, ``N``.
        observations: Whether observations are normalized.
        rewards: Whether rewards are normalized.

    Raises:
        ValueError: if uint8 observations would be normalized.

    >>> import jax
    >>> spec = EnvironmentSpec(jax.ShapeDtypeStruct((4,), np.float32), num_actions=2)
    >>> initial(spec, 1, observations=True, rewards=False).observation.mean
    array([0., 0., 0., 0.])
    """
    if observations and spec.observation.dtype.kind != "f":
        raise ValueError(
            f"normalize_observations: got observations of {spec.observation.dtype}{spec.observation.shape}; expected "
            "floating-point ones. The networks scale images already: leave it off."
        )
    return Normalization(
        _no_moments(spec.observation.shape) if observations else (),
        _no_moments(()) if rewards else (),
        np.zeros(num_envs) if rewards else (),
    )


def without_episodes(statistics: Normalization) -> Normalization:
    """Statistics without the running episodes, as a finished run stores them."""
    return statistics._replace(running_return=())


def observe(statistics: Normalization, observation: np.ndarray) -> Normalization:
    """Add observations ``[M, ...]``, for example the first ones of the environments; return the new statistics.

    >>> import jax
    >>> spec = EnvironmentSpec(jax.ShapeDtypeStruct((), np.float32), num_actions=2)
    >>> statistics = initial(spec, 3, observations=True, rewards=False)
    >>> found = observe(statistics, np.float32([1.0, 2.0, 6.0])).observation
    >>> float(found.count), float(found.mean), round(float(found.variance), 6)
    (3.0, 3.0, 4.666667)
    """
    if not isinstance(statistics.observation, Moments):
        return statistics
    return statistics._replace(observation=_merge(statistics.observation, observation))


def add(statistics: Normalization, outcome: EnvironmentStep, discount: float) -> Normalization:
    """Add one step of the environments: their observations and their discounted returns.

    Args:
        statistics: Statistics so far; not changed.
        outcome: Step of the environments. An environment that is not ``valid`` adds only the first observation of its
            next episode.
        discount: Discount of the agent for one step.
    """
    if isinstance(statistics.observation, Moments):
        rows = outcome.obs_t[outcome.valid]
        if outcome.timestep.first.any():  # the observation after a reset differs from the last one of the episode
            rows = np.concatenate([rows, outcome.timestep.observation[outcome.timestep.first]])
        statistics = observe(statistics, rows)
    if isinstance(statistics.returns, Moments):
        running = discount * statistics.running_return + outcome.r_t
        returns = _merge(statistics.returns, running[outcome.valid])
        # In a step that was a reset, the reward is 0 and the episode is over, so the running return stays 0.
        over = outcome.last if outcome.restarted is None else outcome.last | outcome.restarted
        statistics = statistics._replace(returns=returns, running_return=np.where(over, 0.0, running))
    return statistics


def restart(statistics: Normalization, timestep: TimeStep, lanes: np.ndarray) -> Normalization:
    """Add the first observations of the environments in ``lanes``, which were reset without a step."""
    if isinstance(statistics.returns, Moments):
        statistics = statistics._replace(running_return=np.where(lanes, 0.0, statistics.running_return))
    return observe(statistics, timestep.observation[lanes])


def scaling(statistics: Normalization) -> Scaling:
    """Compute the scaling from the statistics.

    Observations are centered and divided by their standard deviation. Rewards are divided by the standard deviation of
    the discounted return, as in ``VecNormalize`` of OpenAI Baselines. They are not centered, because that would change
    the optimal policy.

    >>> scaling(Normalization())
    Scaling(mean=(), scale=(), reward_scale=())
    >>> float(scaling(Normalization(Moments(np.float64(5), np.float64(3), np.float64(4)))).scale)
    0.5
    """
    mean: Any = ()
    scale: Any = ()
    reward_scale: Any = ()
    if isinstance(statistics.observation, Moments):
        mean, scale = statistics.observation.mean.astype(np.float32), _inverse_deviation(statistics.observation)
    if isinstance(statistics.returns, Moments):
        reward_scale = _inverse_deviation(statistics.returns)
    return Scaling(mean, scale, reward_scale)


def normalize_timestep(by: Scaling, timestep: TimeStep) -> TimeStep:
    """Normalize a time step; the result has NumPy arrays for NumPy input and JAX arrays for JAX input.

    >>> timestep = TimeStep(np.float32([[3.0], [99.0]]), np.float32([0.0, 1.0]), np.array([True, False]))
    >>> by = Scaling(np.float32([1.0]), np.float32([0.5]), np.float32(0.25))
    >>> seen = normalize_timestep(by, timestep)
    >>> seen.observation.tolist(), seen.reward.tolist()
    ([[1.0], [10.0]], [0.0, 0.25])
    """
    return timestep._replace(
        observation=normalize_observation(by, timestep.observation), reward=_normalize_reward(by, timestep.reward)
    )


def normalize_drawn(by: Scaling, drawn: Transition | Sequence) -> Transition | Sequence:
    """Normalize a sampled transition or sequence; rewards are scaled after the n-step sum."""
    r_t = _normalize_reward(by, drawn.r_t)
    if isinstance(drawn, Sequence):
        return drawn._replace(obs=normalize_observation(by, drawn.obs), r_t=r_t)
    obs_tm1, obs_t = (normalize_observation(by, observation) for observation in (drawn.obs_tm1, drawn.obs_t))
    return drawn._replace(obs_tm1=obs_tm1, r_t=r_t, obs_t=obs_t)


def normalize_observation(by: Scaling, observation: Array) -> Array:
    """Center, scale and clip observations ``[*batch, ...]`` float32 to [-10, 10]; unchanged without a mean."""
    if isinstance(by.mean, tuple):
        return observation
    numpy = np if isinstance(observation, np.ndarray) else jnp
    leading = (1,) * (observation.ndim - by.mean.ndim)
    mean, scale = (numpy.reshape(leaf, leading + leaf.shape) for leaf in (by.mean, by.scale))
    return numpy.clip((observation - mean) * scale, -CLIP, CLIP)


def _normalize_reward(by: Scaling, reward: Array) -> Array:
    if isinstance(by.reward_scale, tuple):
        return reward
    numpy = np if isinstance(reward, np.ndarray) else jnp
    return numpy.clip(reward * by.reward_scale, -CLIP, CLIP)


def _no_moments(shape: tuple[int, ...]) -> Moments:
    return Moments(np.zeros(()), np.zeros(shape), np.zeros(shape))


def _merge(moments: Moments, rows: np.ndarray) -> Moments:
    """Moments after adding the rows ``[M, ...]`` (Chan, Golub and LeVeque, 1979)."""
    if not len(rows):
        return moments
    found = rows.astype(np.float64)
    mean = found.mean(axis=0)
    squared = np.square(found - mean).sum(axis=0)
    count = moments.count + len(rows)
    delta, part = mean - moments.mean, len(rows) / count
    squared += moments.variance * moments.count + np.square(delta) * (moments.count * part)
    return Moments(count, moments.mean + delta * part, squared / count)


def _inverse_deviation(moments: Moments) -> np.ndarray:
    return np.asarray(1 / np.sqrt(moments.variance + EPSILON), np.float32)
