"""Bootstrap policies: the greedy one, and Munchausen by hand and at its limits."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies

from polyak.agents.bootstrap import mix, next_policy, soft_maximum
from polyak.agents.config import Greedy, Munchausen, Scalar
from polyak.agents.heads import ActionRewardDiscount, learn_transition
from polyak.networks import ValueOutput

TRANSITION = ActionRewardDiscount(jnp.int32(1), jnp.float32(0.5), jnp.float32(0.9))
MUNCHAUSEN = Munchausen(munchausen_temperature=0.5)


def bootstrap_target(bootstrap, q_tm1, q_t, masks=()):
    """Bootstrap target of action 1 with a reward of 0.5 and a discount of 0.9; the online values are 0."""
    return float(td_error_of(bootstrap, jnp.float32(q_tm1), jnp.float32(q_t), masks))


@functools.partial(jax.jit, static_argnames="bootstrap")
def td_error_of(bootstrap, q_tm1, q_t, masks):
    policy = next_policy(bootstrap, q_t, q_tm1, TRANSITION.a_tm1, *masks)
    return learn_transition(Scalar(), ValueOutput(jnp.zeros(2)), ValueOutput(q_t), policy, TRANSITION).td_error


def test_greedy_takes_the_largest_legal_value():
    values = jnp.array([5.0, 1.0, 2.0])
    assert int(next_policy(Greedy(), values, values, jnp.int32(0)).weights) == 0
    mask = jnp.array([False, True, True])
    policy = next_policy(Greedy(), values, values, jnp.int32(0), (), mask)
    assert int(policy.weights) == 2
    assert policy.entropy_bonus == policy.reward_bonus == 0
    assert int(next_policy(Greedy(), values, values, jnp.int32(0), (), jnp.zeros(3, bool)).weights) == 0


def test_the_values_of_one_network_are_chosen_by_those_of_another():
    # Double Q-learning: the online network prefers action 1, whose value under the target is 2.
    policy = next_policy(Greedy(double=True), jnp.array([1.0, 3.0]), jnp.zeros(2), jnp.int32(0))
    assert float(mix(policy.weights, jnp.array([4.0, 2.0]))) == 2.0


def test_munchausen_by_hand():
    policy_tm1 = np.exp([2.0, 2.2]) / np.exp([2.0, 2.2]).sum()  # of values (1.0, 1.1) at temperature 0.5
    policy_t = np.exp([4.0, 2.0]) / np.exp([4.0, 2.0]).sum()
    soft_value = (policy_t * (np.array([2.0, 1.0]) - 0.5 * np.log(policy_t))).sum()
    wanted = 0.5 + 0.9 * 0.5 * np.log(policy_tm1[1]) + 0.9 * soft_value
    assert bootstrap_target(MUNCHAUSEN, [1.0, 1.1], [2.0, 1.0]) == pytest.approx(wanted, rel=1e-5)


def test_munchausens_log_probability_is_clipped():
    # Action 1 is next to impossible: its log-probability is far below -1.
    wanted = 0.5 + 0.9 * -1.0 + 0.9 * (2.0 + 0.5 * np.log(2))
    assert bootstrap_target(MUNCHAUSEN, [100.0, 0.0], [2.0, 2.0]) == pytest.approx(wanted, rel=1e-5)
    wide = Munchausen(munchausen_temperature=0.5, munchausen_clip=-1000.0)
    found = bootstrap_target(wide, [100.0, 0.0], [2.0, 2.0])
    assert found == pytest.approx(wanted + 0.9 * (1 - 100), rel=1e-5)


@hypothesis.given(q=strategies.lists(strategies.floats(-50, 50, width=32), min_size=2, max_size=2))
@hypothesis.settings(deadline=None, derandomize=True, max_examples=50)
def test_munchausen_without_weight_is_soft_dqn_and_cold_it_is_dqn(q):
    def of_temperature(temperature):
        return bootstrap_target(Munchausen(munchausen_weight=0.0, munchausen_temperature=temperature), q, q)

    soft = 0.5 + 0.9 * 2.0 * float(jax.nn.logsumexp(jnp.float32(q) / 2.0))
    assert of_temperature(2.0) == pytest.approx(soft, rel=1e-4, abs=1e-4)
    assert of_temperature(1e-6) == pytest.approx(bootstrap_target(Greedy(), q, q), rel=1e-4, abs=1e-4)


def test_munchausen_with_illegal_actions_is_finite_and_over_the_legal_ones():
    masks = (jnp.array([False, True]), jnp.array([True, False]))
    found = bootstrap_target(MUNCHAUSEN, [7.0, 1.0], [2.0, 9.0], masks)
    assert found == pytest.approx(0.5 + 0.9 * 0.0 + 0.9 * 2.0, rel=1e-5)  # log-probability 0, no entropy


def test_where_no_action_is_legal_the_policy_is_finite():
    none, q = jnp.zeros(2, bool), jnp.array([3.0, 4.0])
    policy = next_policy(MUNCHAUSEN, q, q, jnp.int32(0), jnp.ones(2, bool), none)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(policy))


def test_soft_maximum_and_mix():
    q = jnp.array([1.0, 3.0, -2.0])
    wanted = 0.7 * np.log(np.exp(np.array([1, 3, -2]) / 0.7).sum())
    assert float(soft_maximum(q, 0.7)) == pytest.approx(wanted, rel=1e-5)
    assert float(soft_maximum(q, 1e-6)) == 3.0
    quantiles = jnp.array([[0.0, 2.0], [1.0, 4.0]])
    np.testing.assert_allclose(mix(jnp.array([0.25, 0.75]), quantiles), [1.5, 3.25])
    np.testing.assert_allclose(mix(jnp.int32(1), quantiles), [2.0, 4.0])
