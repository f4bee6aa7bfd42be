"""The network of an agent: functions over one tree of parameters, module state, given networks, golden bits."""

import itertools
from collections.abc import Iterator
from typing import Any, get_args

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from network_tools import GOLDEN, KEY, random_floats, random_params, small_arguments
from polyak import networks

HEADS = get_args(networks.HeadName)
OBSERVATION = random_floats(2, 4)


# The others are compiled, operation by operation, in .ci/run.
QUICK = ("q-dueling-noisy", "ensemble")


def cases() -> Iterator[Any]:
    for head, dueling, noisy in itertools.product(HEADS, (False, True), (False, True)):
        # An iterated head is not in the first version.
        if head != "iterated" and (head != "ensemble" or not (dueling or noisy)):
            name = "-".join([head, *["dueling"] * dueling, *["noisy"] * noisy])
            marks = () if name in QUICK else pytest.mark.slow
            yield pytest.param(name, small_arguments(head) | {"dueling": dueling, "noisy": noisy}, id=name, marks=marks)
    for dueling in (False, True):
        name = "q-dueling-lstm" if dueling else "q-lstm"
        arguments = small_arguments() | {"dueling": dueling, "lstm_size": 7}
        yield pytest.param(name, arguments, id=name, marks=pytest.mark.slow)


def values(net: networks.Network, params: Any, state: Any, key: Any, observation: Any) -> networks.ValueOutput:
    features, _ = net.encode(params, state, None, observation, False)
    if net.core is not None:
        steps = jnp.asarray([[1], [2]]), jnp.asarray([[0.5], [-1.0]]), jnp.asarray([[False], [True]])
        hidden, _ = net.core(params, features[:, None], *steps, net.initial_recurrent_state(2))
        features = hidden[:, 0]
    return net.value(params, state, key, features, observation, False)[0]


@pytest.mark.parametrize(("name", "arguments"), list(cases()))
def test_initial_parameters_and_draws_are_those_of_the_first_version(name: str, arguments: Any) -> None:
    """Recorded with 0.1.0, whose runs can be continued. Other processors may round the initialisers differently."""
    net = networks.make_network(3, **arguments)
    params, state = net.init(KEY, OBSERVATION)
    assert state == {}
    leaves = {f"{module}:{leaf}": array for module, arrays in params.items() for leaf, array in arrays.items()}
    with np.load(GOLDEN / "networks.npz") as recorded:
        expected, q_values = recorded[f"{name}/params"], recorded[f"{name}/q_values"]
    found = np.concatenate([np.ravel(leaves[leaf]) for leaf in sorted(leaves)])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    if not arguments.get("noisy") or arguments["dueling"] or arguments["head"] == "implicit_quantile":
        # The torso draws nothing, so that the head draws from the key as it did.
        found = values(net, params, state, jax.random.key(1), OBSERVATION).q_values
        np.testing.assert_allclose(found, q_values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "head", [head if head in ("q", "ensemble") else pytest.param(head, marks=pytest.mark.slow) for head in HEADS]
)
def test_the_short_way_is_the_same_network(head: Any) -> None:
    arguments = small_arguments(head) | ({} if head in ("ensemble", "iterated") else {"dueling": True, "noisy": True})
    net, short = networks.make_network(3, **arguments), networks.value_network(3, **arguments)
    params, state = net.init(KEY, OBSERVATION)
    chex.assert_trees_all_equal(short.init(KEY, OBSERVATION), params)
    for key in (None, KEY):
        expected = values(net, params, state, key, OBSERVATION)
        chex.assert_trees_all_equal(short.apply(params, key, OBSERVATION), expected)


def test_the_short_way_has_neither_core_nor_state() -> None:
    for arguments in ({"lstm_size": 4}, {"head": "categorical", "v_min": None, "v_max": None}):
        with pytest.raises(ValueError, match=r"(lstm_size: got 4|v_min: got None); .* Use make_network"):
            networks.value_network(3, **small_arguments() | arguments)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("noisy", [False, True])
def test_draws_says_whether_a_key_is_read(head: Any, noisy: bool) -> None:
    if noisy and head in ("ensemble", "iterated"):
        return
    net = networks.make_network(3, **small_arguments(head) | {"noisy": noisy})
    params = random_params(net, OBSERVATION)

    def both(key: Any) -> Any:
        features, _ = net.encode(params, {}, key, OBSERVATION, True)
        return net.value(params, {}, key, features, OBSERVATION, True)[0]

    jaxpr = jax.make_jaxpr(both)(KEY).jaxpr
    assert net.draws == any(jaxpr.invars[0] in eqn.invars for eqn in jaxpr.eqns)


def test_fractions_that_are_not_drawn_are_the_midpoints_and_noise_is_drawn() -> None:
    arguments = small_arguments("implicit_quantile") | {"draw_fractions": False}
    quiet, noisy = (networks.make_network(3, **arguments, noisy=noisy) for noisy in (False, True))
    assert (quiet.draws, noisy.draws) == (False, True)
    params = random_params(noisy, OBSERVATION)
    one, other, mean = (values(noisy, params, {}, key, OBSERVATION) for key in (KEY, jax.random.key(5), None))
    np.testing.assert_array_equal(one.taus, mean.taus)
    np.testing.assert_array_equal(one.taus, other.taus)
    assert (one.q_values != other.q_values).all()


class TestSupport:
    @pytest.mark.parametrize("head", ["categorical", "hl_gauss"])
    @pytest.mark.parametrize("dueling", [False, True])
    def test_atoms_follow_from_the_state(self, head: Any, dueling: bool) -> None:
        arguments = small_arguments(head) | {"dueling": dueling}
        derived = networks.make_network(3, **arguments | {"v_min": None, "v_max": None})
        fixed = networks.make_network(3, **arguments | {"v_min": -3.0, "v_max": 7.0})
        params, state = derived.init(KEY, OBSERVATION)
        assert jax.tree.map(lambda leaf: leaf.tolist(), state) == {"head": {"support": [0.0, 0.0]}}
        chex.assert_trees_all_equal(fixed.init(KEY, OBSERVATION)[0], params)
        assert networks.support(fixed.init(KEY, OBSERVATION)[1]) is None
        state = jax.jit(networks.set_support)(state, -3.0, jnp.asarray(7))
        np.testing.assert_array_equal(networks.support(state), [-3.0, 7.0])
        found, expected = (
            values(derived, params, state, None, OBSERVATION),
            values(fixed, params, {}, None, OBSERVATION),
        )
        chex.assert_trees_all_close(found, expected, rtol=1e-6, atol=1e-6)
        _, after = derived.value(params, state, None, jnp.zeros([2, 6 if dueling else 5]), OBSERVATION, True)
        chex.assert_trees_all_equal(after, state)

    def test_bounds_are_exact(self) -> None:
        net = networks.make_network(3, **small_arguments("categorical") | {"v_min": None, "v_max": None})
        params, state = net.init(KEY, OBSERVATION)
        atoms = values(net, params, networks.set_support(state, -0.1, 0.7), None, OBSERVATION).atoms
        assert (atoms[0], atoms[-1]) == (np.float32(-0.1), np.float32(0.7))

    def test_rejects(self) -> None:
        with pytest.raises(ValueError, match=r"state: got modules \[\] without a support; .* v_min=None"):
            networks.set_support({}, 0.0, 1.0)
        with pytest.raises(ValueError, match=r"v_min: got 1.0; expected less than v_max, 1.0"):
            networks.set_support({"head": {"support": jnp.zeros(2)}}, 1.0, 1.0)
        with pytest.raises(TypeError, match=r"v_min: got None, a NoneType; expected a number"):
            networks.make_network(3, **small_arguments() | {"v_min": None})


def encode(observation: Any, is_training: bool) -> Any:
    x = hk.Linear(5)(networks.scale_images(observation))
    return hk.BatchNorm(create_scale=True, create_offset=True, decay_rate=0.5)(x, is_training)


def value(hidden: Any, observation: Any, is_training: bool) -> networks.ValueOutput:
    return networks.ValueOutput(q_values=hk.Linear(3)(hidden))


class TestCompose:
    def test_modules_of_the_same_name_are_apart(self) -> None:
        params, _ = networks.compose(encode, value).init(KEY, OBSERVATION)
        shapes = {name: leaves["w"].shape for name, leaves in params.items() if "w" in leaves}
        assert shapes == {"torso/linear": (4, 5), "head/linear": (5, 3)}

    def test_batch_norm_follows_the_batches_in_training_alone(self) -> None:
        net = networks.compose(encode, value, draws=False)
        params, state = net.init(KEY, OBSERVATION)
        features, after = net.encode(params, state, None, OBSERVATION, True)
        np.testing.assert_allclose(features.mean(axis=0), 0.0, atol=1e-5)
        linear = params["torso/linear"]
        mean = np.mean(OBSERVATION @ np.asarray(linear["w"]) + np.asarray(linear["b"]), axis=0, keepdims=True)
        np.testing.assert_allclose(
            after["torso/batch_norm/~/mean_ema"]["average"], mean, rtol=1e-5, atol=1e-6
        )  # Without bias after a single batch.
        evaluated, same = net.encode(params, after, None, OBSERVATION[:1], False)
        chex.assert_trees_all_equal(same, after)
        np.testing.assert_allclose(evaluated, features[:1], rtol=1e-4, atol=1e-5)  # The averages are of that batch.
        alone, _ = net.encode(params, after, None, OBSERVATION[:1], True)
        np.testing.assert_allclose(alone, np.zeros((1, 5)), atol=1e-5)
        out, _ = net.value(params, after, None, evaluated, OBSERVATION[:1], False)
        assert out.q_values.shape == (1, 3)

    def test_takes_a_core(self) -> None:
        net = networks.compose(encode, value, networks.lstm(3, 7))
        params, state = net.init(KEY, OBSERVATION)
        assert params["lstm/linear"]["w"].shape == (5 + 3 + 1 + 7, 4 * 7)
        assert values(net, params, state, None, OBSERVATION).q_values.shape == (2, 3)

    def test_rejects_other_outputs(self) -> None:
        def wrong(output: Any) -> networks.Network:
            return networks.compose(lambda observation, is_training: observation, lambda *_: output)

        with pytest.raises(TypeError, match=r"value: got a .*Array.* expected a ValueOutput. Return ValueOutput\(q_v"):
            wrong(jnp.zeros([2, 3])).init(KEY, OBSERVATION)
        with pytest.raises(ValueError, match=r"q_values of shape \(2,\); expected \[B, A\] with B = 2"):
            wrong(networks.ValueOutput(jnp.zeros(2))).init(KEY, OBSERVATION)
        with pytest.raises(
            ValueError, match=r"encode: got features of shape \(2, 2, 2\); expected \[B, D\] with B = 2"
        ):
            wrong(networks.ValueOutput(jnp.zeros([2, 3]))).init(KEY, OBSERVATION.reshape(2, 2, 2))


class TestFromHaiku:
    def test_with_and_without_state(self) -> None:
        def forward(observation: Any) -> networks.ValueOutput:
            return value(encode(observation, True), observation, True)

        stateless = hk.transform(lambda observation: value(observation, observation, False))
        for transformed in (stateless, hk.transform_with_state(forward)):
            net = networks.from_haiku(transformed)
            params, state = net.init(KEY, OBSERVATION)
            assert bool(state) == (transformed is not stateless)
            rest = (state, None, OBSERVATION) if state else (None, OBSERVATION)
            expected = transformed.apply(params, *rest)
            out = values(net, params, state, None, OBSERVATION)
            np.testing.assert_array_equal(out.q_values, (expected[0] if state else expected).q_values)
            assert (net.core, net.initial_recurrent_state(4)) == (None, ())

    def test_rejects(self) -> None:
        with pytest.raises(TypeError, match=r"transformed: got a function; expected the result of hk.transform"):
            networks.from_haiku(lambda x: x)
        net = networks.from_haiku(hk.transform(lambda x: hk.Linear(3)(x)))
        params, state = net.init(KEY, OBSERVATION)
        with pytest.raises(TypeError, match=r"expected a ValueOutput. Return ValueOutput\(q_values=\.\.\.\)"):
            values(net, params, state, None, OBSERVATION)
