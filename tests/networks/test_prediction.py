"""Latent transitions by convolutions, features that are scaled, and projections by the layers of a head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from network_tools import KEY, random_floats, random_params
from polyak import networks
from polyak.networks.prediction import make_projection

IMAGES = jnp.zeros((1, 6, 5, 2))


def spatial(**arguments):
    fields = {"torso": "minatar", "hidden_sizes": (7,), "dueling": True, "transition": "conv", "projection": "streams"}
    shape = networks.feature_map_shape("minatar", IMAGES.shape[1:])
    return networks.make_network(3, **{**fields, "feature_map": shape, **arguments})


def convolved(x, w, b):
    """A convolution of 3x3 with a border of zeros, in NumPy."""
    padded = np.pad(x, [(1, 1), (1, 1), (0, 0)])
    height, width = x.shape[:2]
    return b + sum(padded[i : i + height, j : j + width] @ w[i, j] for i in range(3) for j in range(3))


@pytest.mark.parametrize("normalize", [False, True])
def test_a_step_is_two_convolutions_of_the_map_and_the_planes_of_the_actions(normalize):
    network = spatial(projection="none", normalize=normalize)
    params = random_params(network, IMAGES)
    layers = [jax.tree.map(np.float64, params[f"transition/conv_{number}"]) for number in range(2)]
    features, actions = random_floats(2, 4 * 3 * 16), np.array([[2, 0, 1], [1, 1, 0]])
    found = network.predict(params, features, actions)
    for row in range(2):
        x = np.float64(features[row]).reshape(4, 3, 16)
        for step, action in enumerate(actions[row]):
            planes = np.broadcast_to(np.eye(3)[action], (4, 3, 3))
            x = np.maximum(convolved(np.concatenate([x, planes], axis=-1), **layers[0]), 0)
            x = np.maximum(convolved(x, **layers[1]), 0)
            x = (x - x.min()) / (x.max() - x.min() + 1e-5) if normalize else x
            np.testing.assert_allclose(found[row, step], x.ravel(), rtol=2e-4, atol=1e-5)


def test_without_actions_there_are_no_planes():
    network = spatial(action_conditional=False, projection="none")
    params = random_params(network, IMAGES)
    assert params["transition/conv_0"]["w"].shape == (3, 3, 16, 16)
    features = random_floats(2, 4 * 3 * 16)
    one, other = (network.predict(params, features, jnp.full((2, 2), action)) for action in (0, 2))
    np.testing.assert_array_equal(one, other)


def test_features_are_scaled_by_the_smallest_and_the_largest_of_each_observation():
    network = spatial(normalize=True)
    params = random_params(network, IMAGES)
    features, _ = network.encode(params, {}, None, random_floats(3, 6, 5, 2), False)
    np.testing.assert_allclose(features.min(axis=-1), 0, atol=1e-6)
    np.testing.assert_allclose(features.max(axis=-1), 1, atol=1e-3)


@pytest.mark.parametrize("head", ["q", "categorical", "ensemble"])
@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("projection", ["streams", "shared"])
def test_a_projection_is_the_first_layer_of_the_head_before_its_activation(head, dueling, projection):
    if (projection == "streams" and not dueling) or (head == "ensemble" and dueling):
        return
    network = networks.make_network(
        3,
        torso="mlp",
        hidden_sizes=(6, 5),
        head=head,
        dueling=dueling,
        prior_scale=0.0,
        transition="mlp",
        projection=projection,
    )
    params = jax.tree.map(np.asarray, random_params(network, jnp.zeros((1, 4))))
    names = ["value", "advantage"] if projection == "streams" else ["mlp"]
    layers = [params[f"head/{name}/~/linear_0"] for name in names]
    hidden = random_floats(2, 6)
    wanted = np.concatenate([hidden @ layer["w"] + layer["b"] for layer in layers], axis=-1)
    np.testing.assert_allclose(network.project(params, hidden), wanted, rtol=1e-5)
    assert params["predictor"]["w"].shape == (wanted.shape[-1],) * 2
    # A prediction is the predictor of the projection of the model's features.
    plain = networks.make_network(3, torso="mlp", hidden_sizes=(6, 5), dueling=True, transition="mlp")
    actions = jnp.array([[0, 1], [2, 2]])
    latents = plain.predict(params, hidden, actions)
    wanted = np.asarray(network.project(params, latents)) @ params["predictor"]["w"] + params["predictor"]["b"]
    np.testing.assert_allclose(network.predict(params, hidden, actions), wanted, rtol=1e-4, atol=1e-5)
    # The values are read from the same layers: one stream's, or the one that both share.
    moved = {**params, f"head/{names[0]}/~/linear_0": {**layers[0], "b": layers[0]["b"] + 10.0}}
    read = [network.value(p, {}, None, hidden, jnp.zeros((2, 4)), False)[0].q_values for p in (params, moved)]
    assert (np.abs(read[1] - read[0]) > 1e-3).any()


def test_a_projection_leaves_the_values_as_they_are():
    plain, projected = (spatial(projection=projection) for projection in ("none", "streams"))
    params = random_params(projected, IMAGES)
    hidden = random_floats(2, 4 * 3 * 16)
    one, other = (net.value(params, {}, None, hidden, IMAGES, False)[0].q_values for net in (plain, projected))
    np.testing.assert_array_equal(one, other)
    assert make_projection("none", 8) is None


def test_a_wider_torso_has_more_filters():
    shape = (1, 36, 36, 1)
    for torso, filters in (("nature", 32), ("impala", 16), ("minatar", 16), ("small", 32)):
        for width in (1, 3):
            net = networks.value_network(2, torso=torso, hidden_sizes=(4,), torso_width=width)
            kernels = [
                leaves["w"] for leaves in jax.eval_shape(net.init, KEY, jnp.zeros(shape)).values() if "w" in leaves
            ]
            assert width * filters in {kernel.shape[-1] for kernel in kernels if len(kernel.shape) == 4}
            height, _, channels = networks.feature_map_shape(torso, shape[1:], width)
            dense = next(kernel for kernel in kernels if kernel.shape[-1] == 4)
            assert dense.shape[0] == height * height * channels


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"feature_map": None}, r"feature_map: got None with transition='conv'"),
        ({"feature_map": (2, 2, 16)}, r"features: got 192 features; expected 64, a map of shape \(2, 2, 16\)"),
        ({"dueling": False}, r"projection: got 'streams' with dueling=False"),
        ({"projection": "both"}, r"projection: got 'both'; expected one of 'none', 'shared', 'streams'"),
        ({"torso_width": 0}, r"width: got 0; expected an integer >= 1"),
        ({"torso": "mlp", "torso_width": 2}, r"width: got 2 with torso='mlp'"),
        ({"head": "implicit_quantile"}, r"projection: got 'streams' with head='implicit_quantile'"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(spatial(**arguments).init, KEY, IMAGES)
