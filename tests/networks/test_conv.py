"""The convolution equals Haiku's, under both lowerings."""

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

# Kernel, stride, padding and shape [B, H, W, C]: square and not, windows that leave a rest, stride above the kernel.
CONVOLUTIONS = [
    (3, 1, "VALID", (2, 5, 5, 4)),
    (3, 1, "SAME", (2, 5, 5, 4)),
    (8, 4, "VALID", (1, 21, 37, 2)),
    (4, 2, "SAME", (2, 9, 12, 2)),
    ((2, 3), (1, 2), "VALID", (3, 7, 8, 1)),
    ((2, 3), (3, 2), "SAME", (3, 7, 8, 1)),
    ((4, 1), 2, "SAME", (2, 6, 3, 3)),
    (1, 3, "VALID", (2, 8, 7, 2)),
    (1, 3, "SAME", (2, 8, 7, 2)),
    (5, 1, "VALID", (2, 5, 5, 3)),
    (5, 2, "SAME", (2, 2, 3, 3)),
]


class TestConv2D:
    @pytest.mark.parametrize(
        ("kernel", "stride", "padding", "shape"),
        [*CONVOLUTIONS[:3], *(pytest.param(*geometry, marks=pytest.mark.slow) for geometry in CONVOLUTIONS[3:])],
    )
    def test_equals_haiku(self, kernel: Any, stride: Any, padding: Any, shape: Any) -> None:
        theirs = transform(lambda: hk.Conv2D(6, kernel, stride, padding=padding))
        ours = [
            transform(lambda lowering=lowering: networks.Conv2D(6, kernel, stride, padding, lowering))
            for lowering in ("convolution", "patches")
        ]
        images = random_floats(*shape)
        params = random_params(theirs, images)
        for net in ours:
            chex.assert_trees_all_equal_shapes_and_dtypes(random_params(net, images), params)
        # A different weight for each output, so that no gradient hides behind a symmetry.
        readout = random_floats(*jax.eval_shape(theirs.apply, params, images).shape, seed=1)

        @jax.jit
        def outputs_and_gradients(params: Any, images: jax.Array) -> list[Any]:
            results = []
            for net in (theirs, *ours):
                out, pullback = jax.vjp(net.apply, params, images)
                results.append((out, pullback(readout)))
            return results

        expected, convolution, patches = outputs_and_gradients(params, images)
        chex.assert_trees_all_close(convolution, expected, rtol=1e-4, atol=1e-4)
        chex.assert_trees_all_close(patches, expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.slow
    def test_initial_parameters_equal_haikus(self) -> None:
        images = jnp.ones([1, 6, 6, 3])
        expected = transform(lambda: hk.Conv2D(5, (3, 2))).init(KEY, images)
        for lowering in ("convolution", "patches"):
            net = transform(lambda lowering=lowering: networks.Conv2D(5, (3, 2), lowering=lowering))
            chex.assert_trees_all_equal(net.init(KEY, images), expected)

    @settings(max_examples=10, deadline=None)
    @given(
        size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
        kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
        stride=st.tuples(st.integers(1, 5), st.integers(1, 5)),
        padding=st.sampled_from(["SAME", "VALID"]),
    )
    def test_lowerings_agree_for_any_geometry(self, size: Any, kernel: Any, stride: Any, padding: Any) -> None:
        height, width = np.maximum(size, kernel) if padding == "VALID" else size
        images = random_floats(1, height, width, 2)
        params = random_params(transform(lambda: networks.Conv2D(3, kernel)), np.ones([1, 9, 9, 2], np.float32))

        @jax.jit
        def outputs(images: jax.Array) -> list[jax.Array]:
            return [
                transform(lambda how=how: networks.Conv2D(3, kernel, stride, padding, how)).apply(params, images)
                for how in ("convolution", "patches")
            ]

        np.testing.assert_allclose(*outputs(images), rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("lowering", ["convolution", "patches"])
    def test_hand_computed(self, lowering: Any) -> None:
        net = transform(lambda: networks.Conv2D(1, 2, lowering=lowering))
        params = {"conv2_d": {"w": jnp.asarray([1.0, 10.0, 100.0, 1000.0]).reshape(2, 2, 1, 1), "b": jnp.ones([1])}}
        image = jnp.arange(1.0, 7.0).reshape(2, 3, 1)  # [[1, 2, 3], [4, 5, 6]]
        np.testing.assert_array_equal(net.apply(params, image)[..., 0], [[1 + 20 + 400 + 5000 + 1, 6532 + 1]])

    @pytest.mark.parametrize("lowering", ["convolution", "patches"])
    def test_one_image_is_a_batch_of_one(self, lowering: Any) -> None:
        net = transform(lambda: networks.Conv2D(3, 2, 2, "SAME", lowering))
        images = random_floats(4, 5, 5, 2)
        params = random_params(net, images)
        one_by_one = jnp.stack([net.apply(params, image) for image in images])
        np.testing.assert_allclose(one_by_one, net.apply(params, images), rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("padding", ["VALID", "SAME"])
    def test_patches_are_one_product_and_no_convolution(self, padding: Any) -> None:
        net = transform(lambda: networks.Conv2D(3, 3, 2, padding, "patches"))
        images = random_floats(2, 9, 9, 2)
        params = random_params(net, images)
        forward = jax.make_jaxpr(net.apply)(params, images)
        backward = jax.make_jaxpr(jax.grad(lambda p, x: net.apply(p, x).sum(), argnums=(0, 1)))(params, images)
        for jaxpr in (forward, backward):
            assert "conv_general_dilated" not in primitives(jaxpr.jaxpr)
            assert "dot_general" in primitives(jaxpr.jaxpr)
            assert "gather" not in primitives(jaxpr.jaxpr)
        assert str(forward).count("dot_general[") == 1

    def test_convolution_is_a_convolution(self) -> None:
        net = transform(lambda: networks.Conv2D(3, 3))
        images = random_floats(1, 5, 5, 2)
        jaxpr = jax.make_jaxpr(net.apply)(random_params(net, images), images)
        assert "conv_general_dilated" in primitives(jaxpr.jaxpr)

    def test_keeps_the_dtype(self) -> None:
        images = jnp.ones([1, 5, 5, 2], dtype=jnp.bfloat16)
        for lowering in ("convolution", "patches"):
            net = transform(lambda lowering=lowering: networks.Conv2D(3, 3, lowering=lowering))
            params = jax.eval_shape(net.init, KEY, images)
            assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}
            assert jax.eval_shape(net.apply, params, images).dtype == jnp.bfloat16

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"output_channels": 0}, ValueError, r"output_channels: got 0; expected an integer >= 1"),
            ({"output_channels": 2.0}, TypeError, r"output_channels: got 2.0, a float"),
            ({"kernel_shape": 0}, ValueError, r"kernel_shape: got 0"),
            ({"kernel_shape": (2, 2, 2)}, ValueError, r"kernel_shape: got \(2, 2, 2\); expected an integer or two"),
            ({"stride": (1, -1)}, ValueError, r"stride: got -1"),
            ({"padding": "FULL"}, ValueError, r"padding: got 'FULL'; expected one of 'SAME', 'VALID'"),
            ({"lowering": "patch"}, ValueError, r"lowering: got 'patch'; .* Did you mean 'patches'\?"),
        ],
    )
    def test_rejects_arguments(self, arguments: Any, error: Any, message: str) -> None:
        arguments = {"output_channels": 2, "kernel_shape": 2} | arguments
        with pytest.raises(error, match=message):
            transform(lambda: networks.Conv2D(**arguments)).init(KEY, jnp.ones([1, 5, 5, 1]))

    @pytest.mark.parametrize(
        ("images", "error", "message"),
        [
            (np.ones([1, 5, 5, 1], np.uint8), TypeError, r"inputs: got dtype uint8; .*scale_images"),
            (np.ones([5, 5], np.float32), ValueError, r"inputs: got shape \(5, 5\); expected \[H, W, C\]"),
            (np.ones([1, 2, 5, 1], np.float32), ValueError, r"images of 2x5; expected at least the kernel's 3x3"),
        ],
    )
    def test_rejects_inputs(self, images: Any, error: Any, message: str) -> None:
        with pytest.raises(error, match=message):
            transform(lambda: networks.Conv2D(2, 3)).init(KEY, images)
