"""Self-prediction term: the distance of predicted features from those of a target network (BYOL in latent space)."""

from typing import Any

import jax
import jax.numpy as jnp

from ..config import AgentConfig, SelfPrediction
from ..types import Term, TermOutput, Views

Array = Any
_LEAST_NORM = 1e-6  # of a vector that is made one of length 1


def make_self_prediction_term(config: AgentConfig) -> Term:
    """Makes the self-prediction term of an agent.

    The loss of a step is the mean over the horizon of its prediction errors, 0 where there is nothing to predict (Ni
    et al., 2024, with a horizon of 1); that of a sequence is the mean over its steps, burn-in aside.

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
        metrics["prediction_cosine"] = jnp.mean(jnp.sum(similar, axis=(0, 1)) / count)
        features = latents.online.reshape(-1, latents.online.shape[-1])
        metrics["feature_spread"] = spread(features)
        if has_penalty:
            penalty = isotropy_penalty(features)
            loss, metrics = loss + prediction.isotropy * penalty, metrics | {"isotropy_penalty": penalty}
        return TermOutput(loss, metrics)

    return self_prediction_term


def prediction_errors(config: SelfPrediction, predicted: Array, wanted: Array) -> Array:
    """Errors ``[...]`` of predictions ``[..., H]``: the squared distance, or that of the vectors of length 1.

    The latter is 2 - 2 * cosine similarity (Grill et al., 2020, equation 2).

    >>> cosine = SelfPrediction(prediction_error="cosine")
    >>> unit = jnp.array([1.0, 0.0])
    >>> [round(float(prediction_errors(cosine, unit, other)), 6) for other in (unit, unit[::-1], -unit)]
    [0.0, 2.0, 4.0]
    """
    if config.prediction_error == "cosine":
        return 2 - 2 * cosine_similarity(predicted, wanted)
    return jnp.sum((predicted - wanted) ** 2, axis=-1)


def cosine_similarity(one: Array, other: Array) -> Array:
    """Cosine of the angle between vectors ``[..., H]``; the gradient of a vector of zeros is finite."""
    return jnp.sum(_of_length_1(one) * _of_length_1(other), axis=-1)


def spread(features: Array) -> Array:
    """Root of the mean squared distance of vectors ``[N, H]`` of length 1 from their mean: 0 where all are alike.

    >>> round(float(spread(jnp.eye(4))), 3), float(spread(jnp.ones((4, 2))))
    (0.866, 0.0)
    """
    units = _of_length_1(features)
    return jnp.sqrt(jnp.mean(jnp.sum((units - jnp.mean(units, axis=0, keepdims=True)) ** 2, axis=-1)))


def isotropy_penalty(features: Array) -> Array:
    """Mean squared difference of the correlations of features ``[N, H]`` from the identity.

    A feature that is constant has no correlations, and counts as one that is missing on the diagonal.

    >>> float(isotropy_penalty(jnp.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])))
    0.0
    >>> float(isotropy_penalty(jnp.ones((4, 2))))
    0.5
    """
    centred = features - jnp.mean(features, axis=0, keepdims=True)
    scale = jax.lax.rsqrt(jnp.maximum(jnp.mean(centred**2, axis=0, keepdims=True), _LEAST_NORM))
    standard = centred * scale
    correlations = standard.T @ standard / len(features)
    return jnp.mean((correlations - jnp.eye(correlations.shape[0])) ** 2)


def _of_length_1(vectors: Array) -> Array:
    return vectors * jax.lax.rsqrt(jnp.maximum(jnp.sum(vectors**2, axis=-1, keepdims=True), _LEAST_NORM**2))
