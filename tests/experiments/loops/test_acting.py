"""Acting on the host: the actions are those of the definition, whatever is drawn ahead and whatever is left out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from polyak import updates
from polyak.agents import ActOutput, Agent, epsilon_greedy
from polyak.experiments.loops.acting import BLOCK, Actor, draw
from polyak.replay.types import TimeStep
from polyak.updates import LossOutput, Target

NUM_ENVS, NUM_ACTIONS = 3, 5


def agent_that(acts):
    """An agent of one weight, with targets and an optimizer state that acting never reads."""
    targets = {"q": Target(updates.periodic(3))}
    learner = updates.learner(lambda *_: (0.0, LossOutput()), optax.adam(1.0), targets)
    init = lambda key: learner.init({"w": jnp.float32(1), "unread": jnp.zeros(1000)})  # noqa: E731
    return Agent(init, lambda key, num_envs: (), acts, learner.step, targets, acts, lambda variables, sample: None)


def deterministic(key, state, recurrent_state, timestep):
    score = state.params["w"] * timestep.observation[:, 0]
    return ActOutput(score.astype(jnp.int32) % NUM_ACTIONS, recurrent_state)


def stochastic(key, state, recurrent_state, timestep):
    return ActOutput(jax.random.randint(key, timestep.first.shape, 0, NUM_ACTIONS), recurrent_state)


def reading_the_reward(key, state, recurrent_state, timestep):
    return ActOutput(timestep.reward.astype(jnp.int32), recurrent_state, extras={"seen": timestep.reward})


def remembering(key, state, recurrent_state, timestep):
    recurrent_state = jnp.where(timestep.first, 0, recurrent_state) + 1
    return ActOutput(recurrent_state % NUM_ACTIONS, recurrent_state, extras=recurrent_state)


def timestep_at(t):
    observation = np.float32([[t], [2 * t], [3 * t]])
    return TimeStep(observation, np.float32([t % 5, 1, 2]), np.array([t % 7 == 0, False, t % 4 == 0]))


def epsilon_at(t):
    return np.asarray(np.where(t % 50 < 20, 1.0, (t % 10) / 10))


@pytest.mark.parametrize("acts", [deterministic, stochastic, reading_the_reward, remembering])
def test_actions_are_those_of_the_definition(acts):
    agent, key_data = agent_that(acts), jax.random.key_data(jax.random.key(7))
    state = agent.init(jax.random.key(0))
    recurrent_state = np.zeros(NUM_ENVS, np.int32) if acts is remembering else ()
    actor = Actor(agent, (state, recurrent_state, timestep_at(0)), NUM_ACTIONS)
    actor.begin(key_data, epsilon_at)
    ours, theirs = recurrent_state, recurrent_state
    define = jax.jit(agent.act)
    for t in range(BLOCK + 40):
        if t == 30:
            state = state._replace(params=state.params | {"w": jnp.float32(2)})
            actor.follow(state)
        acted, epsilon = actor.act(t, ours, timestep_at(t))
        ours = acted.recurrent_state
        act_key, uniform = draw(key_data, t, NUM_ENVS)
        own = define(jax.random.wrap_key_data(act_key), state, theirs, timestep_at(t))
        theirs = own.recurrent_state
        wanted = epsilon_greedy(np.asarray(uniform), np.asarray(own.action), epsilon_at(t), NUM_ACTIONS)
        assert acted.action.tolist() == wanted.tolist()
        assert acted.action.dtype == np.int32
        assert epsilon == epsilon_at(t)
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
        jax.tree.map(np.testing.assert_array_equal, acted.extras, own.extras)


def test_a_run_taken_up_in_mid_block_draws_the_same():
    agent, key_data = agent_that(stochastic), jax.random.key_data(jax.random.key(7))
    state = agent.init(jax.random.key(0))

    def actions(first):
        actor = Actor(agent, (state, (), timestep_at(0)), NUM_ACTIONS)
        actor.begin(key_data, lambda t: np.full(len(t), 0.5))
        return [actor.act(t, (), timestep_at(t))[0].action.tolist() for t in range(first, BLOCK + 20)]

    assert actions(0)[100:] == actions(100)
    assert len({tuple(action) for action in actions(0)}) > 50


@pytest.mark.parametrize(("acts", "asked"), [(deterministic, 0), (reading_the_reward, 10), (remembering, 10)])
def test_an_agent_is_asked_only_where_its_answer_counts(acts, asked):
    agent = agent_that(acts)
    recurrent_state = np.zeros(NUM_ENVS, np.int32) if acts is remembering else ()
    example = (agent.init(jax.random.key(0)), recurrent_state, timestep_at(0))
    actor = Actor(agent, example, NUM_ACTIONS)
    actor.begin(jax.random.key_data(jax.random.key(0)), lambda t: np.ones(len(t)))
    calls, program = [], actor._program
    actor._program = lambda *arguments: calls.append(arguments) or program(*arguments)
    for t in range(10):
        actor.act(t, recurrent_state, timestep_at(t))
    assert len(calls) == asked


def test_only_what_is_read_is_passed():
    agent = agent_that(deterministic)
    example = (agent.init(jax.random.key(0)), (), timestep_at(0))
    actor = Actor(agent, example, NUM_ACTIONS)
    actor.begin(jax.random.key_data(jax.random.key(0)), lambda t: np.zeros(len(t)))
    calls, program = [], actor._program
    actor._program = lambda *arguments: calls.append(arguments) or program(*arguments)
    actor.act(0, (), timestep_at(0))
    assert [leaf.shape for leaf in jax.tree.leaves(calls[0])] == [(), (NUM_ENVS, 1)]
