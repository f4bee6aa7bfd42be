"""Losses of the heads on one transition; the value term batches them.

Each loss takes the head's part of the config, the online network's output on ``obs_tm1``, the target network's output
on ``obs_t``, the bootstrap policy, and the action, reward and discount of the transition. ``A`` is the number of
actions, ``M`` the number of atoms or quantiles, ``K`` the number of ensemble members or of iterated heads that learn.
Gradients flow through the online output only.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import rlax

from ..networks import HeadName, ValueOutput
from .bootstrap import NextPolicy, mix
from .head_parts import Categorical, Ensemble, Error, Head, HLGauss, ImplicitQuantile, Iterated, Quantile, Scalar

Array = Any
# Standard deviation of the Gaussian of HL-Gauss, in bin widths (Farebrother et al., 2024).
_SIGMA_IN_BINS = 0.75
# Largest priority of a distributional loss, as in its authors' code.
_MAX_PRIORITY = 100.0


class ActionRewardDiscount(NamedTuple):
    """Action, reward and discount of a transition, and the ensemble members that learn from it.

    Attributes:
        a_tm1: Action, an int32 scalar.
        r_t: Discounted sum of the rewards of the transition.
        discount_t: Factor of the bootstrap value.
        member_mask: ``[K]`` float32, 1 for the ensemble members that learn from the transition; ``()`` without an
            ensemble.
    """

    a_tm1: Array
    r_t: Array
    discount_t: Array
    member_mask: Array = ()


class TransitionLoss(NamedTuple):
    """Loss, TD error and priority of one transition.

    Attributes:
        loss: Loss to minimise, a scalar.
        td_error: Bootstrap target minus online value; of a distribution, the difference of means.
        priority: New priority of the transition, at least 0.
        clipped: Share of the bootstrap target outside the support; 0 for heads without a support.
    """

    loss: Array
    td_error: Array
    priority: Array
    clipped: Array = 0.0


def learn_transition(
    head: Head,
    online: ValueOutput,
    target: ValueOutput,
    policy: NextPolicy,
    transition: ActionRewardDiscount,
) -> TransitionLoss:
    """Compute the loss of one transition for a head.

    Args:
        head: Head's part of the config.
        online: Output of the online network on ``obs_tm1``.
        target: Output of the target network on ``obs_t``.
        policy: Bootstrap policy; for an ensemble or an iterated head, one policy per member or per head that learns,
            with leaves ``[K, ...]``.
        transition: Action, reward and discount.

    >>> from polyak.agents.bootstrap import NextPolicy
    >>> transition = ActionRewardDiscount(jnp.int32(0), jnp.float32(1.0), jnp.float32(0.5))
    >>> online, target = ValueOutput(jnp.array([1.0, 3.0])), ValueOutput(jnp.array([4.0, 2.0]))
    >>> policy = NextPolicy(jnp.int32(1), 0.0, 0.0)
    >>> float(learn_transition(Scalar(), online, target, policy, transition).td_error)
    1.0
    """
    transition = transition._replace(r_t=transition.r_t + policy.reward_bonus)
    return HEADS[type(head)].loss(head, online, target, policy, transition)


def scalar(
    head: Scalar, online: ValueOutput, target: ValueOutput, policy: NextPolicy, t: ActionRewardDiscount
) -> TransitionLoss:
    """Q-learning and double Q-learning (Mnih et al., 2015; van Hasselt et al., 2016, equation 4).

    The loss is ``error(h(r_t + discount_t * h^-1(v_t)) - q(obs_tm1, a_tm1))``. ``v_t`` is the value of the bootstrap
    policy, and ``h`` is the identity or the value rescaling of Pohlen et al. (2018).
    """
    pair = rlax.SIGNED_HYPERBOLIC_PAIR if head.value_rescaling else rlax.IDENTITY_PAIR
    v_t = pair.apply_inv(mix(policy.weights, target.q_values)) + policy.entropy_bonus
    td_error = jax.lax.stop_gradient(pair.apply(t.r_t + t.discount_t * v_t)) - online.q_values[t.a_tm1]
    return TransitionLoss(penalty(head.error, td_error), td_error, jnp.abs(td_error))


def categorical(
    head: Categorical, online: ValueOutput, target: ValueOutput, policy: NextPolicy, t: ActionRewardDiscount
) -> TransitionLoss:
    """C51 (Bellemare et al., 2017, algorithm 1): cross-entropy with the projection of the target's distribution."""
    del head  # the network's output has the atoms
    probabilities_t = mix(policy.weights, jax.nn.softmax(target.logits).T)
    moved = t.r_t + t.discount_t * (target.atoms + policy.entropy_bonus)
    projection = jax.lax.stop_gradient(rlax.categorical_l2_project(moved, probabilities_t, online.atoms))
    loss = optax.softmax_cross_entropy(online.logits[t.a_tm1], projection)
    outside = jnp.sum(probabilities_t * ((moved < target.atoms[0]) | (moved > target.atoms[-1])))
    return TransitionLoss(loss, _td_error(online, target, policy, t), _clip_priority(loss), outside)


def hl_gauss(
    head: HLGauss, online: ValueOutput, target: ValueOutput, policy: NextPolicy, t: ActionRewardDiscount
) -> TransitionLoss:
    """HL-Gauss (Farebrother et al., 2024, section 3.1): cross-entropy with a Gaussian around the bootstrap target."""
    del head
    error = _td_error(online, target, policy, t)
    bootstrap_target = jax.lax.stop_gradient(error + online.q_values[t.a_tm1])
    edges = bin_edges(online.atoms)
    loss = optax.softmax_cross_entropy(online.logits[t.a_tm1], gaussian_histogram(bootstrap_target, edges))
    outside = (bootstrap_target < edges[0]) | (bootstrap_target > edges[-1])
    return TransitionLoss(loss, error, jnp.abs(error), outside.astype(loss.dtype))


def bin_edges(centres: Array) -> Array:
    """Compute the ``[M + 1]`` edges of ``M`` bins of equal width from their centres.

    >>> bin_edges(jnp.array([0.0, 1.0])).tolist()
    [-0.5, 0.5, 1.5]
    """
    half = (centres[1] - centres[0]) / 2
    return jnp.concatenate([centres - half, centres[-1:] + half])


def gaussian_histogram(value: Array, edges: Array) -> Array:
    """Compute the probabilities ``[M]`` of bins under a Gaussian around ``value``; sigma is 0.75 of a bin's width.

    The mass between the first and the last edge is normalised to 1. A value outside the edges is clipped to the nearest
    edge.

    >>> edges = jnp.linspace(-2.0, 2.0, 5)
    >>> [round(float(p), 3) for p in gaussian_histogram(jnp.float32(0.0), edges)]
    [0.088, 0.412, 0.412, 0.088]
    """
    sigma = _SIGMA_IN_BINS * (edges[1] - edges[0])
    cumulative = jax.scipy.stats.norm.cdf(edges, jnp.clip(value, edges[0], edges[-1]), sigma)
    return jnp.diff(cumulative) / (cumulative[-1] - cumulative[0])


def quantiles(
    head: Quantile | ImplicitQuantile,
    online: ValueOutput,
    target: ValueOutput,
    policy: NextPolicy,
    t: ActionRewardDiscount,
) -> TransitionLoss:
    """QR-DQN (Dabney et al., 2018a, equation 10) and IQN (2018b, equation 3): quantile regression with the Huber loss.

    A soft bootstrap policy averages the quantiles of the actions at each fraction (Vieillard et al., 2020, M-IQN).
    """
    del head
    mixed_t = mix(policy.weights, target.quantiles) + policy.entropy_bonus
    loss = rlax.quantile_q_learning(
        online.quantiles, online.taus, t.a_tm1, t.r_t, t.discount_t, jnp.zeros((1, 1)), mixed_t[:, None], 1.0
    )
    return TransitionLoss(loss, _td_error(online, target, policy, t), _clip_priority(loss))


def ensemble(
    head: Ensemble, online: ValueOutput, target: ValueOutput, policy: NextPolicy, t: ActionRewardDiscount
) -> TransitionLoss:
    """Bootstrapped DQN (Osband et al., 2016): each member has its own bootstrap target and mask."""
    v_t = jax.vmap(mix)(policy.weights, target.members) + policy.entropy_bonus
    errors = jax.lax.stop_gradient(t.r_t + t.discount_t * v_t) - online.members[:, t.a_tm1]
    size = jnp.mean(jnp.abs(errors))
    return TransitionLoss(jnp.mean(t.member_mask * penalty(head.error, errors)), jnp.mean(errors), size)


def iterated(
    head: Iterated, online: ValueOutput, target: ValueOutput, policy: NextPolicy, t: ActionRewardDiscount
) -> TransitionLoss:
    """iS-DQN (Vincent et al., 2026): sum of the losses of heads 1 to ``K``, each with the head before it as target.

    The priority is the mean absolute TD error of the heads.
    """
    v_t = jax.vmap(mix)(policy.weights, target.members[:-1]) + policy.entropy_bonus
    errors = jax.lax.stop_gradient(t.r_t + t.discount_t * v_t) - online.members[1:, t.a_tm1]
    return TransitionLoss(jnp.sum(penalty(head.error, errors)), jnp.mean(errors), jnp.mean(jnp.abs(errors)))


def penalty(error: Error, td_error: Array) -> Array:
    """Compute half the square of a TD error, or its Huber loss.

    >>> float(penalty("squared", jnp.float32(2.0))), float(penalty("huber", jnp.float32(2.0)))
    (2.0, 1.5)
    """
    found: Array = rlax.huber_loss(td_error) if error == "huber" else rlax.l2_loss(td_error)
    return found


def _td_error(online: ValueOutput, target: ValueOutput, policy: NextPolicy, t: ActionRewardDiscount) -> Array:
    """Compute the TD error of the Q-values, which are the means of distributions."""
    v_t = mix(policy.weights, target.q_values) + policy.entropy_bonus
    return jax.lax.stop_gradient(t.r_t + t.discount_t * v_t) - online.q_values[t.a_tm1]


def _clip_priority(loss: Array) -> Array:
    return jnp.clip(jax.lax.stop_gradient(loss), 0.0, _MAX_PRIORITY)


class HeadKind(NamedTuple):
    """Kind of head: its name in the network, its loss, and the network output that the loss reads.

    Attributes:
        name: Name of the head in :func:`polyak.networks.make_network`.
        loss: ``(head, online, target, policy, transition) -> TransitionLoss``.
        size: Name of the part's field with the number ``M`` of atoms, quantiles, members or iterations; None
            without such a field.
        fields: Mapping from the fields of ``ValueOutput`` that the loss reads besides ``q_values`` to functions
            ``(A, M) -> shape``, the shape for one observation.
    """

    name: HeadName
    loss: Callable[..., TransitionLoss]
    size: str | None = None
    fields: Mapping[str, Callable[[int, int], tuple[int, ...]]] = {}


_ATOMS = {"logits": lambda a, m: (1, a, m), "atoms": lambda a, m: (m,)}
_QUANTILES = {"quantiles": lambda a, m: (1, m, a), "taus": lambda a, m: (1, m)}
HEADS: Mapping[type[Head], HeadKind] = {
    Scalar: HeadKind("q", scalar),
    Categorical: HeadKind("categorical", categorical, "num_atoms", _ATOMS),
    HLGauss: HeadKind("hl_gauss", hl_gauss, "num_atoms", _ATOMS),
    Quantile: HeadKind("quantile", quantiles, "num_quantiles", _QUANTILES),
    ImplicitQuantile: HeadKind("implicit_quantile", quantiles, "num_quantiles", _QUANTILES),
    Ensemble: HeadKind("ensemble", ensemble, "num_members", {"members": lambda a, m: (1, m, a)}),
    Iterated: HeadKind("iterated", iterated, "num_iterations", {"members": lambda a, m: (1, m + 1, a)}),
}
