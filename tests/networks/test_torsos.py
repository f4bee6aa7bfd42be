"""The torsos of MinAtar and IMPALA equal their layers in Haiku, under both lowerings, and say what they cannot take."""

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
from polyak.networks.image_torsos import max_pool

TORSOS = {"impala": networks.ImpalaTorso, "minatar": networks.MinAtarTorso, "small": networks.SmallTorso}
SECTIONS = ((4, 16), (16, 32), (32, 32))  # Channels in and out.


def impala_in_haiku(images: jax.Array) -> jax.Array:
    for section, (_, channels) in enumerate(SECTIONS):
        with hk.name_scope(f"section_{section}"):
            images = hk.Conv2D(channels, 3, name="conv")(images)
            images = hk.max_pool(images, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
            for block in range(2):
                before = images
                for conv in range(2):
                    images = hk.Conv2D(channels, 3, name=f"block_{block}_conv_{conv}")(jax.nn.relu(images))
                images = before + images
    return jax.nn.relu(images).reshape(images.shape[0], -1)


def minatar_in_haiku(images: jax.Array) -> jax.Array:
    images = jax.nn.relu(hk.Conv2D(16, 3, padding="VALID")(images))
    return images.reshape(images.shape[0], -1)


def small_in_haiku(images: jax.Array) -> jax.Array:
    for channels in (32, 64, 64):
        images = hk.Conv2D(channels, 3, 2)(images)
        images = jax.nn.relu(hk.LayerNorm((1, 2, 3), True, True, param_axis=-1)(images))
    return images.reshape(images.shape[0], -1)


@pytest.mark.parametrize(
    ("torso", "theirs"),
    [
        pytest.param("impala", impala_in_haiku, marks=pytest.mark.slow),
        ("minatar", minatar_in_haiku),
        ("small", small_in_haiku),
    ],
    ids=["impala", "minatar", "small"],
)
def test_equal_their_layers_in_haiku(torso: str, theirs: Any) -> None:
    images = random_floats(2, 9, 6, 4)
    net = transform(lambda: TORSOS[torso]())
    params = random_params(net, images)
    of_haiku = hk.without_apply_rng(hk.transform(theirs))
    haiku_params = {name.removeprefix("torso/"): module for name, module in params.items()}
    chex.assert_trees_all_equal_shapes(random_params(of_haiku, images), haiku_params)
    expected = jax.jit(of_haiku.apply)(haiku_params, images)
    assert expected.shape == (2, {"impala": 2 * 1 * 32, "minatar": 7 * 4 * 16, "small": 2 * 1 * 64}[torso])
    np.testing.assert_allclose(jax.jit(net.apply)(params, images), expected, rtol=1e-4, atol=1e-5)


def test_impala_has_the_published_parameters() -> None:
    net = networks.value_network(6, torso="impala", hidden_sizes=(256,))
    shapes = jax.tree.map(jnp.shape, jax.eval_shape(net.init, KEY, jnp.zeros([1, 84, 84, 4], jnp.uint8)))
    expected = {"torso/mlp/~/linear_0": (3872, 256), "head/q_values": (256, 6)}
    for section, (before, channels) in enumerate(SECTIONS):
        expected[f"torso/section_{section}/conv"] = (3, 3, before, channels)
        for layer in ("block_0_conv_0", "block_0_conv_1", "block_1_conv_0", "block_1_conv_1"):
            expected[f"torso/section_{section}/{layer}"] = (3, 3, channels, channels)
    assert {name: leaves["w"] for name, leaves in shapes.items()} == expected
    assert all(leaves["b"] == leaves["w"][-1:] for leaves in shapes.values())


def test_minatar_has_the_published_parameters() -> None:
    net = networks.value_network(6, torso="minatar", hidden_sizes=(128,))
    assert jax.tree.map(jnp.shape, jax.eval_shape(net.init, KEY, jnp.zeros([1, 10, 10, 4], bool))) == {
        "torso/conv2_d": {"w": (3, 3, 4, 16), "b": (16,)},
        "torso/mlp/~/linear_0": {"w": (1024, 128), "b": (128,)},
        "head/q_values": {"w": (128, 6), "b": (6,)},
    }


@pytest.mark.parametrize(
    "torso", ["minatar", pytest.param("small", marks=pytest.mark.slow), pytest.param("impala", marks=pytest.mark.slow)]
)
def test_lowerings_give_the_same_values_and_gradients(torso: Any) -> None:
    images = np.random.default_rng(0).integers(0, 256, size=(2, 7, 6, 2), dtype=np.uint8)
    nets = [
        networks.value_network(3, torso=torso, hidden_sizes=(8,), dueling=True, lowering=lowering)
        for lowering in ("convolution", "patches")
    ]
    params = random_params(nets[0], images)
    chex.assert_trees_all_equal_shapes_and_dtypes(random_params(nets[1], images), params)

    def of(net: hk.Transformed) -> Any:
        return jax.value_and_grad(lambda p: jnp.sum(net.apply(p, None, images).q_values[:, 0] ** 2))

    @jax.jit
    def both(params: Any) -> Any:
        def inside(carry: Any, _: Any) -> Any:  # of the loop, where the lowering is chosen
            return carry, of(nets[1])(carry)

        return of(nets[0])(params), jax.lax.scan(inside, params, None, length=1)[1]

    expected, in_scan = both(params)
    chex.assert_trees_all_close(jax.tree.map(lambda leaf: leaf[0], in_scan), expected, rtol=1e-3, atol=1e-4)
    for path, grad in jax.tree_util.tree_leaves_with_path(expected[1]):
        assert bool(jnp.isfinite(grad).all()), path
        assert bool((grad != 0).any()), path
    used = primitives(jax.make_jaxpr(of(nets[1]))(params).jaxpr)
    assert not used & {"conv_general_dilated", "reduce_window_max", "select_and_scatter_add"}


@pytest.mark.parametrize("torso", TORSOS)
def test_dense_layers_follow_with_their_activation_and_noise(torso: Any) -> None:
    images = random_floats(2, 5, 5, 1)
    bare, dense = (
        hk.transform(lambda x, sizes=sizes: TORSOS[torso](sizes, "tanh", noisy_sigma=0.5)(x)) for sizes in ((), (4, 3))
    )
    params = random_params(dense, images)
    features = jax.jit(bare.apply)(params, None, images)
    for layer in ("torso/mlp/~/linear_0", "torso/mlp/~/linear_1"):
        features = jnp.tanh(features @ params[layer]["w"] + params[layer]["b"][None])
    np.testing.assert_allclose(jax.jit(dense.apply)(params, None, images), features, rtol=1e-5, atol=1e-5)
    assert [name for name in params if "w_sigma" in params[name]] == ["torso/mlp/~/linear_1"]


class TestMaxPool:
    def test_hand_computed(self) -> None:
        image = jnp.asarray([[1.0, 2.0, 0.0, 9.0], [3.0, 0.0, 0.0, 0.0], [-1.0, 0.0, -5.0, -6.0]])
        # Three rows: one of padding on either side; four columns: one after them.
        np.testing.assert_array_equal(max_pool(image[None, ..., None])[0, ..., 0], [[3.0, 9.0], [3.0, 0.0]])

    @settings(max_examples=6, deadline=None)
    @given(height=st.integers(1, 8), width=st.integers(1, 8), seed=st.integers(0, 100))
    def test_equals_haiku(self, height: int, width: int, seed: int) -> None:
        images = random_floats(2, height, width, 3, seed=seed)
        expected = hk.max_pool(images, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
        np.testing.assert_array_equal(max_pool(images), expected)

    def test_gradient_goes_to_the_largest_pixel_and_is_shared_among_equal_ones(self) -> None:
        images = random_floats(2, 5, 6, 3)
        weights = random_floats(2, 3, 3, 3, seed=1)

        def gradient(pool: Any, images: Any) -> Any:
            return jax.grad(lambda x: jnp.sum(pool(x) * weights))(images)

        expected = gradient(lambda x: hk.max_pool(x, (1, 3, 3, 1), (1, 2, 2, 1), "SAME"), images)
        np.testing.assert_allclose(gradient(max_pool, images), expected, rtol=1e-6)
        equal = gradient(max_pool, jnp.zeros([2, 5, 6, 3]))
        np.testing.assert_allclose(equal.sum(axis=(1, 2)), weights.sum(axis=(1, 2)), rtol=1e-4, atol=1e-5)
        assert bool(jnp.isfinite(equal).all())


@pytest.mark.parametrize(
    ("torso", "shape", "message"),
    [
        ("impala", (1, 4), r"got shape \(1, 4\); the impala torso takes images, \[B, H, W, C\]. Use torso='mlp'"),
        ("minatar", (10, 10, 4), r"the minatar torso takes images, .* add a batch dimension to a single image"),
        ("minatar", (1, 2, 10, 1), r"images of 2x10; the minatar torso takes 3x3 at least. Enlarge the images"),
        ("minatar", (1, 2, 10, 10), r"images of 2x10; .* If their channels come first, move them last"),
    ],
)
def test_rejects_what_is_no_large_enough_image(torso: Any, shape: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        networks.value_network(2, torso=torso, hidden_sizes=(8,)).init(KEY, jnp.zeros(shape, jnp.uint8))


@pytest.mark.parametrize(
    ("torso", "shape"), [("impala", (1, 1, 1, 1)), ("minatar", (1, 3, 3, 1)), ("small", (1, 1, 1, 1))]
)
def test_takes_the_smallest_image(torso: Any, shape: Any) -> None:
    net = networks.value_network(2, torso=torso, hidden_sizes=(8,))
    params = jax.eval_shape(net.init, KEY, jnp.zeros(shape))
    assert jax.eval_shape(net.apply, params, None, jnp.zeros(shape)).q_values.shape == (1, 2)
