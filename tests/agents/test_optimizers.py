"""Optimizers: steps by hand, clipping, decay, and schedules of the learning rate."""

import jax.numpy as jnp
import numpy as np
import pytest

from agent_samples import make_config
from polyak.agents import AgentConfig, make_optimizer


def update(config, gradients=(3.0, 4.0), params=(1.0, -2.0), steps=1, total=100):
    """Change of the parameters in the last of ``steps`` steps on one gradient."""
    optimizer, params = make_optimizer(config, total), jnp.float32(params)
    state = optimizer.init(params)
    for _ in range(steps):
        found, state = optimizer.update(jnp.float32(gradients), state, params)
    return np.asarray(found)


def test_steps_by_hand():
    np.testing.assert_allclose(update(make_config(optimizer="sgd", learning_rate=0.5)), [-1.5, -2.0])
    # The first step of Adam is the learning rate in the direction of the gradient, but for epsilon.
    adam = make_config(learning_rate=0.5, optimizer_epsilon=1.0)
    np.testing.assert_allclose(update(adam), [-0.5 * 3 / 4, -0.5 * 4 / 5], rtol=1e-5)
    adamw = make_config(optimizer="adamw", learning_rate=0.5, optimizer_epsilon=1.0, weight_decay=0.1)
    matrix = update(adamw, gradients=((3.0, 4.0),), params=((1.0, -2.0),))
    np.testing.assert_allclose(matrix, [[-0.375 - 0.05, -0.4 + 0.1]], rtol=1e-5)
    np.testing.assert_allclose(update(adamw), [-0.375, -0.4], rtol=1e-5)  # a bias
    # Centred RMSProp: mean square 0.05 g², mean 0.05 g, and their difference under the root.
    rmsprop = make_config(optimizer="rmsprop", learning_rate=0.5, optimizer_epsilon=1e-8)
    wanted = -0.5 / np.sqrt(0.05 - 0.05**2)
    np.testing.assert_allclose(update(rmsprop), [wanted, wanted], rtol=1e-4)


def test_gradients_are_clipped_by_their_global_norm():
    clipped = make_config(optimizer="sgd", learning_rate=1.0, max_gradient_norm=2.5)
    np.testing.assert_allclose(update(clipped), [-1.5, -2.0], rtol=1e-6)
    np.testing.assert_allclose(update(clipped, gradients=(0.3, 0.4)), [-0.3, -0.4], rtol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("0.5", {1: 0.5, 80: 0.5}),
        ("linear(1,0,100%)", {1: 1.0, 51: 0.5, 101: 0.0, 120: 0.0}),
        ("linear(1,0.5,50%)", {1: 1.0, 26: 0.75, 51: 0.5, 90: 0.5}),
        ("linear(1,0,10)", {1: 1.0, 6: 0.5, 11: 0.0}),
        ("exponential(1,0.01,100%)", {1: 1.0, 51: 0.1, 101: 0.01, 120: 0.01}),
        ("cosine(1,0,100%)", {1: 1.0, 51: 0.5, 26: 0.5 + np.sqrt(0.125), 101: 0.0}),
        ("cosine(1,0.5,100%)", {1: 1.0, 51: 0.75, 101: 0.5}),
    ],
)
def test_learning_rates_by_hand(schedule, rates):
    config = make_config(optimizer="sgd", learning_rate=schedule)
    for step, rate in rates.items():
        np.testing.assert_allclose(update(config, (1.0, 2.0), steps=step), [-rate, -2 * rate], rtol=1e-4, atol=1e-6)


def test_the_learning_rate_is_the_value_of_its_schedule():
    for text in ("linear(1,0.5,50%)", "exponential(1,0.01,100%)", "cosine(1,0.5,100%)", "linear(0,1,30)"):
        config = make_config(optimizer="sgd", learning_rate=text)
        for step in (0, 13, 49):
            found = -update(config, (1.0, 1.0), steps=step + 1)[0]
            assert found == pytest.approx(float(config.learning_rate.value_at(step, total=100)), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("text", ["cosine(0.001,0,100%)", "linear(0.001,0,100%)", "exponential(0.001,0.0001,50%)"])
def test_a_schedule_needs_the_length_of_the_run(text):
    config = AgentConfig(learning_rate=text)
    with pytest.raises(ValueError, match=r"learning_rate: got .*which changes over the learner steps of the run, and"):
        make_optimizer(config, None)
    make_optimizer(AgentConfig(learning_rate="linear(0.001,0,500)"), None)


def test_a_cosine_must_begin_above_zero():
    with pytest.raises(ValueError, match=r"learning_rate: got cosine.*begins above 0. Try linear"):
        make_optimizer(AgentConfig(learning_rate="cosine(0,1,100%)"), 100)
