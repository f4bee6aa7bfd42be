"""Bootstrap policy: weights of the next actions, an entropy bonus on their value, and a reward bonus."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .acting import mask_values
from .config import Bootstrap, Munchausen

Array = Any


class NextPolicy(NamedTuple):
    """Bootstrap policy of one transition.

    Attributes:
        weights: ``[A]`` float32, probabilities of the next actions; for a greedy policy the action, an int32 scalar.
        entropy_bonus: Entropy bonus, a scalar added to the value of the next observation.
        reward_bonus: Reward bonus, a scalar added to the reward.
    """

    weights: Array
    entropy_bonus: Array
    reward_bonus: Array


def next_policy(
    bootstrap: Bootstrap, selector_t: Array, target_tm1: Array, a_tm1: Array, mask_tm1: Array = (), mask_t: Array = ()
) -> NextPolicy:
    """Compute the bootstrap policy of one transition.

    Greedy: the legal action with the largest ``selector_t``. Munchausen (Vieillard et al., 2020, equation 5): the
    softmax policy π of the target network at temperature τ. Its entropy times τ is added to the value, and its scaled
    log-probability τ log π(``a_tm1``), clipped and weighted, is added to the reward.

    Args:
        bootstrap: Bootstrap part of the config.
        selector_t: ``[A]``, values of ``obs_t`` that choose the next action.
        target_tm1: ``[A]``, the target network's values of ``obs_tm1``.
        a_tm1: Action, an int32 scalar.
        mask_tm1: ``[A]`` bool, legal actions at ``obs_tm1``; ``()`` if all are legal.
        mask_t: ``[A]`` bool, legal actions at ``obs_t``; ``()`` if all are legal.

    >>> from polyak.agents.config import Greedy
    >>> int(next_policy(Greedy(), jnp.array([1.0, 3.0]), jnp.zeros(2), jnp.int32(0)).weights)
    1
    """
    legal_t = mask_values(selector_t, mask_t)
    if not isinstance(bootstrap, Munchausen):
        return NextPolicy(jnp.argmax(legal_t), 0.0, 0.0)
    temperature = bootstrap.munchausen_temperature
    weights = jax.nn.softmax(mask_values(selector_t / temperature, mask_t))  # masked last: finite if no action is legal
    entropy_bonus = soft_maximum(legal_t, temperature) - mix(weights, selector_t)
    legal_tm1 = mask_values(target_tm1, mask_tm1)
    scaled_log_policy = legal_tm1[a_tm1] - soft_maximum(legal_tm1, temperature)
    reward_bonus = bootstrap.munchausen_weight * jnp.clip(scaled_log_policy, bootstrap.munchausen_clip, 0.0)
    return NextPolicy(weights, entropy_bonus, reward_bonus)


def mix(weights: Array, values: Array) -> Array:
    """Compute the mean ``[...]`` of values ``[..., A]`` under a policy; a value with weight 0 is not read.

    >>> float(mix(jnp.array([0.5, 0.5, 0.0]), jnp.array([1.0, 2.0, jnp.inf]))), float(mix(1, jnp.array([1.0, 2.0])))
    (1.5, 2.0)
    """
    if jnp.ndim(weights) == 0:
        return values[..., weights]
    weights = jnp.broadcast_to(weights, values.shape)
    return jnp.sum(weights * jnp.where(weights > 0, values, 0.0), axis=-1)


def soft_maximum(q_values: Array, temperature: float) -> Array:
    """Compute ``temperature * logsumexp(q / temperature)`` of ``[A]`` values, without overflow at any temperature.

    >>> round(float(soft_maximum(jnp.array([1.0, 1.0]), 0.5)), 4)
    1.3466
    """
    highest = jnp.max(q_values)
    return highest + temperature * jax.nn.logsumexp((q_values - highest) / temperature)
