"""The losses of the DQN family: functions of one transition, batched by the one ``vmap`` of :mod:`polyak.agents.dqn`.

Each takes what the online network says of ``obs_tm1``, what the target network says of ``obs_t``, the values by which
the bootstrapped action is chosen, and the action, reward and discount of the transition; ``A`` is the number of
actions, ``M`` of atoms or quantiles, ``K`` of heads. Gradients flow through the first argument alone.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import rlax

from ..networks import ValueOutput
from .config import DQNConfig

Array = Any
# Sigma of HL-Gauss in widths of a bin (Farebrother et al., 2024).
_SIGMA_IN_BINS = 0.75
# The largest priority that a distribution's loss can give, as its authors had it.
_MAX_PRIORITY = 100.0


class Bootstrap(NamedTuple):
    """What a loss reads of a transition.

    Attributes:
        a_tm1: the action, an int32 scalar.
        r_t: the reward, summed over the steps of the transition.
        discount_t: the factor of the bootstrap value.
    """

    a_tm1: Array
    r_t: Array
    discount_t: Array


class TransitionLoss(NamedTuple):
    """What a loss says of one transition.

    Attributes:
        loss: what is minimised.
        td_error: bootstrap target less value, of the values.
        priority: the new priority of the transition's row, not negative.
        clipped: the share of the bootstrap target that lies outside of the support; 0 where there is none.
    """

    loss: Array
    td_error: Array
    priority: Array
    clipped: Array = 0.0


Penalty = Callable[[Array], Array]
HeadLoss = Callable[..., TransitionLoss]  # (online, target, q_t_selector, transition), and for an ensemble (…, mask)


def head_loss(config: DQNConfig) -> HeadLoss:
    """The loss of the config's head.

    >>> import jax.numpy as jnp
    >>> from polyak.agents import DQNConfig
    >>> from polyak.networks import ValueOutput
    >>> transition = Bootstrap(jnp.int32(0), jnp.float32(1.0), jnp.float32(0.5))
    >>> online, target = ValueOutput(jnp.array([1.0, 3.0])), ValueOutput(jnp.array([4.0, 2.0]))
    >>> float(head_loss(DQNConfig())(online, target, online.q_values, transition).td_error)
    1.0
    """
    penalty = penalty_of(config)
    of_heads: dict[str, HeadLoss] = {
        "q": functools.partial(values, penalty, value_pair(config)),
        "categorical": categorical,
        "hl_gauss": hl_gauss,
        "quantile": quantiles,
        "implicit_quantile": quantiles,
        "ensemble": functools.partial(ensemble, penalty),
    }
    return of_heads[config.head]


def penalty_of(config: DQNConfig) -> Penalty:
    """What an error costs: half its square, or Huber's."""
    penalty: Penalty = rlax.huber_loss if config.loss == "huber" else rlax.l2_loss
    return penalty


def value_pair(config: DQNConfig) -> rlax.TxPair:
    """How values are rescaled, and back."""
    return rlax.SIGNED_HYPERBOLIC_PAIR if config.value_rescaling else rlax.IDENTITY_PAIR


def values(
    penalty: Penalty,
    pair: rlax.TxPair,
    online: ValueOutput,
    target: ValueOutput,
    q_t_selector: Array,
    transition: Bootstrap,
) -> TransitionLoss:
    """Q-learning and double Q-learning (Mnih et al., 2015; van Hasselt et al., 2016, equation 4).

    ``penalty(h(r_t + discount_t * h^-1(q_target(obs_t, a*))) - q(obs_tm1, a_tm1))`` with ``(h, h^-1)`` the ``pair``,
    the identity but for the value rescaling of Pohlen et al. (2018).
    """
    a_t = jnp.argmax(q_t_selector)
    # rlax has it over a sequence; this is one of a single step.
    of_sequence = jax.tree.map(
        lambda leaf: leaf[None],
        (online.q_values, transition.a_tm1, target.q_values, a_t, transition.r_t, transition.discount_t),
    )
    error = rlax.transformed_n_step_q_learning(*of_sequence, n=1, tx_pair=pair)[0]
    return TransitionLoss(penalty(error), error, jnp.abs(error))


def munchausen(
    config: DQNConfig, penalty: Penalty, online: ValueOutput, q_tm1: Array, q_t: Array, transition: Bootstrap
) -> TransitionLoss:
    """Munchausen-DQN (Vieillard et al., 2020, equation 5).

    The reward gets ``weight * clip(t * log pi(a_tm1 | obs_tm1), clip, 0)``, and the bootstrap value is
    ``sum_a pi(a | obs_t) (q(obs_t, a) - t * log pi(a | obs_t))``, which is ``t * logsumexp(q(obs_t) / t)``, where
    ``pi`` is the softmax of ``q / t`` and both are of the target network.

    Args:
        config: with the weight, the temperature ``t`` and the clip.
        penalty: of an error.
        online: what the online network says of ``obs_tm1``.
        q_tm1: ``[A]``, the target network's values of ``obs_tm1``, illegal actions at their dtype's lowest number.
        q_t: ``[A]``, those of ``obs_t``, likewise.
        transition: of a single step.
    """
    scaled_log_policy = q_tm1[transition.a_tm1] - soft_maximum(q_tm1, config.munchausen_temperature)
    bonus = config.munchausen_weight * jnp.clip(scaled_log_policy, config.munchausen_clip, 0.0)
    value_t = soft_maximum(q_t, config.munchausen_temperature)
    bootstrap_target = transition.r_t + bonus + transition.discount_t * value_t
    error = jax.lax.stop_gradient(bootstrap_target) - online.q_values[transition.a_tm1]
    return TransitionLoss(penalty(error), error, jnp.abs(error))


def soft_maximum(q_values: Array, temperature: float) -> Array:
    """``temperature * logsumexp(q / temperature)`` of ``[A]`` values, exact for any temperature.

    >>> round(float(soft_maximum(jnp.array([1.0, 1.0]), 0.5)), 4)
    1.3466
    """
    highest = jnp.max(q_values)
    return highest + temperature * jax.nn.logsumexp((q_values - highest) / temperature)


def categorical(online: ValueOutput, target: ValueOutput, q_t_selector: Array, t: Bootstrap) -> TransitionLoss:
    """C51 (Bellemare et al., 2017, algorithm 1): cross-entropy with the projection of the target's distribution."""
    atoms, probabilities_t = target.atoms, jax.nn.softmax(target.logits[jnp.argmax(q_t_selector)])
    moved = t.r_t + t.discount_t * atoms
    projection = jax.lax.stop_gradient(rlax.categorical_l2_project(moved, probabilities_t, online.atoms))
    loss = optax.softmax_cross_entropy(online.logits[t.a_tm1], projection)
    outside = jnp.sum(probabilities_t * ((moved < atoms[0]) | (moved > atoms[-1])))
    return TransitionLoss(loss, _td_error(online, target, q_t_selector, t), _clip_priority(loss), outside)


def hl_gauss(online: ValueOutput, target: ValueOutput, q_t_selector: Array, t: Bootstrap) -> TransitionLoss:
    """HL-Gauss (Farebrother et al., 2024, section 3.1): cross-entropy with a Gaussian around the bootstrap target."""
    error = _td_error(online, target, q_t_selector, t)
    bootstrap_target = jax.lax.stop_gradient(error + online.q_values[t.a_tm1])
    edges = bin_edges(online.atoms)
    loss = optax.softmax_cross_entropy(online.logits[t.a_tm1], gaussian_histogram(bootstrap_target, edges))
    outside = (bootstrap_target < edges[0]) | (bootstrap_target > edges[-1])
    return TransitionLoss(loss, error, jnp.abs(error), outside.astype(loss.dtype))


def bin_edges(centres: Array) -> Array:
    """The ``[M + 1]`` edges of ``M`` bins of one width, from their centres."""
    half = (centres[1] - centres[0]) / 2
    return jnp.concatenate([centres - half, centres[-1:] + half])


def gaussian_histogram(value: Array, edges: Array) -> Array:
    """The probabilities ``[M]`` that a Gaussian around ``value`` gives to bins, with sigma three quarters of a bin.

    What falls beyond the first and the last edge is left out and the rest divided by its sum; a value outside of them
    counts as the edge.

    >>> edges = jnp.linspace(-2.0, 2.0, 5)
    >>> [round(float(p), 3) for p in gaussian_histogram(jnp.float32(0.0), edges)]
    [0.088, 0.412, 0.412, 0.088]
    """
    sigma = _SIGMA_IN_BINS * (edges[1] - edges[0])
    cumulative = jax.scipy.stats.norm.cdf(edges, jnp.clip(value, edges[0], edges[-1]), sigma)
    return jnp.diff(cumulative) / (cumulative[-1] - cumulative[0])


def quantiles(online: ValueOutput, target: ValueOutput, q_t_selector: Array, t: Bootstrap) -> TransitionLoss:
    """QR-DQN (Dabney et al., 2018a, equation 10) and IQN (2018b, equation 3): quantile regression, Huber's loss."""
    loss = rlax.quantile_q_learning(
        online.quantiles, online.taus, t.a_tm1, t.r_t, t.discount_t, q_t_selector[None], target.quantiles, 1.0
    )
    return TransitionLoss(loss, _td_error(online, target, q_t_selector, t), _clip_priority(loss))


def ensemble(
    penalty: Penalty,
    online: ValueOutput,
    target: ValueOutput,
    q_t_selector: Array,
    transition: Bootstrap,
    mask: Array,
) -> TransitionLoss:
    """Bootstrapped DQN (Osband et al., 2016): each head learns by its own target, from the steps of its mask.

    Args:
        penalty: of an error.
        online: its heads, ``[K, A]``, of ``obs_tm1``.
        target: likewise of ``obs_t``.
        q_t_selector: ``[K, A]``, the values by which each head chooses.
        transition: the transition.
        mask: ``[K]`` float32, 1 for a head that learns from it.
    """

    def of_a_head(q_tm1: Array, q_t: Array, selector: Array) -> Array:
        a_tm1, r_t, discount_t = transition
        return rlax.double_q_learning(q_tm1, a_tm1, r_t, discount_t, q_t, selector)

    errors = jax.vmap(of_a_head)(online.heads, target.heads, q_t_selector)
    size = jnp.mean(jnp.abs(errors))
    return TransitionLoss(jnp.mean(mask * penalty(errors)), jnp.mean(errors), size)


def _td_error(online: ValueOutput, target: ValueOutput, q_t_selector: Array, t: Bootstrap) -> Array:
    """The error of the values, the means of the distributions."""
    return rlax.double_q_learning(online.q_values, t.a_tm1, t.r_t, t.discount_t, target.q_values, q_t_selector)


def _clip_priority(loss: Array) -> Array:
    return jnp.clip(jax.lax.stop_gradient(loss), 0.0, _MAX_PRIORITY)
