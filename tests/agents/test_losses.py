"""The losses of the family: by hand, and where two of them must agree."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from hypothesis import strategies

from polyak.agents import DQNConfig, losses
from polyak.agents.losses import Bootstrap
from polyak.networks import ValueOutput

TRANSITION = Bootstrap(jnp.int32(1), jnp.float32(0.5), jnp.float32(0.9))
ONLINE = ValueOutput(jnp.array([1.0, 3.0]))
TARGET = ValueOutput(jnp.array([4.0, 2.0]))


def finite(low, high):
    return strategies.floats(low, high, width=32)


def loss_of(config, online, target, q_t_selector, transition=TRANSITION):
    return losses.head_loss(config)(online, target, q_t_selector, transition)


def test_values_by_hand():
    single = loss_of(DQNConfig(), ONLINE, TARGET, TARGET.q_values)
    assert float(single.td_error) == pytest.approx(0.5 + 0.9 * 4.0 - 3.0)
    assert float(single.loss) == pytest.approx(0.5 * 1.1**2, rel=1e-5)
    double = loss_of(DQNConfig(loss="huber"), ONLINE, TARGET, ONLINE.q_values)  # chooses action 1
    assert float(double.td_error) == pytest.approx(0.5 + 0.9 * 2.0 - 3.0)
    assert float(double.priority) == pytest.approx(0.7)
    assert float(double.loss) == pytest.approx(0.5 * 0.7**2, rel=1e-5)


def test_values_are_rescaled_by_hand():
    def rescale(x):
        return np.sign(x) * (np.sqrt(np.abs(x) + 1) - 1) + 1e-3 * x

    # 4 is the rescaled value of about 24: the bootstrap target is rescaled after reward and discount.
    value = 24.0
    target = ValueOutput(jnp.array([rescale(value), 0.0], jnp.float32))
    found = loss_of(DQNConfig(value_rescaling=True), ONLINE, target, target.q_values)
    assert float(found.td_error) == pytest.approx(rescale(0.5 + 0.9 * value) - 3.0, abs=1e-3)


MUNCHAUSEN = DQNConfig(munchausen=True, double=False, n_steps=1, munchausen_temperature=0.5)


def munchausen(config, q_tm1, q_t):
    found = losses.munchausen(config, rlax.l2_loss, ONLINE, jnp.float32(q_tm1), jnp.float32(q_t), TRANSITION)
    return float(found.td_error) + 3.0  # the bootstrap target


def test_munchausen_by_hand():
    policy_tm1 = np.exp([2.0, 2.2]) / np.exp([2.0, 2.2]).sum()  # of values (1.0, 1.1) at temperature 0.5
    policy_t = np.exp([4.0, 2.0]) / np.exp([4.0, 2.0]).sum()
    soft_value = (policy_t * (np.array([2.0, 1.0]) - 0.5 * np.log(policy_t))).sum()
    wanted = 0.5 + 0.9 * 0.5 * np.log(policy_tm1[1]) + 0.9 * soft_value
    assert munchausen(MUNCHAUSEN, [1.0, 1.1], [2.0, 1.0]) == pytest.approx(wanted, rel=1e-5)


def test_munchausens_log_probability_is_clipped():
    # Action 1 is next to impossible: its log-probability is far below -1.
    wanted = 0.5 + 0.9 * -1.0 + 0.9 * (2.0 + 0.5 * np.log(2))
    assert munchausen(MUNCHAUSEN, [100.0, 0.0], [2.0, 2.0]) == pytest.approx(wanted, rel=1e-5)
    wide = DQNConfig(munchausen=True, double=False, n_steps=1, munchausen_temperature=0.5, munchausen_clip=-1000.0)
    assert munchausen(wide, [100.0, 0.0], [2.0, 2.0]) == pytest.approx(wanted + 0.9 * (1 - 100), rel=1e-5)


@hypothesis.given(q=strategies.lists(finite(-50, 50), min_size=2, max_size=2))
@hypothesis.settings(deadline=None, derandomize=True, max_examples=50)
def test_munchausen_without_weight_is_soft_dqn_and_cold_it_is_dqn(q):
    def bootstrap_target(temperature):
        config = DQNConfig(
            munchausen=True, double=False, n_steps=1, munchausen_weight=0.0, munchausen_temperature=temperature
        )
        return munchausen(config, q, q)

    soft = 0.5 + 0.9 * 2.0 * float(jax.nn.logsumexp(jnp.float32(q) / 2.0))
    assert bootstrap_target(2.0) == pytest.approx(soft, rel=1e-4, abs=1e-4)
    dqn = loss_of(DQNConfig(), ONLINE, ValueOutput(jnp.float32(q)), jnp.float32(q))
    assert bootstrap_target(1e-6) == pytest.approx(float(dqn.td_error) + 3.0, rel=1e-4, abs=1e-4)


def test_munchausen_with_illegal_actions_is_finite_and_over_the_legal_ones():
    lowest = float(jnp.finfo(jnp.float32).min)
    of_one = munchausen(MUNCHAUSEN, [lowest, 1.0], [2.0, lowest])
    assert of_one == pytest.approx(0.5 + 0.9 * 0.0 + 0.9 * 2.0, rel=1e-5)  # log-probability 0, no entropy


def categorical_output(atoms, *distributions):
    logits = jnp.log(jnp.float32(distributions))
    return ValueOutput(jnp.float32(distributions) @ jnp.float32(atoms), jnp.float32(atoms), logits)


def test_categorical_by_hand():
    atoms = [0.0, 1.0, 2.0]
    online = categorical_output(atoms, [1 / 3, 1 / 3, 1 / 3], [0.5, 0.25, 0.25])
    target = categorical_output(atoms, [0.2, 0.3, 0.5], [0.6, 0.2, 0.2])
    found = loss_of(DQNConfig(head="categorical"), online, target, target.q_values)
    # The atoms go to 0.5, 1.4 and 2.3: shared by 0 and 1, by 1 and 2 (0.6 and 0.4), and clipped to 2.
    projected = np.array([0.2 * 0.5, 0.2 * 0.5 + 0.3 * 0.6, 0.3 * 0.4 + 0.5])
    assert projected.sum() == pytest.approx(1)
    assert float(found.loss) == pytest.approx(-(projected * np.log([0.5, 0.25, 0.25])).sum(), rel=1e-5)
    assert float(found.priority) == float(found.loss)
    assert float(found.clipped) == pytest.approx(0.5)
    assert float(found.td_error) == pytest.approx(0.5 + 0.9 * 1.3 - 0.75, rel=1e-5)


@hypothesis.given(
    weights=strategies.lists(finite(0.125, 8), min_size=7, max_size=7),
    reward=finite(-20, 20),
    discount=finite(0, 1),
)
@hypothesis.settings(deadline=None, derandomize=True, max_examples=50)
def test_projections_sum_to_one(weights, reward, discount):
    atoms = jnp.linspace(-3.0, 3.0, 7)
    probabilities = jnp.float32(weights) / sum(weights)
    projected = rlax.categorical_l2_project(reward + discount * atoms, probabilities, atoms)
    assert float(projected.sum()) == pytest.approx(1, abs=1e-5)
    # The loss is linear in the projection: with equal logits it is log(7) times its sum.
    online = ValueOutput(jnp.zeros(1), atoms, jnp.zeros((1, 7)))
    target = ValueOutput(jnp.zeros(1), atoms, jnp.log(probabilities)[None])
    transition = Bootstrap(jnp.int32(0), jnp.float32(reward), jnp.float32(discount))
    found = loss_of(DQNConfig(head="categorical"), online, target, jnp.zeros(1), transition)
    assert float(found.loss) == pytest.approx(np.log(7), rel=1e-4)


@hypothesis.given(value=finite(-8, 8))
@hypothesis.settings(deadline=None, derandomize=True, max_examples=100)
def test_hl_gauss_recovers_the_scalar_that_it_encodes(value):
    edges = jnp.linspace(-10.0, 10.0, 52)
    histogram = losses.gaussian_histogram(jnp.float32(value), edges)
    centres = (edges[1:] + edges[:-1]) / 2
    assert float(histogram.sum()) == pytest.approx(1, abs=1e-5)
    assert float(histogram @ centres) == pytest.approx(value, abs=2e-3)
    np.testing.assert_allclose(losses.bin_edges(centres), edges, atol=1e-5)


def test_hl_gauss_by_hand():
    centres = jnp.array([-1.0, 0.0, 1.0])
    online = ValueOutput(jnp.zeros(2), centres, jnp.log(jnp.array([[0.2, 0.3, 0.5], [0.5, 0.3, 0.2]])))
    found = loss_of(DQNConfig(head="hl_gauss"), online, ValueOutput(jnp.array([0.0, -0.5])), jnp.array([1.0, 2.0]))
    cumulative = [0.5 * (1 + _erf((edge - 0.05) / (0.75 * np.sqrt(2)))) for edge in (-1.5, -0.5, 0.5, 1.5)]
    wanted = np.diff(cumulative) / (cumulative[-1] - cumulative[0])  # around 0.5 + 0.9 * -0.5
    assert float(found.loss) == pytest.approx(-(wanted * np.log([0.5, 0.3, 0.2])).sum(), rel=1e-4)
    assert float(found.clipped) == 0
    far = TRANSITION._replace(r_t=jnp.float32(9.0))
    assert float(loss_of(DQNConfig(head="hl_gauss"), online, TARGET, TARGET.q_values, far).clipped) == 1


def _erf(x):
    return float(jax.scipy.special.erf(x))


def test_quantiles_by_hand():
    online = ValueOutput(
        jnp.array([0.0, 2.0]), quantiles=jnp.array([[0.0, 1.0], [0.0, 3.0]]), taus=jnp.array([0.25, 0.75])
    )
    target = ValueOutput(jnp.array([5.0, 4.0]), quantiles=jnp.array([[0.0, 2.0], [10.0, 6.0]]))
    found = loss_of(DQNConfig(head="quantile"), online, target, jnp.array([0.0, 1.0]))  # chooses action 1
    total = 0.0
    for tau, source in ((0.25, 1.0), (0.75, 3.0)):
        for sample in (0.5 + 0.9 * 2.0, 0.5 + 0.9 * 6.0):
            error = sample - source
            huber = 0.5 * error**2 if abs(error) <= 1 else abs(error) - 0.5
            total += abs(tau - (error < 0)) * huber / 2
    assert float(found.loss) == pytest.approx(total, rel=1e-5)
    assert float(found.td_error) == pytest.approx(0.5 + 0.9 * 4.0 - 2.0)


@hypothesis.given(value=finite(-20, 20), other=finite(-20, 20))
@hypothesis.settings(deadline=None, derandomize=True, max_examples=50)
def test_one_quantile_has_half_of_hubers_gradient(value, other):
    target = ValueOutput(jnp.array([other, 0.0]), quantiles=jnp.array([[other, 0.0]]))
    selector = jnp.array([1.0, 0.0])

    def quantile(q):
        online = ValueOutput(q, quantiles=q[None], taus=jnp.array([0.5]))
        return loss_of(DQNConfig(head="quantile"), online, target, selector).loss

    def huber(q):
        return loss_of(DQNConfig(loss="huber"), ValueOutput(q), target, selector).loss

    q = jnp.array([0.0, value])
    np.testing.assert_allclose(jax.grad(quantile)(q), jax.grad(huber)(q) / 2, atol=1e-6)


def test_an_ensemble_is_its_heads_under_the_mask():
    heads_tm1, heads_t = jnp.array([[1.0, 3.0], [0.0, 5.0]]), jnp.array([[4.0, 2.0], [1.0, 6.0]])
    selector = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    online, target = ValueOutput(heads_tm1.mean(0), heads=heads_tm1), ValueOutput(heads_t.mean(0), heads=heads_t)
    of_mask = functools.partial(losses.ensemble, rlax.l2_loss, online, target, selector, TRANSITION)
    errors = np.array([0.5 + 0.9 * 2.0 - 3.0, 0.5 + 0.9 * 1.0 - 5.0])
    assert float(of_mask(jnp.array([1.0, 0.0])).loss) == pytest.approx(0.5 * errors[0] ** 2 / 2, rel=1e-5)
    assert float(of_mask(jnp.array([0.0, 1.0])).loss) == pytest.approx(0.5 * errors[1] ** 2 / 2, rel=1e-5)
    assert float(of_mask(jnp.ones(2)).priority) == pytest.approx(np.abs(errors).mean(), rel=1e-5)


@pytest.mark.parametrize("head", ["q", "categorical", "hl_gauss", "quantile"])
def test_no_gradient_reaches_the_target_or_the_choice(head):
    atoms = jnp.array([0.0, 1.0, 2.0])

    def output(x):
        logits = jnp.outer(x, jnp.array([0.1, 0.2, -0.3]))
        return ValueOutput(x, atoms, logits, logits.T, jnp.array([0.2, 0.5, 0.8]))

    def loss(online, target, selector):
        return loss_of(DQNConfig(head=head), output(online), output(target), selector).loss

    x, y = jnp.array([1.0, 3.0]), jnp.array([4.0, 2.0])
    of_online, of_target, of_selector = jax.grad(loss, (0, 1, 2))(x, y, y)
    assert (of_online != 0).any()
    assert (of_target == 0).all()
    assert (of_selector == 0).all()
