"""Projector and predictor by hand, the parameters of the encoder, and the batch that BatchNorm cannot take."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from network_tools import KEY, random_floats
from polyak import networks

SIZES = {"hidden_sizes": (6, 5), "projector_hidden": 7, "projection_size": 3, "predictor_hidden": 4}


def test_the_layers_by_hand():
    net = hk.without_apply_rng(hk.transform_with_state(lambda x: networks.ProjectionMLP(4, 3)(x, True)))
    x = random_floats(5, 6)
    params, state = jax.jit(net.init)(KEY, x)
    params = jax.tree.map(lambda leaf: np.random.default_rng(0).normal(size=leaf.shape).astype(np.float32), params)
    first, norm, last = (params[f"projector/{name}"] for name in ("linear", "batch_norm", "linear_1"))
    hidden = np.asarray(x) @ first["w"] + first["b"]
    hidden = (hidden - hidden.mean(axis=0)) / np.sqrt(hidden.var(axis=0) + 1e-5)
    hidden = np.maximum(hidden * norm["scale"] + norm["offset"], 0)
    out, after = jax.jit(net.apply)(params, state, x)
    np.testing.assert_allclose(out, hidden @ last["w"], rtol=1e-4, atol=1e-5)
    assert "b" not in last
    average = after["projector/batch_norm/~/mean_ema"]["average"]
    np.testing.assert_allclose(average[0], (np.asarray(x) @ first["w"] + first["b"]).mean(axis=0), rtol=1e-4)


def test_the_encoder_has_the_parameters_of_an_agents_torso():
    images = jnp.zeros((2, 9, 9, 1), jnp.uint8)
    of_projection, _ = jax.eval_shape(networks.projection_network("small", **SIZES).init, KEY, images)
    of_agent, _ = jax.eval_shape(networks.make_network(2, torso="small", hidden_sizes=(6, 5)).init, KEY, images)
    torso = {name: leaves for name, leaves in of_agent.items() if name.startswith("torso")}
    assert {name: leaves for name, leaves in of_projection.items() if name.startswith("torso")} == torso
    assert {name.split("/")[0] for name in of_projection} == {"torso", "projector", "predictor"}


def test_without_a_predictor_the_projections_are_the_predictions():
    network = networks.projection_network("mlp", **{**SIZES, "predictor_hidden": None})
    images = random_floats(2, 3)
    params, state = jax.jit(network.init)(KEY, images)
    projected = random_floats(2, 3)
    predicted, after = network.predict(params, state, projected, True)
    np.testing.assert_array_equal(predicted, projected)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    assert not any(name.startswith("predictor") for name in params)


def test_bytes_are_scaled_once():
    network = networks.projection_network("mlp", **SIZES)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 3, 1)).astype(np.uint8)
    params, state = jax.jit(network.init)(KEY, images)
    encode = jax.jit(network.encode)
    np.testing.assert_allclose(
        encode(params, state, images), encode(params, state, np.float32(images) / 255), rtol=1e-5
    )


def test_a_batch_of_one_is_refused_in_training_alone():
    network = networks.projection_network("mlp", **SIZES)
    params, state = jax.eval_shape(network.init, KEY, jnp.zeros((2, 3)))

    def project(is_training):
        features = jax.ShapeDtypeStruct((1, 5), jnp.float32)
        return jax.eval_shape(lambda *trees: network.project(*trees, is_training), params, state, features)

    with pytest.raises(ValueError, match=r"^batch_size: got one row, for which BatchNorm maps every feature to 0"):
        project(True)
    assert project(False)[0].shape == (1, 3)


@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [((0, 3), ValueError, "hidden_size: got 0"), ((4, 2.0), TypeError, "output_size: got 2.0, a float")],
)
def test_sizes_are_checked(sizes, error, message):
    with pytest.raises(error, match=message):
        hk.transform_with_state(lambda x: networks.ProjectionMLP(*sizes)(x, True)).init(KEY, jnp.zeros((2, 3)))
