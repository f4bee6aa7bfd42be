"""Self-prediction in the linear case, where its theory is known, with the agents' own loss, in float64.

Tang et al., "Understanding self-predictive learning for reinforcement learning", ICML 2023, and Khetarpal et al., "A
unifying framework for action-conditional self-predictive reinforcement learning", AISTATS 2025. States are uniform,
features are the rows of ``phi``, ``[n, k]``, and a predictor is a matrix, the best one for ``phi`` unless it is learnt.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyak.agents.config import LinearPrediction
from polyak.agents.terms.self_prediction import prediction_errors

SQUARED = LinearPrediction()


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def orthonormal(seed, n, k):
    return jnp.asarray(np.linalg.qr(np.random.default_rng(seed).normal(size=(n, k)))[0])


def random_walk(seed, n):
    """A stochastic matrix, not symmetric."""
    weights = np.random.default_rng(seed).random((n, n))
    return jnp.asarray(weights / weights.sum(axis=1, keepdims=True))


def mean_error(phi, predictor, transition, stop_gradient=True):
    """Mean of the agents' error over states and the states after them."""
    wanted = jax.lax.stop_gradient(phi) if stop_gradient else phi
    n = len(phi)
    predicted = jnp.broadcast_to((phi @ predictor)[:, None], (n, *phi.shape))
    errors = prediction_errors(SQUARED, predicted, jnp.broadcast_to(wanted[None], predicted.shape))
    return jnp.sum(transition * errors) / n


def best_predictor(phi, transition):
    """The matrix of least squares from the features to those of the states after."""
    return jax.lax.stop_gradient(jnp.linalg.solve(phi.T @ phi, phi.T @ transition @ phi))


@functools.partial(jax.jit, static_argnums=(0, 2))
def descend(loss, phi, steps, step_size):
    """Euler steps along n / 2 times the gradient of ``loss``: half of the sum over the states."""
    return jax.lax.fori_loop(0, steps, lambda _, phi: phi - step_size * len(phi) / 2 * jax.grad(loss)(phi), phi)


@pytest.mark.parametrize("seed", range(3))
def test_covariance_is_conserved_under_the_best_predictor_and_stop_gradient_alone(seed):
    transition, phi = random_walk(seed, 10), orthonormal(seed, 10, 4)

    def loss(phi, stop_gradient):
        return mean_error(phi, best_predictor(phi, transition), transition, stop_gradient)

    after = descend(functools.partial(loss, stop_gradient=True), phi, 1000, 1e-4)
    assert float(jnp.max(jnp.abs(after - phi))) > 1e-3
    assert float(jnp.max(jnp.abs(after.T @ after - phi.T @ phi))) < 1e-6
    collapsed = descend(functools.partial(loss, stop_gradient=False), phi, 1000, 1e-3)
    assert float(jnp.trace(collapsed.T @ collapsed)) < 0.9 * float(jnp.trace(phi.T @ phi))


# Walks on 4 states: from i to j with the probability of i xor j. Their matrices have the Walsh vectors in common.
XOR = [[i ^ j for j in range(4)] for i in range(4)]
WALKS = [np.array(p)[np.array(XOR)] for p in ([0.88, 0, 0, 0.12], [0.42, 0.32, 0.09, 0.17])]
WALSH = np.array([[(-1) ** (s & i).bit_count() for s in range(4)] for i in range(4)]) / 2


def of_policy(phi):
    mean = jnp.asarray(sum(WALKS) / 2)
    return mean_error(phi, best_predictor(phi, mean), mean)


def of_actions(phi):
    each = [mean_error(phi, best_predictor(phi, walk), walk) for walk in map(jnp.asarray, WALKS)]
    return sum(each) / len(each)


@pytest.mark.parametrize(
    ("loss", "wanted"),
    [
        pytest.param(of_policy, [0, 2], id="Pi"),
        pytest.param(of_actions, [0, 3], id="AC"),
        pytest.param(lambda phi: of_actions(phi) - of_policy(phi), [1, 3], id="AC - Pi"),
    ],
)
def test_the_features_that_are_learnt_are_the_ones_of_theory(loss, wanted):
    for seed in range(10):
        phi = descend(loss, orthonormal(seed, 4, 2), 2000, 0.5)
        basis = jnp.linalg.qr(phi)[0]
        rest = basis - WALSH[:, wanted] @ (WALSH[:, wanted].T @ basis)
        assert float(jnp.linalg.norm(rest, 2)) < 1e-6, seed  # sine of the largest angle


@pytest.mark.parametrize(("ratio", "rank"), [(0.0, 1), (0.1, 1), (10.0, 3)])
def test_a_predictor_that_learns_too_slowly_loses_features(ratio, rank):
    transition = random_walk(0, 8)

    def step(_, pair):
        phi, predictor = pair
        of_phi, of_predictor = jax.grad(mean_error, argnums=(0, 1))(phi, predictor, transition)
        return phi - 0.05 * len(phi) / 2 * of_phi, predictor - 0.05 * ratio * len(phi) / 2 * of_predictor

    phi, _ = jax.jit(lambda pair: jax.lax.fori_loop(0, 20_000, step, pair))((orthonormal(0, 8, 3), jnp.eye(3)))
    values = np.linalg.svd(np.asarray(phi), compute_uv=False)
    assert np.sum(values > 1e-2 * values[0]) == rank, values
