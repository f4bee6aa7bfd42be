"""Observations and rewards brought to a common scale, by statistics of what the environments have shown in training.

The replay keeps what the environments gave. It is normalised when it is acted on and when it is drawn, so an old
transition is seen on today's scale. Training steps alone move the statistics; evaluation reads them.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ...replay.types import Array, EnvironmentSpec, Sequence, TimeStep, Transition
from ..environments.types import EnvironmentStep

CLIP = 10.0  # what is normalised lies between -10 and 10
EPSILON = 1e-8  # added to a variance before its root is taken


class Moments(NamedTuple):
    """Count, mean and variance of numbers that came one after the other.

    Attributes:
        count: ``[]`` float64, how many there were.
        mean: ``[...]`` float64.
        variance: ``[...]`` float64, the mean squared deviation from the mean.
    """

    count: np.ndarray  # type: ignore[assignment]  # the field hides tuple.count, which nobody needs
    mean: np.ndarray
    variance: np.ndarray


class Normalization(NamedTuple):
    """The statistics of a run; a pytree of NumPy arrays, with ``()`` for what is not normalised.

    Attributes:
        observation: of every observation, each once, element by element; the last one of an episode is one of them.
        returns: of the discounted return so far, at every step: the scale of rewards that add up.
        running_return: ``[N]`` float64, the discounted return of each environment's episode so far.
    """

    observation: Moments | tuple[()] = ()
    returns: Moments | tuple[()] = ()
    running_return: Any = ()


class Scaling(NamedTuple):
    """What normalises: ``(observation - mean) * scale`` and ``reward * reward_scale``, float32; ``()`` for nothing.

    Attributes:
        mean: ``[...]``, of an observation.
        scale: ``[...]``, of an observation.
        reward_scale: ``[]``.
    """

    mean: Array = ()
    scale: Array = ()
    reward_scale: Array = ()


NO_SCALING = Scaling()


def initial(spec: EnvironmentSpec, num_envs: int, *, observations: bool, rewards: bool) -> Normalization:
    """The statistics before the first observation.

    Args:
        spec: of the environments.
        num_envs: how many there are, ``N``.
        observations: whether observations are normalised.
        rewards: whether rewards are.

    Raises:
        ValueError: observations of uint8 cannot be normalised.

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
    """The statistics alone, without the episodes that were running: what is kept of a run that has ended."""
    return statistics._replace(running_return=())


def observe(statistics: Normalization, observation: np.ndarray) -> Normalization:
    """Counts observations ``[M, ...]``, such as the first ones of the environments; returns the new statistics.

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
    """Counts one step of the environments: what they showed, and what it added to their returns.

    Args:
        statistics: what was counted so far; not changed.
        outcome: the step. Environments that are not ``valid`` in it add no more than the first observation of their
            next episode.
        discount: the agent's, for one step.
    """
    if isinstance(statistics.observation, Moments):
        rows = outcome.obs_t[outcome.valid]
        if outcome.timestep.first.any():  # what came of a reset is another observation than the last of the episode
            rows = np.concatenate([rows, outcome.timestep.observation[outcome.timestep.first]])
        statistics = observe(statistics, rows)
    if isinstance(statistics.returns, Moments):
        running = discount * statistics.running_return + outcome.r_t
        returns = _merge(statistics.returns, running[outcome.valid])
        # Where a reset took the step the reward is 0 and the episode is over, so that 0 it stays.
        over = outcome.last if outcome.restarted is None else outcome.last | outcome.restarted
        statistics = statistics._replace(returns=returns, running_return=np.where(over, 0.0, running))
    return statistics


def restart(statistics: Normalization, timestep: TimeStep, lanes: np.ndarray) -> Normalization:
    """Counts the first observations of the environments where ``lanes``, which began anew without a step."""
    if isinstance(statistics.returns, Moments):
        statistics = statistics._replace(running_return=np.where(lanes, 0.0, statistics.running_return))
    return observe(statistics, timestep.observation[lanes])


def scaling(statistics: Normalization) -> Scaling:
    """What the statistics so far normalise with.

    Observations are centred and divided by their standard deviation. Rewards are divided by the standard deviation of
    the discounted return and not centred, since that would change what is best (as ``VecNormalize`` of OpenAI
    Baselines does).

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
    """The time step as the agent is to see it; NumPy in, NumPy out; JAX in, JAX out.

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
    """What was drawn as the agent is to learn from it, the reward scaled after it was summed over a transition."""
    r_t = _normalize_reward(by, drawn.r_t)
    if isinstance(drawn, Sequence):
        return drawn._replace(obs=normalize_observation(by, drawn.obs), r_t=r_t)
    obs_tm1, obs_t = (normalize_observation(by, observation) for observation in (drawn.obs_tm1, drawn.obs_t))
    return drawn._replace(obs_tm1=obs_tm1, r_t=r_t, obs_t=obs_t)


def normalize_observation(by: Scaling, observation: Array) -> Array:
    """Observations ``[*batch, ...]`` float32, centred, scaled and clipped to [-10, 10]; as they are if off."""
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
    """The moments with ``[M, ...]`` more numbers (Chan, Golub and LeVeque, 1979)."""
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
