"""Value term: transitions and sequences by hand, what it reads, legal actions, priorities and importance weights."""

import functools

import haiku as hk
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies

from agent_samples import make, make_config, random_state, table_network
from polyak.agents.terms import make_value_term
from polyak.agents.types import MAIN_TARGET, Outputs, StepExtras, Views
from polyak.agents.views import steps_of
from polyak.networks import ValueOutput
from polyak.replay import EnvironmentSpec, Sample, Sequence, Transition
from polyak.updates import Variables

TWO = EnvironmentSpec(jax.ShapeDtypeStruct((2,), jnp.float32), num_actions=2)
FOUR = EnvironmentSpec(jax.ShapeDtypeStruct((4,), jnp.float32), num_actions=4, action_mask=True)


# --- Transitions ------------------------------------------------------------------------------------------------------


def sample(weights=(1.0, 1.0)):
    transition = Transition(
        obs_tm1=np.float32([[1.0, 2.0], [3.0, 4.0]]),
        a_tm1=np.int32([0, 1]),
        r_t=np.float32([0.5, -3.0]),
        discount_t=np.float32([0.5, 0.0]),
        obs_t=np.float32([[2.0, 6.0], [9.0, 9.0]]),
    )
    return Sample(transition, np.float32(weights), np.int64([0, 1]))


def learn_once(batch, params, target_params, **fields):
    agent = make(TWO, {"network": table_network()}, **fields)
    state = random_state(agent)
    slow = state.targets["q"]._replace(params={"~": {"w": jnp.float32(target_params)}})
    state = state._replace(params={"~": {"w": jnp.float32(params)}}, targets={"q": slow})
    return jax.jit(agent.learn)(jax.random.key(1), state, batch)


@pytest.mark.parametrize(
    ("double", "error", "errors"),
    [
        # Online w = (1, 1), target w = (4, 1): at obs_t = (2, 6) the target's largest value is 8, of action 0, while
        # the online network prefers action 1, which the target values at 6.
        (False, "squared", (0.5 + 0.5 * 8.0 - 1.0, -3.0 - 4.0)),
        (True, "squared", (0.5 + 0.5 * 6.0 - 1.0, -3.0 - 4.0)),
        (True, "huber", (0.5 + 0.5 * 6.0 - 1.0, -3.0 - 4.0)),
    ],
)
def test_the_loss_by_hand(double, error, errors):
    _, output = learn_once(sample(), [1.0, 1.0], [4.0, 1.0], double=double, error=error)
    np.testing.assert_allclose(output.priorities, np.abs(errors), rtol=1e-6)
    penalties = [0.5 * e * e if error == "squared" else abs(e) - 0.5 for e in errors]
    assert float(output.metrics["loss"]) == pytest.approx(np.mean(penalties), rel=1e-6)
    assert float(output.metrics["td_error"]) == pytest.approx(np.mean(np.abs(errors)), rel=1e-6)
    assert float(output.metrics["q"]) == pytest.approx((2.0 + 4.0) / 2)


def test_importance_weights_weight_the_loss():
    _, even = learn_once(sample(), [1.0, 1.0], [4.0, 1.0], error="squared")
    _, first = learn_once(sample((1.0, 0.0)), [1.0, 1.0], [4.0, 1.0], error="squared")
    _, second = learn_once(sample((0.0, 1.0)), [1.0, 1.0], [4.0, 1.0], error="squared")
    assert float(first.metrics["loss"]) == pytest.approx(0.5 * 0.5 * 3.5**2)
    assert float(first.metrics["loss"] + second.metrics["loss"]) == pytest.approx(float(even.metrics["loss"]))


def test_no_gradient_flows_through_the_bootstrap_value():
    # With the target none, target and online network are one; the gradient is still that of q(obs_tm1, a_tm1) alone.
    fields = {"error": "squared", "target": "none", "optimizer": "sgd", "learning_rate": 1.0}
    agent = make(TWO, {"network": table_network()}, double=True, **fields)
    state = random_state(agent)._replace(params={"~": {"w": jnp.ones(2)}})
    after, _ = jax.jit(agent.learn)(jax.random.key(1), state, sample())
    errors = (0.5 + 0.5 * 6.0 - 1.0, -3.0 - 4.0)
    wanted = [1.0 + 0.5 * errors[0] * 1.0, 1.0 + 0.5 * errors[1] * 4.0]
    np.testing.assert_allclose(after.params["~"]["w"], wanted, rtol=1e-6)


def test_a_truncation_bootstraps_and_a_termination_does_not():
    # The replay gives a truncated window its discount, and a terminated one 0; the loss reads nothing else of the end.
    drawn = sample().transition._replace(discount_t=np.float32([0.5, 0.9]), a_tm1=np.int32([0, 0]))
    _, output = learn_once(sample()._replace(transition=drawn), [1.0, 1.0], [4.0, 1.0])
    np.testing.assert_allclose(output.priorities, [3.5, -3.0 + 0.9 * 36.0 - 3.0], rtol=1e-6)
    ended = drawn._replace(discount_t=np.float32([0.0, 0.0]))
    _, output = learn_once(sample()._replace(transition=ended), [1.0, 1.0], [4.0, 1.0])
    np.testing.assert_allclose(output.priorities, [0.5, 6.0], rtol=1e-6)


@pytest.mark.parametrize("double", [False, True])
def test_bootstraps_among_the_legal_actions(double):
    rng, size = np.random.default_rng(0), 200
    agent = make(FOUR, {"network": table_network()}, double=double)
    state, slow_w = random_state(agent), np.float32([1.0, -2.0, 0.5, 3.0])
    state = state._replace(
        params={"~": {"w": jnp.ones(4)}},
        targets={"q": state.targets["q"]._replace(params={"~": {"w": jnp.asarray(slow_w)}})},
    )
    obs_tm1, obs_t = rng.normal(size=(2, size, 4)).astype(np.float32)
    mask_tm1, mask_t = rng.random((2, size, 4)) < 0.5
    mask_tm1[np.arange(size), rng.integers(4, size=size)] = True
    discount_t = np.where(mask_t.any(axis=1), np.float32(0.9), np.float32(0))  # no legal action: it terminated
    assert (discount_t == 0).any()
    a_tm1 = np.int32([rng.choice(np.flatnonzero(row)) for row in mask_tm1])
    r_t = rng.normal(size=size).astype(np.float32)
    transition = Transition(obs_tm1, a_tm1, r_t, discount_t, obs_t, (), mask_tm1, mask_t)
    _, output = jax.jit(agent.learn)(jax.random.key(1), state, Sample(transition, np.ones(size, np.float32), a_tm1))
    errors, greedy = [], []
    for row in range(size):
        slow, online = obs_t[row] * slow_w, obs_t[row]
        legal = np.flatnonzero(mask_t[row])
        value = max(legal, key=lambda a: (online if double else slow)[a], default=0)
        bootstrap = discount_t[row] * slow[value] if len(legal) else 0.0
        errors.append(r_t[row] + bootstrap - obs_tm1[row, a_tm1[row]])
        greedy.append(max(obs_tm1[row, np.flatnonzero(mask_tm1[row])]))
    np.testing.assert_allclose(output.priorities, np.abs(errors), rtol=1e-5, atol=1e-6)
    assert float(output.metrics["q"]) == pytest.approx(np.mean(greedy), rel=1e-5)


# --- Outputs that it reads --------------------------------------------------------------------------------------------

ACTIONS, BATCH = 7, 8
READ = [
    ({}, {"online.tm1", "target.t"}),
    ({"double": True}, {"online.tm1", "online.t_again", "target.t"}),
    ({"noisy_sigma": 0.5}, {"online.tm1", "target.t"}),
    ({"noisy_sigma": 0.5, "double": True}, {"online.tm1", "online.t_again", "target.t"}),
    # The action is chosen by other fractions than its value is bootstrapped from.
    ({"head": "implicit_quantile"}, {"online.tm1", "target.t", "target.t_again"}),
    ({"head": "implicit_quantile", "double": True}, {"online.tm1", "online.t_again", "target.t"}),
    ({"bootstrap": "munchausen"}, {"online.tm1", "target.tm1", "target.t"}),
    ({"bootstrap": "munchausen", "head": "implicit_quantile"}, {"online.tm1", "target.tm1", "target.t"}),
    ({"target_role": "functional"}, {"online.tm1", "online.t", "target.tm1"}),
    ({"target_role": "functional", "double": True}, {"online.tm1", "online.t", "online.t_again", "target.tm1"}),
    ({"target_role": "functional", "bootstrap": "munchausen"}, {"online.tm1", "online.t", "target.tm1"}),
    (
        {"target_role": "functional", "head": "implicit_quantile"},
        {"online.tm1", "online.t", "online.t_again", "target.tm1"},
    ),
    ({"target_role": "trust_region", "trust_region_width": 0.1}, {"online.tm1", "online.t", "target.tm1"}),
]


def random_output(seed):
    quantiles = np.random.default_rng(seed).normal(size=(BATCH, 1, 3, ACTIONS)).astype(np.float32)
    return ValueOutput(quantiles.mean(axis=2), quantiles=quantiles, taus=np.full((BATCH, 1, 3), 0.4, np.float32))


@pytest.mark.parametrize(("fields", "expected"), READ)
def test_which_outputs_are_read(fields, expected):
    config, rng = make_config(**fields), np.random.default_rng(0)
    term = jax.jit(make_value_term(config))
    a_tm1, r_t = rng.integers(ACTIONS, size=BATCH).astype(np.int32), rng.normal(size=BATCH).astype(np.float32)
    drawn = Sample(Transition((), a_tm1, r_t, np.float32([0.9] * BATCH), ()), np.ones(BATCH, np.float32), a_tm1)
    names = [f"{network}.{field}" for network in ("online", "target") for field in Outputs._fields]

    def loss(changed=None):
        outputs = [random_output(seed + 100 * (name == changed)) for seed, name in enumerate(names)]
        targets = {MAIN_TARGET: Outputs(*outputs[3:])}
        views = Views(drawn, steps_of(drawn, 0)[0], Outputs(*outputs[:3]), targets, Variables(()))
        return term(jax.random.key(0), views).loss

    assert {name for name in names if not np.array_equal(loss(name), loss())} == expected


# --- Sequences --------------------------------------------------------------------------------------------------------

# Four steps, of which the last is padding: values of the online network, of the target's at the observations after
# each step, and the online network's there.
Q_TM1 = np.float32([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [9.0, 9.0]])
Q_T = np.float32([[10.0, 20.0], [30.0, 40.0], [50.0, 60.0], [7.0, 7.0]])
CHOOSES = np.float32([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])  # values 10, 40, 50
R_T = (1.0, 2.0, 3.0, 0.0)


@functools.partial(jax.jit, static_argnames="config")
def sequence_term(config, sequence):
    burn_in = config.network.core.burn_in if config.network.core else 0
    drawn = Sample(sequence, jnp.ones(1), jnp.zeros(1))
    steps, end = steps_of(drawn, burn_in)

    def output(numbers, at=None):  # of the observations that follow the steps, as the first has no step before it
        q_values = jnp.concatenate([jnp.zeros((1, 2)), numbers]) if at is not None else numbers
        return ValueOutput(q_values[None] if at is None else q_values[at])

    online = Outputs(output(Q_TM1), output(CHOOSES, end), output(CHOOSES, end))
    target = Outputs(output(Q_TM1), output(Q_T, end), output(Q_T, end))
    views = Views(drawn, steps, online, {MAIN_TARGET: target}, Variables(()))
    found = make_value_term(config)(jax.random.key(0), views)
    return found, found.priorities[0], found.loss[0]


def sequence(discount=(0.5, 0.5, 0.5, 0.0), valid=3, n_steps=2, first=True):
    seen = np.arange(4)[None] < valid
    a_tm1, obs, yes = np.int32([[0, 1, 0, 0]]), np.zeros((1, 5, 2), np.float32), np.ones(1, bool)
    r_t, discount_t = np.float32([R_T]) * seen, np.float32([discount]) * seen
    return Sequence(obs, a_tm1, r_t, discount_t, seen, np.array([first]), yes, (), (), np.int32([n_steps]))


def loss_of(burn_in=0, value_rescaling=False, **given):
    core = {"core": "lstm", "burn_in": burn_in, "lstm_size": 3} if burn_in else {}
    config = make_config(double=True, error="squared", value_rescaling=value_rescaling, **core)
    return sequence_term(config, sequence(**given))


def test_two_step_returns_that_are_cut_at_the_last_step_by_hand():
    found, priority, loss = loss_of()
    returns = [1 + 0.5 * (2 + 0.5 * 40), 2 + 0.5 * (3 + 0.5 * 50), 3 + 0.5 * 50]  # the last bootstraps after one step
    errors = np.array(returns) - [1.0, 2.0, 3.0]
    assert float(found.metrics["td_error"]) == pytest.approx(np.abs(errors).mean(), rel=1e-6)
    assert float(loss) == pytest.approx((0.5 * errors**2).sum() / 4, rel=1e-5)
    assert float(priority) == pytest.approx(0.9 * errors.max() + 0.1 * errors.mean(), rel=1e-5)
    assert float(found.metrics["q"]) == pytest.approx((1 + 2 + 3) / 3)  # padding aside


def test_a_terminated_sequence_is_not_bootstrapped():
    _, priority, loss = loss_of(discount=(0.5, 0.5, 0.0, 0.0))
    errors = np.array([1 + 0.5 * 22 - 1, 2 + 0.5 * 3 - 2, 3 - 3.0])
    assert float(loss) == pytest.approx((0.5 * errors**2).sum() / 4, rel=1e-5)
    assert float(priority) == pytest.approx(0.9 * errors.max() + 0.1 * errors.mean(), rel=1e-5)


def test_steps_that_are_not_learnt_from_count_for_nothing():
    _, priority, loss = loss_of(burn_in=2, first=False)
    error = 3 + 0.5 * 50 - 3.0
    assert float(loss) == pytest.approx(0.5 * error**2 / 2, rel=1e-5)
    assert float(priority) == pytest.approx(error, rel=1e-5)
    _, priority, loss = loss_of(burn_in=2, first=False, valid=2)
    assert float(loss) == float(priority) == 0
    _, whole, _ = loss_of(burn_in=2, first=True)  # no burn-in where the episode begins
    assert float(whole) == pytest.approx(float(loss_of()[1]))


def test_values_of_a_sequence_are_rescaled_by_hand():
    def h(x):
        return np.sign(x) * (np.sqrt(np.abs(x) + 1) - 1) + 1e-3 * x

    def inverse(x):
        return np.sign(x) * (((np.sqrt(1 + 4e-3 * (np.abs(x) + 1 + 1e-3)) - 1) / 2e-3) ** 2 - 1)

    _, priority, loss = loss_of(value_rescaling=True, n_steps=1)
    wanted = [h(1 + 0.5 * inverse(10.0)) - 1, h(2 + 0.5 * inverse(40.0)) - 2, h(3 + 0.5 * inverse(50.0)) - 3]
    assert float(loss) == pytest.approx((0.5 * np.square(wanted)).sum() / 4, rel=1e-3)
    assert float(priority) == pytest.approx(0.9 * np.max(np.abs(wanted)) + 0.1 * np.mean(np.abs(wanted)), rel=1e-3)


# --- Sequences of a recurrent agent -----------------------------------------------------------------------------------

LSTM = {"core": "lstm", "lstm_size": 3, "burn_in": 2, "hidden_sizes": (4,), "double": True, "error": "squared"}


@pytest.fixture(scope="module")
def recurrent():
    """State and compiled learner step."""
    agent = make(TWO, **LSTM)
    return random_state(agent), jax.jit(agent.learn)


def sequences(first=(False, False), valid=4, complete=True, seed=0):
    rng = np.random.default_rng(seed)
    seen = np.arange(4)[None] < valid
    lstm = hk.LSTMState(*[rng.normal(size=(2, 3)).astype(np.float32) for _ in range(2)])
    drawn = Sequence(
        obs=rng.normal(size=(2, 5, 2)).astype(np.float32),
        a_tm1=np.int32([[0, 1, 0, 1]] * 2) * seen,
        r_t=np.ones((2, 4), np.float32) * seen,
        discount_t=np.float32(0.9) * np.ones((2, 4), np.float32) * seen,
        valid=np.broadcast_to(seen, (2, 4)),
        first=np.array(first),
        complete=np.full(2, complete),
        extras=StepExtras(lstm, np.zeros(2, np.int32), np.zeros(2, np.float32)),
        n_steps=np.int32([2, 2]),
    )
    return Sample(drawn, np.ones(2, np.float32), np.arange(2))


@pytest.mark.slow
def test_the_burn_in_moves_the_recurrent_state_and_is_not_learnt_from(recurrent):
    state, learn = recurrent
    base = sequences()

    def loss(changed):
        return float(learn(jax.random.key(1), state, changed)[1].metrics["loss"])

    r_t = base.transition.r_t.copy()
    r_t[:, 3] += 5
    assert loss(base._replace(transition=base.transition._replace(r_t=r_t))) != loss(base)
    # The LSTM sees the observations of the burn-in; the errors of these steps are not learnt from.
    obs = base.transition.obs.copy()
    obs[:, 0] += 1
    assert loss(base._replace(transition=base.transition._replace(obs=obs))) != loss(base)
    _, output = learn(jax.random.key(1), state, sequences(valid=2))
    assert float(output.metrics["loss"]) == float(output.metrics["gradient_norm"]) == 0
    # Where the episode begins there is no burn-in.
    _, output = learn(jax.random.key(1), state, sequences(first=(True, True), valid=2))
    assert float(output.metrics["loss"]) > 0


def test_a_sequence_under_way_keeps_the_largest_priority(recurrent):
    state, learn = recurrent
    _, done = learn(jax.random.key(1), state, sequences(valid=2))
    assert done.priorities.tolist() == [0, 0]
    _, under_way = learn(jax.random.key(1), state, sequences(valid=2, complete=False))
    assert under_way.priorities.tolist() == [1, 1]
    # So does one of which some steps are learnt from already.
    batch = sequences(first=(True, True), valid=2)
    r_t = batch.transition.r_t * np.float32([[1], [9]])
    batch = batch._replace(transition=batch.transition._replace(r_t=r_t))
    _, both = learn(jax.random.key(1), state, batch)
    assert 0 < both.priorities[0] < both.priorities[1]
    incomplete = batch.transition._replace(complete=np.array([False, True]))
    _, one = learn(jax.random.key(1), state, batch._replace(transition=incomplete))
    assert one.priorities.tolist() == [both.priorities[1]] * 2


@hypothesis.given(errors=strategies.lists(strategies.floats(0, 8, width=32), min_size=3, max_size=3))
@hypothesis.settings(deadline=None, derandomize=True, max_examples=30)
def test_the_priority_of_a_sequence_is_that_of_kapturowski(errors):
    # A discount of 0 leaves errors of reward minus value.
    rewards = np.float32([Q_TM1[i, a] for i, a in enumerate((0, 1, 0))]) + np.float32(errors)
    drawn = sequence(discount=(0.0,) * 4, n_steps=1)._replace(r_t=np.float32([[*rewards, 0]]))
    _, priority, _ = sequence_term(make_config(double=True, error="squared"), drawn)
    assert float(priority) == pytest.approx(0.9 * max(errors) + 0.1 * np.mean(errors), rel=1e-4, abs=1e-5)
