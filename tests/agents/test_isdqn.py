"""Iterated head (iS-DQN): its loss by hand, the frozen head 0, the shift of the heads, acting, and K = 1."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agent_samples import SPEC, copy, make, make_config, random_sample, random_state, timestep
from polyak import networks
from polyak.agents import make_agent
from polyak.experiments.loops.learning import check_periods, compile_agent, operate
from polyak.networks import ValueOutput
from polyak.replay import EnvironmentSpec, Sample, Transition

TWO = EnvironmentSpec(jax.ShapeDtypeStruct((6,), jnp.float32), num_actions=2)
ACTIONS, LAYER = SPEC.num_actions, "head/q_values"


def isdqn(spec=SPEC, options={}, **fields):  # noqa: B006
    return make(spec, options, **{"head": "iterated", "target": "none", **fields})


# --- Loss -------------------------------------------------------------------------------------------------------------


def table(observation, is_training):
    del is_training
    return observation


def table_agent(**fields):
    """Agent of two iterations whose network is one linear layer of the observation."""
    layer = networks.compose(table, lambda hidden, *_: of_layer(hidden, 6), draws=False)
    return isdqn(TWO, {"network": layer}, num_iterations=2, **fields)


def of_layer(hidden, outputs):
    members = hk.Linear(outputs, name="q_values")(hidden).reshape(-1, outputs // 2, 2)
    return ValueOutput(jnp.mean(members[:, 1:], axis=1), members=members)


def learnt(agent, sample, **weights):
    """State and output after a learner step from a layer that is the identity."""
    state = random_state(agent)
    state = state._replace(params={LAYER: {"w": jnp.eye(6), "b": jnp.zeros(6)} | weights})
    return jax.jit(agent.learn)(jax.random.key(1), state, sample)


# Heads 0, 1 and 2 of two observations: values of two actions each.
OBS_TM1 = np.float32([[9.0, 8.0, 1.0, 2.0, 3.0, 5.0], [7.0, 7.0, 0.5, 1.0, 2.0, 4.0]])
OBS_T = np.float32([[4.0, 3.0, 6.0, 7.0, 8.0, 1.0], [2.0, 9.0, 1.0, 3.0, 5.0, 6.0]])
DRAWN = Transition(OBS_TM1, np.int32([1, 0]), np.float32([0.5, -1.0]), np.float32([0.5, 0.0]), OBS_T)
SAMPLE = Sample(DRAWN, np.float32([1.0, 1.0]), np.arange(2))
# Head 1 learns towards head 0 and head 2 towards head 1.
GREEDY = [[0.5 + 0.5 * 4.0 - 2.0, 0.5 + 0.5 * 7.0 - 5.0], [-1.0 - 0.5, -1.0 - 2.0]]
# Head 1 chooses action 1, which head 0 values at 3; head 2 chooses action 0, which head 1 values at 6.
DOUBLE = [[0.5 + 0.5 * 3.0 - 2.0, 0.5 + 0.5 * 6.0 - 5.0], GREEDY[1]]


@pytest.mark.parametrize(("double", "errors"), [(False, GREEDY), (True, DOUBLE)])
@pytest.mark.parametrize("error", ["squared", "huber"])
def test_the_loss_is_the_sum_over_the_heads_by_hand(double, errors, error):
    _, output = learnt(table_agent(double=double, error=error), SAMPLE)
    errors = np.array(errors)
    huber = np.where(np.abs(errors) <= 1, 0.5 * errors**2, np.abs(errors) - 0.5)
    losses = 0.5 * errors**2 if error == "squared" else huber
    assert float(output.metrics["loss"]) == pytest.approx(losses.sum(axis=1).mean(), rel=1e-6)
    np.testing.assert_allclose(output.priorities, np.abs(errors).mean(axis=1), rtol=1e-6)
    assert float(output.metrics["td_error"]) == pytest.approx(np.abs(errors.mean(axis=1)).mean(), rel=1e-6)
    assert float(output.metrics["q"]) == pytest.approx((3.5 + 2.5) / 2)  # the mean of heads 1 and 2


def test_the_munchausen_policy_of_a_head_is_that_of_the_head_before_it():
    temperature, weight = 0.5, 0.9
    fields = {"bootstrap": "munchausen", "munchausen_temperature": temperature, "munchausen_weight": weight}
    _, output = learnt(table_agent(**fields, munchausen_clip=-100.0), SAMPLE)
    errors = []
    for row, action in enumerate(DRAWN.a_tm1):
        heads_tm1, heads_t = OBS_TM1[row].reshape(3, 2), OBS_T[row].reshape(3, 2)
        for k in (1, 2):
            policy = np.exp(heads_t[k - 1] / temperature)
            policy /= policy.sum()
            value = (policy * (heads_t[k - 1] - temperature * np.log(policy))).sum()
            before = heads_tm1[k - 1]
            log_policy = before[action] - temperature * np.log(np.exp(before / temperature).sum())
            reward = DRAWN.r_t[row] + weight * log_policy
            errors.append(reward + DRAWN.discount_t[row] * value - heads_tm1[k][action])
    expected = np.abs(np.reshape(errors, (2, 2))).mean(axis=1)
    np.testing.assert_allclose(output.priorities, expected, rtol=1e-4)


def test_the_gradient_is_that_of_the_learning_heads_alone_and_exactly_0_for_head_0():
    after, _ = learnt(table_agent(optimizer="sgd", learning_rate=1.0), SAMPLE)
    wanted = np.zeros((2, 6))  # mean over the batch of the errors, at the outputs of the actions
    wanted[0, [3, 5]] = np.array(GREEDY[0]) / 2
    wanted[1, [2, 4]] = np.array(GREEDY[1]) / 2
    np.testing.assert_allclose(after.params[LAYER]["b"], wanted.sum(axis=0), rtol=1e-6)
    np.testing.assert_allclose(after.params[LAYER]["w"], np.eye(6) + OBS_TM1.T @ wanted, rtol=1e-6)
    assert after.params[LAYER]["b"][:2].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("fields", "shift_moments"),
    [({}, False), ({}, True), ({"optimizer": "rmsprop", "max_gradient_norm": 0.1}, True), ({"core": "lstm"}, False)],
)
def test_no_optimizer_moves_head_0_between_two_shifts(fields, shift_moments):
    config = make_config(head="iterated", target="none", num_iterations=2, shift_moments=shift_moments, **fields)
    agent = make_agent(config, SPEC, total_learner_steps=100)
    sample = random_sample(config, steps=3 if "core" in fields else None)
    learn, state = jax.jit(agent.learn), random_state(agent)
    shift = jax.jit(agent.periodic["shifts"].apply)
    for round_ in range(3):
        frozen = {name: np.asarray(leaf[..., :ACTIONS]) for name, leaf in state.params[LAYER].items()}
        for key in jax.random.split(jax.random.key(round_), 3):
            state, _ = learn(key, state, sample)
        for name, leaf in state.params[LAYER].items():
            assert np.array_equal(leaf[..., :ACTIONS], frozen[name])
            assert not np.array_equal(leaf[..., ACTIONS : 2 * ACTIONS], leaf[..., 2 * ACTIONS :])
        learnt_heads = {name: np.asarray(leaf[..., ACTIONS:]) for name, leaf in state.params[LAYER].items()}
        state = shift(jax.random.key(0), state)
        for name, leaf in state.params[LAYER].items():
            np.testing.assert_array_equal(leaf[..., : 2 * ACTIONS], learnt_heads[name])
            np.testing.assert_array_equal(leaf[..., 2 * ACTIONS :], learnt_heads[name][..., ACTIONS:])


# --- Shift ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [1, 7, 12])
def test_the_heads_shift_once_at_each_crossing_of_the_period(batches):
    agent = isdqn(num_iterations=9, shift_every="15")
    numbers = jnp.repeat(jnp.arange(10.0), ACTIONS)
    state = random_state(agent)
    state = state._replace(params=state.params | {LAYER: state.params[LAYER] | {"b": numbers}})
    programs, state, shifts = compile_agent(agent, batches), copy(state), 0
    for before in range(0, 84, batches):
        after = before + batches
        state = operate(programs, jax.random.key_data(jax.random.key(0)), before, after, state)
        shifts += any(step % 15 == 0 for step in range(before + 1, after + 1))
        expected = np.minimum(np.arange(10) + shifts, 9).repeat(ACTIONS)
        assert state.params[LAYER]["b"].tolist() == expected.tolist(), after
    assert shifts == 5


def test_a_shift_moves_the_last_layer_of_parameters_targets_and_average_and_nothing_else():
    agent = isdqn(target="periodic:3", average="incremental:0.1", num_iterations=2)
    before, _ = jax.jit(agent.learn)(jax.random.key(0), random_state(agent), random_sample(make_config()))
    after = agent.periodic["shifts"].apply(jax.random.key(0), before)
    entries, others = (jax.tree_util.tree_flatten_with_path(state)[0] for state in (before, after))
    changed = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for (path, x), (_, y) in zip(entries, others, strict=True)
        if not np.array_equal(x, y)
    }
    places = ("params", "targets/q/params", "targets/average/params")
    assert changed == {f"{place}/{LAYER}/{leaf}" for place in places for leaf in ("w", "b")}


def test_the_period_is_in_learner_or_environment_steps():
    config = make_config(head="iterated", target="none", shift_every="40env")
    shifts = make_agent(config, SPEC, total_learner_steps=100, environment_steps_per_learner_step=2).periodic["shifts"]
    assert (shifts.period, shifts.last) == (20, None)
    assert [shifts.count(steps) for steps in (0, 19, 20, 100)] == [0, 0, 1, 5]
    with pytest.raises(ValueError, match=r"shifts: got a period of 20 learner steps, and 21 are made in one dispatch"):
        check_periods(isdqn(shift_every="20"), 21)


# --- Acting -----------------------------------------------------------------------------------------------------------


def biased(agent, bias, state=None):
    """State whose values are a bias for every observation."""
    state = random_state(agent) if state is None else state
    kernel = jnp.zeros_like(state.params[LAYER]["w"])
    return state._replace(params=state.params | {LAYER: {"w": kernel, "b": jnp.float32(bias)}})


def test_acts_with_a_head_that_learns_and_evaluates_with_their_mean():
    agent = isdqn(num_iterations=2)
    # Head 0 prefers action 0, head 1 action 1 and head 2 action 2; the mean of heads 1 and 2 prefers action 0.
    state = biased(agent, [9.0, 0.0, 0.0, 2.0, 3.0, 0.0, 2.0, 0.0, 3.0])
    seen = timestep(make_config(), num_envs=64)
    act = jax.jit(agent.act)
    actions = np.stack([act(jax.random.key(seed), state, (), seen).action for seed in range(30)])
    assert set(actions.ravel()) == {1, 2}
    assert all(set(row) == {1, 2} for row in actions)  # each environment has a head of its own
    np.testing.assert_allclose((actions == 1).mean(), 0.5, atol=0.04)
    assert set(agent.evaluate_act(jax.random.key(0), state, (), seen).action.tolist()) == {0}
    assert agent.initial_recurrent_state(jax.random.key(0), 4) == ()


def test_acts_among_the_legal_actions():
    agent = isdqn(SPEC._replace(action_mask=True), num_iterations=1)
    seen = timestep(make_config(), SPEC._replace(action_mask=True), num_envs=8)  # action 0 is illegal
    state = biased(agent, [0.0, 0.0, 9.0, 9.0, 1.0, 0.0])
    assert set(jax.jit(agent.act)(jax.random.key(0), state, (), seen).action.tolist()) == {1}


# --- One iteration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optimizer", "double", "shift_moments"),
    [("sgd", False, False), ("adam", False, False), ("adam", True, True), ("rmsprop", False, True)],
)
def test_one_iteration_is_dqn_with_a_target_of_the_head_alone(optimizer, double, shift_moments):
    base = {"optimizer": optimizer, "double": double, "learning_rate": 0.02, "max_gradient_norm": 1.0}
    dqn = make(target="none q/head=periodic:4", **base)
    iterated = isdqn(num_iterations=1, shift_every="4", shift_moments=shift_moments, **base)
    ours = random_state(dqn)
    layer = {name: jnp.concatenate([leaf, leaf], axis=-1) for name, leaf in ours.params[LAYER].items()}
    theirs = random_state(iterated)._replace(params=ours.params | {LAYER: layer})
    learn_ours, learn_theirs, shifts = jax.jit(dqn.learn), jax.jit(iterated.learn), iterated.periodic["shifts"]
    for step in range(1, 15):
        sample, key = random_sample(make_config(), seed=step), jax.random.key(step)
        ours, one = learn_ours(key, ours, sample)
        theirs, other = learn_theirs(key, theirs, sample)
        if shifts.count(step) > shifts.count(step - 1):
            theirs = shifts.apply(key, theirs)
        slow = ours.targets["q"].params[LAYER]
        for name, leaf in theirs.params[LAYER].items():
            np.testing.assert_allclose(leaf[..., ACTIONS:], ours.params[LAYER][name], rtol=2e-4, atol=1e-6)
            np.testing.assert_allclose(leaf[..., :ACTIONS], slow[name], rtol=2e-4, atol=1e-6)
        for name, leaf in ours.params["torso/mlp/~/linear_0"].items():
            np.testing.assert_allclose(theirs.params["torso/mlp/~/linear_0"][name], leaf, rtol=2e-4, atol=1e-6)
        np.testing.assert_allclose(other.priorities, one.priorities, rtol=1e-3, atol=1e-5)
    if optimizer == "adam":
        for moment in ("mu", "nu"):
            found, expected = (optax.tree.get(state.optimizer_state, moment)[LAYER]["w"] for state in (theirs, ours))
            np.testing.assert_allclose(found[:, ACTIONS:], expected, rtol=2e-3, atol=1e-7)
            assert not found[:, :ACTIONS].any()


# --- Errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shift_every": "0.5"}, r"shift_every: got '0.5'; expected a number of learner steps, such as 40000"),
        ({"shift_every": "0"}, r"shift_every: got 'periodic:0'; '0' is not a period"),
        ({"shift_every": "5env"}, r"shift_every: .* is in environment steps, but the ratio .* is not known"),
        ({"num_iterations": 0}, r"num_iterations: got 0; expected an integer >= 1"),
        ({"optimizer": "adamw"}, r"optimizer: got AdamW, but its decay would move head 0 .*Try --optimizer adam"),
        (
            {"target": "periodic:5", "target_role": "functional"},
            r"target_role: got FunctionalRegularization, but each head .*Try --target-role bootstrap",
        ),
    ],
)
def test_bad_input(fields, message):
    with pytest.raises(ValueError, match=message):
        isdqn(**fields)


def test_a_network_of_ones_own_needs_the_layer_and_the_heads():
    network = networks.compose(table, lambda hidden, *_: of_layer(hidden, 8), draws=False)
    with pytest.raises(ValueError, match=r"network: its members have shape \(1, 4, 2\).*expected \(1, 3, 2\)"):
        isdqn(TWO, {"network": network}, num_iterations=2)
    assert isdqn(TWO, {"network": network}, num_iterations=3).periodic["shifts"].period == 200
    message = (
        r"network: the shift of the iterated head fails: parts: no parameter matches 'head/q_values'.*name='q_values'"
    )
    with pytest.raises(ValueError, match=message):
        isdqn(TWO, {"network": hk.transform(lambda observation: of_layer(observation, 6))}, num_iterations=2)
