"""Torsos, heads and networks: shapes, dtypes, values and errors."""

from typing import Any

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from network_tools import KEY, primitives, random_floats, random_params, transform
from polyak import networks


class TestScaleImages:
    @pytest.mark.parametrize("jit", [False, True])
    def test_bytes_are_scaled(self, jit: bool) -> None:
        scale = jax.jit(networks.scale_images) if jit else networks.scale_images
        scaled = scale(jnp.arange(256, dtype=jnp.uint8).reshape(2, 128))
        assert scaled.dtype == jnp.float32
        np.testing.assert_allclose(scaled.ravel(), np.arange(256) / 255, rtol=3e-7)
        assert float(scaled.max()) == 1.0
        # Floats pass as they are, so that scaling what is scaled changes nothing.
        np.testing.assert_array_equal(scale(scaled), scaled)

    @pytest.mark.parametrize("dtype", [np.float32, np.float16, jnp.bfloat16, np.int8, np.int32, np.uint16, np.bool_])
    def test_other_dtypes_keep_their_values(self, dtype: Any) -> None:
        observation = np.asarray([[0, 1, 100]]).astype(dtype)
        scaled = networks.scale_images(observation)
        assert scaled.dtype == jnp.float32
        np.testing.assert_array_equal(scaled, observation.astype(np.float32))


class TestTorsos:
    def test_mlp_flattens_and_activates_every_layer(self) -> None:
        net = transform(lambda: networks.MLPTorso((2, 2), "relu"))
        observation = jnp.asarray([[[1.0], [2.0]], [[3.0], [-4.0]]])  # [B=2, 2, 1]
        params = {
            "torso/mlp/~/linear_0": {"w": jnp.asarray([[1.0, -1.0], [1.0, 0.0]]), "b": jnp.asarray([0.0, 2.0])},
            "torso/mlp/~/linear_1": {"w": jnp.asarray([[1.0, 1.0], [0.0, -4.0]]), "b": jnp.asarray([0.5, 0.0])},
        }
        # Row 1: [1+2, -1+2] = [3, 1], then [3.5, 3-4 -> 0]. Row 2: [-1 -> 0, -3+2 -> 0], then the bias alone.
        np.testing.assert_array_equal(net.apply(params, observation), [[3.5, 0.0], [0.5, 0.0]])

    @pytest.mark.parametrize(("activation", "at_minus_one"), [("relu", 0.0), ("tanh", np.tanh(-1.0))])
    def test_activation_is_the_named_one(self, activation: Any, at_minus_one: float) -> None:
        net = transform(lambda: networks.MLPTorso((1,), activation))
        params = {"torso/mlp/~/linear_0": {"w": jnp.ones([1, 1]), "b": jnp.zeros([1])}}
        np.testing.assert_allclose(net.apply(params, -jnp.ones([1, 1])), [[at_minus_one]], rtol=1e-6)

    @pytest.mark.parametrize("name", ["relu", "elu", "gelu", "silu", "tanh"])
    def test_every_activation_is_known_and_finite(self, name: Any) -> None:
        values = networks.activation_fn(name)(jnp.linspace(-5.0, 5.0, 11))
        assert values.shape == (11,)
        assert values[0] < values[-1]
        assert bool(jnp.isfinite(values).all())

    def test_mlp_without_layers_is_the_flattened_observation(self) -> None:
        net = transform(lambda: networks.MLPTorso(()))
        observation = jnp.arange(12.0).reshape(2, 3, 2)
        assert net.init(KEY, observation) == {}
        np.testing.assert_array_equal(net.apply({}, observation), observation.reshape(2, 6))

    def test_scalar_observations_are_vectors_of_one(self) -> None:
        net = transform(lambda: networks.MLPTorso((3,)))
        params = random_params(net, jnp.ones([5]))
        assert params["torso/mlp/~/linear_0"]["w"].shape == (1, 3)
        assert net.apply(params, jnp.ones([5])).shape == (5, 3)
        with pytest.raises(ValueError, match=r"observation: got a scalar; expected \[B, \.\.\.\]"):
            net.init(KEY, jnp.asarray(1.0))

    def test_nature_is_the_published_torso(self) -> None:
        net = transform(lambda: networks.NatureTorso())
        images = jnp.ones([2, 84, 84, 4])
        params = jax.eval_shape(net.init, KEY, images)
        assert jax.eval_shape(net.apply, params, images).shape == (2, 3136)
        assert jax.tree.map(jnp.shape, params) == {
            "torso/conv2_d": {"w": (8, 8, 4, 32), "b": (32,)},
            "torso/conv2_d_1": {"w": (4, 4, 32, 64), "b": (64,)},
            "torso/conv2_d_2": {"w": (3, 3, 64, 64), "b": (64,)},
        }

    def test_nature_equals_its_layers_in_haiku(self) -> None:
        def theirs(images: jax.Array) -> jax.Array:
            for channels, kernel, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
                images = jax.nn.relu(hk.Conv2D(channels, kernel, stride, padding="VALID")(images))
            return images.reshape(images.shape[0], -1)

        net = transform(lambda: networks.NatureTorso())
        images = random_floats(2, 52, 44, 3)
        params = random_params(net, images)
        haiku_params = {name.removeprefix("torso/"): module for name, module in params.items()}
        expected = hk.without_apply_rng(hk.transform(theirs)).apply(haiku_params, images)
        assert expected.shape == (2, 3 * 2 * 64)
        np.testing.assert_allclose(net.apply(params, images), expected, rtol=1e-5, atol=1e-5)

    def test_applied_twice_uses_its_parameters_twice(self) -> None:
        def twice(obs_tm1: jax.Array, obs_t: jax.Array) -> tuple[jax.Array, jax.Array]:
            torso = networks.make_torso("mlp", hidden_sizes=(4,))
            return torso(obs_tm1), torso(obs_t)

        net = hk.without_apply_rng(hk.transform(twice))
        params = jax.eval_shape(net.init, KEY, jnp.ones([1, 3]), jnp.ones([1, 3]))
        assert list(params) == ["torso/mlp/~/linear_0"]


class TestHeads:
    def test_linear_head_hand_computed(self) -> None:
        net = transform(lambda: networks.LinearHead(3))
        params = {
            "head/q_values": {
                "w": jnp.asarray([[1.0, 0.0, -1.0], [2.0, 1.0, 0.0]]),
                "b": jnp.asarray([0.0, 10.0, 20.0]),
            }
        }
        out = net.apply(params, jnp.asarray([[1.0, 2.0]]))
        np.testing.assert_array_equal(out, [[[5.0], [12.0], [19.0]]])

    def test_dueling_head_hand_computed(self) -> None:
        net = transform(lambda: networks.DuelingHead(3, 1, (1,)))
        params = {
            "head/value/~/linear_0": {"w": jnp.asarray([[2.0]]), "b": jnp.asarray([0.0])},
            "head/value/~/linear_1": {"w": jnp.asarray([[1.0]]), "b": jnp.asarray([1.0])},
            "head/advantage/~/linear_0": {"w": jnp.asarray([[1.0]]), "b": jnp.asarray([-1.0])},
            "head/advantage/~/linear_1": {"w": jnp.asarray([[1.0, 2.0, 6.0]]), "b": jnp.zeros([3])},
        }
        # At 2: value 2*2 + 1 = 5, hidden advantage 1, advantages [1, 2, 6] with mean 3.
        # At -1: both hidden layers are cut off by the ReLU: value 1, advantages zero.
        out = net.apply(params, jnp.asarray([[2.0], [-1.0]]))
        np.testing.assert_allclose(out[..., 0], [[3.0, 4.0, 8.0], [1.0, 1.0, 1.0]], rtol=1e-6)

    @settings(max_examples=10, deadline=None)
    @given(seed=st.integers(0, 2**32 - 1), shift=st.floats(-100.0, 100.0, width=32))
    def test_dueling_value_is_the_mean_and_the_advantages_have_none(self, seed: int, shift: float) -> None:
        net = transform(lambda: networks.DuelingHead(5, 1, (4,)))
        features = random_floats(3, 6)
        params = random_params(net, features, seed)
        q_values = net.apply(params, features)[..., 0]
        value = transform(lambda: hk.nets.MLP((4, 1), name="value"))
        value_params = {name.removeprefix("head/"): p for name, p in params.items() if name.startswith("head/value")}
        # The mean over actions is the value stream's output, and nothing of it is lost to the advantages.
        mean = q_values.mean(axis=-1, keepdims=True)
        np.testing.assert_allclose(mean, value.apply(value_params, features), rtol=1e-4, atol=1e-5)
        # What is added to the value moves each action by as much; what is added to every advantage moves none.
        for stream, expected in (("value", q_values + shift), ("advantage", q_values)):
            shifted = net.apply(shift_bias(params, f"head/{stream}/~/linear_1", shift), features)[..., 0]
            np.testing.assert_allclose(shifted, expected, rtol=1e-4, atol=1e-4)


def shift_bias(params: Any, module: str, shift: float) -> Any:
    return params | {module: params[module] | {"b": params[module]["b"] + shift}}


class TestValueNetwork:
    def test_plain_parameters(self) -> None:
        net = networks.value_network(2, torso="mlp", hidden_sizes=(16, 8))
        assert jax.tree.map(jnp.shape, jax.eval_shape(net.init, KEY, jnp.zeros([1, 4]))) == {
            "torso/mlp/~/linear_0": {"w": (4, 16), "b": (16,)},
            "torso/mlp/~/linear_1": {"w": (16, 8), "b": (8,)},
            "head/q_values": {"w": (8, 2), "b": (2,)},
        }

    def test_dueling_streams_have_the_last_hidden_layer_each(self) -> None:
        net = networks.value_network(2, torso="mlp", hidden_sizes=(16, 8), dueling=True)
        assert jax.tree.map(jnp.shape, jax.eval_shape(net.init, KEY, jnp.zeros([1, 4]))) == {
            "torso/mlp/~/linear_0": {"w": (4, 16), "b": (16,)},
            "head/value/~/linear_0": {"w": (16, 8), "b": (8,)},
            "head/value/~/linear_1": {"w": (8, 1), "b": (1,)},
            "head/advantage/~/linear_0": {"w": (16, 8), "b": (8,)},
            "head/advantage/~/linear_1": {"w": (8, 2), "b": (2,)},
        }

    @pytest.mark.parametrize(
        ("dueling", "count"),
        [
            # Three convolutions of 8224, 32832 and 36928 weights, 3136 * 512 + 512, and 512 * 6 + 6.
            (False, 8224 + 32832 + 36928 + 1606144 + 3078),
            # Two streams of 512 on the convolutions, the value's and the advantages' outputs.
            (True, 8224 + 32832 + 36928 + 2 * 1606144 + 513 + 3078),
        ],
    )
    def test_nature_has_the_published_number_of_parameters(self, dueling: bool, count: int) -> None:
        net = networks.value_network(6, torso="nature", hidden_sizes=(512,), dueling=dueling)
        images = jnp.zeros([1, 84, 84, 4], jnp.uint8)
        params = jax.eval_shape(net.init, KEY, images)
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
        assert jax.eval_shape(net.apply, params, None, images).q_values.shape == (1, 6)

    def test_hand_computed(self) -> None:
        net = networks.value_network(2, torso="mlp", hidden_sizes=(1,))
        params = {
            "torso/mlp/~/linear_0": {"w": jnp.asarray([[1.0], [-1.0]]), "b": jnp.asarray([0.5])},
            "head/q_values": {"w": jnp.asarray([[2.0, -2.0]]), "b": jnp.asarray([0.0, 1.0])},
        }
        # Hidden: 3 - 1 + 0.5 = 2.5, and -1.5 which the ReLU cuts to 0.
        out = net.apply(params, None, jnp.asarray([[3.0, 1.0], [1.0, 3.0]]))
        np.testing.assert_allclose(out.q_values, [[5.0, -4.0], [0.0, 1.0]], rtol=1e-6)

    @pytest.mark.parametrize("torso", ["mlp", "nature"])
    def test_bytes_are_scaled_exactly_once(self, torso: Any) -> None:
        net = networks.value_network(2, torso=torso, hidden_sizes=(8,))
        images = np.random.default_rng(0).integers(0, 256, size=(2, 36, 36, 1), dtype=np.uint8)
        params = random_params(net, images)
        apply = jax.jit(net.apply)
        from_bytes = apply(params, None, images).q_values
        from_floats = apply(params, None, images.astype(np.float32) / 255).q_values
        np.testing.assert_allclose(from_bytes, from_floats, rtol=1e-5, atol=1e-6)
        unscaled = apply(params, None, images.astype(np.float32)).q_values
        assert float(jnp.abs(unscaled).max()) > 10 * float(jnp.abs(from_bytes).max())

    @pytest.mark.slow
    def test_lowerings_give_the_same_values_and_gradients(self) -> None:
        images = np.random.default_rng(0).integers(0, 256, size=(2, 40, 36, 2), dtype=np.uint8)
        convolution, patches = (
            networks.value_network(3, torso="nature", hidden_sizes=(8,), dueling=True, lowering=lowering)
            for lowering in ("convolution", "patches")
        )
        params = random_params(convolution, images)
        chex.assert_trees_all_equal_shapes_and_dtypes(random_params(patches, images), params)
        q_values, expected = (jax.jit(net.apply)(params, None, images).q_values for net in (patches, convolution))
        np.testing.assert_allclose(q_values, expected, rtol=1e-5, atol=1e-5)
        grads, expected = (
            jax.jit(jax.grad(lambda p, net=net: jnp.sum(net.apply(p, None, images).q_values ** 2)))(params)
            for net in (patches, convolution)
        )
        chex.assert_trees_all_close(grads, expected, rtol=1e-4, atol=1e-5)
        assert "conv_general_dilated" not in primitives(jax.make_jaxpr(patches.apply)(params, None, images).jaxpr)

    def test_lowering_leaves_a_torso_without_convolutions_alone(self) -> None:
        observation = jnp.ones([2, 3])
        plain, patches = (
            networks.value_network(2, torso="mlp", hidden_sizes=(4,), lowering=lowering)
            for lowering in ("convolution", "patches")
        )
        params = random_params(plain, observation)
        chex.assert_trees_all_equal(patches.apply(params, None, observation), plain.apply(params, None, observation))

    @pytest.mark.parametrize("dueling", [False, True])
    def test_jit_and_vmap(self, dueling: bool) -> None:
        net = networks.value_network(3, torso="mlp", hidden_sizes=(8, 8), activation="tanh", dueling=dueling)
        observation = random_floats(5, 4)
        seeds = [random_params(net, observation, seed) for seed in range(2)]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)  # One lane a seed.
        lanes = jax.jit(jax.vmap(net.apply, in_axes=(0, None, None)))(stacked, None, observation).q_values
        assert lanes.shape == (2, 5, 3)
        for lane, params in zip(lanes, seeds, strict=True):
            expected = net.apply(params, None, observation).q_values
            np.testing.assert_allclose(lane, expected, rtol=1e-5, atol=1e-6)
            row_by_row = np.concatenate([net.apply(params, None, row[None]).q_values for row in observation])
            np.testing.assert_allclose(row_by_row, expected, rtol=1e-5, atol=1e-6)

    def test_initial_parameters_follow_from_the_key_alone(self) -> None:
        net = networks.value_network(3, torso="mlp", hidden_sizes=(8,))
        params = net.init(KEY, jnp.zeros([1, 4]))
        # Neither the batch nor the values, nor the dtype of the observation matter.
        chex.assert_trees_all_equal(net.init(KEY, jnp.ones([7, 4], jnp.uint8)), params)
        other = net.init(jax.random.key(1), jnp.zeros([1, 4]))
        for module in params:
            assert not np.array_equal(params[module]["w"], other[module]["w"])
            assert {leaf.dtype for leaf in params[module].values()} == {jnp.dtype(jnp.float32)}

    @pytest.mark.parametrize(("torso", "shape"), [("mlp", (4, 6)), ("nature", (4, 36, 36, 2))])
    @pytest.mark.parametrize("dueling", [False, True])
    def test_gradients_reach_every_parameter(self, torso: Any, shape: Any, dueling: bool) -> None:
        net = networks.value_network(3, torso=torso, hidden_sizes=(16,), dueling=dueling)
        observation = random_floats(*shape)
        params = random_params(net, observation)
        grads = jax.jit(jax.grad(lambda p: jnp.sum(net.apply(p, None, observation).q_values[:, 0])))(params)
        for path, grad in jax.tree_util.tree_leaves_with_path(grads):
            assert bool(jnp.isfinite(grad).all()), path
            assert bool((grad != 0).any()), path

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"num_actions": 0}, ValueError, r"num_actions: got 0; expected an integer >= 1"),
            ({"num_actions": True}, TypeError, r"num_actions: got True, a bool"),
            ({"num_actions": 2.0}, TypeError, r"num_actions: got 2.0, a float"),
            ({"hidden_sizes": ()}, ValueError, r"hidden_sizes: got no layer; expected one or more"),
            ({"hidden_sizes": (8, -1)}, ValueError, r"hidden_sizes\[1\]: got -1"),
            ({"hidden_sizes": 64}, TypeError, r"hidden_sizes: got 64; .* Write one layer as \(64,\)"),
            ({"hidden_sizes": "64"}, TypeError, r"hidden_sizes: got '64'"),
            (
                {"torso": "natur"},
                ValueError,
                r"torso: got 'natur'; expected one of 'impala', 'minatar', 'mlp', 'nature', 'small'. Did you mean",
            ),
            (
                {"torso": "resnet"},
                ValueError,
                r"torso: got 'resnet'; expected one of 'impala', 'minatar', 'mlp', 'nature', 'small'\.$",
            ),
            ({"activation": "Relu"}, ValueError, r"activation: got 'Relu'; .* Did you mean 'relu'\?"),
            ({"lowering": "conv"}, ValueError, r"lowering: got 'conv'; .*'convolution'"),
        ],
    )
    def test_rejects_arguments_before_anything_is_traced(self, arguments: Any, error: Any, message: str) -> None:
        with pytest.raises(error, match=message):
            networks.value_network(**{"num_actions": 2, "torso": "mlp", "hidden_sizes": (8,)} | arguments)

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ((1, 4), r"observation: got shape \(1, 4\); the nature torso takes images, .* Use torso='mlp'"),
            ((84, 84, 4), r"add a batch dimension to a single image"),
            ((1, 35, 84, 4), r"images of 35x84; the nature torso takes 36x36 at least"),
            ((1, 84, 35, 4), r"images of 84x35; the nature torso takes 36x36 at least. Enlarge the images"),
            ((1, 4, 84, 84), r"images of 4x84; .* If their channels come first, move them last"),
        ],
    )
    def test_nature_rejects_what_is_no_large_enough_image(self, shape: Any, message: str) -> None:
        net = networks.value_network(2, torso="nature", hidden_sizes=(8,))
        with pytest.raises(ValueError, match=message):
            net.init(KEY, jnp.zeros(shape, jnp.uint8))

    def test_nature_takes_the_smallest_image(self) -> None:
        net = networks.value_network(2, torso="nature", hidden_sizes=(8,))
        params = jax.eval_shape(net.init, KEY, jnp.zeros([1, 36, 36, 1], jnp.uint8))
        assert params["torso/mlp/~/linear_0"]["w"].shape == (64, 8)  # One pixel of 64 channels is left.
