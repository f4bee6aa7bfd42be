"""Noisy layers: where they stand, what they draw and with which moments; and who reads the key of ``apply``."""

from typing import get_args

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from network_tools import KEY, parameter_shapes, random_floats, random_params, small_network
from polyak import networks

HEADS = get_args(networks.HeadName)
DUELING = [head for head in HEADS if head not in ("ensemble", "iterated")]


def reads_its_key(net: hk.Transformed) -> bool:
    """Whether a value is computed from the key."""
    observation = jnp.zeros([2, 4])
    params = random_params(net, observation)
    jaxpr = jax.make_jaxpr(lambda key: net.apply(params, key, observation))(KEY).jaxpr
    (key,) = jaxpr.invars
    return any(key in eqn.invars for eqn in jaxpr.eqns)


class TestNoise:
    @pytest.mark.parametrize("dueling", [False, True])
    @pytest.mark.parametrize("head", DUELING)
    def test_noise_is_in_the_head_and_the_last_hidden_layers(self, head: str, dueling: bool) -> None:
        shapes = parameter_shapes(small_network(head, dueling=dueling, noisy=True))
        plain_shapes = parameter_shapes(small_network(head, dueling=dueling))
        assert {name: leaves["w"] for name, leaves in shapes.items()} == {
            name: leaves["w"] for name, leaves in plain_shapes.items()
        }
        noisy = {name for name, leaves in shapes.items() if "w_sigma" in leaves}
        plain = {"torso/mlp/~/linear_0", "embedding/linear"}
        assert noisy == shapes.keys() - plain
        for name in noisy:
            assert shapes[name]["w_sigma"] == shapes[name]["w"]
            assert shapes[name]["b_sigma"] == shapes[name]["b"]

    @pytest.mark.slow
    def test_initial_parameters_are_the_papers(self) -> None:
        layer = hk.transform(lambda x: networks.NoisyLinear(500, sigma=0.4)(x))
        params = layer.init(KEY, jnp.zeros([1, 16]))["noisy_linear"]
        for mean in (params["w"], params["b"]):  # Uniform within a quarter of zero.
            assert 0.24 < float(mean.max()) <= 0.25
            assert -0.25 <= float(mean.min()) < -0.24
            assert abs(float(mean.std()) - 0.25 / np.sqrt(3)) < 0.01
        for scale in (params["w_sigma"], params["b_sigma"]):
            np.testing.assert_allclose(scale, 0.1, rtol=1e-6)

    def test_without_a_key_or_without_scales_it_is_a_linear_layer(self) -> None:
        layer = hk.transform(lambda x: networks.NoisyLinear(3)(x))
        linear = hk.without_apply_rng(hk.transform(lambda x: hk.Linear(3, name="noisy_linear")(x)))
        inputs = random_floats(5, 4)
        params = random_params(layer, inputs)
        expected = linear.apply(params, inputs)
        np.testing.assert_array_equal(layer.apply(params, None, inputs), expected)
        assert not np.allclose(layer.apply(params, KEY, inputs), expected)
        quiet = {"noisy_linear": params["noisy_linear"] | {"w_sigma": jnp.zeros([4, 3]), "b_sigma": jnp.zeros(3)}}
        np.testing.assert_array_equal(layer.apply(quiet, KEY, inputs), expected)

    def test_noise_is_factorised_and_its_moments_are_those_of_the_scales(self) -> None:
        layer = hk.transform(lambda x: networks.NoisyLinear(2)(x))
        # One-hot rows read single weights: the noise of w is outer(f, g), that of b is g.
        params = {
            "noisy_linear": {
                "w": jnp.zeros([3, 2]),
                "b": jnp.zeros(2),
                "w_sigma": jnp.full([3, 2], 0.5),
                "b_sigma": jnp.full(2, 2.0),
            }
        }
        inputs = jnp.concatenate([jnp.zeros([1, 3]), jnp.eye(3)])
        keys = jax.random.split(KEY, 20_000)
        out = np.asarray(jax.jit(jax.vmap(layer.apply, in_axes=(None, 0, None)))(params, keys, inputs))
        noise_out = out[:, 0] / 2.0
        noise_w = (out[:, 1:] - out[:, :1]) / 0.5
        noise_in = noise_w / noise_out[:, None]
        np.testing.assert_allclose(noise_in[..., 0], noise_in[..., 1], rtol=1e-2, atol=1e-2)
        # f(e)^2 = abs(e): the mean is 0 and the variance sqrt(2 / pi), and f of different draws is independent.
        variance = np.sqrt(2 / np.pi)
        for noise, expected in ((noise_out, variance), (noise_w, variance**2)):
            np.testing.assert_allclose(noise.mean(axis=0), 0.0, atol=0.03)
            np.testing.assert_allclose(noise.var(axis=0), expected, rtol=0.06)
        np.testing.assert_allclose((noise_out**4).mean(axis=0), 1.0, rtol=0.06)  # f(e)^4 = e^2
        assert abs(np.corrcoef(noise_out.T)[0, 1]) < 0.03

    @pytest.mark.parametrize("dueling", [False, True])
    def test_one_draw_for_the_batch_and_another_for_another_key(self, dueling: bool) -> None:
        net = small_network(dueling=dueling, noisy=True)
        observation = jnp.ones([4, 4])
        params = random_params(net, observation)
        apply = jax.jit(net.apply)
        first, again, other, mean = (
            apply(params, key, observation).q_values for key in (KEY, KEY, jax.random.key(1), None)
        )
        np.testing.assert_array_equal(first, again)
        np.testing.assert_array_equal(first, jnp.broadcast_to(first[:1], first.shape))
        assert not np.allclose(first, other)
        assert not np.allclose(first, mean)

    @pytest.mark.parametrize("dueling", [False, True])
    @pytest.mark.parametrize("head", DUELING)
    def test_without_a_key_it_is_the_network_without_noise(self, head: str, dueling: bool) -> None:
        noisy, plain = (small_network(head, dueling=dueling, noisy=noisy) for noisy in (True, False))
        observation = random_floats(3, 4)
        params = random_params(noisy, observation)
        means = {name: {"w": leaves["w"], "b": leaves["b"]} for name, leaves in params.items()}
        chex.assert_trees_all_equal(noisy.apply(params, None, observation), plain.apply(means, None, observation))

    @pytest.mark.slow
    @pytest.mark.parametrize("head", ["categorical", "implicit_quantile"])
    def test_gradients_reach_means_and_scales(self, head: str) -> None:
        net = small_network(head, dueling=True, noisy=True, activation="tanh")
        observation = random_floats(4, 4)
        params = random_params(net, observation)
        grads = jax.jit(jax.grad(lambda p: jnp.sum(net.apply(p, KEY, observation).q_values[:, 0] ** 2)))(params)
        for path, grad in jax.tree_util.tree_leaves_with_path(grads):
            assert bool(jnp.isfinite(grad).all()), path
            assert bool((grad != 0).any()), path


class TestKey:
    @pytest.mark.parametrize("head", HEADS)
    def test_it_is_read_where_something_is_drawn(self, head: str) -> None:
        assert reads_its_key(small_network(head)) == (head == "implicit_quantile")

    @pytest.mark.parametrize("head", DUELING)
    def test_noise_reads_it(self, head: str) -> None:
        assert reads_its_key(small_network(head, noisy=True))
