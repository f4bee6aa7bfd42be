"""Self-prediction term: distance between predicted features and a target network's features (latent BYOL)."""

from typing import Any

import jax
import jax.numpy as jnp

from ..config import AgentConfig, SelfPrediction
from ..types import Term, TermOutput, Views

Array = Any
_LEAST_NORM = 1e-6  # lower bound of the norm by which a vector is divided


def make_self_prediction_term(config: AgentConfig) -> Term:
    """Make the self-prediction term of an agent.

    The loss of a step is the mean of its prediction errors over the horizon; an error is 0 if there is nothing to
    predict (Ni et al., 2024, with a horizon of 1). The loss of a sequence is the sum over the steps that are learnt
    from, divided by the length without the burn-in, as in the value term. The isotropy penalty is added to each loss.

    Args:
        config: Config of the agent, with self-prediction.
    """
    prediction, burn_in = config.self_prediction, config.burn_in
    assert prediction is not None
    has_penalty = prediction.isotropy > 0

    def self_prediction_term(key: jax.Array, views: Views) -> TermOutput:
        del key
        latents = views.latents
        errors = prediction_errors(prediction, latents.predicted, latents.wanted)
        errors = jnp.where(latents.valid, errors, 0.0)
        loss = jnp.sum(jnp.mean(errors, axis=-1), axis=-1) / (errors.shape[1] - burn_in)
        count = jnp.maximum(jnp.sum(latents.valid, axis=(0, 1)), 1)
        each = jnp.sum(errors, axis=(0, 1)) / count
        metrics = {f"prediction_loss/{step + 1}": each[step] for step in range(prediction.horizon)}
        similar = jnp.where(latents.valid, cosine_similarity(latents.predicted, latents.wanted), 0.0)
        metrics["prediction_cosine"] = jnp.sum(similar) / jnp.maximum(jnp.sum(latents.valid), 1)
        features = latents.online.reshape(-1, latents.online.shape[-1])
        learns = latents.valid[..., 0].reshape(-1)
        metrics["feature_spread"] = spread(features, learns)
        if has_penalty:
            penalty = isotropy_penalty(features, learns)
            loss, metrics = loss + prediction.isotropy * penalty, metrics | {"isotropy_penalty": penalty}
        return TermOutput(loss, metrics)

    return self_prediction_term


def prediction_errors(config: SelfPrediction, predicted: Array, wanted: Array) -> Array:
    """Compute the errors ``[...]`` of predictions ``[..., H]``: the squared distance, or the cosine error.

    The cosine error is 2 - 2 * cosine similarity, the squared distance of the normalized vectors (Grill et al., 2020,
    equation 2).

    >>> cosine = SelfPrediction(prediction_error="cosine")
    >>> unit = jnp.array([1.0, 0.0])
    >>> [round(float(prediction_errors(cosine, unit, other)), 6) for other in (unit, unit[::-1], -unit)]
    [0.0, 2.0, 4.0]
    """
    if config.prediction_error == "cosine":
        return 2 - 2 * cosine_similarity(predicted, wanted)
    return jnp.sum((predicted - wanted) ** 2, axis=-1)


def cosine_similarity(one: Array, other: Array) -> Array:
    """Compute the cosine similarity of vectors ``[..., H]``; the gradient at a zero vector is finite."""
    return jnp.sum(_of_length_1(one) * _of_length_1(other), axis=-1)


def spread(features: Array, counts: Array) -> Array:
    """Compute the root mean squared distance of normalized vectors from their mean: 0 if all are equal.

    Args:
        features: ``[N, H]``; each row is normalized to length 1.
        counts: ``[N]`` bool, True for the rows that count.

    >>> rows = jnp.array([True, True, True, False])
    >>> round(float(spread(jnp.eye(4), rows)), 3), float(spread(jnp.ones((4, 2)), rows))
    (0.816, 0.0)
    """
    units = _of_length_1(features)
    centred = units - _mean(units, counts)
    return jnp.sqrt(jnp.sum(_mean(centred**2, counts)))


def isotropy_penalty(features: Array, counts: Array) -> Array:
    """Compute the mean squared difference between the correlation matrix of the features and the identity.

    A constant feature has correlation 0 with all features, itself included.

    Args:
        features: ``[N, H]``.
        counts: ``[N]`` bool, True for the rows that count.

    >>> features, rows = jnp.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]]), jnp.ones(4, bool)
    >>> float(isotropy_penalty(features, rows)), float(isotropy_penalty(jnp.ones((4, 2)), rows))
    (0.0, 0.5)
    """
    centred = jnp.where(counts[:, None], features - _mean(features, counts), 0.0)
    standard = centred * jax.lax.rsqrt(jnp.maximum(_mean(centred**2, counts), _LEAST_NORM))
    correlations = standard.T @ standard / jnp.maximum(jnp.sum(counts), 1)
    return jnp.mean((correlations - jnp.eye(correlations.shape[0])) ** 2)


def _mean(rows: Array, counts: Array) -> Array:
    """Compute the mean ``[1, H]`` of the rows that count."""
    total = jnp.sum(jnp.where(counts[:, None], rows, 0.0), axis=0, keepdims=True)
    return total / jnp.maximum(jnp.sum(counts), 1)


def _of_length_1(vectors: Array) -> Array:
    return vectors * jax.lax.rsqrt(jnp.maximum(jnp.sum(vectors**2, axis=-1, keepdims=True), _LEAST_NORM**2))
