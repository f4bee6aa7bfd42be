"""Exploration: the frequencies of random actions, among the legal ones, equal on host and device."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies
from hypothesis.extra.numpy import arrays

from polyak.agents import epsilon_greedy


def test_epsilon_greedy_frequencies():
    uniform, greedy = jax.random.uniform(jax.random.key(0), (2, 30_000)), jnp.ones(30_000, jnp.int32)
    assert (epsilon_greedy(uniform, greedy, 0.0, 3) == 1).all()
    counts = np.bincount(epsilon_greedy(uniform, greedy, 0.3, 3), minlength=3) / 30_000
    np.testing.assert_allclose(counts, [0.1, 0.8, 0.1], atol=0.01)
    counts = np.bincount(epsilon_greedy(uniform, greedy, 1.0, 3), minlength=3) / 30_000
    np.testing.assert_allclose(counts, [1 / 3] * 3, atol=0.012)


@hypothesis.settings(deadline=None, derandomize=True)
@hypothesis.given(
    uniform=arrays(np.float32, (2, 4), elements=strategies.floats(0, float(np.float32(1 - 2**-24)), width=32)),
    epsilon=strategies.floats(0, 1),
    num_actions=strategies.integers(1, 1000),
)
def test_epsilon_greedy_is_the_same_on_host_and_device(uniform, epsilon, num_actions):
    action = np.zeros(4, np.int32)
    host = epsilon_greedy(uniform, action, epsilon, num_actions)
    device = epsilon_greedy(jnp.asarray(uniform), jnp.asarray(action), epsilon, num_actions)
    assert host.tolist() == device.tolist()
    assert host.dtype == device.dtype == np.int32
    assert ((host >= 0) & (host < num_actions)).all()


@pytest.mark.slow
@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(
    masks=strategies.lists(strategies.lists(strategies.booleans(), min_size=4, max_size=4), min_size=1, max_size=5),
    epsilon=strategies.sampled_from([0.0, 0.5, 1.0]),
    seed=strategies.integers(0, 2**32 - 1),
)
def test_exploration_is_uniform_over_the_legal_actions(masks, epsilon, seed):
    rng = np.random.default_rng(seed)
    mask, num_envs = np.array(masks), len(masks)
    uniform = rng.random((2, num_envs), np.float32)
    uniform[:, 0] = [0.0, np.nextafter(np.float32(1), np.float32(0))]  # the last number below 1
    own = np.int32(rng.integers(4, size=num_envs))
    chosen = epsilon_greedy(uniform, own, epsilon, 4, mask)
    expected = []
    for lane, legal in enumerate(np.flatnonzero(row) for row in mask):
        explores = uniform[0, lane] < np.float32(epsilon)
        number = min(int(uniform[1, lane] * np.float32(len(legal))), max(len(legal) - 1, 0))
        random = int(legal[number]) if len(legal) else 0
        expected.append(random if explores else int(own[lane]))
    assert chosen.tolist() == expected
    assert chosen.dtype == np.int32
    traced = epsilon_greedy(jnp.asarray(uniform), jnp.asarray(own), epsilon, 4, jnp.asarray(mask))
    assert traced.tolist() == expected
    every = epsilon_greedy(uniform, own, epsilon, 4, np.ones((num_envs, 4), np.bool_))
    np.testing.assert_array_equal(every, epsilon_greedy(uniform, own, epsilon, 4))
