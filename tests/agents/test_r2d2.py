"""R2D2: the loss of a sequence by hand, what burn-in and padding do, and what a sequence under way is worth."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyak.agents import DQNConfig, dqn
from polyak.agents.r2d2 import Remembered, sequence_loss
from polyak.experiments.loops.learning import AGREEMENT, CHURN, LEAST_PRIORITY, compile_agent, finite_priorities, zeros
from polyak.replay import EnvironmentSpec, Sample, Sequence, TimeStep

CONFIG = DQNConfig(
    memory="lstm",
    lstm_size=3,
    hidden_sizes=(4,),
    sequence_length=2,
    burn_in=2,
    n_steps=2,
    batch_size=2,
    priority_exponent=0.9,
    learning_rate_schedule="constant",
)
SPEC = EnvironmentSpec(jax.ShapeDtypeStruct((2,), jnp.float32), num_actions=2)
# Four steps, of which the last is padding: values of the online network, and of the target's at what followed.
Q_TM1 = jnp.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [9.0, 9.0]])
Q_T = jnp.array([[10.0, 20.0], [30.0, 40.0], [50.0, 60.0], [7.0, 7.0]])
CHOOSES = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])  # values 10, 40, 50
A_TM1, VALID = jnp.array([0, 1, 0, 0]), jnp.array([True, True, True, False])


def loss_of(config=CONFIG, discount=(0.5, 0.5, 0.5, 0.0), learns=VALID, reward=(1.0, 2.0, 3.0, 0.0)):
    given = (A_TM1, jnp.float32(reward), jnp.float32(discount), VALID, learns)
    return sequence_loss(config, Q_TM1, Q_T, CHOOSES, *given)


def test_two_step_returns_that_are_cut_at_the_last_step_by_hand():
    found = loss_of()
    returns = [1 + 0.5 * (2 + 0.5 * 40), 2 + 0.5 * (3 + 0.5 * 50), 3 + 0.5 * 50]  # the last bootstraps after one step
    errors = np.array(returns) - [1.0, 2.0, 3.0]
    np.testing.assert_allclose(found.error, [*errors, 0.0], rtol=1e-6)
    assert float(found.loss) == pytest.approx((0.5 * errors**2).sum(), rel=1e-5)
    assert float(found.priority) == pytest.approx(0.9 * errors.max() + 0.1 * errors.mean(), rel=1e-5)


def test_a_termination_is_not_bootstrapped():
    found = loss_of(discount=(0.5, 0.5, 0.0, 0.0))
    np.testing.assert_allclose(found.error[:3], [1 + 0.5 * 22 - 1, 2 + 0.5 * 3 - 2, 3 - 3.0], rtol=1e-6)


def test_steps_that_are_not_learnt_from_count_for_nothing():
    found = loss_of(learns=jnp.array([False, False, True, False]))
    error = 3 + 0.5 * 50 - 3.0
    assert float(found.loss) == pytest.approx(0.5 * error**2, rel=1e-5)
    assert float(found.priority) == pytest.approx(error, rel=1e-5)
    nothing = loss_of(learns=jnp.zeros(4, bool))
    assert float(nothing.loss) == float(nothing.priority) == 0


def test_values_are_rescaled_by_hand():
    def h(x):
        return np.sign(x) * (np.sqrt(np.abs(x) + 1) - 1) + 1e-3 * x

    def inverse(x):
        return np.sign(x) * (((np.sqrt(1 + 4e-3 * (np.abs(x) + 1 + 1e-3)) - 1) / 2e-3) ** 2 - 1)

    found = loss_of(dataclasses.replace(CONFIG, value_rescaling=True, n_steps=1))
    wanted = [h(1 + 0.5 * inverse(10.0)) - 1, h(2 + 0.5 * inverse(40.0)) - 2, h(3 + 0.5 * inverse(50.0)) - 3]
    np.testing.assert_allclose(found.error[:3], wanted, rtol=1e-3)


def sequences(first=(False, False), valid=4, complete=True, seed=0):
    rng = np.random.default_rng(seed)
    seen = np.arange(4)[None] < valid
    memory = [rng.normal(size=(2, 3)).astype(np.float32) for _ in range(2)]
    lstm = AGENT.initial_memory(jax.random.key(0), 2)._replace(hidden=memory[0], cell=memory[1])
    drawn = Sequence(
        obs=rng.normal(size=(2, 5, 2)).astype(np.float32),
        a_tm1=np.int32([[0, 1, 0, 1]] * 2) * seen,
        r_t=np.ones((2, 4), np.float32) * seen,
        discount_t=np.float32(0.9) * np.ones((2, 4), np.float32) * seen,
        valid=np.broadcast_to(seen, (2, 4)),
        first=np.array(first),
        complete=np.full(2, complete),
        extras=Remembered(lstm, np.zeros(2, np.int32), np.zeros(2, np.float32)),
    )
    return Sample(drawn, np.ones(2, np.float32), np.arange(2))


AGENT = dqn(CONFIG, SPEC, total_learner_steps=10)
LEARN = jax.jit(AGENT.learn)


def test_the_burn_in_moves_the_memory_and_is_not_learnt_from():
    state = AGENT.init(jax.random.key(0))
    base = sequences()

    def loss(changed):
        return float(LEARN(jax.random.key(1), state, changed)[1].metrics["loss"])

    def with_reward_at(step, first=(False, False)):
        drawn = sequences(first).transition
        r_t = drawn.r_t.copy()
        r_t[:, step] += 5
        return base._replace(transition=drawn._replace(r_t=r_t))

    assert loss(with_reward_at(3)) != loss(base)
    # The LSTM is shown the reward after it, so that even burnt-in steps matter; their own errors do not.
    obs = base.transition.obs.copy()
    obs[:, 0] += 1
    assert loss(base._replace(transition=base.transition._replace(obs=obs))) != loss(base)
    only_burn_in = sequences(valid=2)
    _, output = LEARN(jax.random.key(1), state, only_burn_in)
    assert float(output.metrics["loss"]) == float(output.metrics["gradient_norm"]) == 0
    # Where the episode begins there is no burn-in.
    _, output = LEARN(jax.random.key(1), state, sequences(first=(True, True), valid=2))
    assert float(output.metrics["loss"]) > 0


def test_a_sequence_under_way_is_worth_another_look():
    state = AGENT.init(jax.random.key(0))
    _, done = LEARN(jax.random.key(1), state, sequences(valid=2))
    assert done.priorities.tolist() == [0, 0]
    _, under_way = LEARN(jax.random.key(1), state, sequences(valid=2, complete=False))
    assert under_way.priorities.tolist() == [1, 1]
    # Nor has one that is learnt from up to here had its look, while steps of it are missing.
    batch = sequences(first=(True, True), valid=2)
    r_t = batch.transition.r_t * np.float32([[1], [9]])
    batch = batch._replace(transition=batch.transition._replace(r_t=r_t))
    _, both = LEARN(jax.random.key(1), state, batch)
    assert 0 < both.priorities[0] < both.priorities[1]
    incomplete = batch.transition._replace(complete=np.array([False, True]))
    _, one = LEARN(jax.random.key(1), state, batch._replace(transition=incomplete))
    assert one.priorities.tolist() == [both.priorities[1]] * 2


def test_acting_step_by_step_keeps_what_a_sequence_needs():
    state = AGENT.init(jax.random.key(0))
    memory, first = AGENT.initial_memory(jax.random.key(0), 1), jnp.ones(1, bool)
    rng, kept = np.random.default_rng(0), []
    observations = rng.normal(size=(4, 1, 2)).astype(np.float32)
    a_tm1 = jnp.int32([1])
    for t in range(4):
        acted = AGENT.act(
            jax.random.key(t), state, memory, TimeStep(observations[t], jnp.float32([t]), first, (), a_tm1)
        )
        kept.append(acted.extras)
        memory, first, a_tm1 = acted.memory, jnp.zeros(1, bool), jnp.int32([t % 2])
    assert (kept[0].lstm.hidden == 0).all()
    # Unrolled from what was kept at step 1, the network comes to the memory that was kept at step 3.
    drawn = Sequence(
        obs=np.moveaxis(observations[1:], 0, 1).repeat(2, axis=1)[:, [0, 2, 4, 4, 4]],
        a_tm1=np.int32([[1, 0, 0, 0]]),
        r_t=np.float32([[2, 3, 0, 0]]),
        discount_t=np.zeros((1, 4), np.float32),
        valid=np.array([[True, True, True, False]]),
        first=np.array([False]),
        complete=np.array([True]),
        extras=kept[1],
    )
    actions = AGENT.greedy_actions(state.params, Sample(drawn, np.ones(1, np.float32), np.zeros(1)))
    stepped = AGENT.act(
        jax.random.key(9), state, kept[3].lstm, TimeStep(observations[3], jnp.float32([3]), first, (), jnp.int32([0]))
    )
    assert actions.tolist() == [[-1, -1, int(stepped.action[0]), -1]]  # none in the burn-in and the padding
    assert kept[1].a_tm1.tolist() == [0]
    assert kept[1].r_tm1.tolist() == [1]


def test_churn_and_agreement_count_no_padding():
    def actions_of(params, sample):
        first = jax.tree.leaves(params)[0].ravel()[0]  # another number after every learner step
        changed = jnp.abs(jax.lax.bitcast_convert_type(first, jnp.int32))
        return jnp.stack([jnp.int32(-1), jnp.int32(-1), changed, jnp.int32(1)])

    programs = compile_agent(AGENT._replace(greedy_actions=actions_of), 1)
    totals = zeros((CHURN, AGREEMENT))
    key, state = jax.random.key_data(jax.random.key(1)), AGENT.init(jax.random.key(0))
    _, totals, _ = programs.learn(key, 0, state, True, totals, sequences())
    assert (float(totals[CHURN]), float(totals[AGREEMENT])) == (0.5, 0.5)


def test_no_priority_is_zero_and_none_is_not_finite():
    assert finite_priorities(jnp.zeros(2), 10).tolist() == [LEAST_PRIORITY] * 2
    with pytest.raises(ValueError, match="priority: got nan at environment step 10: training has diverged"):
        finite_priorities(jnp.array([1.0, jnp.nan]), 10)
