"""Networks with an LSTM: steps equal sequences, each episode begins with zeros, numbers by hand in NumPy."""

from typing import Any, get_args

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from network_tools import KEY, primitives, random_floats, random_params, small_arguments, unroll
from polyak import networks

BATCH, TIME, ACTIONS = 2, 6, 3


def build(**arguments: Any) -> networks.Network:
    return networks.make_network(ACTIONS, **{"torso": "mlp", "hidden_sizes": (5, 4), "lstm_size": 7} | arguments)


def sequences(shape: tuple[int, ...] = (4,)) -> dict[str, np.ndarray]:
    """Two episodes in the first lane, of which the second begins at step 3, and the middle of one in the second."""
    rng = np.random.default_rng(1)
    first = np.zeros((BATCH, TIME), bool)
    first[0, [0, 3]] = True
    return {
        "observation": random_floats(BATCH, TIME, *shape),
        "a_tm1": rng.integers(ACTIONS, size=(BATCH, TIME)).astype(np.int32),
        "r_tm1": random_floats(BATCH, TIME, seed=2),
        "first": first,
    }


def some_state(size: int = 7) -> hk.LSTMState:
    return hk.LSTMState(
        jnp.asarray(random_floats(BATCH, size, seed=3)), jnp.asarray(random_floats(BATCH, size, seed=4))
    )


@pytest.mark.parametrize("dueling", [False, True])
def test_names_and_sizes_of_parameters(dueling: bool) -> None:
    shapes, _ = jax.eval_shape(build(dueling=dueling).init, KEY, jnp.zeros([1, 4]))
    heads = {
        False: {"head/q_values": (7, 3)},
        True: {
            "head/value/~/linear_0": (7, 4),
            "head/value/~/linear_1": (4, 1),
            "head/advantage/~/linear_0": (7, 4),
            "head/advantage/~/linear_1": (4, 3),
        },
    }
    assert {name: leaves["w"].shape for name, leaves in shapes.items()} == {
        "torso/mlp/~/linear_0": (4, 5),
        "torso/mlp/~/linear_1": (5, 4),
        "lstm/linear": (4 + ACTIONS + 1 + 7, 4 * 7),  # Features, action, reward and what it gave before; four gates.
        **heads[dueling],
    }


@pytest.mark.parametrize(
    ("torso", "shape", "lowering"), [("mlp", (4,), "convolution"), ("minatar", (4, 5, 2), "patches")]
)
@pytest.mark.parametrize("dueling", [False, True])
def test_a_sequence_equals_its_steps(torso: str, shape: Any, lowering: str, dueling: bool) -> None:
    net = build(torso=torso, dueling=dueling, lowering=lowering)
    drawn = sequences(shape)
    params = random_params(net, drawn["observation"][:, 0])
    out, last = jax.jit(unroll, static_argnums=0)(net, params, *drawn.values(), some_state())
    assert out.q_values.shape == (BATCH, TIME, ACTIONS)
    assert out.q_values.dtype == jnp.float32
    step, state = jax.jit(unroll, static_argnums=0), some_state()
    for t in range(TIME):
        one, state = step(net, params, *(leaf[:, t : t + 1] for leaf in drawn.values()), state)
        np.testing.assert_allclose(one.q_values[:, 0], out.q_values[:, t], rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(state, last, rtol=1e-4, atol=1e-5)


QUICK = ("q", "implicit_quantile")


@pytest.mark.parametrize(
    "head",
    [head if head in QUICK else pytest.param(head, marks=pytest.mark.slow) for head in get_args(networks.HeadName)],
)
def test_every_head_reads_the_hidden_state(head: Any) -> None:
    net = build(**small_arguments(head))
    plain = build(**small_arguments(head) | {"lstm_size": None})
    drawn = sequences()
    params = random_params(net, drawn["observation"][:, 0])
    out, _ = unroll(net, params, *drawn.values(), some_state())
    assert out.q_values.shape == (BATCH, TIME, ACTIONS)
    other, _ = unroll(net, params, *drawn.values(), jax.tree.map(lambda leaf: 2 * leaf, some_state()))
    assert not np.allclose(out.q_values[1], other.q_values[1])
    np.testing.assert_array_equal(out.q_values[0], other.q_values[0])  # An episode begins at once.
    names, plain_names = (random_params(n, drawn["observation"][:, 0]).keys() for n in (net, plain))
    assert names == plain_names | {"lstm/linear"} | {"torso/mlp/~/linear_1"}


def test_noise_is_after_the_core() -> None:
    params = random_params(build(noisy=True, dueling=True), jnp.zeros([1, 4]))
    streams = {f"head/{stream}/~/linear_{layer}" for stream in ("value", "advantage") for layer in (0, 1)}
    assert {name for name, leaves in params.items() if "w_sigma" in leaves} == streams


def test_the_prior_of_an_ensemble_has_no_core() -> None:
    net, without = (build(**small_arguments("ensemble") | {"prior_scale": scale}) for scale in (2.0, 0.0))
    prior = networks.make_network(ACTIONS, **small_arguments("ensemble") | {"prior_scale": 0.0})
    drawn = sequences()
    params = random_params(net, drawn["observation"][:, 0])
    of_prior = {name.removeprefix("prior/"): leaves for name, leaves in params.items() if name.startswith("prior/")}
    assert of_prior.keys() == random_params(prior, drawn["observation"][:, 0]).keys()
    members, expected = (unroll(n, params, *drawn.values(), some_state())[0].members for n in (net, without))
    observation = drawn["observation"][:, 2]
    features, _ = prior.encode(of_prior, {}, None, observation, False)
    added, _ = prior.value(of_prior, {}, None, features, observation, False)
    np.testing.assert_allclose(members[:, 2], expected[:, 2] + 2.0 * added.members, rtol=1e-4, atol=1e-5)


def test_hand_computed_in_numpy() -> None:
    net = build(activation="tanh")
    drawn = sequences()
    params = jax.tree.map(np.asarray, random_params(net, drawn["observation"][:, 0]))

    def linear(x: Any, name: str) -> Any:
        return x @ params[name]["w"] + params[name]["b"]

    def sigmoid(x: Any) -> Any:
        return 1 / (1 + np.exp(-x))

    out, last = jax.jit(unroll, static_argnums=0)(net, params, *drawn.values(), some_state())
    for lane in range(BATCH):
        hidden, cell = (np.asarray(leaf)[lane] for leaf in some_state())
        for step in range(TIME):
            x = drawn["observation"][lane, step]
            for layer in ("torso/mlp/~/linear_0", "torso/mlp/~/linear_1"):
                x = np.tanh(linear(x, layer))
            action, reward = np.eye(ACTIONS)[drawn["a_tm1"][lane, step]], drawn["r_tm1"][lane, step]
            if drawn["first"][lane, step]:
                hidden, cell, action, reward = np.zeros(7), np.zeros(7), np.zeros(ACTIONS), 0.0
            gates = linear(np.concatenate([x, action, [reward], hidden]), "lstm/linear")
            i, g, f, o = np.split(gates, 4)
            cell = sigmoid(f + 1) * cell + sigmoid(i) * np.tanh(g)
            hidden = sigmoid(o) * np.tanh(cell)
            expected = linear(hidden, "head/q_values")
            np.testing.assert_allclose(out.q_values[lane, step], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(last.hidden[lane], hidden, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(last.cell[lane], cell, rtol=1e-4, atol=1e-5)


def test_nothing_of_an_episode_reaches_the_next() -> None:
    net = build(dueling=True)
    drawn = sequences()
    params = random_params(net, drawn["observation"][:, 0])
    run = jax.jit(unroll, static_argnums=0)
    expected, _ = run(net, params, *drawn.values(), some_state())
    changed = {name: leaf.copy() for name, leaf in drawn.items()}
    changed["observation"][0, :3] += 1.0
    changed["a_tm1"][0, :4] = (changed["a_tm1"][0, :4] + 1) % ACTIONS  # The one that led across is not read either.
    changed["r_tm1"][0, :4] = np.nan
    got, _ = run(net, params, *changed.values(), net.initial_recurrent_state(BATCH))
    assert np.isnan(got.q_values[0, 1:3]).all()
    np.testing.assert_array_equal(got.q_values[0, 3:], expected.q_values[0, 3:])
    # Without a beginning it does: the second lane's recurrent state was another.
    assert not np.allclose(got.q_values[1], expected.q_values[1])


def test_initial_recurrent_state_is_zeros_of_its_size() -> None:
    state = build().initial_recurrent_state(5)
    assert isinstance(state, hk.LSTMState)
    for leaf in state:
        np.testing.assert_array_equal(leaf, np.zeros((5, 7), np.float32))


@pytest.mark.slow
def test_gradients_reach_every_parameter_through_time() -> None:
    net = build(dueling=True, activation="tanh")
    drawn = sequences()
    params = random_params(net, drawn["observation"][:, 0])

    def last_value(params: Any, observation: Any) -> jax.Array:
        rest = list(drawn.values())[1:]
        return unroll(net, params, observation, *rest, some_state())[0].q_values[:, -1, 0].sum()

    of_params, of_observation = jax.jit(jax.grad(last_value, argnums=(0, 1)))(params, drawn["observation"])
    for path, grad in jax.tree_util.tree_leaves_with_path(of_params):
        assert bool((grad != 0).any()), path
    reached = (of_observation != 0).any(axis=-1)
    np.testing.assert_array_equal(reached, [[False, False, False, True, True, True], [True] * TIME])


def test_the_torso_sees_all_steps_at_once_and_the_lstm_alone_loops() -> None:
    net = build(torso="minatar", lowering="convolution")
    drawn = sequences((4, 5, 2))
    params = random_params(net, drawn["observation"][:, 0])
    jaxpr = jax.make_jaxpr(unroll, static_argnums=0)(net, params, *drawn.values(), some_state()).jaxpr
    (loop,) = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "scan"]
    assert loop.params["length"] == TIME
    assert "conv_general_dilated" not in primitives(loop.params["jaxpr"].jaxpr)
    (convolution,) = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "conv_general_dilated"]
    assert convolution.invars[0].aval.shape == (BATCH * TIME, 4, 5, 2)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"lstm_size": 0}, ValueError, r"lstm_size: got 0; expected an integer >= 1"),
        ({"hidden_sizes": ()}, ValueError, r"hidden_sizes: got no layer"),
        ({"torso": "mpl"}, ValueError, r"torso: got 'mpl'; .* Did you mean 'mlp'\?"),
        ({"lowering": "conv"}, ValueError, r"lowering: got 'conv'"),
    ],
)
def test_rejects_arguments_before_anything_is_traced(arguments: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        build(**arguments)


def test_rejects_shapes_that_do_not_go_together() -> None:
    net = build()
    drawn = sequences()
    params = random_params(net, drawn["observation"][:, 0])
    with pytest.raises(ValueError, match=r"r_tm1: got shape \(2, 5\); expected \[B, T\], \(2, 6\), like the features"):
        unroll(net, params, *(drawn | {"r_tm1": drawn["r_tm1"][:, 1:]}).values(), some_state())
    with pytest.raises(ValueError, match=r"recurrent_state: got shape \(1, 7\); expected \[B, lstm_size\], \(2, 7\)"):
        unroll(net, params, *drawn.values(), net.initial_recurrent_state(1))
