"""Acting: among the legal actions, by the member of an episode, by noise, and step by step with recurrent state."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agent_samples import SPEC, make, make_config, random_state, table_network, timestep
from polyak import networks
from polyak.agents import evaluation_state
from polyak.agents.acting import forward, greedy_action, mask_values
from polyak.agents.agent_network import network_arguments
from polyak.agents.types import RecurrentState
from polyak.replay import EnvironmentSpec, Sample, Sequence, TimeStep
from polyak.updates import Variables

TWO = EnvironmentSpec(jax.ShapeDtypeStruct((2,), jnp.float32), num_actions=2)
FOUR = EnvironmentSpec(jax.ShapeDtypeStruct((4,), jnp.float32), num_actions=4, action_mask=True)


def test_acts_greedily_among_the_legal_actions():
    agent = make(FOUR, {"network": table_network()})
    state = random_state(agent)._replace(params={"~": {"w": jnp.ones(4)}})
    observation = np.float32([[9.0, -1.0, -2.0, -3.0], [-9.0, -8.0, -7.0, 0.0], [1.0, 2.0, 3.0, 4.0]])
    mask = np.array([[False, True, True, True], [True, True, False, False], [False] * 4])
    seen = TimeStep(observation, np.zeros(3, np.float32), np.ones(3, np.bool_), mask)
    for act in (agent.act, agent.evaluate_act):
        assert act(jax.random.key(0), state, (), seen).action.tolist() == [1, 1, 0]


def test_the_lowest_index_of_equal_values():
    values = jnp.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    found = greedy_action(values, ())
    assert found.tolist() == [1, 0]
    assert found.dtype == jnp.int32
    assert greedy_action(values, jnp.array([[True, False, True], [False, True, True]])).tolist() == [2, 1]
    assert np.isfinite(mask_values(values, jnp.zeros((2, 3), bool))).all()


def test_acting_takes_a_batch_of_environments():
    agent = make(TWO)
    seen = TimeStep(jnp.ones((3, 2)), jnp.zeros(3), jnp.zeros(3, bool))
    acted = agent.act(jax.random.key(1), random_state(agent), (), seen)
    assert acted.action.shape == (3,)
    assert acted.action.dtype == jnp.int32
    assert acted.recurrent_state == acted.extras == agent.initial_recurrent_state(jax.random.key(0), 3) == ()


@pytest.mark.parametrize("rule", ["periodic:1", "incremental:0.5"])
def test_the_target_acts_where_it_is_asked_to(rule):
    agent = make(TWO, act_with="target", target=rule)
    state = random_state(agent)
    other = state._replace(params=jax.tree.map(lambda leaf: -leaf, state.params))  # whose greedy actions are others
    seen = TimeStep(jax.random.normal(jax.random.key(5), (64, 2)), jnp.zeros(64), jnp.zeros(64, bool))

    def acted(act, state):
        return jax.jit(act)(jax.random.key(1), state, (), seen).action.tolist()

    online, changed = (acted(agent.evaluate_act, each) for each in (state, other))
    assert online != changed
    assert acted(agent.act, other) == online
    evaluated = evaluation_state(agent, other)
    assert acted(agent.evaluate_act, evaluated) == acted(agent.act, other)
    assert evaluation_state(make(TWO, target=rule), other) is other
    # As they are read from a file of parameters: those that acted, and no target beside them.
    assert evaluation_state(agent, other._replace(targets={})).params is other.params


@pytest.mark.parametrize("rule", ["none", "frozen"])
def test_a_target_that_is_no_other_network_or_never_learns_does_not_act(rule):
    with pytest.raises(ValueError, match=rf"act_with: got 'target' with target '{rule}', which is .*Give another rule"):
        make(TWO, act_with="target", target=rule)


def test_the_target_and_an_average_are_not_both_evaluated():
    with pytest.raises(ValueError, match=r"act_with: got 'target', and average is 'incremental:0.1', which would be"):
        make(TWO, act_with="target", average="incremental:0.1")


# --- Noise ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "draws"),
    [
        ({"noisy_sigma": 2.0}, True),
        ({}, False),
        # Implicit quantiles act on evenly spaced fractions, and on noise alone where their layers have any.
        ({"head": "implicit_quantile"}, False),
        ({"head": "implicit_quantile", "noisy_sigma": 2.0}, True),
    ],
)
def test_noise_explores_in_training_alone(fields, draws):
    agent = make(**fields)
    state, seen = random_state(agent), timestep(make_config(**fields), num_envs=32)
    for act, expected in ((jax.jit(agent.act), draws), (jax.jit(agent.evaluate_act), False)):
        actions = {tuple(act(jax.random.key(seed), state, (), seen).action.tolist()) for seed in range(8)}
        assert (len(actions) > 1) == expected


def test_noisy_implicit_quantiles_act_on_evenly_spaced_fractions():
    # Without noise in the parameters, nothing is left to draw but the fractions.
    fields = {"head": "implicit_quantile", "noisy_sigma": 2.0}
    agent = make(**fields)
    state, seen = random_state(agent), timestep(make_config(**fields), num_envs=64)
    quiet = {
        module: {name: 0.0 * leaf if name.endswith("sigma") else leaf for name, leaf in leaves.items()}
        for module, leaves in state.params.items()
    }
    act = jax.jit(agent.act)
    expected = agent.evaluate_act(jax.random.key(0), state._replace(params=quiet), (), seen).action.tolist()
    for seed in range(4):
        assert act(jax.random.key(seed), state._replace(params=quiet), (), seen).action.tolist() == expected


# --- Ensembles --------------------------------------------------------------------------------------------------------

MEMBERS = 5


@pytest.fixture(scope="module")
def ensemble():
    fields = {"head": "ensemble", "num_members": MEMBERS, "mask_probability": 0.25}
    agent = make(**fields)
    return agent, random_state(agent), jax.jit(agent.act)


def test_one_member_acts_for_a_whole_episode(ensemble):
    agent, state, act = ensemble
    seen = timestep(make_config(), num_envs=64)
    recurrent_state = agent.initial_recurrent_state(jax.random.key(1), 64)
    assert recurrent_state.core == ()
    assert set(recurrent_state.member.tolist()) == set(range(MEMBERS))
    within = seen._replace(first=np.zeros(64, bool))
    for seed in range(3):
        acted = act(jax.random.key(seed), state, recurrent_state, within)
        assert acted.recurrent_state.member.tolist() == recurrent_state.member.tolist()
    # Where an episode begins a member is drawn; all are drawn alike.
    begin = seen._replace(first=np.arange(64) % 2 == 0)
    drawn = np.stack(
        [act(jax.random.key(seed), state, recurrent_state, begin).recurrent_state.member for seed in range(40)]
    )
    assert (drawn[:, 1::2] == np.asarray(recurrent_state.member)[1::2]).all()
    np.testing.assert_allclose(np.bincount(drawn[:, ::2].ravel()) / drawn[:, ::2].size, 1 / MEMBERS, atol=0.04)


def test_the_action_is_that_of_the_member_and_in_evaluation_of_the_mean(ensemble):
    agent, state, act = ensemble
    seen = timestep(make_config(), num_envs=16)._replace(first=np.zeros(16, bool))
    config = make_config(head="ensemble", num_members=MEMBERS)
    network = networks.make_network(**network_arguments(config, SPEC))
    output, _ = forward(network, Variables(state.params, state.state), None, seen, ())
    for member in range(MEMBERS):
        recurrent_state = RecurrentState((), jnp.full(16, member))
        acted = act(jax.random.key(0), state, recurrent_state, seen)
        assert acted.action.tolist() == output.members[:, member].argmax(axis=1).tolist()
    evaluated = agent.evaluate_act(jax.random.key(0), state, recurrent_state, seen)
    assert evaluated.action.tolist() == output.members.mean(axis=1).argmax(axis=1).tolist()
    chex.assert_trees_all_equal(evaluated.recurrent_state, recurrent_state)


def test_each_member_learns_from_a_step_with_a_probability(ensemble):
    agent, state, act = ensemble
    seen = timestep(make_config(), num_envs=64)
    recurrent_state = agent.initial_recurrent_state(jax.random.key(1), 64)
    masks = np.stack([act(jax.random.key(s), state, recurrent_state, seen).extras.member_mask for s in range(30)])
    assert masks.dtype == np.float32
    assert set(np.unique(masks)) == {0.0, 1.0}
    np.testing.assert_allclose(masks.mean(axis=(0, 1)), 0.25, atol=0.04)


# --- Recurrent state --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recurrent():
    agent = make(TWO, core="lstm", lstm_size=3, burn_in=2, hidden_sizes=(4,))
    return agent, random_state(agent), jax.jit(agent.act)


def test_acting_step_by_step_keeps_what_a_sequence_needs(recurrent):
    agent, state, act = recurrent
    recurrent_state, first = agent.initial_recurrent_state(jax.random.key(0), 1), jnp.ones(1, bool)
    rng, kept = np.random.default_rng(0), []
    observations = rng.normal(size=(4, 1, 2)).astype(np.float32)
    a_tm1 = jnp.int32([1])
    for t in range(4):
        seen = TimeStep(observations[t], jnp.float32([t]), first, (), a_tm1)
        acted = act(jax.random.key(t), state, recurrent_state, seen)
        kept.append(acted.extras)
        recurrent_state, first, a_tm1 = acted.recurrent_state, jnp.zeros(1, bool), jnp.int32([t % 2])
    assert (kept[0].core.hidden == 0).all()
    # Unrolled from what was kept at step 1, the network comes to the recurrent state that was kept at step 3.
    drawn = Sequence(
        obs=np.moveaxis(observations[1:], 0, 1).repeat(2, axis=1)[:, [0, 2, 4, 4, 4]],
        a_tm1=np.int32([[1, 0, 0, 0]]),
        r_t=np.float32([[2, 3, 0, 0]]),
        discount_t=np.zeros((1, 4), np.float32),
        valid=np.array([[True, True, True, False]]),
        first=np.array([False]),
        complete=np.array([True]),
        extras=kept[1],
        n_steps=np.int32([1]),
    )
    sample = Sample(drawn, np.ones(1, np.float32), np.zeros(1))
    actions = jax.jit(agent.greedy_actions)(Variables(state.params, state.state), sample)
    seen = TimeStep(observations[3], jnp.float32([3]), first, (), jnp.int32([0]))
    stepped = act(jax.random.key(9), state, RecurrentState(kept[3].core), seen)
    assert actions.tolist() == [[-1, -1, int(stepped.action[0]), -1]]  # none in the burn-in and the padding
    assert kept[1].a_tm1.tolist() == [0]
    assert kept[1].r_tm1.tolist() == [1]
    assert kept[1].member_mask == ()


def test_the_recurrent_state_is_zero_where_an_episode_begins(recurrent):
    agent, state, act = recurrent
    before = jax.tree.map(jnp.ones_like, agent.initial_recurrent_state(jax.random.key(0), 2))
    seen = TimeStep(jnp.ones((2, 2)), jnp.ones(2), jnp.array([True, False]), (), jnp.int32([1, 1]))
    acted = act(jax.random.key(0), state, before, seen)
    for kept in jax.tree.leaves(acted.extras.core):
        assert kept.tolist() == [[0.0] * 3, [1.0] * 3]
    fresh = act(jax.random.key(0), state, agent.initial_recurrent_state(jax.random.key(0), 2), seen)
    for ours, theirs in zip(*map(jax.tree.leaves, (acted.recurrent_state, fresh.recurrent_state)), strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert (ours[1] != theirs[1]).all()
