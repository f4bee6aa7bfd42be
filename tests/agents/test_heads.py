"""Heads: the loss of one transition by hand, and where two of them must agree."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from hypothesis import strategies

from polyak.agents.bootstrap import next_policy
from polyak.agents.config import Categorical, Ensemble, Greedy, HLGauss, ImplicitQuantile, Munchausen, Quantile, Scalar
from polyak.agents.heads import ActionRewardDiscount, bin_edges, gaussian_histogram, learn_transition, penalty
from polyak.networks import ValueOutput

TRANSITION = ActionRewardDiscount(jnp.int32(1), jnp.float32(0.5), jnp.float32(0.9))
ONLINE = ValueOutput(jnp.array([1.0, 3.0]))
TARGET = ValueOutput(jnp.array([4.0, 2.0]))
SQUARED, ENSEMBLE, GREEDY = Scalar(error="squared"), Ensemble(error="squared"), Greedy()


def finite(low, high):
    return strategies.floats(low, high, width=32)


@functools.partial(jax.jit, static_argnames=("head", "bootstrap"))
def loss_of(head, online, target, selector, transition=TRANSITION, bootstrap=GREEDY, tm1=None, masks=()):
    """Loss of a transition; ``selector`` are the values by which the next action is chosen."""
    policy = next_policy(bootstrap, selector, selector if tm1 is None else tm1, transition.a_tm1, *masks)
    return learn_transition(head, online, target, policy, transition)


@functools.partial(jax.jit, static_argnames="head")
def ensemble_loss(online, target, selector, mask, head=ENSEMBLE):
    policy = jax.vmap(lambda values: next_policy(Greedy(), values, values, TRANSITION.a_tm1))(selector)
    return learn_transition(head, online, target, policy, TRANSITION._replace(member_mask=mask))


# --- Scalar -----------------------------------------------------------------------------------------------------------


def test_scalar_by_hand():
    single = loss_of(SQUARED, ONLINE, TARGET, TARGET.q_values)
    assert float(single.td_error) == pytest.approx(0.5 + 0.9 * 4.0 - 3.0)
    assert float(single.loss) == pytest.approx(0.5 * 1.1**2, rel=1e-5)
    assert float(loss_of(Scalar(error="huber"), ONLINE, TARGET, TARGET.q_values).loss) == pytest.approx(
        1.1 - 0.5, rel=1e-5
    )
    double = loss_of(Scalar(), ONLINE, TARGET, ONLINE.q_values)  # chooses action 1
    assert float(double.td_error) == pytest.approx(0.5 + 0.9 * 2.0 - 3.0)
    assert float(double.priority) == pytest.approx(0.7)
    assert float(double.loss) == pytest.approx(0.5 * 0.7**2, rel=1e-5)


def test_errors_of_a_penalty_by_hand():
    for error, loss in ((0.5, 0.125), (-1.0, 0.5), (-3.0, 2.5)):
        assert float(penalty("huber", jnp.float32(error))) == pytest.approx(loss)
        assert float(penalty("squared", jnp.float32(error))) == pytest.approx(error**2 / 2)


def rescale(x):
    return np.sign(x) * (np.sqrt(np.abs(x) + 1) - 1) + 1e-3 * x


def test_values_are_rescaled_by_hand():
    # 4 is the rescaled value of about 24: the bootstrap target is rescaled after reward and discount.
    value = 24.0
    target = ValueOutput(jnp.array([rescale(value), 0.0], jnp.float32))
    found = loss_of(Scalar(value_rescaling=True), ONLINE, target, target.q_values)
    assert float(found.td_error) == pytest.approx(rescale(0.5 + 0.9 * value) - 3.0, abs=1e-3)


@hypothesis.given(value=finite(-20, 20))
@hypothesis.settings(deadline=None, derandomize=True, max_examples=50)
def test_value_rescaling_and_its_inverse_cancel(value):
    # With no reward and a discount of 1, the bootstrap target is h(h^-1(value)).
    target = ValueOutput(jnp.array([value, value], jnp.float32))
    transition = ActionRewardDiscount(jnp.int32(1), jnp.float32(0), jnp.float32(1))
    found = loss_of(Scalar(value_rescaling=True), ONLINE, target, target.q_values, transition)
    assert float(found.td_error) + 3.0 == pytest.approx(value, rel=1e-3, abs=1e-3)


def test_a_termination_is_not_bootstrapped():
    transition = TRANSITION._replace(discount_t=jnp.float32(0))
    assert float(loss_of(SQUARED, ONLINE, TARGET, TARGET.q_values, transition).td_error) == 0.5 - 3.0


# --- Categorical and HL-Gauss -----------------------------------------------------------------------------------------


def categorical_output(atoms, *distributions):
    logits = jnp.log(jnp.float32(distributions))
    return ValueOutput(jnp.float32(distributions) @ jnp.float32(atoms), jnp.float32(atoms), logits)


def test_categorical_by_hand():
    atoms = [0.0, 1.0, 2.0]
    online = categorical_output(atoms, [1 / 3, 1 / 3, 1 / 3], [0.5, 0.25, 0.25])
    target = categorical_output(atoms, [0.2, 0.3, 0.5], [0.6, 0.2, 0.2])
    found = loss_of(Categorical(), online, target, target.q_values)
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
    projected = jax.jit(rlax.categorical_l2_project)(reward + discount * atoms, probabilities, atoms)
    assert float(projected.sum()) == pytest.approx(1, abs=1e-5)
    # The loss is linear in the projection: with equal logits it is log(7) times its sum.
    online = ValueOutput(jnp.zeros(1), atoms, jnp.zeros((1, 7)))
    target = ValueOutput(jnp.zeros(1), atoms, jnp.log(probabilities)[None])
    transition = ActionRewardDiscount(jnp.int32(0), jnp.float32(reward), jnp.float32(discount))
    found = loss_of(Categorical(), online, target, jnp.zeros(1), transition)
    assert float(found.loss) == pytest.approx(np.log(7), rel=1e-4)


@hypothesis.given(value=finite(-8, 8))
@hypothesis.settings(deadline=None, derandomize=True, max_examples=100)
def test_hl_gauss_recovers_the_scalar_that_it_encodes(value):
    edges = jnp.linspace(-10.0, 10.0, 52)
    histogram = jax.jit(gaussian_histogram)(jnp.float32(value), edges)
    centres = (edges[1:] + edges[:-1]) / 2
    assert float(histogram.sum()) == pytest.approx(1, abs=1e-5)
    assert float(histogram @ centres) == pytest.approx(value, abs=2e-3)
    np.testing.assert_allclose(jax.jit(bin_edges)(centres), edges, atol=1e-5)


def test_hl_gauss_by_hand():
    centres = jnp.array([-1.0, 0.0, 1.0])
    online = ValueOutput(jnp.zeros(2), centres, jnp.log(jnp.array([[0.2, 0.3, 0.5], [0.5, 0.3, 0.2]])))
    found = loss_of(HLGauss(), online, ValueOutput(jnp.array([0.0, -0.5])), jnp.array([1.0, 2.0]))
    cumulative = [0.5 * (1 + _erf((edge - 0.05) / (0.75 * np.sqrt(2)))) for edge in (-1.5, -0.5, 0.5, 1.5)]
    wanted = np.diff(cumulative) / (cumulative[-1] - cumulative[0])  # around 0.5 + 0.9 * -0.5
    assert float(found.loss) == pytest.approx(-(wanted * np.log([0.5, 0.3, 0.2])).sum(), rel=1e-4)
    assert float(found.clipped) == 0
    far = TRANSITION._replace(r_t=jnp.float32(9.0))
    assert float(loss_of(HLGauss(), online, TARGET, TARGET.q_values, far).clipped) == 1


def _erf(x):
    return float(jax.scipy.special.erf(x))


# --- Quantiles --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [Quantile(), ImplicitQuantile()])
def test_quantiles_by_hand(head):
    online = ValueOutput(
        jnp.array([0.0, 2.0]), quantiles=jnp.array([[0.0, 1.0], [0.0, 3.0]]), taus=jnp.array([0.25, 0.75])
    )
    target = ValueOutput(jnp.array([5.0, 4.0]), quantiles=jnp.array([[0.0, 2.0], [10.0, 6.0]]))
    found = loss_of(head, online, target, jnp.array([0.0, 1.0]))  # chooses action 1
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

    q = jnp.array([0.0, value])
    np.testing.assert_allclose(*quantile_and_huber_gradients(q, target, selector), atol=1e-6)


@jax.jit
def quantile_and_huber_gradients(q, target, selector):
    def quantile(q):
        online = ValueOutput(q, quantiles=q[None], taus=jnp.array([0.5]))
        return loss_of(Quantile(), online, target, selector).loss

    def huber(q):
        return loss_of(Scalar(error="huber"), ValueOutput(q), target, selector).loss

    return jax.grad(quantile)(q), jax.grad(huber)(q) / 2


# --- Ensemble ---------------------------------------------------------------------------------------------------------


def test_an_ensemble_is_its_members_under_the_mask():
    members_tm1, members_t = jnp.array([[1.0, 3.0], [0.0, 5.0]]), jnp.array([[4.0, 2.0], [1.0, 6.0]])
    selector = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    outputs = (ValueOutput(members_tm1.mean(0), members=members_tm1), ValueOutput(members_t.mean(0), members=members_t))
    errors = np.array([0.5 + 0.9 * 2.0 - 3.0, 0.5 + 0.9 * 1.0 - 5.0])
    first, second, both = (
        ensemble_loss(*outputs, selector, jnp.array(mask)) for mask in ([1.0, 0.0], [0.0, 1.0], [1.0, 1.0])
    )
    assert float(first.loss) == pytest.approx(0.5 * errors[0] ** 2 / 2, rel=1e-5)
    assert float(second.loss) == pytest.approx(0.5 * errors[1] ** 2 / 2, rel=1e-5)
    assert float(both.priority) == pytest.approx(np.abs(errors).mean(), rel=1e-5)
    assert float(both.td_error) == pytest.approx(errors.mean(), rel=1e-5)
    huber = ensemble_loss(*outputs, selector, jnp.array([0.0, 1.0]), Ensemble(error="huber"))
    assert float(huber.loss) == pytest.approx((abs(errors[1]) - 0.5) / 2, rel=1e-5)


# --- Bootstrap policies with every head -------------------------------------------------------------------------------

# Two actions, three atoms or quantiles; the values are the means.
QUANTILES = jnp.array([[0.0, 0.5], [1.0, 1.5], [2.0, 4.0]])
OUTPUTS = {
    "scalar": (SQUARED, TARGET),
    "categorical": (Categorical(), categorical_output([0.0, 1.0, 2.0], [0.2, 0.3, 0.5], [0.6, 0.2, 0.2])),
    "hl_gauss": (HLGauss(), categorical_output([0.0, 1.0, 2.0], [0.2, 0.3, 0.5], [0.6, 0.2, 0.2])),
    "quantile": (
        Quantile(),
        ValueOutput(QUANTILES.mean(0), quantiles=QUANTILES, taus=jnp.array([1 / 6, 1 / 2, 5 / 6])),
    ),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_cold_munchausen_policy_without_weight_is_greedy_under_every_head(name):
    head, output = OUTPUTS[name]
    cold = Munchausen(munchausen_weight=0.0, munchausen_temperature=1e-4)
    greedy = loss_of(head, output, output, output.q_values)
    found = loss_of(head, output, output, output.q_values, bootstrap=cold)
    for field in ("loss", "td_error", "priority", "clipped"):
        assert float(getattr(found, field)) == pytest.approx(float(getattr(greedy, field)), rel=1e-4, abs=1e-4)


def soft(q_values, temperature=0.5):
    """Policy, and its value with the entropy."""
    policy = np.exp(np.array(q_values) / temperature)
    policy /= policy.sum()
    return policy, (policy * (np.array(q_values) - temperature * np.log(policy))).sum()


def test_munchausen_quantiles_by_hand():
    head, output = OUTPUTS["quantile"]
    online = ValueOutput(jnp.array([0.0, 0.0]), quantiles=jnp.zeros((1, 2)), taus=jnp.array([0.5]))
    tm1 = jnp.array([1.0, 1.1])
    bootstrap = Munchausen(munchausen_temperature=0.5)
    found = loss_of(head, online, output, output.q_values, bootstrap=bootstrap, tm1=tm1)
    policy, _ = soft([1.0, 2.0])
    reward = 0.5 + 0.9 * 0.5 * np.log(soft([1.0, 1.1])[0][1])
    entropy = -0.5 * (policy * np.log(policy)).sum()
    samples = reward + 0.9 * (np.asarray(QUANTILES) @ policy + entropy)
    hubers = [0.5 * error**2 if abs(error) <= 1 else abs(error) - 0.5 for error in samples]
    assert float(found.loss) == pytest.approx(np.mean(hubers) / 2, rel=1e-5)
    assert float(found.td_error) == pytest.approx(samples.mean(), rel=1e-5)


def test_munchausen_categorical_by_hand():
    head, target = OUTPUTS["categorical"]
    online = categorical_output([0.0, 1.0, 2.0], [0.5, 0.25, 0.25], [0.5, 0.25, 0.25])
    bootstrap = Munchausen(munchausen_temperature=0.5, munchausen_weight=0.0)
    # The entropy moves the atoms; here all of them go beyond the last one, and from a discount of 0 to the reward.
    far = TRANSITION._replace(r_t=jnp.float32(9.0))
    found = loss_of(head, online, target, target.q_values, far, bootstrap)
    assert float(found.clipped) == pytest.approx(1)
    assert float(found.loss) == pytest.approx(-np.log(0.25), rel=1e-5)
    policy, value = soft([1.3, 0.6])
    near = loss_of(head, online, target, target.q_values, bootstrap=bootstrap)
    assert float(near.td_error) == pytest.approx(0.5 + 0.9 * value - 0.75, rel=1e-5)
    mixed = policy @ np.array([[0.2, 0.3, 0.5], [0.6, 0.2, 0.2]])
    moved = np.clip(0.5 + 0.9 * (np.arange(3) + value - policy @ [1.3, 0.6]), 0, 2)
    projected = [sum(p * max(0, 1 - abs(m - atom)) for p, m in zip(mixed, moved, strict=True)) for atom in range(3)]
    assert float(near.loss) == pytest.approx(-(projected * np.log([0.5, 0.25, 0.25])).sum(), rel=1e-5)


@pytest.mark.parametrize("bootstrap", [Greedy(), Munchausen()])
@pytest.mark.parametrize("head", [SQUARED, Categorical(), HLGauss(), Quantile()], ids=lambda head: type(head).__name__)
def test_no_gradient_reaches_the_target(head, bootstrap):
    atoms = jnp.array([0.0, 1.0, 2.0])

    def output(x):
        logits = jnp.outer(x, jnp.array([0.1, 0.2, -0.3]))
        return ValueOutput(x, atoms, logits, logits.T, jnp.array([0.2, 0.5, 0.8]))

    def loss(online, target):
        policy = next_policy(bootstrap, jnp.array([4.0, 2.0]), jnp.zeros(2), TRANSITION.a_tm1)
        return learn_transition(head, output(online), output(target), policy, TRANSITION).loss

    gradients = jax.jit(jax.grad(loss, (0, 1)))(jnp.array([1.0, 3.0]), jnp.array([4.0, 2.0]))
    assert (gradients[0] != 0).any()
    assert (gradients[1] == 0).all()
