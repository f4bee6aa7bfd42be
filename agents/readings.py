"""Readings of features: their rank and the fraction of dormant units."""

from typing import Any

import jax.numpy as jnp

Array = Any
TOLERANCES = (0.1, 0.01, 0.001)
DORMANT = 0.1
READINGS = (*(f"feature_rank/{tolerance}" for tolerance in TOLERANCES), "dormant_units")


def read_features(features: Array, valid: Array) -> dict[str, Array]:
    """Compute the rank of features at three tolerances and the fraction of dormant units, with ``READINGS`` as names.

    The rank at a tolerance is the number of singular values above that fraction of the largest one. A unit is dormant
    if its mean absolute activity is at most 0.1 of the mean over all units (Sokar et al., 2023, definition 3.1; the
    threshold 0.1 is polyak's choice).

    Args:
        features: ``[N, H]``.
        valid: ``[N]`` bool, True for the rows that count.

    >>> features = jnp.array([[1.0, 0.0, 0.0], [1.0, 0.05, 0.0], [9.0, 9.0, 9.0]])
    >>> found = read_features(features, jnp.array([True, True, False]))
    >>> {name: round(float(value), 2) for name, value in found.items()}
    {'feature_rank/0.1': 1.0, 'feature_rank/0.01': 2.0, 'feature_rank/0.001': 2.0, 'dormant_units': 0.67}
    """
    counted = jnp.where(valid[:, None], features, 0.0)
    values = jnp.linalg.svd(counted, compute_uv=False)
    ranks = [jnp.sum(values > tolerance * values[0]).astype(jnp.float32) for tolerance in TOLERANCES]
    activity = jnp.sum(jnp.abs(counted), axis=0)
    dormant = jnp.mean((activity <= DORMANT * jnp.mean(activity)).astype(jnp.float32))
    return dict(zip(READINGS, [*ranks, dormant], strict=True))
