"""Roles of the main target: functional regularization and trust region by hand, for every head, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agent_samples import equal, make, make_config, random_sample, random_state, table_network
from polyak.agents import TermOutput
from polyak.agents.terms.value import leaves_trust_region
from polyak.replay import EnvironmentSpec, Sample, Transition

TWO = EnvironmentSpec(jax.ShapeDtypeStruct((2,), jnp.float32), num_actions=2)
# Values are observations times weights: the online network has the weights (1, 1).
DRAWN = Transition(
    obs_tm1=np.float32([[1.0, 2.0], [3.0, 4.0]]),
    a_tm1=np.int32([0, 1]),
    r_t=np.float32([0.5, -3.0]),
    discount_t=np.float32([0.5, 0.0]),
    obs_t=np.float32([[2.0, 6.0], [9.0, 9.0]]),
)
ERRORS = np.array([0.5 + 0.5 * 6.0 - 1.0, -3.0 - 4.0])  # the online network bootstraps: 6 and not a target's value


def learn_once(target_weights, **fields):
    agent = make(TWO, {"network": table_network()}, optimizer="sgd", **{"learning_rate": 1.0, **fields})
    state = random_state(agent)
    slow = state.targets["q"]._replace(params={"~": {"w": jnp.float32(target_weights)}})
    state = state._replace(params={"~": {"w": jnp.ones(2)}}, targets={"q": slow})
    sample = Sample(DRAWN, np.float32([1.0, 1.0]), np.arange(2))
    return jax.jit(agent.learn)(jax.random.key(1), state, sample)


# --- Functional regularization ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [1.0, 0.25])
@pytest.mark.parametrize("error", ["squared", "huber"])
def test_functional_regularization_by_hand(weight, error):
    # The target's values of the actions are 4 and 4, the online network's 1 and 4.
    distance = np.array([1.0 - 4.0, 0.0])
    fields = {"target_role": "functional", "functional_weight": weight, "error": error}
    after, output = learn_once([4.0, 1.0], **fields)
    losses = 0.5 * ERRORS**2 if error == "squared" else np.abs(ERRORS) - 0.5
    assert float(output.metrics["loss"]) == pytest.approx((losses + weight * 0.5 * distance**2).mean(), rel=1e-6)
    np.testing.assert_allclose(output.priorities, np.abs(ERRORS), rtol=1e-6)
    assert float(output.metrics["value_distance"]) == pytest.approx(1.5)
    # The gradient flows through q(obs_tm1, a_tm1) alone: not through the bootstrap value, nor through the target.
    slopes = -ERRORS if error == "squared" else -np.sign(ERRORS)
    gradient = np.array([1.0 * (slopes + weight * distance)[0], 4.0 * (slopes + weight * distance)[1]]) / 2
    np.testing.assert_allclose(after.params["~"]["w"], 1.0 - gradient, rtol=1e-6)


# --- Trust region -----------------------------------------------------------------------------------------------------


# Values of the online network are 1 and 4, and its TD errors 2.5 and -7 with a standard deviation of 4.75.
@pytest.mark.parametrize(
    ("target_weights", "width", "dropped"),
    [
        ([0.1, 1.0], 0.1, [True, False]),  # 0.9 above the target and rising; the region ends at 0.475
        ([0.1, 1.0], 0.2, [False, False]),  # the region ends at 0.95
        ([1.9, 1.0], 0.1, [False, False]),  # 0.9 below the target and rising
        ([1.0, 2.0], 0.5, [False, True]),  # 4 below the target and falling
        ([1.0, 0.5], 0.1, [False, False]),  # 2 above the target and falling
        ([0.1, 2.0], 0.1, [True, True]),
    ],
)
def test_a_step_that_leaves_the_trust_region_has_no_loss(target_weights, width, dropped):
    after, output = learn_once(target_weights, target_role="trust_region", trust_region_width=width)
    kept = ~np.array(dropped)
    assert float(output.metrics["loss"]) == pytest.approx((kept * 0.5 * ERRORS**2).mean(), rel=1e-6)
    assert float(output.metrics["dropped_losses"]) == np.mean(dropped)
    np.testing.assert_allclose(output.priorities, np.abs(ERRORS), rtol=1e-6)
    np.testing.assert_allclose(after.params["~"]["w"], 1.0 + kept * ERRORS * [1.0, 4.0] / 2, rtol=1e-6)


def test_the_deviation_is_that_of_the_steps_that_are_learnt_from_and_at_least_a_hundredth():
    learns, td_error = jnp.array([True, True, False]), jnp.array([1.0, 3.0, 100.0])  # deviation 1
    assert leaves_trust_region(1.0, jnp.array([1.1, 0.9, 200.0]), td_error, learns).tolist() == [True, False, True]
    equal_errors = jnp.ones(3)
    found = leaves_trust_region(1.0, jnp.array([0.011, 0.009, -0.011]), equal_errors, jnp.ones(3, bool))
    assert found.tolist() == [True, False, False]


# --- Every head -------------------------------------------------------------------------------------------------------

KINDS = [
    ({}, None),
    ({"double": True, "bootstrap": "greedy"}, None),
    ({"bootstrap": "munchausen"}, None),
    ({"head": "categorical", "v_min": -1.0, "v_max": 5.0, "num_atoms": 5}, None),
    ({"head": "hl_gauss", "v_min": -1.0, "v_max": 5.0, "num_atoms": 5}, None),
    ({"head": "quantile", "num_quantiles": 3}, None),
    ({"head": "ensemble", "num_members": 2}, None),
    ({"core": "lstm", "lstm_size": 3, "value_rescaling": True, "burn_in": 1}, 3),
]


@pytest.mark.parametrize(
    ("fields", "steps"), [*KINDS[:4], *(pytest.param(*kind, marks=pytest.mark.slow) for kind in KINDS[4:])]
)
def test_without_effect_of_the_target_both_roles_are_the_loss_without_a_target(fields, steps):
    config = make_config(**fields)
    sample = random_sample(config, steps=steps, n_steps=2)
    alone = make(**fields, target="none", optimizer="sgd")
    start = random_state(alone)
    expected, _ = jax.jit(alone.learn)(jax.random.key(0), start, sample)
    # A frozen target begins as a copy: the distance is 0 at the first step.
    for role in ({"target_role": "functional"}, {"target_role": "trust_region"}):
        agent = make(**fields, **role, target="frozen", optimizer="sgd")
        state, output = jax.jit(agent.learn)(jax.random.key(0), random_state(agent), sample)
        for found, wanted in zip(jax.tree.leaves(state.params), jax.tree.leaves(expected.params), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
        assert float(output.metrics.get("value_distance", 0.0)) == pytest.approx(0, abs=1e-5)
        assert float(output.metrics.get("dropped_losses", 0.0)) == 0
        again, output = jax.jit(agent.learn)(jax.random.key(1), state, sample)
        assert not equal(again.params, state.params)
        assert all(np.isfinite(value) for value in output.metrics.values())


def test_the_bootstrap_value_has_other_random_draws_than_the_choice_of_the_action():
    fields = {"head": "implicit_quantile", "num_quantiles": 2, "target_role": "functional"}
    seen = []

    def spy(key, views):
        jax.debug.callback(lambda *taus: seen.append(taus), views.online.t.taus, views.online.t_again.taus)
        return TermOutput(jnp.zeros(len(views.sample.weights)))

    agent = make(options={"terms": {"spy": (1.0, spy)}}, **fields)
    jax.jit(agent.learn)(jax.random.key(0), random_state(agent), random_sample(make_config(**fields)))
    jax.effects_barrier()
    assert not np.array_equal(*seen[0])


# --- Errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["none", "periodic:1"])
@pytest.mark.parametrize("role", ["functional", "trust_region"])
def test_a_target_that_equals_the_online_network_has_no_role(rule, role):
    message = rf"^target: got '{rule}', under which .*Try --target periodic:1000, or --target-role bootstrap"
    with pytest.raises(ValueError, match=message):
        make(target=rule, target_role=role)
    make(target=rule)
    make(target="none q/head=periodic:5", target_role=role)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"functional_weight": 1.0},
            r"functional_weight: got 1.0, but target_role is 'bootstrap'; only functional has",
        ),
        (
            {"target_role": "functional", "functional_weight": 0},
            r"functional_weight: got 0; expected a finite number > 0",
        ),
        ({"target_role": "trust_region", "trust_region_width": 0}, r"trust_region_width: got 0; expected .* > 0"),
        ({"target_role": "trust"}, r"target_role: got 'trust'; expected one of bootstrap, functional, trust_region"),
    ],
)
def test_bad_input(fields, message):
    with pytest.raises(ValueError, match=message):
        make(**fields)
