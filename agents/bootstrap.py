"""Bootstrap policy: weights of the next actions, an entropy bonus of their value, and a bonus of the reward."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .acting import mask_values
from .config import Bootstrap, Munchausen

Array = Any


class NextPolicy(NamedTuple):
    """Policy whose value is bootstrapped, of one transition.

    Attributes:
        weights: ``[A]`` float32, the probability of each next action; or, of a greedy policy, its action, an int32
            scalar.
        entropy_bonus: Scalar added to the value of the next observation.
        reward_bonus: Scalar added to the reward.
    """

    weights: Array
    entropy_bonus: Array
    reward_bonus: Array


def next_policy(
    bootstrap: Bootstrap, selector_t: Array, target_tm1: Array, a_tm1: Array, mask_tm1: Array = (), mask_t: Array = ()
) -> NextPolicy:
    """Bootstrap policy of one transition.

    Greedy: the legal action of the largest ``selector_t``. Munchausen (Vieillard et al., 2020, equation 5):
    the softmax policy of the target network at temperature τ, whose entropy, τ times it, is added to the value, and
    whose scaled log-probability of ``a_tm1``, clipped, is added to the reward.

    Args:
        bootstrap: Part of the config.
        selector_t: ``[A]``, values of ``obs_t`` by which next actions are chosen.
        target_tm1: ``[A]``, the target network's values of ``obs_tm1``.
        a_tm1: Action, an int32 scalar.
        mask_tm1: ``[A]`` bool, legal actions at ``obs_tm1``; ``()`` for all.
        mask_t: ``[A]`` bool, legal actions at ``obs_t``; ``()`` for all.

    >>> from polyak.agents.config import Greedy
    >>> int(next_policy(Greedy(), jnp.array([1.0, 3.0]), jnp.zeros(2), jnp.int32(0)).weights)
    1
    """
    legal_t = mask_values(selector_t, mask_t)
    if not isinstance(bootstrap, Munchausen):
        return NextPolicy(jnp.argmax(legal_t), 0.0, 0.0)
    temperature = bootstrap.munchausen_temperature
    weights = jax.nn.softmax(mask_values(selector_t / temperature, mask_t))  # masked last: finite without a legal one
    entropy_bonus = soft_maximum(legal_t, temperature) - mix(weights, selector_t)
    legal_tm1 = mask_values(target_tm1, mask_tm1)
    scaled_log_policy = legal_tm1[a_tm1] - soft_maximum(legal_tm1, temperature)
    reward_bonus = bootstrap.munchausen_weight * jnp.clip(scaled_log_policy, bootstrap.munchausen_clip, 0.0)
    return NextPolicy(weights, entropy_bonus, reward_bonus)


def mix(weights: Array, values: Array) -> Array:
    """Mean of ``[..., A]`` values over the actions of a policy, ``[...]``; an action of weight 0 is not read.

    >>> float(mix(jnp.array([0.5, 0.5, 0.0]), jnp.array([1.0, 2.0, jnp.inf]))), float(mix(1, jnp.array([1.0, 2.0])))
    (1.5, 2.0)
    """
    if jnp.ndim(weights) == 0:
        return values[..., weights]
    weights = jnp.broadcast_to(weights, values.shape)
    return jnp.sum(weights * jnp.where(weights > 0, values, 0.0), axis=-1)


def soft_maximum(q_values: Array, temperature: float) -> Array:
    """``temperature * logsumexp(q / temperature)`` of ``[A]`` values, exact for any temperature.

    >>> round(float(soft_maximum(jnp.array([1.0, 1.0]), 0.5)), 4)
    1.3466
    """
    highest = jnp.max(q_values)
    return highest + temperature * jax.nn.logsumexp((q_values - highest) / temperature)
