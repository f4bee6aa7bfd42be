"""The six heads: what each gives, the names and sizes of its parameters, numbers done by hand."""

from typing import Any

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from network_tools import KEY, parameter_shapes, random_floats, random_params, small_network
from polyak import networks


class TestOutputs:
    @pytest.mark.parametrize(
        ("head", "dueling", "shapes"),
        [
            ("q", False, {}),
            ("categorical", False, {"atoms": (5,), "logits": (2, 3, 5)}),
            ("categorical", True, {"atoms": (5,), "logits": (2, 3, 5)}),
            ("hl_gauss", False, {"atoms": (5,), "logits": (2, 3, 5)}),
            ("quantile", False, {"quantiles": (2, 4, 3), "taus": (2, 4)}),
            ("quantile", True, {"quantiles": (2, 4, 3), "taus": (2, 4)}),
            ("implicit_quantile", False, {"quantiles": (2, 4, 3), "taus": (2, 4)}),
            ("implicit_quantile", True, {"quantiles": (2, 4, 3), "taus": (2, 4)}),
            ("ensemble", False, {"members": (2, 2, 3)}),
            ("iterated", False, {"members": (2, 3, 3)}),
        ],
    )
    @pytest.mark.parametrize("key", [None, KEY], ids=["no key", "key"])
    def test_shapes_and_dtypes(self, head: str, dueling: bool, shapes: Any, key: Any) -> None:
        net = small_network(head, dueling=dueling, noisy=head not in ("ensemble", "iterated"))
        observation = jnp.zeros([2, 4], jnp.uint8)
        params = jax.eval_shape(net.init, KEY, observation)
        out = jax.eval_shape(lambda params: net.apply(params, key, observation), params)
        assert isinstance(out, networks.ValueOutput)
        for field, leaf in out._asdict().items():
            expected = {"q_values": (2, 3), **shapes}.get(field)
            if expected is None:
                assert leaf == ()
            else:
                assert (leaf.shape, leaf.dtype) == (expected, jnp.float32), field

    @pytest.mark.parametrize(
        ("head", "dueling", "expected"),
        [
            ("q", False, {"torso/mlp/~/linear_0": (4, 6), "torso/mlp/~/linear_1": (6, 5), "head/q_values": (5, 3)}),
            (
                "categorical",
                False,
                {"torso/mlp/~/linear_0": (4, 6), "torso/mlp/~/linear_1": (6, 5), "head/logits": (5, 15)},
            ),
            (
                "categorical",
                True,
                {
                    "torso/mlp/~/linear_0": (4, 6),
                    "head/value/~/linear_0": (6, 5),
                    "head/value/~/linear_1": (5, 5),
                    "head/advantage/~/linear_0": (6, 5),
                    "head/advantage/~/linear_1": (5, 15),
                },
            ),
            (
                "quantile",
                False,
                {"torso/mlp/~/linear_0": (4, 6), "torso/mlp/~/linear_1": (6, 5), "head/quantiles": (5, 12)},
            ),
            (
                "implicit_quantile",
                False,
                {
                    "torso/mlp/~/linear_0": (4, 6),
                    "embedding/linear": (64, 6),
                    "head/mlp/~/linear_0": (6, 5),
                    "head/quantiles": (5, 3),
                },
            ),
            (
                "implicit_quantile",
                True,
                {
                    "torso/mlp/~/linear_0": (4, 6),
                    "embedding/linear": (64, 6),
                    "head/value/~/linear_0": (6, 5),
                    "head/value/~/linear_1": (5, 1),
                    "head/advantage/~/linear_0": (6, 5),
                    "head/advantage/~/linear_1": (5, 3),
                },
            ),
            (
                "ensemble",
                False,
                {
                    f"{prior}{name}": shape
                    for prior in ("", "prior/")
                    for name, shape in {
                        "torso/mlp/~/linear_0": (4, 6),
                        "torso/mlp/~/linear_1": (6, 5),
                        "head/q_values": (5, 6),
                    }.items()
                },
            ),
            (
                "iterated",
                False,
                {"torso/mlp/~/linear_0": (4, 6), "torso/mlp/~/linear_1": (6, 5), "head/q_values": (5, 9)},
            ),
        ],
    )
    def test_names_and_sizes_of_parameters(self, head: str, dueling: bool, expected: Any) -> None:
        shapes = parameter_shapes(small_network(head, dueling=dueling))
        assert {name: leaves["w"] for name, leaves in shapes.items()} == expected
        assert all(leaves == {"w": leaves["w"], "b": leaves["w"][1:]} for leaves in shapes.values())

    @pytest.mark.parametrize("dueling", [False, True])
    def test_plain_values_are_to_the_bit_those_of_haikus_layers(self, dueling: bool) -> None:
        """Runs that were saved go on: the same names, the same initial parameters, the same values."""

        class Body(hk.Module):
            def __call__(self, x: jax.Array) -> jax.Array:
                return hk.nets.MLP((6,) if dueling else (6, 5), activate_final=True)(x)

        class Head(hk.Module):
            def __call__(self, x: jax.Array) -> jax.Array:
                if not dueling:
                    return hk.Linear(3, name="q_values")(x)
                value, advantage = hk.nets.MLP((5, 1), name="value")(x), hk.nets.MLP((5, 3), name="advantage")(x)
                return value + advantage - jnp.mean(advantage, axis=-1, keepdims=True)

        theirs = hk.without_apply_rng(hk.transform(lambda x: Head(name="head")(Body(name="torso")(x))))
        ours = small_network(dueling=dueling)
        observation = random_floats(7, 4)
        params = theirs.init(KEY, observation)
        chex.assert_trees_all_equal(ours.init(KEY, observation), params)
        for key in (None, KEY):
            q_values = jax.jit(ours.apply)(params, key, observation).q_values
            np.testing.assert_array_equal(q_values, jax.jit(theirs.apply)(params, observation))

    def test_logits_hand_computed(self) -> None:
        net = networks.value_network(
            2, torso="mlp", hidden_sizes=(1,), head="categorical", num_atoms=3, v_min=-2.0, v_max=4.0
        )
        bias = jnp.log(jnp.asarray([0.5, 0.25, 0.25, 0.0625, 0.0625, 0.875]))
        params = {
            "torso/mlp/~/linear_0": {"w": jnp.ones([1, 1]), "b": jnp.zeros([1])},
            "head/logits": {"w": jnp.asarray([[1.0, 0, 0, 0, 0, 0]]), "b": bias},
        }
        out = net.apply(params, None, jnp.asarray([[0.0], [np.log(2.0)]]))
        assert out.atoms.tolist() == [-2.0, 1.0, 4.0]
        # The first action's mean is -1 + 0.25 + 1; twice the odds of -2 make (-2 + 0.25 + 1) / 1.5 of it.
        np.testing.assert_allclose(out.q_values, [[0.25, 3.4375], [-0.5, 3.4375]], rtol=1e-5)
        np.testing.assert_allclose(out.logits[0].ravel(), bias, rtol=1e-6)

    def test_atoms_of_hl_gauss_are_the_centres_of_the_bins(self) -> None:
        net = small_network("hl_gauss", num_atoms=4, v_min=-1.0, v_max=3.0)
        out = net.apply(random_params(net, jnp.ones([1, 4])), None, jnp.ones([1, 4]))
        assert out.atoms.tolist() == [-0.5, 0.5, 1.5, 2.5]
        probabilities = np.exp(out.logits[0]) / np.exp(out.logits[0]).sum(axis=-1, keepdims=True)
        np.testing.assert_allclose(out.q_values[0], probabilities @ np.float32([-0.5, 0.5, 1.5, 2.5]), rtol=1e-5)

    def test_dueling_logits_hand_computed(self) -> None:
        net = networks.value_network(
            2, torso="mlp", hidden_sizes=(1,), head="categorical", num_atoms=2, dueling=True, v_min=0.0, v_max=1.0
        )
        params = {
            "head/value/~/linear_0": {"w": jnp.ones([1, 1]), "b": jnp.zeros([1])},
            "head/value/~/linear_1": {"w": jnp.asarray([[10.0, 20.0]]), "b": jnp.zeros([2])},
            "head/advantage/~/linear_0": {"w": jnp.ones([1, 1]), "b": jnp.zeros([1])},
            "head/advantage/~/linear_1": {"w": jnp.asarray([[1.0, 2.0, 5.0, 8.0]]), "b": jnp.zeros([4])},
        }
        # Advantages of two actions for two atoms: [[1, 2], [5, 8]], whose means over the actions are [3, 5].
        out = net.apply(params, None, jnp.ones([1, 1]))
        np.testing.assert_allclose(out.logits, [[[8.0, 17.0], [12.0, 23.0]]], rtol=1e-6)

    def test_quantiles_hand_computed(self) -> None:
        net = networks.value_network(2, torso="mlp", hidden_sizes=(1,), head="quantile", num_quantiles=3)
        params = {
            "torso/mlp/~/linear_0": {"w": jnp.ones([1, 1]), "b": jnp.zeros([1])},
            "head/quantiles": {"w": jnp.asarray([[1.0, 2.0, 6.0, -1.0, 0.0, 1.0]]), "b": jnp.zeros([6])},
        }
        out = net.apply(params, KEY, jnp.asarray([[1.0], [2.0]]))
        np.testing.assert_allclose(out.quantiles[0], [[1.0, -1.0], [2.0, 0.0], [6.0, 1.0]])  # [M, A]
        np.testing.assert_allclose(out.q_values, [[3.0, 0.0], [6.0, 0.0]], rtol=1e-6)
        np.testing.assert_allclose(out.taus, [[1 / 6, 1 / 2, 5 / 6]] * 2, rtol=1e-6)


class TestImplicitQuantiles:
    @pytest.mark.parametrize("key", [None, KEY], ids=["no key", "key"])
    def test_equals_the_papers_equations_in_numpy(self, key: Any) -> None:
        net = small_network("implicit_quantile", activation="tanh")
        observation = random_floats(2, 4)
        params = jax.tree.map(np.asarray, random_params(net, observation))

        def linear(x: Any, name: str) -> Any:
            return x @ params[name]["w"] + params[name]["b"]

        out = net.apply(params, key, observation)
        features = np.tanh(linear(observation, "torso/mlp/~/linear_0"))
        for row in range(2):
            for index, tau in enumerate(np.asarray(out.taus)[row]):
                embedded = np.maximum(linear(np.cos(np.pi * np.arange(64) * tau), "embedding/linear"), 0)
                hidden = np.tanh(linear(features[row] * embedded, "head/mlp/~/linear_0"))
                expected = linear(hidden, "head/quantiles")
                np.testing.assert_allclose(out.quantiles[row, index], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(out.q_values, out.quantiles.mean(axis=1), rtol=1e-5, atol=1e-6)

    def test_fractions_are_the_midpoints_or_drawn_for_each_row(self) -> None:
        net = small_network("implicit_quantile", num_quantiles=2_000)
        observation = jnp.ones([2, 4])
        params = random_params(net, observation)
        apply = jax.jit(net.apply)
        fixed = np.asarray(apply(params, None, observation).taus)
        np.testing.assert_allclose(fixed, [(np.arange(2_000) + 0.5) / 2_000] * 2, rtol=1e-6)
        drawn = np.asarray(apply(params, KEY, observation).taus)
        np.testing.assert_array_equal(apply(params, KEY, observation).taus, drawn)
        assert not np.isin(drawn[0], drawn[1]).all()
        assert not np.array_equal(apply(params, jax.random.key(1), observation).taus, drawn)
        for row in np.sort(drawn, axis=-1):  # No further from the uniform distribution than by chance, once in 10^5.
            assert np.abs(row - fixed[0]).max() < 0.055


class TestIterated:
    def test_values_are_the_mean_of_the_heads_that_learn(self) -> None:
        net = small_network("iterated", num_iterations=2)
        observation = random_floats(2, 4)
        params = random_params(net, observation)
        out = net.apply(params, None, observation)
        hidden = observation
        for layer in ("torso/mlp/~/linear_0", "torso/mlp/~/linear_1"):
            hidden = jax.nn.relu(hidden @ params[layer]["w"] + params[layer]["b"][None])
        for head in range(3):  # the outputs of the heads are side by side
            block = slice(3 * head, 3 * head + 3)
            values = hidden @ params["head/q_values"]["w"][:, block] + params["head/q_values"]["b"][None, block]
            np.testing.assert_allclose(out.members[:, head], values, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(out.q_values, (out.members[:, 1] + out.members[:, 2]) / 2, rtol=1e-5)


class TestEnsemble:
    def test_members_differ_and_their_mean_is_the_value(self) -> None:
        net = small_network("ensemble", num_members=3)
        observation = random_floats(4, 4)
        out = net.apply(random_params(net, observation), None, observation)
        np.testing.assert_allclose(
            out.q_values, (out.members[:, 0] + out.members[:, 1] + out.members[:, 2]) / 3, rtol=1e-5
        )
        assert not np.allclose(out.members[:, 0], out.members[:, 1])

    def test_the_prior_is_a_network_of_its_own_that_is_added_in_proportion(self) -> None:
        observation = random_floats(4, 4)
        params = random_params(small_network("ensemble"), observation)
        without = small_network("ensemble", prior_scale=0.0)
        assert without.init(KEY, observation).keys() == {name for name in params if not name.startswith("prior/")}
        heads = without.apply(params, None, observation).members
        of_prior = {name.removeprefix("prior/"): leaves for name, leaves in params.items() if "prior/" in name}
        prior = without.apply(of_prior, None, observation).members
        for scale in (1.0, 2.5):
            out = small_network("ensemble", prior_scale=scale).apply(params, None, observation)
            np.testing.assert_allclose(out.members, heads + scale * prior, rtol=1e-4, atol=1e-5)

    def test_no_gradient_reaches_the_prior(self) -> None:
        net = small_network("ensemble", prior_scale=3.0)
        observation = random_floats(4, 4)
        params = random_params(net, observation)
        grads = jax.jit(jax.grad(lambda p: jnp.sum(net.apply(p, None, observation).members ** 2)))(params)
        for path, grad in jax.tree_util.tree_leaves_with_path(grads):
            assert bool((grad != 0).any()) == (not path[0].key.startswith("prior/")), path


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"head": "c51"}, ValueError, r"head: got 'c51'; expected one of 'categorical', 'ensemble', 'hl_gauss'"),
        ({"head": "quantiles"}, ValueError, r"Did you mean 'quantile'\?"),
        ({"head": "ensemble", "dueling": True}, ValueError, r"dueling: got True with head='ensemble'; expected False"),
        ({"head": "iterated", "dueling": True}, ValueError, r"dueling: got True with head='iterated'; expected False"),
        ({"head": "iterated", "noisy": True}, ValueError, r"noisy: got True with head='iterated'; expected False"),
        ({"num_iterations": 0}, ValueError, r"num_iterations: got 0; expected"),
        ({"head": "ensemble", "noisy": True}, ValueError, r"noisy: got True with head='ensemble'; expected False"),
        ({"num_atoms": 1}, ValueError, r"num_atoms: got 1; expected an integer >= 2"),
        ({"num_atoms": 51.0}, TypeError, r"num_atoms: got 51.0, a float"),
        ({"num_quantiles": 0}, ValueError, r"num_quantiles: got 0; expected an integer >= 1"),
        ({"num_members": 0}, ValueError, r"num_members: got 0; expected an integer >= 1"),
        ({"v_min": 1.0}, ValueError, r"v_min: got 1.0; expected less than v_max, 1.0. Give the range"),
        ({"v_max": np.inf}, ValueError, r"v_max: got inf; expected a finite number"),
        ({"v_min": "0"}, TypeError, r"v_min: got '0', a str; expected a number. Convert it with float\(\)"),
        ({"noisy_sigma": -0.1}, ValueError, r"noisy_sigma: got -0.1; expected a number >= 0"),
        ({"prior_scale": np.nan}, ValueError, r"prior_scale: got nan; expected a finite number"),
        ({"prior_scale": True}, TypeError, r"prior_scale: got True, a bool"),
    ],
)
def test_rejects_arguments_before_anything_is_traced(arguments: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        small_network(**arguments)
